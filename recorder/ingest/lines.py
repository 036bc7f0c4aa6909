"""Lines of a file with their numbers, in bounded memory.

A line's number is its place in the file, counted from 0, blank ones too: it is half of the identity of the rows it
makes, so nothing here may depend on how the blocks fall.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from recorder.ingest.compression import Block

MAX_LINE_BYTES = 16 * 1024 * 1024
"""A longer line is cut here and reported; the rest of it is read over."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Line(NamedTuple):
    """One line without its end. `cut_bytes` is its true length if it was longer than `MAX_LINE_BYTES`, else 0."""

    position: int
    content: bytes
    cut_bytes: int = 0


class LineBlock(NamedTuple):
    """Consecutive lines, blank ones left out. `file_bytes` is how much of the file was read so far."""

    lines: list[Line]
    file_bytes: int


def line_blocks(blocks: Iterable[Block], *, max_line_bytes: int = MAX_LINE_BYTES) -> Iterator[LineBlock]:
    """The lines of the content; a last line without an end is a line."""
    pending: list[bytes] = []  # the beginning of a line whose end has not come yet
    pending_bytes = 0
    position = 0
    file_bytes = 0

    def finish(tail: bytes) -> Line:
        length = pending_bytes + len(tail)
        if length <= max_line_bytes:
            return Line(position, b"".join([*pending, tail]))
        return Line(position, b"".join([*pending, tail])[:max_line_bytes], length)

    for content, file_bytes in blocks:
        parts = content.split(b"\n")
        lines = []
        if len(parts) > 1:
            lines.append(finish(parts[0]))
            pending, pending_bytes = [], 0
            lines += [
                Line(number, part)
                if len(part) <= max_line_bytes
                else Line(number, part[:max_line_bytes], len(part))
                for number, part in enumerate(parts[1:-1], position + 1)
            ]
            position += len(parts) - 1
        if tail := parts[-1]:
            room = max_line_bytes - sum(map(len, pending))
            if room > 0:
                pending.append(tail[:room])
            pending_bytes += len(tail)
        yield LineBlock([line for line in map(_trimmed, lines) if line.content], file_bytes)
    if pending:
        last = _trimmed(finish(b""))
        yield LineBlock([last] if last.content else [], file_bytes)


def _trimmed(line: Line) -> Line:
    """Without a carriage return at the end and a byte order mark at the start of the file."""
    content = line.content
    if content.endswith(b"\r"):
        content = content[:-1]
    if line.position == 0:
        content = content.removeprefix(_BYTE_ORDER_MARK)
    return line if content is line.content else line._replace(content=content)
