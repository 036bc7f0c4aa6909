"""Bytes that are read again later, in bounded memory: requests' bodies, and answers that are waited for whole.

Up to `MEMORY_BYTES` they are anonymous memory, beyond that a file without a name in the server's own folder: nothing
is left behind by a kill. The engine reads them by the path of the open descriptor.
"""

from __future__ import annotations

import os
import pathlib
import tempfile
from typing import Literal, Self

from recorder.devserver.errors import Code, StatementError
from recorder.sink import carrier

MEMORY_BYTES = 16 << 20
COPY_BYTES = 1 << 20


def too_large(limit: int) -> StatementError:
    """A body of more than so many bytes."""
    return StatementError.ours(
        Code.QUERY_IS_TOO_LARGE,
        f"The body is larger than {limit} bytes, which is what this server takes; send it in parts.",
    )


class Spool:
    """A file without a name. Written from its beginning, then read; `close` frees it."""

    def __init__(
        self,
        folder: pathlib.Path,
        *,
        limit_bytes: int,
        memory_bytes: int = MEMORY_BYTES,
        holds: Literal["body", "answer"] = "body",
    ):
        self._folder = folder
        self._limit = limit_bytes
        self._holds = holds
        self._memory = memory_bytes
        self.size = 0
        self._in_memory = carrier.IN_MEMORY
        self._descriptor = (
            os.memfd_create("recorder-devserver", os.MFD_CLOEXEC) if self._in_memory else self._file()
        )

    @property
    def path(self) -> str:
        """Where the engine of this process finds it."""
        return (
            f"/proc/self/fd/{self._descriptor}"
            if os.path.isdir("/proc/self/fd")
            else f"/dev/fd/{self._descriptor}"
        )

    def write(self, data: bytes) -> None:
        """Append.

        Raises:
            StatementError: it would be larger than its limit.
            OSError: the disk is full.
        """
        if self.size + len(data) > self._limit:
            raise self._too_large()
        if self._in_memory and self.size + len(data) > self._memory:
            self._to_disk()
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]
        self.size += len(data)

    def read_at(self, offset: int, most: int = COPY_BYTES) -> bytes:
        """Up to `most` bytes from there; empty at the end."""
        return os.pread(self._descriptor, most, offset)

    def _too_large(self) -> StatementError:
        if self._holds == "body":
            return too_large(self._limit)
        return StatementError.ours(
            Code.TOO_MANY_ROWS_OR_BYTES,
            f"The answer is larger than {self._limit} bytes, the most that this server holds back; ask for less, or "
            "without wait_end_of_query.",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free it. Idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _file(self) -> int:
        self._folder.mkdir(parents=True, exist_ok=True)
        descriptor, path = tempfile.mkstemp(prefix="devserver-", dir=self._folder)
        os.unlink(path)
        return descriptor

    def _to_disk(self) -> None:
        new, offset = self._file(), 0
        while piece := self.read_at(offset):
            os.write(new, piece)
            offset += len(piece)
        os.close(self._descriptor)
        self._descriptor = new
        self._in_memory = False
