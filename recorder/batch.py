"""A batch: consecutive rows of one table, frozen before its first insert.

The same value is sealed, inserted, looked up and re-sent; nothing about it changes between attempts, so that the
server's deduplication token and the look-up by identity both speak of the same rows.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from schemas.policy import Partition

NS_PER_DAY = 86_400_000_000_000


@dataclass(frozen=True)
class Batch:
    """Rows of one table for one insert.

    `data` is one Arrow record batch with the table's full schema (`_log` and `_seq` last). `token` is the
    deduplication token, drawn at random at sealing: it names these rows in this order and no others.
    `accepted_ns` is when its oldest row was accepted, on the recorder's monotonic clock.
    `from_source` says that some of its rows carry a source's identities and may have come before (read from a file,
    redelivered by a bus), so the table is asked for them before the first insert. Rows that a bus delivers for the
    first time need no such question.
    """

    table: str
    data: pa.RecordBatch
    accepted_ns: int
    from_source: bool = False
    token: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def rows(self) -> int:
        """How many rows."""
        return int(self.data.num_rows)

    @property
    def nbytes(self) -> int:
        """Bytes of the Arrow buffers."""
        return int(self.data.nbytes)

    def time_range_ns(self) -> tuple[int, int]:
        """Least and greatest `ts_local`, both included."""
        times = local_times_ns(self.data)
        return int(times.min()), int(times.max())

    def identities(self) -> list[tuple[int, int]]:
        """`(_log, _seq)` of every row, in order."""
        return list(zip(self.data["_log"].to_pylist(), self.data["_seq"].to_pylist(), strict=True))


def local_times_ns(data: pa.RecordBatch) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """`ts_local` of every row as int64 nanoseconds."""
    return np.asarray(data["ts_local"].view(pa.int64()))


def partition_keys(
    times_ns: np.ndarray[tuple[int], np.dtype[np.int64]], partition: Partition
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The partition each time falls in: days, or months, since the epoch (UTC)."""
    days = times_ns // NS_PER_DAY
    if partition is Partition.DAY:
        return days
    return days.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)


def cut_by_partitions(
    keys: np.ndarray[tuple[int], np.dtype[np.int64]], most: int
) -> Iterator[tuple[int, int]]:
    """Cut rows, given their partitions, into the fewest consecutive runs that touch at most `most` each."""
    if len(np.unique(keys)) <= most:
        yield 0, len(keys)
        return
    start, seen = 0, set[int]()
    for position, key in enumerate(keys.tolist()):
        if key not in seen and len(seen) == most:
            yield start, position
            start, seen = position, set()
        seen.add(key)
    yield start, len(keys)
