"""The schema at start and while running: migrate if told to, and say which tables are unfit.

A drifted table is held, never written to: ClickHouse would fill a missing column with its default and say nothing. A
critical table that was replaced (its UUID changed) is held too, because rows confirmed before are in the other one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from recorder.log import get_logger
from recorder.settings import Settings
from recorder.sink.base import Sink
from retention.errors import HoldsLost
from retention.live_holds import held_tables
from schemas.check import Difference, compare
from schemas.executor import SqlExecutor
from schemas.live import LiveTable, read_tables
from schemas.manager import Manager
from schemas.pack import Pack
from schemas.render import RenderContext
from schemas.table import Table

log = get_logger("recorder.schema")

BREAKING = frozenset({"missing_table", "missing_column", "column_type", "extra_column"})
"""Differences under which a batch would fail or be changed silently. The others are told, and recording goes on."""


class SinkExecutor:
    """The sink as the schema manager needs it: synchronous. For threads beside the recorder's loop."""

    def __init__(self, sink: Sink, loop: asyncio.AbstractEventLoop):
        self._sink = sink
        self._loop = loop

    def command(self, sql: str) -> object:
        """Run a statement that returns nothing."""
        return self._wait(self._sink.command(sql))

    def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Sequence[Sequence[Any]]:
        """Rows of a statement."""
        rows: Sequence[Sequence[Any]] = self._wait(self._sink.query(sql, parameters))
        return rows

    def _wait(self, call: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(call, self._loop).result()


def manager_of(
    executor: SqlExecutor,
    settings: Settings,
    packs: Sequence[Pack],
    on_wait: Callable[[str], None] | None = None,
) -> Manager:
    """The schema manager of these settings; it gives no TTL to a table that a legal hold concerns."""
    keep_days = {table.name: settings.for_table(table).ttl_days for pack in packs for table in pack.tables}
    return Manager(
        executor,
        packs,
        settings.database,
        ttl=settings.ttl is not False,
        keep_days=keep_days,
        held=lambda tables: held_tables(executor, settings.database, tables),
        on_wait=on_wait,
    )


class SchemaStart:
    """One recorder's look at its schema. Used on the recorder's loop; the manager runs in a thread."""

    def __init__(self, sink: Sink, settings: Settings, packs: Sequence[Pack]):
        self._settings = settings
        self._packs = packs
        self._uuids: dict[str, str] = {}  # of the critical tables, as they were when first seen
        self._executor = SinkExecutor(sink, asyncio.get_running_loop())
        self._manager = manager_of(
            self._executor,
            settings,
            packs,
            lambda holder: log.info("waiting for the migration lock", holder=holder),
        )

    async def run(self) -> None:
        """Migrate if the settings say so, and warn of what differs without breaking.

        Where legal holds are lost nothing is migrated, that is said, and recording goes on: it drops nothing.

        Raises:
            SchemaError: a migration failed; what is applied is recorded, and the next start goes on from there.
        """
        try:
            await self._migrate()
        except HoldsLost as error:
            log.error("nothing was migrated", why=str(error), database=self._settings.database)

    async def _migrate(self) -> None:
        if self._settings.migrates_on_start:
            applied = await asyncio.to_thread(self._manager.up)
            if applied:
                log.info("migrated", statements=len(applied), database=self._settings.database)
        for difference in await asyncio.to_thread(self._manager.check):
            if difference.kind not in BREAKING:
                log.warning(
                    "a table differs from its policy",
                    table=difference.table,
                    what=difference.what,
                    expected=difference.expected,
                    observed=difference.observed,
                    remedy=difference.remedy,
                )

    async def unfit(self, tables: Sequence[Table]) -> dict[str, str | None]:
        """By table, why it cannot take rows now; None where it can. One look for all of them."""
        return await asyncio.to_thread(self._all_unfit, tables)

    def _all_unfit(self, tables: Sequence[Table]) -> dict[str, str | None]:
        live = read_tables(self._executor, self._settings.database)
        return {table.name: self._unfit(table, live) for table in tables}

    def _unfit(self, table: Table, live: Mapping[str, LiveTable]) -> str | None:
        context = RenderContext(database=self._settings.database, cluster=None, ttl=True, keep_days={})
        broken = [found for found in compare([table], live, context) if found.kind in BREAKING]
        if not broken:
            return self._replaced(table, live[table.name])
        if not self._settings.migrates_on_start and (pending := self._pending_of(table)):
            return f"{table.name}: migrations are pending ({pending}); run recorder migrate up"
        return f"{table.name}: {'; '.join(map(_told, broken[:5]))}"

    def _replaced(self, table: Table, there: LiveTable) -> str | None:
        """Whether a critical table is another one than before."""
        if not table.policy.critical:
            return None
        before = self._uuids.setdefault(table.name, there.uuid)
        if there.uuid == before:
            return None
        return (
            f"{table.name}: the table was replaced while rows were recorded (its UUID was {before}, now it is "
            f"{there.uuid}); put the old one back, or see to its rows and restart the recorder, which accepts this one"
        )

    def _pending_of(self, table: Table) -> str:
        """The pending migrations of the table's pack."""
        pack = next(pack for pack in self._packs if table in pack.tables)
        labels = [
            step.label for step in self._manager.plan() if step.migration and step.migration.pack == pack.name
        ]
        return ", ".join(dict.fromkeys(labels))


def _told(difference: Difference) -> str:
    return f"{difference.what}: expected {difference.expected}, observed {difference.observed}; {difference.remedy}"
