"""What was appended to a log and is not on disk: how it is cut into frames, and what must be written again. Pure.

Invariants: rows keep their order, and their sequences are consecutive; a seal stands behind the rows that were appended
before it. A frame is kept until it need not be written again, as a payload: its header depends on where it stands.
Nothing here locks, waits or knows a file.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import pyarrow as pa

from wal.errors import FrameTooLarge
from wal.format import PAYLOAD_BYTES_MAX, FrameHeader, Kind, crc32c, frame_bytes
from wal.rows import pack_rows

FRAME_ARROW_BYTES = 16 * 1_048_576
"""Arrow data of one frame; more is split, unless it is one row."""
COMPRESS_FROM_ROWS = 1_000
"""A frame of fewer rows is not compressed: Arrow sets a compressor up for each buffer, and 100 rows of 22 columns take
700 us with zstd where they take 25 without, for 30 kB less."""
FRAME_ROWS_MAX = 1_048_576
"""Rows of one frame: rows may have no data at all."""
FRAME_ITEMS_MAX = 4_096
"""Batches of one frame."""
ROW_BYTES_MAX = PAYLOAD_BYTES_MAX // 2
"""Of one row, so that its payload with padding and metadata is no larger than a frame may be."""


CHEAP_BYTES = 262_144


def data_bytes(rows: pa.RecordBatch) -> int:
    """What rows take in memory.

    Asking exactly costs a microsecond or two a column; so that is done only where the batch may be a slice of a large
    one, of which it holds the whole.
    """
    nbytes: int = rows.get_total_buffer_size()
    return nbytes if nbytes <= CHEAP_BYTES else rows.nbytes


class Item(NamedTuple):
    """What was appended in one go, or a part of it."""

    kind: Kind
    rows: pa.RecordBatch | None
    payload: bytes
    nbytes: int
    """Of data."""
    charge: int
    """What it takes in memory, about, while it is not encoded."""
    first: int
    mark: int
    """With this item everything is there that was appended with a mark up to this one."""
    at_s: float
    """When it was appended, of the monotonic clock."""


class Ready(NamedTuple):
    """A frame that can be written anywhere."""

    header: FrameHeader
    payload: bytes
    mark: int
    at_s: float
    """When the oldest part of it was appended."""

    @property
    def nbytes(self) -> int:
        """Of the frame in a file, and about what it takes in memory."""
        return frame_bytes(len(self.payload))

    @property
    def stop(self) -> int:
        """The sequence after its last row."""
        return self.header.first + self.header.rows


def pieces(rows: pa.RecordBatch) -> list[pa.RecordBatch]:
    """Rows in parts of which each goes into one frame.

    Raises:
        FrameTooLarge: a single row does not.
    """
    count = rows.num_rows
    if rows.nbytes <= FRAME_ARROW_BYTES and count <= FRAME_ROWS_MAX:
        return [rows]
    if count == 1:
        if rows.nbytes > ROW_BYTES_MAX:
            raise FrameTooLarge(
                f"one row of {rows.nbytes} bytes; at most {ROW_BYTES_MAX}: it cannot be logged"
            )
        return [rows]
    half = count // 2
    return [*pieces(rows.slice(0, half)), *pieces(rows.slice(half))]


def cut(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Items in groups, each of which makes one frame: rows together up to a frame's bounds, all else by itself."""
    group: list[Item] = []
    nbytes = rows = 0
    for item in items:
        more = item.rows.num_rows if item.rows is not None else 0
        apart = item.kind is not Kind.ROWS or (bool(group) and group[-1].kind is not Kind.ROWS)
        too_much = nbytes + item.nbytes > FRAME_ARROW_BYTES or rows + more > FRAME_ROWS_MAX
        if group and (apart or too_much or len(group) >= FRAME_ITEMS_MAX):
            yield group
            group, nbytes, rows = [], 0, 0
        group.append(item)
        nbytes += item.nbytes
        rows += more
    if group:
        yield group


def encode(group: Sequence[Item], codec: str | None) -> Ready:
    """The frame of a group that `cut` made."""
    head, last = group[0], group[-1]
    batches = [item.rows for item in group if item.rows is not None]
    rows = sum(batch.num_rows for batch in batches)
    worth = rows >= COMPRESS_FROM_ROWS
    payload = pack_rows(batches, codec if worth else None) if batches else head.payload
    header = FrameHeader(head.kind, len(payload), crc32c(payload), rows, head.first)
    return Ready(header, payload, last.mark, head.at_s)


class Backlog:
    """Frames that are not certain to be on disk, in order: first those that were written, then the others."""

    def __init__(self) -> None:
        self._written: deque[Ready] = deque()
        self._unwritten: deque[Ready] = deque()

    @property
    def head(self) -> Ready | None:
        """The oldest of them."""
        for frames in (self._written, self._unwritten):
            if frames:
                return frames[0]
        return None

    def add(self, frame: Ready) -> None:
        """Take another one, the last."""
        self._unwritten.append(frame)

    def unwritten(self, most: int) -> list[Ready]:
        """The first of those that have yet to be written."""
        return list(itertools.islice(self._unwritten, most))

    def wrote(self, count: int) -> None:
        """So many more were written."""
        for _ in range(count):
            self._written.append(self._unwritten.popleft())

    @property
    def written(self) -> int:
        """How many stand in the active segment, or in one before it, and wait for a sync."""
        return len(self._written)

    def release(self) -> Iterable[Ready]:
        """Those that were written are needed no more."""
        released, self._written = self._written, deque()
        return released

    def again(self) -> int:
        """Nobody knows what came of those that were written: write them again; how many."""
        count = len(self._written)
        self._unwritten.extendleft(reversed(self._written))
        self._written.clear()
        return count
