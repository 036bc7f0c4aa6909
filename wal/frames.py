"""The frames of one segment, given its bytes: sound ones, and what lies between them. Pure.

Nothing that is found depends on bytes that no checksum vouched for: a broken header's length is not followed; the
next sound header is searched for, at every multiple of 8.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from wal.format import (
    FRAME_ALIGN,
    FRAME_HEADER_BYTES,
    FRAME_MAGIC,
    FrameHeader,
    Preamble,
    crc32c,
    frame_bytes,
    read_frame_header,
)


class Data(Protocol):
    """Bytes of a file, as `bytes` has them. A slice may be shorter than it was asked for: the file is."""

    def __getitem__(self, where: slice, /) -> bytes:
        """Those bytes."""

    def find(self, sub: bytes, start: int, end: int, /) -> int:
        """Where they stand first between two offsets; -1 if nowhere."""


class Frame(NamedTuple):
    """A frame whose header is sound. `offset` is where it begins."""

    offset: int
    header: FrameHeader

    @property
    def end(self) -> int:
        """Where the next one begins."""
        return self.offset + frame_bytes(self.header.payload_bytes)


class Hole(NamedTuple):
    """Bytes that are no frame. `last` says that nothing sound comes after them."""

    offset: int
    end: int
    last: bool


def scan(data: Data, size: int, preamble: Preamble, start: int | None = None) -> Iterator[Frame | Hole]:
    """Frames and holes of a segment, in order, from `start`, where a frame begins, or from the first one.

    `size` are the bytes to look at. Zeros up to the end of the file are neither: they are what was not written yet.
    Payloads are not looked at (`payload`). A frame whose payload goes beyond the end is a hole, the last one.
    """
    offset = preamble.frames_from if start is None else start
    while offset < size:
        frame = frame_at(data, size, preamble, offset)
        if frame is not None:
            yield frame
            offset = frame.end
            continue
        following = _next_frame(data, size, preamble, offset + FRAME_ALIGN)
        if following is not None:
            yield Hole(offset, following, last=False)
            offset = following
            continue
        end = _written_to(data, offset, size)
        if end > offset:
            yield Hole(offset, end, last=True)
        return


def payload(data: Data, frame: Frame) -> bytes | None:
    """A frame's payload; None if it is not what was written."""
    start = frame.offset + FRAME_HEADER_BYTES
    found = bytes(data[start : start + frame.header.payload_bytes])
    return found if crc32c(found) == frame.header.payload_crc else None


def frame_at(data: Data, size: int, preamble: Preamble, offset: int) -> Frame | None:
    """The frame that begins there, if its header is sound and all of it is within `size`."""
    head = bytes(data[offset : min(size, offset + FRAME_HEADER_BYTES)])
    header = read_frame_header(head, number=preamble.number, epoch=preamble.epoch, offset=offset)
    if header is None or offset + FRAME_HEADER_BYTES + header.payload_bytes > size:
        return None
    return Frame(offset, header)


def _next_frame(data: Data, size: int, preamble: Preamble, offset: int) -> int | None:
    """Where the next frame begins, at `offset` or after it."""
    while True:
        offset = data.find(FRAME_MAGIC, offset, size)
        if offset < 0:
            return None
        if offset % FRAME_ALIGN == 0 and frame_at(data, size, preamble, offset) is not None:
            return offset
        offset += 1


def _written_to(data: Data, start: int, size: int) -> int:
    """The end of what is not zero, at least `start`."""
    end, piece = size, 1_048_576
    while end > start:
        begin = max(start, end - piece)
        found = bytes(data[begin:end]).rstrip(b"\0")
        if found:
            return begin + len(found)
        end = begin
    return start
