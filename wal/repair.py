"""Taking broken bytes of a segment out of the way: copied whole, under their own name and durably, before anything is
cut. Whatever stops it half-way, the bytes are there, and it can be done again.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from wal import names
from wal.files import Files, write_all
from wal.segment import Segment

_PIECE_BYTES = 1_048_576


def keep(files: Files, segment: Segment, number: int, offset: int, stop: int) -> None:
    """Copy a span of a segment to its `.broken` file. One that is there already, with at least these bytes, is kept.

    Raises:
        OSError: they could not be copied; nothing was changed, or a file with other bytes has that name.
    """
    path = segment.path.with_name(names.broken_name(number, offset))
    if path.exists():
        if not _holds(path, segment, offset, stop):
            raise FileExistsError(errno.EEXIST, f"{path.name} is there and holds other bytes", str(path))
        # Who made it may have been stopped before its name was durable.
        files.sync_folder(path.parent)
        return
    unfinished = path.with_name(f"{path.name}.new")
    fd = files.create(unfinished)
    try:
        try:
            at = 0
            for piece in _pieces(segment, offset, stop):
                write_all(files, fd, piece, at)
                at += len(piece)
            files.fsync(fd)
        finally:
            files.close(fd)
        files.rename(unfinished, path)
    except OSError:
        # The disk may be full: what nobody will read must not stay.
        with contextlib.suppress(OSError):
            files.unlink(unfinished)
        raise
    files.sync_folder(path.parent)


def cut(files: Files, path: Path, size: int) -> None:
    """Make a segment end where its last sound frame does.

    Raises:
        OSError: it could not be cut, or nobody knows whether it was.
    """
    fd = files.open(path)
    try:
        files.truncate(fd, size)
        files.fsync(fd)
    finally:
        files.close(fd)


def _pieces(segment: Segment, offset: int, stop: int) -> Iterator[bytes]:
    while offset < stop:
        piece = segment.data[offset : min(stop, offset + _PIECE_BYTES)]
        if not piece:
            return
        yield piece
        offset += len(piece)


def _holds(path: Path, segment: Segment, offset: int, stop: int) -> bool:
    with path.open("rb") as file:
        return all(file.read(len(piece)) == piece for piece in _pieces(segment, offset, stop))
