"""The recorder's inside: all tables' pipelines on one event loop, and what they share.

It starts the sink, brings the schema up, compares it with the row classes, runs the pipelines, and keeps house: gap
rows, alarms, samples of its own metrics. `Recorder` is the any-thread face of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from recorder.backoff import Backoff
from recorder.bad_rows import BadRow, refused_row
from recorder.balance import Balance
from recorder.budget import InsertBudget
from recorder.build import BatchBuilder
from recorder.door import Door, key_of
from recorder.flush_policy import FlushPolicy
from recorder.flush_worker import FlushWorker, WorkerPolicy, WorkerState
from recorder.health import HealthServer
from recorder.identity import UNDATED_NS, letter_log, new_epoch
from recorder.latency import LatencyHistogram
from recorder.log import get_logger
from recorder.metrics import RecorderMetrics, RecorderStats, SourceCounts, TableStats
from recorder.own_rows import (
    DEAD_LETTERS,
    EVENTS,
    GAPS,
    METRICS,
    OWN_TABLES,
    dead_letter_row,
    event_row,
    gap_row,
)
from recorder.pipeline import TablePipeline
from recorder.queue import Block, QueueLimits, TableQueue
from recorder.schema_start import SchemaStart
from recorder.settings import ResolvedTable, Settings
from recorder.shed import Gap, ShedLedger
from recorder.sink.base import Sink
from recorder.sink.errors import SinkError
from recorder.version import run_row, version
from schemas.pack import Pack
from schemas.policy import Overflow
from schemas.table import Table

log = get_logger("recorder")

OWN_ROWS_S = 1.0
"""The least time that closing gives the recorder's own rows, whatever the other tables took."""


CLOSE_RESERVE_S = 3.0
"""What of the time to close is kept for giving up, counting and releasing, at most a fifth of it."""
SETTLE_S = 0.3
"""The least time that closing gives the look-up of what was being inserted."""
HELD_ALARM_S = 60.0
"""A table that stays held is told again this often at most, whatever its reason becomes."""


@dataclass
class _Kept:
    """What the runtime keeps of one table beside its pipeline."""

    door: Door
    settings: ResolvedTable
    worker: FlushWorker
    lag: LatencyHistogram


class Runtime:
    """See the module. Built and used on the recorder's loop; `doors` are for producers on any thread."""

    def __init__(
        self,
        settings: Settings,
        packs: Iterable[Pack],
        sink: Sink,
        *,
        run_id: str,
        recorder_run_id: str,
    ):
        self.settings = settings
        self.packs = tuple(packs)
        self.sink = sink
        self.run_id = run_id
        self.recorder_run_id = recorder_run_id
        self.metrics = RecorderMetrics(
            read=self.stats, info={"version": version(), "config_hash": settings.config_hash}
        )
        self.started_ns = time.time_ns()
        self.server = ""
        self.sources: dict[str, Callable[[], SourceCounts]] = {}
        """By source, what it left out before it made rows."""
        self._loop = asyncio.get_running_loop()
        self._budget = InsertBudget(settings.insert_budget_per_s)
        self._tables: dict[str, _Kept] = {}
        self.pipelines: dict[str, TablePipeline] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._health: HealthServer | None = None
        self._schema: SchemaStart | None = None
        self._alarmed: dict[str, float] = {}  # when a table that does not flow was last told to be held
        for pack in self.packs:
            for table in pack.tables:
                self._add(table)

    @property
    def doors(self) -> dict[str, Door]:
        """The door of every table."""
        return {name: kept.door for name, kept in self._tables.items()}

    def _add(self, table: Table) -> None:
        settings = self.settings.for_table(table)
        name = table.name
        limits = QueueLimits(
            max_rows=settings.queue_rows,
            max_bytes=settings.queue_bytes,
            high_watermark=settings.high_watermark,
            low_watermark=settings.low_watermark,
            overflow=settings.overflow,
            overflow_second=settings.overflow_second or Overflow.DROP_OLDEST,
            block_timeout_s=settings.block_timeout_ms / 1_000,
            conflate_key=table.policy.conflate_key,
        )
        queue = TableQueue(
            limits,
            columns=len(table.columns),
            wake=partial(self._wake, name),
            shed=ShedLedger(),
            key_of=key_of(table),
        )
        builder = BatchBuilder(
            table,
            epoch=new_epoch(),
            run_id=self.run_id,
            ignore_unknown=settings.unknown_fields == "ignore",
            on_bad=lambda bad: self.pipelines[name].bad_row(bad),
        )
        pipeline = TablePipeline(
            table,
            queue=queue,
            builder=builder,
            policy=FlushPolicy(
                batch_rows=settings.batch_rows,
                batch_bytes=settings.batch_bytes,
                linger_ms=settings.linger_ms,
                linger_max_ms=settings.linger_max_ms,
            ),
            budget=self._budget,
            observer=self,
            row_of_dead=refused_row,
        )
        worker = FlushWorker(
            self.sink,
            WorkerPolicy(
                partition=table.policy.partition,
                insert_timeout_s=self.settings.insert_timeout_s,
                backoff=Backoff(self.settings.retry_initial_s, self.settings.retry_max_s),
                hold_probe_s=self.settings.hold_probe_s,
                unknown_retries=self.settings.unknown_retries,
                dead_letter_ratio=self.settings.dead_letter_ratio,
            ),
            pipeline,
            ready=partial(self._unfit, table),
        )
        self.pipelines[name] = pipeline
        door = Door(table, queue, enabled=settings.enabled)
        self._tables[name] = _Kept(door, settings, worker, LatencyHistogram())

    def _wake(self, name: str) -> None:
        """Wake a table's builder from any thread."""
        with contextlib.suppress(
            RuntimeError
        ):  # the loop is closed: the recorder is going, and counts what is left
            self._loop.call_soon_threadsafe(self.pipelines[name].wake)

    # -- lifecycle ----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Connect, bring the schema up, start every table.

        Raises:
            SinkError: the sink cannot be opened.
            SchemaError: a migration failed.
            HealthPortError: the health port cannot be opened.
        """
        try:
            await self.sink.start()
            self.server = (await self.sink.server()).version
            self._schema = SchemaStart(self.sink, self.settings, self.packs)
            await self._schema.run()
            unfit = await self._schema.unfit(self._enabled())
            for name, kept in self._tables.items():
                self.pipelines[name].start(kept.worker, held=unfit.get(name) or "")
            if self.settings.health_addr:
                self._health = HealthServer(
                    self.settings.health_addr, self, allow_remote=self.settings.health_allow_remote
                )
                await self._health.start()
        except BaseException:
            await self.abort()
            raise
        self._own("recorder_runs", run_row(self.recorder_run_id, self.settings, self.packs))
        self._tasks = [
            asyncio.create_task(self._every(self.settings.gap_window_s, self._report_gaps), name="gaps"),
            asyncio.create_task(self._every(self.settings.metrics_interval_s, self._sample), name="samples"),
            asyncio.create_task(self._every(self.settings.schema_check_s, self._check_schema), name="schema"),
        ]

    async def close(self, timeout_s: float) -> None:
        """Flush within the time given, count what is left, and release everything."""
        # What cannot be flushed must still be given up, counted and closed within the time.
        reserve_s = max(min(CLOSE_RESERVE_S, 0.2 * timeout_s), min(SETTLE_S, 0.5 * timeout_s))
        settle_s = max(SETTLE_S, reserve_s / 2)
        deadline = self._loop.time() + timeout_s - reserve_s
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                await self.flush()
        await asyncio.gather(
            *(self.pipelines[name].close(settle_s) for name in self._tables if name not in OWN_TABLES)
        )
        self._report_gaps()
        with contextlib.suppress(TimeoutError):
            # A table that hangs has used up the time, but it must not take the recorder's own rows with it.
            async with asyncio.timeout_at(max(deadline, self._loop.time() + OWN_ROWS_S)):
                await asyncio.gather(*(self._resolved_now(name) for name in OWN_TABLES))
        await self.abort()

    async def abort(self) -> None:
        """Stop without flushing; what memory held is counted as shed."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(pipeline.close(SETTLE_S) for pipeline in self.pipelines.values()))
        for name, pipeline in self.pipelines.items():
            if pipeline.lost_rows:
                log.error("rows were lost at shutdown", table=name, rows=pipeline.lost_rows)
        if self._health is not None:
            await self._health.close()
        try:
            await self.sink.close()
        except SinkError as error:
            log.error("the sink did not close", error=str(error))

    async def _unfit(self, table: Table) -> str | None:
        """Why a table cannot take rows now, or None: asked while it is held and after odd errors."""
        assert self._schema is not None
        return (await self._schema.unfit([table]))[table.name]

    def _enabled(self) -> list[Table]:
        return [kept.door.table for kept in self._tables.values() if kept.door.enabled]

    # -- rows -----------------------------------------------------------------------------------------------------

    def _own(self, table: str, row: Mapping[str, Any]) -> bool:
        """Record a row of the recorder's own. On the loop."""
        door = self._tables[table].door
        return door.queue.put((row, time.monotonic_ns(), None, door.wide_bytes(row)))

    def put_dead_letter(self, row: Mapping[str, Any]) -> bool:
        """Hand over a dead letter; one that finds no room is told in the log, and counted as shed."""
        if self._own(DEAD_LETTERS, row):
            return True
        _letter_shed(row)
        return False

    async def flush(self, tables: Iterable[str] | None = None) -> None:
        """Return when every row accepted before the call is queryable (or a queryable dead letter)."""
        names = list(self.pipelines if tables is None else tables)
        await asyncio.gather(*(self._resolved_now(name) for name in names if name not in OWN_TABLES))
        self._report_gaps()
        if EVENTS in names:
            await self._resolved_now(EVENTS)
        for name in OWN_TABLES:
            if name in names:
                await self._resolved_now(name)

    async def sync(self) -> None:
        """Return when every accepted row of a critical table is durable: without a log, inserted and confirmed."""
        await self.flush([name for name, kept in self._tables.items() if kept.door.table.policy.critical])

    def letters(self, table: str) -> tuple[int, int]:
        """So far: rows of a table that can never be inserted, and dead letters of any table that were not kept."""
        dead = self.pipelines[DEAD_LETTERS]
        queue = dead.queue
        unkept = queue.refused_rows + queue.displaced_rows + dead.dead_rows + dead.lost_rows
        return self.pipelines[table].dead_rows, unkept

    async def row_durable(self, table: str, position: int, before: tuple[int, int]) -> bool:
        """Return when the row at a queue position is resolved; False if it may be a dead letter that was not kept.

        `before` is what `letters` said when it was handed over. A row that was displaced is not noticed here.
        """
        await self.pipelines[table].resolved(position)
        bad_before, unkept_before = before
        if self.letters(table)[0] == bad_before:
            return True
        dead = self.pipelines[DEAD_LETTERS]
        if dead.queue.waiting_rows or dead.flying_rows:
            await self._resolved_now(DEAD_LETTERS)
        return self.letters(table)[1] == unkept_before

    async def _resolved_now(self, name: str) -> None:
        pipeline = self.pipelines[name]
        pipeline.nudge()
        await pipeline.resolved(pipeline.position)

    # -- house-keeping ----------------------------------------------------------------------------------------------

    async def _every(self, seconds: float, what: Callable[[], Awaitable[None] | None]) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                if (waiting := what()) is not None:
                    await waiting
            except Exception as error:
                log.error(
                    "housekeeping failed, going on", what=what.__name__, error=repr(error), exc_info=True
                )

    async def _check_schema(self) -> None:
        """Hold the tables that no longer fit their row classes, and release idle ones that do again."""
        assert self._schema is not None
        try:
            unfit = await self._schema.unfit(self._enabled())
        except SinkError as error:
            log.warning("the live tables could not be compared", error=str(error))
            return
        for name, why in unfit.items():
            self._tables[name].worker.unfit(why)

    def _report_gaps(self) -> None:
        """Write what was shed since the last time as gap rows, and raise the alarms."""
        for name, pipeline in self.pipelines.items():
            gaps = pipeline.queue.shed.take()
            if not gaps:
                continue
            refused = [gap for gap in gaps if not self._own(GAPS, gap_row(self.recorder_run_id, name, gap))]
            if refused:
                pipeline.queue.shed.put_back(refused)
            if name not in OWN_TABLES or name == DEAD_LETTERS:
                self._alarm_shed(pipeline, gaps)

    def _alarm_shed(self, pipeline: TablePipeline, gaps: list[Gap]) -> None:
        table = pipeline.table
        rows = sum(gap.rows for gap in gaps)
        reasons = {gap.reason: gap.rows for gap in gaps}
        if table.policy.critical:
            log.critical("critical rows were shed", table=table.name, rows=rows, reasons=reasons)
            kind, severity = "RecorderDataLoss", "critical"
        else:
            log.warning("rows were shed", table=table.name, rows=rows, reasons=reasons)
            kind, severity = "RecorderShedding", "warning"
        self._own(
            EVENTS, event_row(kind, severity, table.name, f"{table.name}: {rows} rows were shed", reasons)
        )

    def _sample(self) -> None:
        """Record the recorder's own metrics."""
        for name, value, labels in self.metrics.samples():
            self._own(METRICS, {"ts": time.time_ns(), "name": name, "value": value, "labels": labels})

    # -- what the pipelines tell (PipelineObserver) -----------------------------------------------------------------

    def inserted(self, table: str, rows: int, seconds: float) -> None:
        """An insert of so many rows took so long."""
        self.metrics.observe_insert(table, rows, seconds)

    def lag(self, table: str, seconds: float, rows: int) -> None:
        """So many rows became queryable so long after their acceptance."""
        self._tables[table].lag.add(seconds, rows)
        self.metrics.observe_lag(table, seconds, rows)

    def sink_error(self, table: str, error: SinkError) -> None:
        """An attempt failed."""
        self.metrics.sink_error(table, error.code, type(error).__name__)

    def worker_state(self, table: str, state: WorkerState, why: str) -> None:
        """A table's worker changed its state."""
        if state is WorkerState.HELD:
            now_s = time.monotonic()
            if now_s - self._alarmed.get(table, -HELD_ALARM_S) < HELD_ALARM_S:
                return
            self._alarmed[table] = now_s
            log.error("table is held", table=table, why=why)
            self._own(EVENTS, event_row("RecorderFailure", "error", table, f"{table} is held: {why}"))
        elif state is WorkerState.RETRYING:
            if table not in self._alarmed:
                log.warning("inserts fail, retrying", table=table, why=why)
        else:
            self._alarmed.pop(table, None)
            log.info("inserts go through again", table=table)

    def dead_letter(self, table: str, row: BadRow) -> None:
        """A row can never be inserted."""
        if table == DEAD_LETTERS:
            log.critical("a dead letter cannot be recorded", reason=row.reason, detail=row.detail)
            return
        letter = dead_letter_row(self.recorder_run_id, table, row)
        if row.log == self.pipelines[table].epoch:
            self.put_dead_letter(letter)
            return
        # A source delivers its bad rows again too: with their identity and time the letter is kept once.
        door = self._tables[DEAD_LETTERS].door
        letter["ts_local"] = row.ts_local or UNDATED_NS
        log_id = letter_log(row.log, table)
        block = Block([letter], time.monotonic_ns(), log_id, [row.seq], door.wide_bytes(letter))
        if not door.queue.put_block(block, wait=False):
            _letter_shed(letter)

    # -- what it tells ------------------------------------------------------------------------------------------------

    def balance(self) -> dict[str, Balance]:
        """Where every table's rows are."""
        return {name: pipeline.balance() for name, pipeline in self.pipelines.items()}

    def stats(self) -> RecorderStats:
        """What the metrics show."""
        filtered, ignored = Counter[str](), Counter[str]()
        undecodable: dict[str, int] = {}
        for source, ask in self.sources.items():
            counts = ask()
            filtered.update(counts.filtered)
            ignored.update(counts.ignored)
            undecodable[source] = counts.undecodable
        return RecorderStats(
            tables=[self._table_stats(name) for name in self.pipelines],
            filtered=filtered,
            ignored=ignored,
            undecodable=undecodable,
        )

    def _table_stats(self, name: str) -> TableStats:
        pipeline, door = self.pipelines[name], self._tables[name].door
        balance = pipeline.balance()
        rows = balance.as_dict()
        pending = rows.pop("pending")
        return TableStats(
            table=name,
            critical=door.table.policy.critical,
            queue_rows=pipeline.queue.waiting_rows,
            queue_bytes=pipeline.queue.waiting_bytes,
            queue_usage=pipeline.queue.usage(),
            pending_rows=pending,
            rows=rows | {"filtered": door.filtered_rows},
            shed=dict(pipeline.queue.shed.totals),
            held=pipeline.state is WorkerState.HELD,
            last_insert_s=(pipeline.last_insert_ns or 0) / 1e9,
        )

    def sick(self) -> list[str]:
        """What is broken inside the process; empty when all is well."""
        return [
            f"{name}: {fault}" for name, pipeline in self.pipelines.items() if (fault := pipeline.fault())
        ]

    def unready(self) -> list[str]:
        """Why rows do not reach the database; empty when they do."""
        return [
            f"{name} is {pipeline.state.value}: {pipeline.why_held or pipeline.last_error}"
            for name, pipeline in self.pipelines.items()
            if pipeline.state is not WorkerState.FLOWING and self._tables[name].door.enabled
        ]

    def status(self) -> dict[str, Any]:
        """State of everything, ready for JSON."""
        return {
            "version": version(),
            "recorder_run_id": self.recorder_run_id,
            "run_id": self.run_id,
            "started_ns": self.started_ns,
            "target": str(self.settings.target),
            "database": self.settings.database,
            "server": self.server,
            "config_hash": self.settings.config_hash,
            "health": self._health.url if self._health else None,
            "balance": {name: balance.as_dict() for name, balance in self.balance().items()},
            "tables": {name: self._table_status(name) for name in self.pipelines},
        }

    def _table_status(self, name: str) -> dict[str, Any]:
        pipeline, kept = self.pipelines[name], self._tables[name]
        return {
            "enabled": kept.door.enabled,
            "critical": kept.door.table.policy.critical,
            "state": pipeline.state.value,
            "held_because": pipeline.why_held,
            "queue_rows": pipeline.queue.waiting_rows,
            "queue_bytes": pipeline.queue.waiting_bytes,
            "queue_usage": round(pipeline.queue.usage(), 4),
            "inserts": pipeline.inserts,
            "lag": kept.lag.summary(),
            "shed": dict(pipeline.queue.shed.totals),
            "filtered_rows": kept.door.filtered_rows,
            "unknown_fields": pipeline.unknown_fields,
            "errors": {str(code): count for code, count in pipeline.errors.items()},
            "last_error": pipeline.last_error,
            "last_insert_ns": pipeline.last_insert_ns,
        }


def _letter_shed(letter: Mapping[str, Any]) -> None:
    """Say which dead letter was shed; not what is in it, which may be long or secret."""
    log.critical(
        "a dead letter was shed",
        table=letter.get("table_name"),
        reason=letter.get("reason"),
        source_log=letter.get("source_log"),
        source_seq=letter.get("source_seq"),
        payload_bytes=len(letter.get("payload") or b""),
    )
