"""Which rows of a run lack, differ or are there twice: by identity, and by the hash of all columns.

What travels is 24 bytes a row. A run of more rows than `BUCKET_ROWS` (many rows of one moment) is compared in several
passes by a hash of the identity, so that memory stays bounded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recorder.copying.digest import row_hash_sql
from recorder.copying.ends import Side, full_name
from recorder.copying.tables import CopyTable

Words: TypeAlias = npt.NDArray[np.uint64]
Identity: TypeAlias = tuple[int, int]
BUCKET_ROWS = 1 << 20
SHOWN = 3
"""Identities of differing rows that are named."""
KEPT = 100_000
"""Identities of missing rows that are kept."""


@dataclass(frozen=True)
class Rows:
    """Rows of one side: three arrays of shape (n,), in any order."""

    logs: Words
    seqs: Words
    hashes: Words


@dataclass(frozen=True)
class Compared:
    """How rows of the source stand in the target, counted by identity.

    `missing` lack in the target, `extra` only the target has, `differing` have another content there (or two
    contents in the source), `doubled` the target has more than once, `source_doubled` the source has more than once.
    `missing_ids` are the first `KEPT` of the missing, `differing_ids` the first `SHOWN`.
    """

    missing: int = 0
    extra: int = 0
    differing: int = 0
    doubled: int = 0
    source_doubled: int = 0
    missing_ids: frozenset[Identity] = frozenset()
    differing_ids: tuple[Identity, ...] = ()

    def __add__(self, other: Compared) -> Compared:
        missing_ids = self.missing_ids
        if other.missing_ids and len(missing_ids) < KEPT:
            missing_ids |= other.missing_ids
        return Compared(
            self.missing + other.missing,
            self.extra + other.extra,
            self.differing + other.differing,
            self.doubled + other.doubled,
            self.source_doubled + other.source_doubled,
            missing_ids,
            (self.differing_ids + other.differing_ids)[:SHOWN],
        )


def compare_run(source: Side, target: Side, table: CopyTable, where: str, most_rows: int) -> Compared:
    """Compare the rows that `where` chooses on both sides; `most_rows` is about how many they are on one side."""
    total = Compared()
    for bucket in _buckets(most_rows):
        sides = [_rows(side, table, f"{where}{bucket}") for side in (source, target)]
        total += compare(*sides)
    return total


def compare(source: Rows, target: Rows) -> Compared:
    """Compare rows of both sides. Pure."""
    logs = np.concatenate([source.logs, target.logs])
    if not len(logs):
        return Compared()
    seqs = np.concatenate([source.seqs, target.seqs])
    hashes = np.concatenate([source.hashes, target.hashes])
    in_target = np.arange(len(logs)) >= len(source.logs)
    order = np.lexsort((seqs, logs))
    logs, seqs, hashes, in_target = logs[order], seqs[order], hashes[order], in_target[order]
    first = np.ones(len(logs), dtype=bool)
    first[1:] = (logs[1:] != logs[:-1]) | (seqs[1:] != seqs[:-1])
    starts = np.flatnonzero(first)
    of_target = np.add.reduceat(in_target.astype(np.int64), starts)
    of_source = np.diff(np.append(starts, len(logs))) - of_target
    several = np.minimum.reduceat(hashes, starts) != np.maximum.reduceat(hashes, starts)
    missing = (of_source > 0) & (of_target == 0)
    differing = several & (of_source > 0)
    return Compared(
        int(missing.sum()),
        int((of_source == 0).sum()),
        int(differing.sum()),
        int((of_target > 1).sum()),
        int((of_source > 1).sum()),
        frozenset(_identities(logs, seqs, starts[missing][:KEPT])),
        tuple(_identities(logs, seqs, starts[differing][:SHOWN])),
    )


def _identities(logs: Words, seqs: Words, places: npt.NDArray[np.int64]) -> Iterator[Identity]:
    return zip(logs[places].tolist(), seqs[places].tolist(), strict=True)


def _buckets(most_rows: int) -> Iterator[str]:
    """Conditions that each choose about `BUCKET_ROWS`, together all rows."""
    count = 1
    while count * BUCKET_ROWS < most_rows:
        count *= 2
    if count == 1:
        yield ""
        return
    for number in range(count):
        yield f" AND bitAnd(cityHash64(_log, _seq), {count - 1}) = {number}"


def _rows(side: Side, table: CopyTable, where: str) -> Rows:
    batches = list(
        side.arrow(
            f"SELECT _log, _seq, {row_hash_sql(table.columns)} AS _copy_hash "
            f"FROM {full_name(side, table.name)} WHERE {where}"
        )
    )
    columns = [
        np.concatenate([_words(batch, place) for batch in batches] or [np.empty(0, np.uint64)])
        for place in range(3)
    ]
    return Rows(*columns)


def _words(batch: pa.RecordBatch, place: int) -> Words:
    words: Words = batch.column(place).to_numpy(zero_copy_only=False)
    return words
