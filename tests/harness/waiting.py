"""Waiting on conditions, inside an event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

PATIENCE_S = 20.0


async def until(condition: Callable[[], bool], what: str = "the condition") -> None:
    """Wait, while the loop goes on, until it is true."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s, f"{what} did not come true within {PATIENCE_S} s"
        await asyncio.sleep(0.005)
