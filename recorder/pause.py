"""A pause before the next attempt, which whoever is in a hurry may cut short, and who knows better may end."""

from __future__ import annotations

import asyncio
import contextlib


class Pause:
    """Waits on one loop, one at a time. A nudge cuts a wait down to `shortest_s`, but not two in a row: asking often
    must not end back-off.
    """

    def __init__(self, shortest_s: float):
        self._shortest_s = shortest_s
        self._woken = asyncio.Event()
        self._nudged = self._over = self._spent = False

    def nudge(self) -> None:
        """Ask to go on soon instead of at the end of the wait under way."""
        self._nudged = True
        self._woken.set()

    def end(self) -> None:
        """What is waited for has come: go on now."""
        self._over = True
        self._woken.set()

    async def wait(self, seconds: float) -> None:
        """Wait so long, or until a nudge that counts, or the end."""
        self._nudged = self._over = False
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        until_s = started_s + seconds
        counts, self._spent = not self._spent, False
        while not self._over:
            self._woken.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(until_s):
                    await self._woken.wait()
            if self._nudged and counts:
                counts, self._spent = False, True
                until_s = min(until_s, started_s + self._shortest_s)
            if loop.time() >= until_s:
                return
