"""The bytes of a file that others may change while it is read: as long as they are there, in bounded pieces.

Not a mapping: a page of a mapped file that is cut under its reader kills the process (SIGBUS). Here bytes that are gone
are no bytes: an answer is shorter than what was asked for. Bytes that the disk refuses are `UNREAD` ones, which no
checksum takes for what was written, and `refused` says where: whoever repairs must not believe them, and whoever counts
must not count as gone what may be read another time.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

WINDOW_BYTES = 16_384
SEARCH_BYTES = 1_048_576
PAGE_BYTES = 4_096
UNREAD = b"\xff"
_NOT_THE_DISKS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EBADF, errno.EINVAL})
"""Errors of a read that say nothing of the file's bytes."""


class FileData:
    """Slices of a file and a search in it. Keeps the last piece that it read, until `forget`."""

    __slots__ = ("_base", "_fd", "_refused", "_window", "failed")

    def __init__(self, fd: int):
        self._fd = fd
        self._window = b""
        self._base = 0
        self._refused: set[int] = set()
        self.failed: OSError | None = None
        """Why bytes could not be read, if there were any, at whatever time."""

    def forget(self) -> None:
        """What is asked for next is read anew."""
        self._window = b""

    def refused(self, start: int, stop: int) -> bool:
        """Whether some of these bytes could not be read, at whatever time: what they are, nobody knows."""
        return any(start < page + PAGE_BYTES and page < stop for page in self._refused)

    def __getitem__(self, where: slice) -> bytes:
        start, stop = where.start, where.stop
        begin = start - self._base
        end = stop - self._base
        if begin >= 0 and end <= len(self._window):
            return self._window[begin:end]
        if stop - start > WINDOW_BYTES:
            return self._read(start, stop - start)
        self._window, self._base = self._read(start, WINDOW_BYTES), start
        return self._window[: stop - start]

    def find(self, sub: bytes, start: int, end: int, /) -> int:
        """Where `sub` stands first between `start` and `end`; -1 if nowhere."""
        while start + len(sub) <= end:
            if start < self._base or start + len(sub) > self._base + len(self._window):
                self._window, self._base = self._read(start, min(SEARCH_BYTES, end - start)), start
                if len(self._window) < len(sub):
                    return -1
            found = self._window.find(sub, start - self._base, min(len(self._window), end - self._base))
            if found >= 0:
                return self._base + found
            start = self._base + len(self._window) - len(sub) + 1
        return -1

    def _read(self, start: int, size: int) -> bytes:
        try:
            return self._read_all(start, size)
        except OSError as error:
            if error.errno in _NOT_THE_DISKS:
                raise
            self.failed = error
        return b"".join(self._read_page(at, end - at) for at, end in _pages(start, start + size))

    def _read_page(self, start: int, size: int) -> bytes:
        try:
            return self._read_all(start, size)
        except OSError as error:
            if error.errno in _NOT_THE_DISKS:
                raise
            self.failed = error
            # Beyond the end there is nothing that could fail: these bytes exist.
            unread_bytes = min(size, max(0, os.fstat(self._fd).st_size - start))
            if unread_bytes:
                self._refused.add(start // PAGE_BYTES * PAGE_BYTES)
            return UNREAD * unread_bytes

    def _read_all(self, start: int, size: int) -> bytes:
        found = os.pread(self._fd, size, start)
        if len(found) == size or not found:
            return found
        parts = [found]
        while found and (size := size - len(found)) > 0:
            start += len(found)
            found = os.pread(self._fd, size, start)
            parts.append(found)
        return b"".join(parts)


def _pages(start: int, stop: int) -> Iterator[tuple[int, int]]:
    """The pieces that are asked for one by one: none crosses the end of a page."""
    while start < stop:
        end = min(stop, (start // PAGE_BYTES + 1) * PAGE_BYTES)
        yield start, end
        start = end
