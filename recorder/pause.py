"""A pause before the next attempt, which whoever is in a hurry may cut short."""

from __future__ import annotations

import asyncio


class Pause:
    """Waits on one loop, one at a time. A nudge cuts a wait down to `shortest_s`, but not two in a row: asking often
    must not end back-off.
    """

    def __init__(self, shortest_s: float):
        self._shortest_s = shortest_s
        self._nudged = asyncio.Event()
        self._spent = False

    def nudge(self) -> None:
        """Ask to go on soon instead of at the end of the wait under way."""
        self._nudged.set()

    async def wait(self, seconds: float) -> None:
        """Wait so long, or until a nudge that counts."""
        self._nudged.clear()
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        if self._spent:
            self._spent = False
            await asyncio.sleep(seconds)
            return
        try:
            async with asyncio.timeout(seconds):
                await self._nudged.wait()
        except TimeoutError:
            return
        self._spent = True
        await asyncio.sleep(min(seconds, self._shortest_s) - (loop.time() - started_s))
