"""Waking whoever waits for things to move, on one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Pulse:
    """Every beat wakes all who wait; each looks for itself whether what it waits for has come."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []

    def beat(self) -> None:
        """Something moved. On the loop."""
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def until(self, true: Callable[[], bool]) -> None:
        """Return when it is true; asked now, and after each beat."""
        while not true():
            future = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            await future
