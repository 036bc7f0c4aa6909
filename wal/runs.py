"""Stretches of sound frames of a segment, and what lies between them: what opening a log needs to know of it. Pure.

Says the same as `wal.frames.scan`, in fewer values and less time: a log of 1 GiB may hold
millions of frames.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from wal.format import FRAME_HEADER_BYTES, FRAME_MAGIC, Kind, Preamble, crc32c, frame_bytes
from wal.frames import Data, Frame, Hole, payload, scan

_FRAME = struct.Struct("<4sIIIBBHIQ")
_PLACE = struct.Struct("<QQ")
_OFFSET = struct.Struct("<Q")
_PIECE_BYTES_MIN = 4_096
_PIECE_BYTES_MAX = 262_144


class Run(NamedTuple):
    """Sound frames, one after the other, none of which leaves a sequence out: rows from `first` up to before `stop`."""

    offset: int
    end: int
    first: int
    stop: int
    frames: int


class BadPayload(NamedTuple):
    """A frame with a sound header and a payload that is not what was written."""

    frame: Frame


def stop_of(frame: Frame) -> int:
    """The sequence after a frame's last row. Only frames of rows have any, whatever a later kind may mean by it."""
    rows = frame.header.rows if frame.header.kind == Kind.ROWS else 0
    return frame.header.first + rows


def runs(data: Data, size: int, preamble: Preamble) -> Iterator[Run | Hole]:
    """A segment's first `size` bytes, in order. Payloads are not looked at."""
    where = crc32c(_PLACE.pack(preamble.number, preamble.epoch))
    offset = preamble.frames_from
    while offset < size:
        run = _run_at(data, size, where, offset)
        if run is not None:
            yield run
            offset = run.end
            continue
        item = next(scan(data, size, preamble, offset), None)
        if item is None:
            return
        yield item if isinstance(item, Hole) else _run_of(item)
        offset = item.end


def checked_runs(data: Data, size: int, preamble: Preamble) -> Iterator[Run | BadPayload | Hole]:
    """Like `runs`, each payload looked at."""
    run: Run | None = None
    for item in scan(data, size, preamble):
        if isinstance(item, Frame) and payload(data, item) is not None:
            if run is not None and run.stop == item.header.first:
                run = run._replace(end=item.end, stop=stop_of(item), frames=run.frames + 1)
                continue
            found: Run | BadPayload | Hole | None = None
            following: Run | None = _run_of(item)
        else:
            found, following = (item if isinstance(item, Hole) else BadPayload(item)), None
        if run is not None:
            yield run
        if found is not None:
            yield found
        run = following
    if run is not None:
        yield run


def _run_of(frame: Frame) -> Run:
    return Run(frame.offset, frame.end, frame.header.first, stop_of(frame), 1)


def _run_at(data: Data, size: int, where: int, begin: int) -> Run | None:
    """The run that begins there. `where` is the checksum of the first two numbers of a frame's own."""
    offset, frames, first, stop = begin, 0, 0, 0
    piece_bytes = _PIECE_BYTES_MIN
    while offset < size:
        piece = data[offset : min(size, offset + piece_bytes)]
        at, last, frames_before = 0, len(piece) - FRAME_HEADER_BYTES, frames
        while at <= last:
            magic, checksum, payload_bytes, _, kind, _, _, rows, sequence = _FRAME.unpack_from(piece, at)
            if (
                magic != FRAME_MAGIC
                or crc32c(_OFFSET.pack(offset + at) + piece[at + 8 : at + FRAME_HEADER_BYTES], where)
                != checksum
                or offset + at + FRAME_HEADER_BYTES + payload_bytes > size
            ):
                break
            if not frames:
                first = stop = sequence
            if sequence != stop:
                break
            frames += 1
            if kind == Kind.ROWS:
                stop += rows
            at += frame_bytes(payload_bytes)
        offset += at
        if at <= last or last < 0:
            break
        # Many small frames: larger pieces. Frames larger than a piece: little more than their headers is read.
        piece_bytes = _PIECE_BYTES_MAX if frames - frames_before > 4 else _PIECE_BYTES_MIN
    return Run(begin, offset, first, stop, frames) if frames else None
