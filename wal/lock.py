"""One writer a folder: an exclusive lock on its file LOCK, which names whoever holds it.

The lock is the kernel's (flock) and goes with the process that has it, however that ends. The file is never removed: a
file that is removed and made anew can be locked twice. Its text is for people; the lock does not depend on it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import time
from pathlib import Path

from wal.errors import LogLocked
from wal.files import Files, write_all
from wal.names import LOCK

_TEXT_BYTES_MAX = 1_024


class FolderLock:
    """The lock of a folder, from its making to `release`.

    Raises:
        LogLocked: somebody holds it, who is named.
        OSError: the file cannot be made, opened or locked.
    """

    def __init__(self, folder: Path, files: Files):
        self._files = files
        path = folder / LOCK
        try:
            self._fd = files.create(path)
        except FileExistsError:
            self._fd = files.open(path)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException as error:
            holder = _text(self._fd)
            self._close()
            if isinstance(error, BlockingIOError):
                raise LogLocked(
                    f"{folder}: {holder} writes to this log; stop it, or give this process a folder of its own"
                ) from None
            raise
        # On a full disk the text may not fit. The lock holds all the same.
        with contextlib.suppress(OSError):
            text = _about_us()
            files.truncate(self._fd, 0)
            write_all(files, self._fd, text, 0)

    def release(self) -> None:
        """Let it go. Idempotent."""
        if self._fd >= 0:
            # Not by closing alone: a child that was forked just now may still have the descriptor too.
            with contextlib.suppress(OSError):
                fcntl.flock(self._fd, fcntl.LOCK_UN)
        self._close()

    def leave_to_parent(self) -> None:
        """In a forked child: the lock is the parent's, and must not outlive it here."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):
                os.close(fd)

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):
                self._files.close(fd)


def _about_us() -> bytes:
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    # Not its arguments: they may hold what is in no file.
    program = " ".join(f"{sys.executable} {sys.argv[0] if sys.argv else ''}".split())
    text = f"process {os.getpid()} ({program:.600}), since {since}\n"
    return text.encode(errors="replace")[:_TEXT_BYTES_MAX]


def _text(fd: int) -> str:
    try:
        text = os.pread(fd, _TEXT_BYTES_MAX, 0).decode(errors="replace").strip()
    except OSError:
        text = ""
    return text or "another process, which left no name,"
