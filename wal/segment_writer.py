"""One segment while it is written: from a file full of zeros, by way of its preambles, to frames one after the other.

Raises whatever the file system raises, once: after an error a segment is only ever abandoned. Whoever calls sees to it
that one thread at a time does. It does not decide when to sync or rotate (`wal.log_disk`).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from wal.files import Files, fill_with_zeros, write_all
from wal.format import Preamble, pack_frame_header, pack_preamble
from wal.names import new_name, segment_name
from wal.pending import Ready


class Prepared(NamedTuple):
    """A file full of zeros, on disk, that may become a segment."""

    path: Path
    fd: int
    size: int


def prepare(files: Files, folder: Path, number: int, size: int) -> Prepared:
    """Make the file of a segment to come: zeros with a place on the disk, so that a full disk shows now.

    Raises:
        OSError: that cannot be done; nothing of it is left, if that can be.
    """
    path = folder / new_name(number)
    try:
        fd = files.create(path)
    except FileExistsError:  # of an attempt that could not be cleaned up
        files.unlink(path)
        fd = files.create(path)
    made = Prepared(path, fd, size)
    try:
        fill_with_zeros(files, fd, size)
        files.fsync(fd)
    except BaseException:
        discard(files, made)
        raise
    return made


def discard(files: Files, prepared: Prepared) -> None:
    """Remove a prepared file, if that can be; recovery removes what is left."""
    with contextlib.suppress(OSError):
        files.close(prepared.fd)
    with contextlib.suppress(OSError):
        files.unlink(prepared.path)


class SegmentWriter:
    """A segment with its preambles on disk, under its own name, and `offset` where the next frame goes.

    Raises:
        OSError: it cannot be made; its file may then have either name, or none.
    """

    def __init__(self, files: Files, prepared: Prepared, preamble: Preamble):
        self._files = files
        self._fd = prepared.fd
        self.preamble = preamble
        self.path = prepared.path.with_name(segment_name(preamble.number))
        self.size = prepared.size
        self.offset = preamble.frames_from
        self.stop = preamble.first
        """The sequence after its last row."""
        self.dirty = False
        """Whether something was written since the last sync."""
        self.held = False
        """Whether a sync of frames ever succeeded."""
        try:
            write_all(files, self._fd, pack_preamble(preamble), 0)
            files.fsync(self._fd)
            files.rename(prepared.path, self.path)
            # Without this a power cut takes the name, and with it every frame that was synced in between.
            files.sync_folder(self.path.parent)
        except BaseException:
            discard(files, prepared)
            raise

    @property
    def number(self) -> int:
        """Which segment it is."""
        return self.preamble.number

    @property
    def half_full(self) -> bool:
        """Whether half of the room for frames is taken."""
        start = self.preamble.frames_from
        return 2 * (self.offset - start) >= self.size - start

    def room_for(self, frames: Sequence[Ready]) -> int:
        """How many of these, from the first on, fit."""
        end = self.offset
        for count, frame in enumerate(frames):
            end += frame.nbytes
            if end > self.size:
                return count
        return len(frames)

    def write(self, frames: Sequence[Ready]) -> int:
        """Write frames that fit, in one go; how many bytes. They are not on disk before `sync`."""
        offset = self.offset
        parts: list[bytes] = []
        for frame in frames:
            header = pack_frame_header(
                frame.header, number=self.number, epoch=self.preamble.epoch, offset=offset
            )
            padding = bytes(frame.nbytes - len(header) - len(frame.payload))
            parts += (header, frame.payload, padding)
            offset += frame.nbytes
        written = offset - self.offset
        self.dirty = True
        write_all(self._files, self._fd, b"".join(parts), self.offset)
        self.offset = offset
        self.stop = frames[-1].stop
        return written

    def sync(self) -> None:
        """Return when everything that was written is on disk."""
        self._files.fdatasync(self._fd)
        self.dirty = False
        self.held = True

    def close(self) -> None:
        """Give the file back, as it is. What was not synced before is not certain."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):  # nothing hangs on it: what counts was synced
                self._files.close(fd)

    def finish(self) -> None:
        """Cut the file to what it holds, and close it, whatever comes of that."""
        try:
            self._files.truncate(self._fd, self.offset)
            self._files.fsync(self._fd)
            self.size = self.offset
        finally:
            self.close()

    def remove(self) -> bool:
        """Remove a segment whose frames are all kept elsewhere; whether it went."""
        try:
            self._files.unlink(self.path)
        except OSError:
            return not os.path.lexists(self.path)
        return True
