"""A task that is to run for ever: one that dies is started again, and says so until it has lived for a while.

It waits before each new start, longer each time up to a cap, with jitter (`recorder.backoff`); a life of `HEALTHY_S`
is healthy, and what was before it is forgotten. A death is an exception, or an end that nobody asked for. It is counted
and logged once, with its traceback; a cancellation by `close` is none.

It does not know what the task is for: who runs it reads `down` and `trouble`, from any thread.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

from recorder.backoff import Backoff
from recorder.log import get_logger
from recorder.redact import redacted

log = get_logger("recorder")

BACKOFF = Backoff(0.5, 30.0)
HEALTHY_S = 30.0
"""A task that lived for so long is healthy: its next death is as good as its first."""


class Supervised:
    """See the module. `start` and `close` on its loop; `table` is whose task it is, empty for the recorder's own.

    `died` is told, on the loop, why it died; `backoff` is `BACKOFF` unless given.
    """

    def __init__(
        self,
        name: str,
        run: Callable[[], Coroutine[Any, Any, None]],
        *,
        table: str = "",
        died: Callable[[str], None] | None = None,
        backoff: Backoff | None = None,
    ):
        self.name = name
        self.table = table
        self.deaths = 0
        self._run = run
        self._died = died
        self._backoff = backoff or BACKOFF
        self._task: asyncio.Task[None] | None = None
        self._waits = False
        self._why = ""
        self._began_s = 0.0
        self._closed = False

    def start(self) -> asyncio.Task[None]:
        """Run it from now on. The task ends when it is cancelled, and at nothing else."""
        self._task = asyncio.create_task(self._forever(), name=f"{self.name} {self.table}".rstrip())
        return self._task

    async def close(self) -> None:
        """Stop it; that it does not run any more is no trouble then. Idempotent."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def down(self) -> str:
        """Why it does not run just now; empty while it does."""
        if self._closed or self._task is None:
            return ""
        if self._task.done():
            return f"{self.name} is gone"
        return self._why if self._waits else ""

    def trouble(self) -> str:
        """Why it is not healthy: it is down, or has died within its last `HEALTHY_S` of life; empty when it is."""
        if self._closed:
            return ""
        unwell = self._why and (self._waits or time.monotonic() - self._began_s < HEALTHY_S)
        return self.down() or (self._why if unwell else "")

    async def _forever(self) -> None:
        attempt = 0
        while True:
            self._began_s = time.monotonic()
            self._waits = False
            error: Exception | None = None
            try:
                await self._run()
            except Exception as raised:  # noqa: BLE001 - told below
                error = raised
            lived_s = time.monotonic() - self._began_s
            attempt = 0 if lived_s >= HEALTHY_S else attempt
            self._tell(error, lived_s)
            self._waits = True
            await asyncio.sleep(self._backoff.wait_s(attempt))
            attempt += 1

    def _tell(self, error: Exception | None, lived_s: float) -> None:
        self.deaths += 1
        self._why = redacted(f"{self.name} died: {error!r}" if error is not None else f"{self.name} ended")
        log.error(
            "a task died, starting it again",
            task=self.name,
            table=self.table,
            deaths=self.deaths,
            lived_s=round(lived_s, 3),
            error=repr(error),
            exc_info=error,
        )
        if self._died is not None:
            self._died(self._why)
