"""The pipe an answer leaves the engine through: read on the loop, no faster than the client takes it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os

PIPE_BYTES = 1 << 20
READ_BYTES = 256 << 10
_SET_SIZE = getattr(fcntl, "F_SETPIPE_SZ", None)


class Pipe:
    """`path` is what the engine writes to. `read` ends when the engine has closed it and `close_writer` was called."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._reader, False)
        if _SET_SIZE is not None:
            with contextlib.suppress(OSError):  # a bound of the system; the pipe works at its own size
                fcntl.fcntl(self._writer, _SET_SIZE, PIPE_BYTES)

    @property
    def path(self) -> str:
        """Where the engine of this process finds its end."""
        return f"/proc/self/fd/{self._writer}"

    async def read(self) -> bytes:
        """What has come; empty at the end."""
        while self._reader >= 0:
            try:
                return os.read(self._reader, READ_BYTES)
            except BlockingIOError:
                await self._readable()
        return b""

    def close_writer(self) -> None:
        """The statement is done: what is in the pipe is all there will be. Idempotent."""
        if self._writer >= 0:
            os.close(self._writer)
            self._writer = -1

    def close_reader(self) -> None:
        """Nobody wants the rest: the engine's next write fails, which ends the statement. Idempotent."""
        if self._reader >= 0:
            os.close(self._reader)
            self._reader = -1

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        reader = self._reader
        loop.add_reader(reader, _tell, ready)
        try:
            await ready
        finally:
            loop.remove_reader(reader)


def _tell(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
