"""What the recorder does every so often beside recording: gap rows, samples of its own metrics, a look whether the live
tables still are what the row classes say, one for its alarms, and one whether a database that was away is back.

Each is a supervised task: one that fails is started again, and costs the others nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from recorder.alarms.board import AlarmBoard
from recorder.contact import Contact
from recorder.log import get_logger
from recorder.metrics import RecorderMetrics
from recorder.own_rows import DEAD_LETTERS, METRICS, OWN_TABLES
from recorder.own_writer import OwnWriter
from recorder.recorded_table import RecordedTables, enabled
from recorder.return_watch import RETURN_LOOK_S, ReturnWatch
from recorder.schema_start import SchemaStart
from recorder.settings import Settings
from recorder.sink.errors import SinkError
from recorder.supervised import Supervised

log = get_logger("recorder")

ALARM_LOOK_S = 0.5
"""How often the recorder looks for what is wrong with it."""


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
        board: AlarmBoard,
        return_watch: ReturnWatch,
    ):
        self._settings = settings
        self._tables = tables
        self._own = own
        self._metrics = metrics
        self._schema = schema
        self._contact = contact
        self._board = board
        self._return_watch = return_watch
        self._tasks = [
            Supervised("gaps", lambda: _every(settings.gap_window_s, self.report_gaps)),
            Supervised("samples", lambda: _every(settings.metrics_interval_s, self._sample)),
            Supervised("schema", lambda: _every(settings.schema_check_s, self._check_schema)),
            Supervised("alarms", lambda: _every(ALARM_LOOK_S, board.look)),
            Supervised("return", lambda: _every(RETURN_LOOK_S, self._look_for_return)),
        ]

    def start(self) -> None:
        """Begin; the schema has been looked at."""
        for task in self._tasks:
            task.start()
        self._board.tasks += self._tasks

    async def close(self) -> None:
        """Do no more of it. Idempotent."""
        await asyncio.gather(*(task.close() for task in self._tasks))

    def report_gaps(self) -> None:
        """Write what was shed since the last time as gap rows, and see which alarms that raises."""
        for name, recorded in self._tables.items():
            shed = recorded.pipeline.queue.shed
            gaps = shed.take()
            if not gaps:
                continue
            refused = [gap for gap in gaps if not self._own.gap(name, gap)]
            if refused:
                shed.put_back(refused)
            if name not in OWN_TABLES or name == DEAD_LETTERS:
                log.warning(
                    "rows were shed",
                    table=name,
                    rows=sum(gap.rows for gap in gaps),
                    reasons={gap.reason: gap.rows for gap in gaps},
                )
        self._board.glance()

    def _sample(self) -> None:
        """Record the recorder's own metrics."""
        for name, value, labels in self._metrics.samples():
            self._own.put(METRICS, {"ts": time.time_ns(), "name": name, "value": value, "labels": labels})

    async def _look_for_return(self) -> None:
        """See whether a database that was away answers again."""
        if self._contact.made:
            await self._return_watch.look()

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
        if (waiting := what()) is not None:
            await waiting
