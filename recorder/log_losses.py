"""What a damaged log cost: which of its rows cannot be read any more, and between which times they lie.

The times are those of the seal that the rows were frozen under; else of the rows beside them; else of the segments
around them, when those were made. They say where a reader of the table has to look for the hole. Goes through the log
once, headers alone; reads, decides and changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from recorder.batch import local_times_ns
from wal.format import Kind
from wal.places import Range
from wal.reader import LogReader
from wal.seals import Seal
from wal.segment import Segment, open_or_tell

DAMAGED_LOG = "damaged_log"
"""The reason, as `recorder_gaps` has it."""


class Loss(NamedTuple):
    """Rows that follow on one another on the log, and cannot be read. `sealed_rows` of them may have been sent."""

    place: Range
    first_ns: int
    last_ns: int
    sealed_rows: int = 0

    @property
    def rows(self) -> int:
        """How many they are."""
        return self.place.rows

    @property
    def detail(self) -> str:
        """More, for people."""
        where = f"rows {self.place.first} to {self.place.stop - 1} of epoch {self.place.epoch:016x}"
        return where + (f"; {self.sealed_rows} of them may be in the table" if self.sealed_rows else "")


def losses(folders: Sequence[Path], name: str, lost: Sequence[Range], seals: Sequence[Seal]) -> list[Loss]:
    """With their times, in the order of `lost`.

    Args:
        folders: of the log.
        name: of the log.
        lost: what cannot be read, none of it touching the next.
        seals: of the log, those that hold.

    Raises:
        OSError: of this process and not of the log, such as too many open files.
    """
    beside = _Beside(lost)
    beside.read(LogReader(folders, name=name))
    now_ns = time.time_ns()
    return [_loss(place, seals, beside, now_ns) for place in lost]


def _loss(place: Range, seals: Sequence[Seal], beside: _Beside, now_ns: int) -> Loss:
    own = [
        (seal, common.rows)
        for seal in seals
        for one in seal.ranges
        if (common := one.common(place)) is not None
    ]
    sealed_rows = sum(rows for _, rows in own)
    if sealed_rows >= place.rows:
        return Loss(
            place, min(seal.min_ns for seal, _ in own), max(seal.max_ns for seal, _ in own), sealed_rows
        )
    first_ns, last_ns = beside.times_ns(place, now_ns)
    return Loss(place, min(first_ns, last_ns), last_ns, sealed_rows)


class _Beside:
    """When rows and segments beside the lost ones are of."""

    def __init__(self, lost: Sequence[Range]):
        self._befores = {(one.epoch, one.first) for one in lost}
        self._afters = {(one.epoch, one.stop) for one in lost}
        self._last_ns: dict[tuple[int, int], int] = {}
        self._first_ns: dict[tuple[int, int], int] = {}
        self._made: dict[int, list[tuple[int, int]]] = {}

    def read(self, reader: LogReader) -> None:
        path = None
        for entry, contents in reader.entries(check=False):
            if entry.path != path:
                path = entry.path
                self._enter(path)
            if entry.kind is not Kind.ROWS or not entry.range.rows:
                continue
            before = (entry.range.epoch, entry.range.stop)
            after = (entry.range.epoch, entry.range.first)
            if not (before in self._befores or after in self._afters) or (rows := contents.rows()) is None:
                continue
            if before in self._befores:
                self._last_ns[before] = _time_ns(rows, rows.num_rows - 1)
            if after in self._afters:
                self._first_ns[after] = _time_ns(rows, 0)

    def _enter(self, path: Path) -> None:
        opened = open_or_tell(path)
        if isinstance(opened, Segment):
            with opened as segment:
                made = (segment.preamble.first, segment.preamble.created_ns)
                self._made.setdefault(segment.preamble.epoch, []).append(made)

    def times_ns(self, place: Range, now_ns: int) -> tuple[int, int]:
        """Not before the first, not after the second."""
        made = self._made.get(place.epoch, [])
        before = max((at_ns for first, at_ns in made if first <= place.first), default=0)
        after = min((at_ns for first, at_ns in made if first >= place.stop), default=now_ns)
        return (
            self._last_ns.get((place.epoch, place.first), before or min(after, now_ns)),
            self._first_ns.get((place.epoch, place.stop), after),
        )


def _time_ns(rows: pa.RecordBatch, at: int) -> int:
    return int(local_times_ns(rows.slice(at, 1))[0])
