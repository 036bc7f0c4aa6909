"""A batch: consecutive rows of one table, frozen before its first insert.

The same value is sealed, inserted, looked up and re-sent; nothing about it changes between attempts, so that the
server's deduplication token and the look-up by identity both speak of the same rows.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.policy import Partition
from wal.places import Range

NS_PER_DAY = 86_400_000_000_000


def new_token() -> str:
    """A token that no batch had before."""
    return uuid.uuid4().hex


@dataclass(frozen=True)
class Batch:
    """Rows of one table for one insert.

    `data` is one Arrow record batch with the table's full schema (`_log` and `_seq` last). `token` is the
    deduplication token, drawn at random at sealing: it names these rows in this order and no others.
    `accepted_ns` is when its oldest row was accepted, on the recorder's monotonic clock.
    `from_source` says that some of its rows carry a source's identities and may have come before (read from a file,
    redelivered by a bus), so the table is asked for them before the first insert. Rows that a bus delivers for the
    first time need no such question.
    `places` say where in the table's log its rows stand, in their order; empty where there is no log, or where it did
    not take all of them.
    """

    table: str
    data: pa.RecordBatch
    accepted_ns: int
    from_source: bool = False
    token: str = field(default_factory=new_token)
    places: tuple[Range, ...] = ()

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

    def only(self, keep: npt.NDArray[np.bool_]) -> Batch:
        """Some of its rows, under the same token."""
        return replace(self, data=self.data.filter(pa.array(keep)), places=_kept_places(self.places, keep))

    def part(self, start: int, stop: int) -> Batch:
        """Consecutive rows of it, under the same token."""
        return replace(
            self, data=self.data.slice(start, stop - start), places=cut_places(self.places, start, stop)
        )

    def renamed(self) -> Batch:
        """The same rows under a token of their own."""
        return replace(self, token=new_token())


def cut_places(places: Sequence[Range], start: int, stop: int) -> tuple[Range, ...]:
    """The places of the rows from `start` to `stop` of those that stand at `places`."""
    found = []
    for place in places:
        first, last = max(start, 0), min(stop, place.rows)
        if first < last:
            found.append(Range(place.epoch, place.first + first, place.first + last))
        start, stop = start - place.rows, stop - place.rows
    return tuple(found)


def _kept_places(places: Sequence[Range], keep: npt.NDArray[np.bool_]) -> tuple[Range, ...]:
    """The places of the rows that are kept, consecutive ones together."""
    found: list[Range] = []
    begin = 0
    for place in places:
        edges = np.flatnonzero(np.diff(keep[begin : begin + place.rows], prepend=False, append=False))
        found += [
            Range(place.epoch, place.first + int(first), place.first + int(stop))
            for first, stop in zip(edges[::2], edges[1::2], strict=True)
        ]
        begin += place.rows
    return tuple(found)


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
