"""A disk that forgets what was not synced: real files in a folder, and beside them what a power cut would leave.

A file's bytes are certain once it was synced, its name once its folder was. Of what was not, a power cut keeps
some: of names the first few changes, in order; of writes any of them, whole or in part. After a sync that failed nobody
knows what became of the writes before it: later syncs do not make them certain (as Linux has it).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from wal.files import OsFiles

Choose = Callable[[int], int]
"""A whole number from 0 to below its argument: how the power cut falls."""


@dataclass
class Inode:
    """A file's certain bytes, and the changes since: data at an offset, or a length."""

    certain: bytes = b""
    changes: list[tuple[int, bytes | None]] = field(default_factory=list)
    doubtful: int = 0
    """So many of the first changes never become certain."""

    def sync(self) -> None:
        for at, data in self.changes[self.doubtful :]:
            self.certain = changed(self.certain, at, data)
        del self.changes[self.doubtful :]

    def after_power_cut(self, choose: Choose) -> bytes:
        left = self.certain
        for at, data in self.changes:
            fate = choose(4)
            if fate == 0:
                continue
            if data is not None and fate == 1:
                data = data[: choose(len(data) + 1)]
            left = changed(left, at, data)
        return left


def changed(before: bytes, at: int, data: bytes | None) -> bytes:
    if data is None:
        return before[:at].ljust(at, b"\0")
    return before[:at].ljust(at, b"\0") + data + before[at + len(data) :]


def renamed(names: dict[str, Inode], change: dict[str, Inode | None]) -> dict[str, Inode]:
    after = {name: inode for name, inode in names.items() if name not in change}
    return after | {name: inode for name, inode in change.items() if inode is not None}


class ForgetfulDisk:
    """One folder on it, `folder`; `process()` gives the file system as one process sees it, until it is killed."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir()
        self.names: dict[str, Inode] = {}
        """As a process sees them."""
        self._certain: dict[str, Inode] = {}
        self._name_changes: list[dict[str, Inode | None]] = []
        """Each is done whole or not at all."""
        self.room_bytes: int | None = None
        """What files may still grow by; None: as much as they like."""
        self.failing: dict[str, int] = {}
        """Calls by name that fail, so many times each."""
        self._processes: list[ProcessFiles] = []

    def process(self) -> ProcessFiles:
        self._processes.append(ProcessFiles(self))
        return self._processes[-1]

    def kill(self) -> None:
        """All processes end: what they wrote is still there, and still not certain."""
        for process in self._processes:
            process.end()
        self._processes.clear()

    def power_cut(self, choose: Choose) -> None:
        self.kill()
        names = dict(self._certain)
        for change in self._name_changes[: choose(len(self._name_changes) + 1)]:
            names = renamed(names, change)
        left = {name: inode.after_power_cut(choose) for name, inode in names.items()}
        for path in self.folder.iterdir():
            path.unlink()
        for name, data in left.items():
            (self.folder / name).write_bytes(data)
        self.names = {name: Inode(data) for name, data in left.items()}
        self._certain = dict(self.names)
        self._name_changes = []

    def rot(self, name: str, at: int) -> None:
        """A byte of a file, certain as it is, becomes another."""
        with (self.folder / name).open("r+b") as file:
            file.seek(at)
            flipped = bytes([file.read(1)[0] ^ 0x55])
            file.seek(at)
            file.write(flipped)
        inode = self.names[name]
        inode.certain = changed(inode.certain, at, flipped)
        # Over everything that is not certain: whatever is kept of that, this byte is another.
        inode.changes = [(w, self._rotten(w, d, at, flipped)) for w, d in inode.changes]

    @staticmethod
    def _rotten(start: int, data: bytes | None, at: int, byte: bytes) -> bytes | None:
        if data is None or not start <= at < start + len(data):
            return data
        return changed(data, at - start, byte)

    # -- for processes -------------------------------------------------------------------------------------------

    def call(self, name: str) -> None:
        if self.failing.get(name, 0) > 0:
            self.failing[name] -= 1
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def grow(self, nbytes: int) -> None:
        if self.room_bytes is not None and nbytes > 0:
            if nbytes > self.room_bytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.room_bytes -= nbytes

    def shrink(self, nbytes: int) -> None:
        if self.room_bytes is not None:
            self.room_bytes += nbytes

    def rename(self, change: dict[str, Inode | None]) -> None:
        self._name_changes.append(change)
        self.names = renamed(self.names, change)

    def names_certain(self) -> None:
        self._certain = dict(self.names)
        self._name_changes = []


class ProcessFiles(OsFiles):
    """`wal.files.Files` of one process on such a disk."""

    def __init__(self, disk: ForgetfulDisk):
        self._disk = disk
        self._open: dict[int, Inode] = {}
        self._ended = False

    def end(self) -> None:
        for fd in list(self._open):
            super().close(fd)
        self._open.clear()
        self._ended = True

    def _call(self, name: str) -> None:
        if self._ended:
            raise OSError(errno.EBADF, "this process was killed")
        self._disk.call(name)

    def create(self, path: Path) -> int:
        self._call("create")
        fd = super().create(path)
        self._open[fd] = Inode()
        self._disk.rename({path.name: self._open[fd]})
        return fd

    def open(self, path: Path) -> int:
        self._call("open")
        fd = super().open(path)
        self._open[fd] = self._disk.names[path.name]
        return fd

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        self._call("pwrite")
        self._disk.grow(offset + len(data) - os.fstat(fd).st_size)
        written = super().pwrite(fd, data, offset)
        self._open[fd].changes.append((offset, bytes(data[:written])))
        return written

    def truncate(self, fd: int, size: int) -> None:
        self._call("truncate")
        self._disk.shrink(os.fstat(fd).st_size - size)
        super().truncate(fd, size)
        self._open[fd].changes.append((size, None))

    def fsync(self, fd: int) -> None:
        inode = self._open[fd]
        try:
            self._call("fsync")
        except OSError:
            inode.doubtful = len(inode.changes)
            raise
        inode.sync()

    def fdatasync(self, fd: int) -> None:
        self.fsync(fd)

    def close(self, fd: int) -> None:
        if self._open.pop(fd, None) is not None:
            super().close(fd)

    def rename(self, old: Path, new: Path) -> None:
        self._call("rename")
        super().rename(old, new)
        self._disk.rename({old.name: None, new.name: self._disk.names[old.name]})

    def unlink(self, path: Path) -> None:
        self._call("unlink")
        size = path.stat().st_size
        super().unlink(path)
        self._disk.shrink(size)
        self._disk.rename({path.name: None})

    def sync_folder(self, folder: Path) -> None:
        self._call("sync_folder")
        self._disk.names_certain()

    def make_folder(self, folder: Path) -> None:
        self._call("make_folder")
