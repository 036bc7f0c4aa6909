"""The real file system, with calls that fail, hang or kill the process, as a test wants it."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Callable, Collection
from pathlib import Path

import pytest

from wal.files import OS_FILES, Files

CALLS = (
    *("create", "open", "pwrite", "fsync", "fdatasync", "truncate"),
    *("close", "rename", "unlink", "sync_folder", "make_folder"),
)


class FaultyFiles:
    """Calls go to the real file system and are counted in `made`, by name, in order.

    `rule` is asked before each, with its number from 1 on, its name, and the path that it is about; it may raise, wait,
    or return "after" to have the call made and fail all the same, or "short" to have half of a write made.
    """

    def __init__(self, rule: Callable[[int, str, Path], str | None] = lambda number, call, path: None):
        self.rule = rule
        self.error = errno.EIO
        self.made: list[str] = []
        self._paths: dict[int, Path] = {}
        self._files: Files = OS_FILES

    def _ask(self, call: str, path: Path) -> str | None:
        self.made.append(call)
        return self.rule(len(self.made), call, path)

    def _after(self, how: str | None) -> None:
        if how == "after":
            raise OSError(self.error, f"{os.strerror(self.error)} (injected, after it was done)")

    def create(self, path: Path) -> int:
        how = self._ask("create", path)
        fd = self._files.create(path)
        if how == "after":
            self._files.close(fd)
        self._after(how)
        self._paths[fd] = path
        return fd

    def open(self, path: Path) -> int:
        how = self._ask("open", path)
        fd = self._files.open(path)
        if how == "after":
            self._files.close(fd)
        self._after(how)
        self._paths[fd] = path
        return fd

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        how = self._ask("pwrite", self._paths[fd])
        if how == "short":
            return self._files.pwrite(fd, memoryview(data)[: max(1, len(data) // 2)], offset)
        written = self._files.pwrite(fd, data, offset)
        self._after(how)
        return written

    def fsync(self, fd: int) -> None:
        how = self._ask("fsync", self._paths[fd])
        self._files.fsync(fd)
        self._after(how)

    def fdatasync(self, fd: int) -> None:
        how = self._ask("fdatasync", self._paths[fd])
        self._files.fdatasync(fd)
        self._after(how)

    def truncate(self, fd: int, size: int) -> None:
        how = self._ask("truncate", self._paths[fd])
        self._files.truncate(fd, size)
        self._after(how)

    def close(self, fd: int) -> None:
        path = self._paths.pop(fd)
        try:
            how = self._ask("close", path)
        finally:
            self._files.close(fd)  # as on Linux, where a failed close has closed
        self._after(how)

    def rename(self, old: Path, new: Path) -> None:
        how = self._ask("rename", new)
        self._files.rename(old, new)
        self._paths = {fd: new if path == old else path for fd, path in self._paths.items()}
        self._after(how)

    def unlink(self, path: Path) -> None:
        how = self._ask("unlink", path)
        self._files.unlink(path)
        self._after(how)

    def sync_folder(self, folder: Path) -> None:
        how = self._ask("sync_folder", folder)
        self._files.sync_folder(folder)
        self._after(how)

    def make_folder(self, folder: Path) -> None:
        how = self._ask("make_folder", folder)
        self._files.make_folder(folder)
        self._after(how)

    @property
    def opened(self) -> list[Path]:
        """Files that were opened and not closed."""
        return sorted(self._paths.values())


class Failing:
    """A rule: of the calls of these names, the `nth` fails, or, for ever, all from there on until `heal`."""

    def __init__(
        self,
        nth: int,
        error: int,
        *,
        how: str = "before",
        forever: bool = False,
        calls: Collection[str] = CALLS,
        below: Path = Path("/"),
    ):
        self.nth = nth
        self.error = error
        self.how = how
        self.forever = forever
        self.calls = calls
        self.below = below
        self.seen = 0
        self.struck = 0
        self.healed = False

    def heal(self) -> None:
        self.healed = True

    def __call__(self, number: int, call: str, path: Path) -> str | None:
        if call not in self.calls or not path.is_relative_to(self.below):
            return None
        self.seen += 1
        if self.healed or not (self.seen >= self.nth if self.forever else self.seen == self.nth):
            return None
        self.struck += 1
        if self.how == "before":
            raise OSError(self.error, f"{os.strerror(self.error)} (injected)")
        return self.how


class Unreadable:
    """Bytes of files that the disk does not give: reading them fails as on a bad disk, until `heal`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self._spans: list[tuple[str, int, int]] = []
        self._read = os.pread
        monkeypatch.setattr(os, "pread", self._pread)

    def refuse(self, path: Path, start: int = 0, stop: int = 2**63) -> None:
        self._spans.append((str(path), start, stop))

    def heal(self) -> None:
        self._spans.clear()

    def _pread(self, fd: int, size: int, offset: int) -> bytes:
        if self._spans:
            name = os.readlink(f"/proc/self/fd/{fd}")
            if any(
                name == path and offset < stop and start < offset + size for path, start, stop in self._spans
            ):
                raise OSError(errno.EIO, f"{os.strerror(errno.EIO)} (injected)")
        return self._read(fd, size, offset)


class Hanging:
    """A rule: calls of these names about files below a folder hang until `release`."""

    def __init__(self, calls: Collection[str], below: Path):
        self.calls = calls
        self.below = below
        self.hanging = threading.Event()
        """Set as soon as one does."""
        self._released = threading.Event()

    def release(self) -> None:
        self._released.set()

    def __call__(self, number: int, call: str, path: Path) -> str | None:
        if call in self.calls and path.is_relative_to(self.below) and not self._released.is_set():
            self.hanging.set()
            self._released.wait(60)
        return None


class Killing:
    """A rule: the process is killed before the `nth` call of this name, or after it, when the next one is made."""

    def __init__(self, call: str, nth: int, *, after: bool):
        self.call = call
        self.nth = nth
        self.after = after
        self.seen = 0

    def __call__(self, number: int, call: str, path: Path) -> str | None:
        if self.after and self.seen >= self.nth:
            os.kill(os.getpid(), signal.SIGKILL)
        self.seen += call == self.call
        if not self.after and self.seen == self.nth:
            os.kill(os.getpid(), signal.SIGKILL)
        return None
