"""Rows of any range of a log, read where a survey says that they stand. Holds one open segment and one decoded frame.

What goes forward through the log is found where the last one ended; what goes back costs a look at no more than a
stretch of headers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from wal.damage import Damage, Harm
from wal.errors import FormatError
from wal.format import Kind
from wal.frames import Frame
from wal.places import PlaceSet, Range
from wal.replay_plan import Stretch, Survey
from wal.segment import Segment, open_or_tell

FEW = 512
"""Record batches that are held side by side before they are made one."""


class Piece(NamedTuple):
    """Rows of one frame that follow on one another."""

    range: Range
    rows: pa.RecordBatch
    schema_hash: int

    def parts(self, rows_max: int) -> Iterator[Piece]:
        """The same in parts of at most so many rows."""
        epoch, first, stop = self.range
        if stop - first <= rows_max:
            yield self
            return
        for at in range(first, stop, rows_max):
            part = Range(epoch, at, min(stop, at + rows_max))
            yield self._replace(range=part, rows=self.rows.slice(at - first, part.rows))


class Gathering:
    """Pieces that become one record batch, of the schema of the first one.

    A record batch of one row takes a hundred times what its row does: many small ones are made one as they come.
    """

    def __init__(self) -> None:
        self.places = PlaceSet()
        self.schema_hashes: set[int] = set()
        self.rows = 0
        self.nbytes = 0
        self._schema: pa.Schema | None = None
        self._few: list[pa.RecordBatch] = []
        self._large: list[pa.RecordBatch] = []

    def add(self, piece: Piece, nbytes: int) -> None:
        """Take one in, which is behind the others."""
        rows = piece.rows
        if self._schema is None:
            self._schema = rows.schema
        elif piece.schema_hash in self.schema_hashes and not rows.schema.equals(
            self._schema, check_metadata=True
        ):
            # Equal by their hash, which leaves metadata out; Arrow wants the very same.
            rows = pa.RecordBatch.from_arrays(rows.columns, schema=self._schema)
        self.schema_hashes.add(piece.schema_hash)
        self.places.add(piece.range)
        self.rows += piece.range.rows
        self.nbytes += nbytes
        self._few.append(rows)
        if len(self._few) == FEW and len(self.schema_hashes) == 1:
            self._large.append(pa.concat_batches(self._few))
            self._few.clear()

    def joined(self) -> pa.RecordBatch:
        """All rows as one record batch; of one schema, which the caller has seen to. The pieces are let go."""
        batches, self._large, self._few = [*self._large, *self._few], [], []
        return batches[0] if len(batches) == 1 else pa.concat_batches(batches)


class RowFetch:
    """See the module. One caller at a time; `close` when done."""

    def __init__(self, survey: Survey, damage: list[Damage]):
        self._survey = survey
        self._damage = damage
        """What is found is told here: frames that were sound when they were surveyed, and whose rows cannot be had."""
        self.unread = PlaceSet()
        """Where rows of what was asked for may be that the disk did not give: those that did not come are not lost."""
        self._segment: Segment | None = None
        self._offset = 0
        """Of the frame that was read last in this segment, and its first sequence."""
        self._first = 0
        self._frame: tuple[Path, int, pa.RecordBatch | None] | None = None
        self._told: set[tuple[str, int]] = set()

    def pieces(self, asked: Range) -> Iterator[Piece]:
        """The rows of a range, in order, without those that cannot be had, which are told.

        Raises:
            OSError: of this process and not of a file, such as too many open files.
        """
        for stretch in self._survey.stretches_of(asked):
            wanted = stretch.range.common(asked)
            if wanted is not None and (segment := self._open(stretch, wanted)) is not None:
                yield from self._of(segment, stretch, wanted)

    def _of(self, segment: Segment, stretch: Stretch, wanted: Range) -> Iterator[Piece]:
        begin = stretch.offset
        if self._offset > begin and self._first <= wanted.first:
            begin = self._offset
        for frame in segment.scan(begin):
            if not isinstance(frame, Frame):
                if segment.data.refused(frame.offset, frame.end):
                    self._tell_unread(segment, frame.offset, frame.end - frame.offset, wanted)
                continue
            header = frame.header
            if header.first >= wanted.stop or frame.offset >= stretch.offset + stretch.nbytes:
                return
            held = Range(wanted.epoch, header.first, header.first + header.rows)
            common = held.common(wanted) if header.kind == Kind.ROWS else None
            if common is None:
                continue
            self._offset, self._first = frame.offset, header.first
            rows = self._decoded(segment, frame, held)
            if rows is not None:
                part = rows.slice(common.first - header.first, common.rows)
                # A few rows must not keep a large frame in memory: a run may have such rows of many frames.
                yield Piece(
                    common, part if 2 * common.rows >= header.rows else _copied(part), stretch.schema_hash
                )

    def _decoded(self, segment: Segment, frame: Frame, held: Range) -> pa.RecordBatch | None:
        if self._frame is not None and self._frame[:2] == (segment.path, frame.offset):
            return self._frame[2]
        self._frame = None  # before the next one is decoded: one at a time
        rows = None
        nbytes, payload = frame.end - frame.offset, segment.payload(frame)
        if payload is None and segment.harm_of(frame) is Harm.UNREAD:
            self._tell_unread(segment, frame.offset, nbytes, held)
            self._frame = (segment.path, frame.offset, None)
            return None
        told = Damage(
            Harm.PAYLOAD, str(segment.path), frame.offset, nbytes, held.epoch, held.first, held.rows
        )
        try:
            if payload is not None:
                rows = segment.decode(frame, payload)
        except FormatError as error:
            told = replace(told, harm=Harm.UNDECODABLE, detail=str(error))
        if rows is None:
            self._tell(told)
        self._frame = (segment.path, frame.offset, rows)
        return rows

    def _tell_unread(self, segment: Segment, offset: int, nbytes: int, rows: Range) -> None:
        self.unread.add(rows)
        detail = f"{segment.data.failed}"
        self._tell(
            Damage(Harm.UNREAD, str(segment.path), offset, nbytes, rows.epoch, rows.first, None, detail)
        )

    def _open(self, stretch: Stretch, wanted: Range) -> Segment | None:
        if self._segment is not None and self._segment.path == stretch.path:
            return self._segment
        self.close()
        opened = open_or_tell(stretch.path)
        if isinstance(opened, Segment) and opened.preamble.epoch == stretch.range.epoch:
            self._segment = opened
            return opened
        if isinstance(opened, Segment):
            opened.close()
        if isinstance(opened, Damage) and opened.harm is Harm.UNREAD:
            self.unread.add(wanted)
            self._tell(opened)
            return None
        gone = "it was there a moment ago; somebody removed it"
        self._tell(Damage(Harm.UNREADABLE, str(stretch.path), rows=None, detail=gone))
        return None

    def _tell(self, damage: Damage) -> None:
        place = (damage.file, damage.offset)
        if place not in self._told:
            self._told.add(place)
            self._damage.append(damage)

    def close(self) -> None:
        """Give back what it holds. It may be asked again."""
        if self._segment is not None:
            self._segment.close()
        self._segment = self._frame = None
        self._offset = self._first = 0


def _copied(rows: pa.RecordBatch) -> pa.RecordBatch:
    return rows.take(pa.array(np.arange(rows.num_rows)))
