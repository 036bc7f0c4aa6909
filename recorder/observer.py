"""What becomes of what the pipelines tell: metrics, a look for alarms, dead letters."""

from __future__ import annotations

import asyncio
from collections import defaultdict

from recorder.alarms.board import TOGETHER_S, AlarmBoard
from recorder.bad_rows import BadRow
from recorder.flush_worker import WorkerState
from recorder.log import get_logger
from recorder.metrics import RecorderMetrics
from recorder.own_writer import OwnWriter
from recorder.reasons import by_reason
from recorder.recorded_table import RecordedTables
from recorder.sink.errors import SinkError

log = get_logger("recorder")

FAILS, FLOWS = "inserts fail, retrying", "inserts go through again"


class Observer:
    """The `PipelineObserver` of all tables. Called on the recorder's loop."""

    def __init__(self, tables: RecordedTables, metrics: RecorderMetrics, own: OwnWriter, board: AlarmBoard):
        self._tables = tables
        self._metrics = metrics
        self._own = own
        self._board = board
        self._held: set[str] = (
            set()
        )  # tables that were held since they last flowed: the alarm has told of them
        self._untold: defaultdict[str, dict[str, str]] = defaultdict(dict)  # by event: tables and why
        self._telling: asyncio.TimerHandle | None = None

    def inserted(self, table: str, rows: int, seconds: float) -> None:
        """An insert of so many rows took so long."""
        self._metrics.observe_insert(table, rows, seconds)

    def lag(self, table: str, seconds: float, rows: int) -> None:
        """So many rows became queryable so long after their acceptance."""
        self._tables[table].lag.add(seconds, rows)
        self._metrics.observe_lag(table, seconds, rows)
        self._board.late(table, seconds)

    def sink_error(self, table: str, error: SinkError) -> None:
        """An attempt failed."""
        self._metrics.sink_error(table, error.code, type(error).__name__)

    def worker_state(self, table: str, state: WorkerState, why: str) -> None:
        """A table's worker changed its state."""
        if state is WorkerState.HELD:
            self._held.add(table)
            self._board.glance()  # now: it may be mended before the next look, and is to be told all the same
        elif state is WorkerState.RETRYING:
            if table not in self._held:
                self._tell(FAILS, table, why)
        else:
            self._held.discard(table)
            self._tell(FLOWS, table, "")

    def _tell(self, event: str, table: str, why: str) -> None:
        """Say it in the log, soon, together with other tables that fare alike."""
        if event != FLOWS:
            self._untold[FLOWS].pop(table, None)  # it has passed before it was told
        self._untold[event][table] = why
        if self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(TOGETHER_S, self.tell)

    def tell(self) -> None:
        """Say now what was to be said soon: at the end."""
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None
        for why, tables in by_reason(self._untold.pop(FAILS, {})).items():
            log.warning(FAILS, tables=tables, why=why)
        if flowing := self._untold.pop(FLOWS, {}):
            log.info(FLOWS, tables=list(flowing))

    def dead_letter(self, table: str, row: BadRow) -> None:
        """A row can never be inserted."""
        self._own.dead_letter(table, row)
