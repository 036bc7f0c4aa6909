"""What the recorder does every so often beside recording: gap rows and their alarms, samples of its own metrics, and
a look whether the live tables still are what the row classes say.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from recorder.contact import Contact
from recorder.log import get_logger
from recorder.metrics import RecorderMetrics
from recorder.own_rows import DEAD_LETTERS, METRICS, OWN_TABLES
from recorder.own_writer import OwnWriter
from recorder.recorded_table import RecordedTables, enabled
from recorder.schema_start import SchemaStart
from recorder.settings import Settings
from recorder.shed import Gap
from recorder.sink.errors import SinkError
from schemas.table import Table

log = get_logger("recorder")


class Housekeeping:
    """See the module. Used on the recorder's loop: `start`, `close`; `report_gaps` also whenever a flush needs it."""

    def __init__(
        self,
        settings: Settings,
        tables: RecordedTables,
        *,
        own: OwnWriter,
        metrics: RecorderMetrics,
        schema: SchemaStart,
        contact: Contact,
    ):
        self._settings = settings
        self._tables = tables
        self._own = own
        self._metrics = metrics
        self._schema = schema
        self._contact = contact
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin; the schema has been looked at."""
        settings = self._settings
        self._tasks = [
            asyncio.create_task(_every(settings.gap_window_s, self.report_gaps), name="gaps"),
            asyncio.create_task(_every(settings.metrics_interval_s, self._sample), name="samples"),
            asyncio.create_task(_every(settings.schema_check_s, self._check_schema), name="schema"),
        ]

    async def close(self) -> None:
        """Do no more of it. Idempotent."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def report_gaps(self) -> None:
        """Write what was shed since the last time as gap rows, and raise the alarms."""
        for name, recorded in self._tables.items():
            shed = recorded.pipeline.queue.shed
            gaps = shed.take()
            if not gaps:
                continue
            refused = [gap for gap in gaps if not self._own.gap(name, gap)]
            if refused:
                shed.put_back(refused)
            if name not in OWN_TABLES or name == DEAD_LETTERS:
                self._alarm_shed(recorded.table, gaps)

    def _alarm_shed(self, table: Table, gaps: Sequence[Gap]) -> None:
        rows = sum(gap.rows for gap in gaps)
        reasons = {gap.reason: gap.rows for gap in gaps}
        if table.policy.critical:
            log.critical("critical rows were shed", table=table.name, rows=rows, reasons=reasons)
            kind, severity = "RecorderDataLoss", "critical"
        else:
            log.warning("rows were shed", table=table.name, rows=rows, reasons=reasons)
            kind, severity = "RecorderShedding", "warning"
        self._own.event(kind, severity, table.name, f"{table.name}: {rows} rows were shed", reasons)

    def _sample(self) -> None:
        """Record the recorder's own metrics."""
        for name, value, labels in self._metrics.samples():
            self._own.put(METRICS, {"ts": time.time_ns(), "name": name, "value": value, "labels": labels})

    async def _check_schema(self) -> None:
        """Hold the tables that no longer fit their row classes, and release idle ones that do again."""
        if not self._contact.made:
            return
        try:
            unfit = await self._schema.unfit(enabled(self._tables))
        except SinkError as error:
            log.warning("the live tables could not be compared", error=str(error))
            return
        for name, why in unfit.items():
            self._tables[name].worker.unfit(why)


async def _every(seconds: float, what: Callable[[], Awaitable[None] | None]) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            if (waiting := what()) is not None:
                await waiting
        except Exception as error:
            log.error("housekeeping failed, going on", what=what.__name__, error=repr(error), exc_info=True)
