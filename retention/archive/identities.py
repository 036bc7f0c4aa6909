"""Sets of row identities: which rows of a table its archive lacks, told exactly and in bounded memory.

A set holds 8 bytes a row. Where an archive has more rows than may be held, they are taken in portions by their hash,
and the source is asked once for each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from retention.archive.rowhash import Words, identities_of, identity_hashes

Mask = npt.NDArray[np.bool_]


class IdentitySet:
    """Identities, per log its sequence numbers."""

    def __init__(self) -> None:
        self._added: dict[int, list[Words]] = {}
        self._sorted: dict[int, Words] = {}
        self.rows = 0

    def add(self, logs: Words, seqs: Words) -> None:
        """Take identities in, two arrays of shape (n,)."""
        for log in _different(logs):
            self._added.setdefault(int(log), []).append(seqs[logs == log])
        self.rows += len(logs)

    def has(self, logs: Words, seqs: Words) -> Mask:
        """Which of these are in the set, shape (n,)."""
        found = np.zeros(len(logs), np.bool_)
        for log in _different(logs):
            if (known := self._of(int(log))) is not None and len(known):
                mine = logs == log
                places = np.minimum(np.searchsorted(known, seqs[mine]), len(known) - 1)
                found[mine] = known[places] == seqs[mine]
        return found

    def twice(self) -> tuple[int, int] | None:
        """One `_log` and `_seq` that was added more than once; None where each was added once."""
        for log in sorted({*self._added, *self._sorted}):
            if (known := self._of(log)) is not None and (same := known[1:] == known[:-1]).any():
                return log, int(known[1:][same][0])
        return None

    def _of(self, log: int) -> Words | None:
        if log in self._added:
            parts = self._added.pop(log)
            if log in self._sorted:
                parts.append(self._sorted[log])
            self._sorted[log] = np.sort(np.concatenate(parts))
        return self._sorted.get(log)


class Passing:
    """Identities of rows that go by, held up to a number of rows, so as to tell whether one went by twice."""

    def __init__(self, at_most: int):
        self._seen: IdentitySet | None = IdentitySet()
        self._at_most = at_most

    def watched(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The same batches."""
        for batch in batches:
            if self._seen is not None:
                self._seen.add(*identities_of(batch))
                if self._seen.rows > self._at_most:
                    self._seen = None
            yield batch

    def twice(self, again: Callable[[], Iterable[pa.RecordBatch]], rows: int) -> tuple[int, int] | None:
        """One identity that is there twice; where more than may be held went by, `again` gives those of a portion."""
        if self._seen is not None:
            return self._seen.twice()
        of = 1 + rows // self._at_most
        for number in range(of):
            if found := missing(again(), IdentitySet(), number, of, at_most=2**63).twice():
                return found
        return None


def _different(logs: Words) -> Words:
    """Each of these once; most rows that come together are of one log, which is quicker to see than to sort."""
    return logs[:1] if len(logs) and logs.min() == logs.max() else np.unique(logs)


def portion(logs: Words, seqs: Words, number: int, of: int) -> Mask:
    """Which identities belong to a portion; each belongs to one."""
    if of == 1:
        return np.ones(len(logs), np.bool_)
    mine: Mask = identity_hashes(logs, seqs) % np.uint64(of) == np.uint64(number)
    return mine


def missing(
    wanted: Iterable[pa.RecordBatch], known: IdentitySet, number: int, of: int, *, at_most: int
) -> IdentitySet:
    """Those identities of a portion that are not known, at most about so many (a batch more)."""
    lacking = IdentitySet()
    for batch in wanted:
        logs, seqs = identities_of(batch)
        new = portion(logs, seqs, number, of) & ~known.has(logs, seqs)
        if new.any():
            lacking.add(logs[new], seqs[new])
        if lacking.rows >= at_most:
            break
    return lacking


def only(batches: Iterable[pa.RecordBatch], chosen: IdentitySet) -> Iterator[pa.RecordBatch]:
    """The rows whose identity was chosen, in their order."""
    for batch in batches:
        mine = chosen.has(*identities_of(batch))
        if mine.any():
            yield batch.filter(pa.array(mine))
