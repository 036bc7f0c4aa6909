"""A promise to one producer: wait until this row is durable."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

from recorder.errors import RecorderClosed
from recorder.queue import Watched

T = TypeVar("T")
Wait = Callable[[], Coroutine[Any, Any, T]]


class Ticket:
    """What `record(..., ticket=True)` returns. True where the row was accepted, False where it was shed.

    Durable means: inserted and confirmed, in its table or, if it can never be inserted, as a dead letter.
    Wait for it from a thread (`ticket.wait(timeout_s=1)`) or a coroutine (`await ticket`). Both say False where the
    row is not durable and never will be: shed at the door, displaced by a newer row later (`drop_oldest`,
    `conflate`, `sample`), or refused by its table while dead letters were shed, of which its own may be one.
    """

    __slots__ = ("_entry", "_loop", "_wait", "accepted")

    def __init__(self, accepted: bool, entry: Watched, loop: asyncio.AbstractEventLoop, wait: Wait[bool]):
        self.accepted = accepted
        self._entry = entry
        self._loop = loop
        self._wait = wait

    def __bool__(self) -> bool:
        return self.accepted

    def wait(self, timeout_s: float | None = None) -> bool:
        """Block until the row is durable. False if it was shed, and never will be.

        Raises:
            TimeoutError: it is not durable yet.
            RecorderClosed: the recorder was closed before it was; its balance says what became of the rows.
            RecorderForked: this process was forked since.
        """
        if self._shed():
            return False
        future = on_loop(self._wait, self._loop)
        try:
            return future.result(timeout_s) and not self._shed()
        except concurrent.futures.CancelledError:
            raise RecorderClosed(OVERTAKEN) from None
        except TimeoutError:
            future.cancel()
            raise TimeoutError(
                f"the row is not durable after {timeout_s} s; it is still on its way"
            ) from None

    def _shed(self) -> bool:
        return not self.accepted or self._entry.displaced

    def __await__(self) -> Generator[Any, None, bool]:
        return self._awaited().__await__()

    async def _awaited(self) -> bool:
        if self._shed():
            return False
        return await awaited(on_loop(self._wait, self._loop)) and not self._shed()


OVERTAKEN = "the recorder was closed meanwhile; its balance says what became of the rows"


def on_loop(wait: Wait[T], loop: asyncio.AbstractEventLoop) -> concurrent.futures.Future[T]:
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


async def awaited(future: concurrent.futures.Future[T]) -> T:
    """Await a wait on the recorder's loop; one that its closing ended raises `RecorderClosed`."""
    try:
        return await asyncio.wrap_future(future)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():  # it is the caller that was cancelled
            raise
        raise RecorderClosed(OVERTAKEN) from None
