"""A promise to one producer: wait until this row is durable."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any

from recorder.entries import Watched
from recorder.waiting import Wait, awaited, blocked, on_loop


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
        try:
            return blocked(on_loop(self._wait, self._loop), timeout_s) and not self._shed()
        except TimeoutError:
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
