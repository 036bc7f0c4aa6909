"""A retry of dead letters in a process of its own that kills itself at a step: `python -m harness.retry_child STEP N`.

STEP is `look_up`, `before` or `after` an insert; N is which one of them. The settings are those of the environment.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from recorder import Settings
from recorder.batch import Batch
from recorder.sink.base import Sink
from recorder.sink.open import open_sink

from .dead_lettered import Desk


class Killing:
    """Passes everything on, and kills the process at its step."""

    def __init__(self, inner: Sink, step: str, left: int):
        self._inner = inner
        self._step = step
        self._left = left

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def look_up(self, batch: Batch) -> set[tuple[int, int]]:
        """Dies before the question."""
        self._at("look_up")
        return await self._inner.look_up(batch)

    async def insert(self, batch: Batch, *, timeout_s: float) -> None:
        """Dies before the insert, or when it is in and nobody was told."""
        self._at("before")
        await self._inner.insert(batch, timeout_s=timeout_s)
        self._at("after")

    def _at(self, step: str) -> None:
        if step == self._step:
            self._left -= 1
            if not self._left:
                os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    settings = Settings()
    told = Desk(settings).retry(sink=Killing(open_sink(settings), sys.argv[1], int(sys.argv[2])))
    print(told.outcomes)
