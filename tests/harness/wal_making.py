"""Logs made byte by byte out of `wal.format`: segments as a writer leaves them, and as no writer would."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pyarrow as pa

from wal import names
from wal.files import OsFiles
from wal.format import (
    FRAME_HEADER_BYTES,
    FrameHeader,
    Kind,
    Preamble,
    crc32c,
    pack_frame_header,
    pack_preamble,
    padded,
)
from wal.frames import Frame
from wal.places import Range
from wal.reader import LogReader
from wal.rows import pack_rows, schema_hash, schema_message

NAME = "fills"
SCHEMA = pa.schema([pa.field("epoch", pa.uint64()), pa.field("n", pa.uint64())])
EPOCH = 77


@cache
def rows_of(epoch: int, first: int, rows: int) -> pa.RecordBatch:
    """Rows that say which place they belong to, so that a reader can be held to it."""
    numbers = pa.array(range(first, first + rows), pa.uint64())
    return pa.RecordBatch.from_arrays([pa.array([epoch] * rows, pa.uint64()), numbers], schema=SCHEMA)


@dataclass
class Made:
    """A segment that was made: where, of what bytes, and the frames in it."""

    path: Path
    preamble: Preamble
    data: bytes
    frames: list[Frame] = field(default_factory=list)

    def write(self, data: bytes | None = None) -> None:
        self.path.write_bytes(self.data if data is None else data)

    def ranges(self, frames: Iterable[Frame] | None = None) -> list[Range]:
        """The rows of some of its frames, of all by default."""
        return [
            Range(self.preamble.epoch, frame.header.first, frame.header.first + frame.header.rows)
            for frame in (self.frames if frames is None else frames)
            if frame.header.kind == Kind.ROWS
        ]

    def whole(self, frame: Frame) -> slice:
        """The bytes that a frame cannot do without: not its padding."""
        return slice(frame.offset, frame.offset + FRAME_HEADER_BYTES + frame.header.payload_bytes)

    def intact(self, data: bytes) -> list[Frame]:
        """Its frames that are still whole in other bytes of it."""
        return [f for f in self.frames if data[self.whole(f)] == self.data[self.whole(f)]]


Piece = int | tuple[int, bytes]
"""Rows in a frame of rows; or another frame's kind and payload."""


def make_segment(
    folder: Path,
    number: int,
    pieces: Sequence[Piece],
    *,
    epoch: int = EPOCH,
    first: int = 0,
    tail: int = 0,
    name: str = NAME,
    schema: pa.Schema = SCHEMA,
    skip: Callable[[int], int] = lambda index: 0,
    payload_of: Callable[[int, int, int], bytes] = lambda e, f, n: pack_rows([rows_of(e, f, n)], None),
) -> Made:
    """Write a segment.

    Args:
        pieces: its frames.
        tail: zeros after the last one.
        skip: sequences that are left out before the frame of an index.
        payload_of: a frame's payload, given epoch, first sequence and rows.
    """
    preamble = Preamble(
        number, epoch, first, 1_700_000_000_000_000_000, schema_hash(schema), name, schema_message(schema)
    )
    data, frames, sequence = bytearray(pack_preamble(preamble)), [], first
    for index, piece in enumerate(pieces):
        sequence += skip(index)
        kind, rows = (Kind.ROWS, piece) if isinstance(piece, int) else (piece[0], 0)
        content = payload_of(epoch, sequence, rows) if isinstance(piece, int) else piece[1]
        # A kind that we do not know may mean anything by its number of rows.
        said = rows if kind in set(Kind) else 7
        header = FrameHeader(kind, len(content), crc32c(content), said, sequence)
        offset = len(data)
        data += pack_frame_header(header, number=number, epoch=epoch, offset=offset) + content
        data += bytes(padded(len(data)) - len(data))
        frames.append(Frame(offset, header))
        sequence += rows
    folder.mkdir(parents=True, exist_ok=True)
    made = Made(folder / names.segment_name(number), preamble, bytes(data) + bytes(tail), frames)
    made.write()
    return made


class Unsynced(OsFiles):
    """Nothing here loses its power: syncing ten thousand logs would only take long."""

    def fsync(self, fd: int) -> None:
        """Nothing."""

    def sync_folder(self, folder: Path) -> None:
        """Nothing."""


UNSYNCED = Unsynced()


def read_ranges(reader: LogReader, *, check: bool = True) -> list[Range]:
    """What a reader gives out; each row must be the one that was written at its place."""
    found = []
    for entry, contents in reader.entries(check=check):
        if entry.kind is not Kind.ROWS:
            assert entry.range.rows == 0
            continue
        rows = contents.rows()
        if rows is None:
            continue
        assert rows.equals(rows_of(entry.range.epoch, entry.range.first, entry.range.rows))
        found.append(entry.range)
    return found


def snapshot(*folders: Path) -> dict[str, bytes]:
    """All files and what is in them."""
    return {
        str(path): path.read_bytes()
        for folder in folders
        if folder.is_dir()
        for path in sorted(folder.iterdir())
    }
