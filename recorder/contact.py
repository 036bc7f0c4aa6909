"""The first contact with the database: connect, ask which server it is, bring the schema up, compare the tables.

Either it is made before anything else happens, or, where that is allowed, it is tried until it is made, and all tables
wait for it. Nothing is asked of the sink before.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence

from recorder.backoff import Backoff
from recorder.log import get_logger
from recorder.schema_start import SchemaStart
from recorder.sink.base import Sink
from recorder.sink.errors import Retryable, SinkError
from schemas.errors import SchemaError
from schemas.table import Table

log = get_logger("recorder")

AWAY_LOOK_S = 0.5
"""A database that does not answer is tried this often at least: its return is to be noticed."""
TOLD_EVERY_S = 60.0
"""A database that stays away is told again this often."""


class Contact:
    """See the module. Built and used on the recorder's loop."""

    def __init__(self, sink: Sink, schema: SchemaStart, backoff: Backoff):
        self.server = ""
        """Version of the database's engine, once it has answered."""
        self.why = ""
        """Why there is no contact yet; empty where there is, or nobody tried."""
        self._sink = sink
        self._schema = schema
        self._backoff = backoff
        self._made = asyncio.Event()
        self._unfit: Mapping[str, str | None] = {}
        self._task: asyncio.Task[None] | None = None
        self._told_s = 0.0

    @property
    def made(self) -> bool:
        """Whether the database has answered, and its schema was looked at."""
        return self._made.is_set()

    async def make(self, tables: Callable[[], Sequence[Table]], *, wait: bool) -> None:
        """Make it. With `wait`, a database that does not answer is tried again beside whatever else goes on.

        Raises:
            SinkError: it cannot be made; with `wait`, and not because the database does not answer.
            SchemaError: a migration failed.
        """
        try:
            await self._try(tables())
        except Retryable as error:
            if not wait:
                raise
            self._failed(error)
            self._task = asyncio.create_task(self._keep_trying(tables), name="first contact")

    async def unfit(self, table: str) -> str:
        """Wait for the contact; why a table cannot take rows, or nothing where it can."""
        await self._made.wait()
        return self._unfit.get(table) or ""

    async def close(self) -> None:
        """Try no more. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _try(self, tables: Sequence[Table]) -> None:
        await self._sink.start()
        server = (await self._sink.server()).version
        await self._schema.run()
        self._unfit = await self._schema.unfit(tables)
        self.server, self.why = server, ""
        self._made.set()

    async def _keep_trying(self, tables: Callable[[], Sequence[Table]]) -> None:
        attempt, away = 0, True
        while True:
            wait_s = self._backoff.wait_s(attempt)
            await asyncio.sleep(min(wait_s, AWAY_LOOK_S) if away else wait_s)
            attempt += 1
            away = False
            try:
                await self._try(tables())
            except (SinkError, SchemaError) as error:
                away = isinstance(error, Retryable)
                self._failed(error)
            except Exception as error:
                log.error("the first contact failed unexpectedly", error=repr(error), exc_info=True)
                self._failed(error)
            else:
                log.info("the database answers", server=self.server)
                return

    def _failed(self, error: Exception) -> None:
        now_s = time.monotonic()
        if not self._told_s or now_s - self._told_s >= TOLD_EVERY_S:
            self._told_s = now_s
            log.error("no contact with the database, trying on; rows wait in memory", why=str(error))
        self.why = str(error)
