"""A promise to one producer: wait until this row is durable."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any

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
        """
        if not self.accepted:
            return False
        future = asyncio.run_coroutine_threadsafe(self._wait(), self._loop)
        try:
            future.result(timeout_s)
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
        waiting: Awaitable[None] = asyncio.wrap_future(
            asyncio.run_coroutine_threadsafe(self._wait(), self._loop)
        )
        await waiting
        return True
