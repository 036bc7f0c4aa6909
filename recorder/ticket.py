"""A promise to one producer: wait until this row is durable."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable, Coroutine, Generator
from typing import Any

from recorder.errors import RecorderClosed

Wait = Callable[[], Coroutine[Any, Any, None]]


class Ticket:
    """What `record(..., ticket=True)` returns. True where the row was accepted, False where it was shed.

    Durable means: inserted and confirmed, in its table or, if it can never be inserted, as a dead letter.
    Wait for it from a thread (`ticket.wait(timeout_s=1)`) or a coroutine (`await ticket`).
    """

    __slots__ = ("_loop", "_wait", "accepted")

    def __init__(self, accepted: bool, loop: asyncio.AbstractEventLoop, wait: Wait):
        self.accepted = accepted
        self._loop = loop
        self._wait = wait

    def __bool__(self) -> bool:
        return self.accepted

    def wait(self, timeout_s: float | None = None) -> bool:
        """Block until the row is durable. False if it was shed at the door.

        Raises:
            TimeoutError: it is not durable yet.
            RecorderClosed: the recorder was closed before it was; its balance says what became of the rows.
        """
        if not self.accepted:
            return False
        future = on_loop(self._wait, self._loop)
        try:
            future.result(timeout_s)
        except concurrent.futures.CancelledError:
            raise RecorderClosed(OVERTAKEN) from None
        except TimeoutError:
            future.cancel()
            raise TimeoutError(
                f"the row is not durable after {timeout_s} s; it is still on its way"
            ) from None
        return True

    def __await__(self) -> Generator[Any, None, bool]:
        return self._awaited().__await__()

    async def _awaited(self) -> bool:
        if not self.accepted:
            return False
        await awaited(on_loop(self._wait, self._loop))
        return True


OVERTAKEN = "the recorder was closed meanwhile; its balance says what became of the rows"


def on_loop(wait: Wait, loop: asyncio.AbstractEventLoop) -> concurrent.futures.Future[None]:
    """Start a wait on the recorder's loop, from any thread.

    Raises:
        RecorderClosed: the loop is gone.
    """
    waiting = wait()
    try:
        return asyncio.run_coroutine_threadsafe(waiting, loop)
    except RuntimeError:
        waiting.close()
        raise RecorderClosed(OVERTAKEN) from None


async def awaited(future: concurrent.futures.Future[None]) -> None:
    """Await a wait on the recorder's loop; one that its closing ended raises `RecorderClosed`."""
    try:
        await asyncio.wrap_future(future)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():  # it is the caller that was cancelled
            raise
        raise RecorderClosed(OVERTAKEN) from None
