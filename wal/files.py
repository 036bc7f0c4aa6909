"""What a log needs of a file system, and the real one. Everything a log writes goes through here, and nothing else.

Raises whatever the system raises: `OSError`. Paths are absolute.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

ZEROS = bytes(1_048_576)


class Files(Protocol):
    """The calls of a file system, one each. A file is its descriptor."""

    def create(self, path: Path) -> int:
        """Make a file that is not there yet, for reading and writing."""

    def open(self, path: Path) -> int:
        """Open a file that is there, for reading and writing."""

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        """Write at an offset; how many bytes were written, which may be fewer."""

    def fsync(self, fd: int) -> None:
        """Return when the file's bytes and length are on disk."""

    def fdatasync(self, fd: int) -> None:
        """Return when the file's bytes are on disk."""

    def truncate(self, fd: int, size: int) -> None:
        """Set the file's length."""

    def close(self, fd: int) -> None:
        """Give the descriptor back."""

    def rename(self, old: Path, new: Path) -> None:
        """Give a file another name, in the place of one that may have it."""

    def unlink(self, path: Path) -> None:
        """Remove a file."""

    def sync_folder(self, folder: Path) -> None:
        """Return when the names in a folder are on disk: after making, renaming or removing a file."""

    def make_folder(self, folder: Path) -> None:
        """Make a folder and those above it, where they are not there, and their names durable."""


class OsFiles:
    """The real file system."""

    def create(self, path: Path) -> int:
        """See `Files`."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)

    def open(self, path: Path) -> int:
        """See `Files`."""
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        """See `Files`."""
        return os.pwrite(fd, data, offset)

    def fsync(self, fd: int) -> None:
        """See `Files`."""
        os.fsync(fd)

    def fdatasync(self, fd: int) -> None:
        """See `Files`."""
        os.fdatasync(fd)

    def truncate(self, fd: int, size: int) -> None:
        """See `Files`."""
        os.ftruncate(fd, size)

    def close(self, fd: int) -> None:
        """See `Files`."""
        os.close(fd)

    def rename(self, old: Path, new: Path) -> None:
        """See `Files`."""
        os.replace(old, new)

    def unlink(self, path: Path) -> None:
        """See `Files`."""
        os.unlink(path)

    def sync_folder(self, folder: Path) -> None:
        """See `Files`."""
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def make_folder(self, folder: Path) -> None:
        """See `Files`."""
        if folder.is_dir():
            return
        self.make_folder(folder.parent)
        folder.mkdir(mode=0o750, exist_ok=True)
        self.sync_folder(folder.parent)


OS_FILES = OsFiles()


def write_all(files: Files, fd: int, data: bytes, offset: int) -> None:
    """Write all of it, in as many calls as that takes."""
    rest = memoryview(data)
    while rest:
        written = files.pwrite(fd, rest, offset)
        if written <= 0:
            raise OSError(5, "a write wrote nothing")
        offset += written
        rest = rest[written:]


def fill_with_zeros(files: Files, fd: int, size: int) -> None:
    """Make a new file `size` bytes long, all of them zero and each with its place on the disk."""
    offset = 0
    while offset < size:
        piece = min(len(ZEROS), size - offset)
        write_all(files, fd, ZEROS[:piece] if piece < len(ZEROS) else ZEROS, offset)
        offset += piece
