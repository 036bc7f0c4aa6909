"""The recorder in a coroutine's hands: what `async with Recorder(...)` gives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from recorder.balance import Balance
from recorder.runtime import Runtime
from recorder.sink.base import Sink
from recorder.source_rows import SourceRow
from recorder.waiting import awaited, not_durable, on_loop

if TYPE_CHECKING:
    from recorder.recorder import Recorder

T = TypeVar("T")


class AsyncRecorder:
    """A started recorder in a coroutine's hands.

    `record`, `record_batch` and `dead_letter` are the same calls, and wait for nothing; all others are awaited. What
    is not here is at `recorder`.
    """

    def __init__(self, recorder: Recorder):
        self.recorder = recorder
        self.record = recorder.record
        self.record_batch = recorder.record_batch
        self.dead_letter = recorder.dead_letter

    async def record_source(
        self, log: int, entries: Iterable[SourceRow], *, timeout_s: float | None = None
    ) -> int:
        """As `Recorder.record_source`; the wait for room does not hold up the loop."""
        return await asyncio.to_thread(self.recorder.record_source, log, entries, timeout_s=timeout_s)

    async def sync(self, timeout_s: float | None = None) -> None:
        """As `Recorder.sync`."""
        await self._wait(lambda runtime: runtime.sync(), timeout_s, "durable")

    async def flush(self, timeout_s: float | None = None) -> None:
        """As `Recorder.flush`."""
        await self._wait(lambda runtime: runtime.flush(), timeout_s, "queryable")

    async def ask(
        self, question: Callable[[Sink], Coroutine[Any, Any, T]], timeout_s: float | None = None
    ) -> T:
        """As `Recorder.ask`."""
        return await asyncio.to_thread(self.recorder.ask, question, timeout_s)

    async def balance(self) -> dict[str, Balance]:
        """As `Recorder.balance`."""
        return await asyncio.to_thread(self.recorder.balance)

    async def status(self) -> dict[str, Any]:
        """As `Recorder.status`."""
        return await asyncio.to_thread(self.recorder.status)

    async def _wait(
        self, what: Callable[[Runtime], Coroutine[Any, Any, None]], timeout_s: float | None, state: str
    ) -> None:
        runtime, loop = self.recorder._life.running()
        try:
            async with asyncio.timeout(timeout_s):
                await awaited(on_loop(lambda: what(runtime), loop))
        except TimeoutError:
            raise not_durable(runtime.pipelines, state, timeout_s) from None
