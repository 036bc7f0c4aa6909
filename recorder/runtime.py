"""The recorder's inside: all tables' pipelines on one event loop, and what they share.

It puts the parts together, starts the sink, brings the schema up, compares it with the row classes, runs the
pipelines, and stops them in order. `Recorder` is the any-thread face of it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from recorder import unread_logs
from recorder.alarms.alarm import Alarm
from recorder.alarms.board import AlarmBoard
from recorder.archive_look import RecorderArchive
from recorder.backlog import QueueLimits
from recorder.backoff import Backoff
from recorder.bad_rows import refused_row
from recorder.balance import Balance
from recorder.breather import Breather
from recorder.budget import InsertBudget
from recorder.build import BatchBuilder
from recorder.contact import Contact
from recorder.door import Door, key_of
from recorder.elsewhere import elsewhere_of
from recorder.flush_policy import FlushPolicy
from recorder.flush_worker import FlushWorker, WorkerPolicy, WorkerState
from recorder.given_up import GivenUp, given_up_of, tell_lost
from recorder.housekeeping import Housekeeping
from recorder.identity import new_epoch
from recorder.log import get_logger
from recorder.log_disk_care import LogDiskCare
from recorder.log_disk_drop import drop_oldest
from recorder.log_setup import disk_limits, log_options
from recorder.logs import Logs
from recorder.loop_watch import LoopWatch
from recorder.metrics import RecorderMetrics
from recorder.observer import Observer
from recorder.own_rows import DEAD_LETTERS, EVENTS, GAPS, OWN_TABLES, RUNS
from recorder.own_writer import OwnWriter
from recorder.pipeline import TablePipeline
from recorder.queue import TableQueue
from recorder.recorded_table import RecordedTable, enabled
from recorder.return_watch import ReturnWatch
from recorder.schema_start import SchemaStart
from recorder.settings import ResolvedTable, Settings
from recorder.settling import Settling
from recorder.shed import ShedLedger
from recorder.sink.base import Sink
from recorder.sink.errors import SinkError
from recorder.stats import SourceCounts
from recorder.status import Status, stats
from recorder.supervised import Supervised
from recorder.table_log import HUNG_CLOSE_S
from recorder.version import run_row, version
from schemas.pack import Pack
from schemas.policy import Durability, Overflow
from schemas.renames import Renames
from schemas.table import Table

log = get_logger("recorder")

OWN_ROWS_S = 1.0
"""The least time that closing gives the recorder's own rows, whatever the other tables took."""

if TYPE_CHECKING:
    from recorder.health import HealthServer

HELD_OWN_S = 0.5
"""What closing gives the recorder's own rows of a held table, after which nobody else is kept waiting for them."""
CLOSE_RESERVE_S = 3.0
"""What of the time to close is kept for giving up, counting and releasing, at most a fifth of it."""
FLOWING_LOOK_S = 0.1
"""How often closing looks whether the database still takes what is on the log."""
LOG_CARE_S = 2.0
"""How often the logs are cared for."""
LOG_DISK_LOOK_S = 0.5
"""How often their disks are looked at."""
SETTLE_S = 0.3
"""The least time that closing gives the look-up of what was being inserted."""


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
        wait_for_database: bool = False,
        logs_of: Collection[str] | None = None,
    ):
        self.sink = sink
        self.sources: dict[str, Callable[[], SourceCounts]] = {}
        """By source, what it left out before it made rows."""
        self.tables: dict[str, RecordedTable] = {}
        self._settings = settings
        self._packs = tuple(packs)
        self._run_id = run_id
        self._recorder_run_id = recorder_run_id
        self._loop = asyncio.get_running_loop()
        self._budget = InsertBudget(settings.insert_budget_per_s)
        self._backoff = Backoff(settings.retry_initial_s, settings.retry_max_s)
        self._breathe = Breather.of_switch_interval(settings.switch_interval_s)
        self._schema = SchemaStart(sink, settings, self._packs)
        self.contact = Contact(sink, self._schema, self._backoff)
        self._wait_for_database = wait_for_database
        self._archive = RecorderArchive(settings)
        self._logs_of = logs_of
        self._hurried = asyncio.Event()
        self.stuck = False
        """Whether calls of the sink still run after `close`."""
        self._own = OwnWriter(self.tables, recorder_run_id)
        self._loop_watch = LoopWatch(stall_s=settings.loop_stall_s)
        self.board = AlarmBoard(
            settings,
            self.tables,
            self._own,
            contact=self.contact,
            sources=self.sources,
            loop_watch=self._loop_watch,
        )
        metrics = RecorderMetrics(
            read=partial(stats, self.tables, self.sources, self.board),
            info={"version": version(), "config_hash": settings.config_hash},
        )
        self.health = Status(
            settings,
            self.tables,
            metrics,
            contact=self.contact,
            sources=self.sources,
            board=self.board,
            run_id=run_id,
            recorder_run_id=recorder_run_id,
        )
        self._health_server: HealthServer | None = None
        self._cares: list[Supervised] = []
        """Of the logs, and of their disks."""
        self._unread: asyncio.Task[None] | None = None
        self._observer = Observer(self.tables, metrics, self._own, self.board)
        self._housekeeping = Housekeeping(
            settings,
            self.tables,
            own=self._own,
            metrics=metrics,
            schema=self._schema,
            contact=self.contact,
            board=self.board,
            return_watch=ReturnWatch(sink, self.tables),
        )
        self.logs: Logs | None = None
        if settings.wal:
            first, *more = settings.log_folders
            self.logs = Logs(
                first,
                log_options(settings),
                group_ms=settings.wal_group_ms,
                grace_s=settings.wal_grace_s,
                second=more[0] if more else None,
            )
        try:
            for pack in self._packs:
                for table in pack.tables:
                    self.tables[table.name] = self._recorded(table, pack.renames.get(table.name, ()))
        except BaseException:
            if self.logs is not None:
                self.logs.abandon()
            raise
        self.pipelines = {name: recorded.pipeline for name, recorded in self.tables.items()}
        self.settling = Settling(self.pipelines)
        self.log_disk: LogDiskCare | None = None
        if self.logs is not None:
            self.log_disk = LogDiskCare(
                [(folder, disk_limits(settings, folder)) for folder in settings.log_folders],
                self.logs.tables,
                reserve_bytes=settings.wal_reserve_bytes,
                drop=partial(drop_oldest, self.pipelines)
                if settings.wal_emergency == "drop_oldest"
                else None,
                alarmed=lambda: self.board.stands(Alarm.WAL_DISK),
            )
            self.board.log_disk = self.health.log_disk = self.log_disk

    @property
    def doors(self) -> dict[str, Door]:
        """The door of every table."""
        return {name: recorded.door for name, recorded in self.tables.items()}

    def _recorded(self, table: Table, renames: Renames) -> RecordedTable:
        """The parts of one table, put together."""
        settings = self._settings.for_table(table)
        wal = None
        logs = table.policy.durability is not Durability.MEMORY
        if self.logs is not None and logs and self._may_log(table.name):
            letters = partial(self._letters_durable, table.name)
            wal = self.logs.open(
                table,
                letters_durable=letters,
                gaps_durable=self._gaps_durable,
                batch_rows=settings.batch_rows,
                renames=renames,
            )
        queue = TableQueue(
            _limits(table, settings),
            columns=len(table.columns),
            wake=partial(self._wake, table.name),
            shed=ShedLedger(),
            key_of=key_of(table),
        )
        pipeline = TablePipeline(
            table,
            queue=queue,
            builder=BatchBuilder(
                table,
                epoch=new_epoch() if wal is None else wal.writer.epoch,
                run_id=self._run_id,
                ignore_unknown=settings.unknown_fields == "ignore",
                on_bad=lambda bad: pipeline.bad_row(bad),
                breathe=self._breathe,
                on_slice=wal.append if wal is not None and wal.always else None,
            ),
            policy=_flush_policy(settings),
            budget=self._budget,
            observer=self._observer,
            row_of_dead=refused_row,
            wal=wal,
            elsewhere=elsewhere_of(table, self.sink, self._settings, self._archive),
        )
        worker = FlushWorker(
            self.sink,
            WorkerPolicy(
                partition=table.policy.partition,
                insert_timeout_s=self._settings.insert_timeout_s,
                backoff=self._backoff,
                hold_probe_s=self._settings.hold_probe_s,
                unknown_retries=self._settings.unknown_retries,
                dead_letter_ratio=self._settings.dead_letter_ratio,
            ),
            pipeline,
            ready=partial(self._unfit, table),
            seals=wal,
        )
        return RecordedTable(Door(table, queue, enabled=settings.enabled), pipeline, worker)

    def _may_log(self, name: str) -> bool:
        return self._logs_of is None or name in self._logs_of or name in OWN_TABLES

    def _wake(self, name: str) -> None:
        """Wake a table's builder from any thread."""
        # Suppressed: the loop is closed, the recorder is going, and counts what is left.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self.pipelines[name].wake)

    async def _letters_durable(self, table: str) -> None:
        """Return when the dead letters that there are now are durable."""
        if table != DEAD_LETTERS:
            dead = self.pipelines[DEAD_LETTERS]
            await dead.durable(dead.position)

    async def _gaps_durable(self) -> None:
        """Return when it is durable what was shed until now."""
        self._housekeeping.report_gaps()
        await self._durable_now(GAPS)

    async def _unfit(self, table: Table) -> str | None:
        """Why a table cannot take rows now, or None: asked while it is held and after odd errors."""
        return (await self._schema.unfit([table]))[table.name]

    # -- lifecycle ----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Connect, bring the schema up, start every table.

        With `wait_for_database` a database that does not answer is tried again for as long as it takes, and every
        table begins once it does.

        Raises:
            SinkError: the sink cannot be opened.
            SchemaError: a migration failed.
            HealthPortError: the health port cannot be opened.
        """
        try:
            await self.contact.make(lambda: enabled(self.tables), wait=self._wait_for_database)
            for recorded in self.tables.values():
                recorded.pipeline.start(recorded.worker, contact=self.contact)
            await self._open_health_port()
        except BaseException:
            await self.abort()
            raise
        self._own.put(RUNS, run_row(self._recorder_run_id, self._settings, self._packs))
        self._loop_watch.start()
        self._housekeeping.start()
        if self.logs is not None:
            self._cares.append(Supervised("log care", partial(self._care_for_logs, self.logs)))
        if self.log_disk is not None:
            self._cares.append(Supervised("log disk", partial(self._care_for_disk, self.log_disk)))
        for care in self._cares:
            care.start()
        self.board.tasks += self._cares
        if self._logs_of is None:
            self._unread = asyncio.create_task(self._look_for_unread_logs(), name="unread logs")

    async def _look_for_unread_logs(self) -> None:
        """Tell of rows on logs that nobody reads here."""
        tables = {name: recorded.table for name, recorded in self.tables.items()}
        read = frozenset(self.logs.tables if self.logs is not None else ())
        look = partial(
            unread_logs.unread_logs,
            self._settings.log_folders,
            tables,
            read=read,
        )
        try:
            found = await asyncio.to_thread(look)
        except OSError as error:
            log.warning("the logs of earlier runs cannot be looked at", error=str(error))
            return
        unread_logs.tell(found)
        self.health.unread_logs = unread_logs.as_status(found)

    async def _care_for_logs(self, logs: Logs) -> None:
        """Notice restarts of the database, settle, write checkpoints, purge."""
        recheck = {name: pipeline.recheck for name, pipeline in self.pipelines.items()}
        while True:
            if self.contact.made:
                await logs.look_at(self.sink, recheck)
            await logs.tidy()
            await asyncio.sleep(LOG_CARE_S if self.contact.made else LOG_CARE_S / 10)

    @staticmethod
    async def _care_for_disk(care: LogDiskCare) -> None:
        """See how full the disks of the logs are, and do what follows: beside what may wait for the database."""
        while True:
            await care.look()
            await asyncio.sleep(LOG_DISK_LOOK_S)

    async def _open_health_port(self) -> None:
        if not self._settings.health_addr:
            return
        from recorder.health import HealthServer  # its HTTP server takes a quarter of a second to import

        self._health_server = HealthServer(
            self._settings.health_addr, self.health, allow_remote=self._settings.health_allow_remote
        )
        await self._health_server.start()
        self.health.health_url = self._health_server.url

    async def close(self, timeout_s: float) -> None:
        """Flush within the time given, count what is left, and release everything."""
        # What cannot be flushed must still be given up, counted and closed within the time.
        reserve_s = max(min(CLOSE_RESERVE_S, 0.2 * timeout_s), min(SETTLE_S, 0.5 * timeout_s))
        settle_s = max(SETTLE_S, reserve_s / 2)
        deadline = self._loop.time() + (timeout_s - reserve_s if self.contact.made else 0.0)
        await self._housekeeping.close()
        await self._unless_hurried(self._others_resolved(), deadline)
        await asyncio.gather(
            *(self.pipelines[name].close(settle_s) for name in self.tables if name not in OWN_TABLES)
        )
        self._housekeeping.report_gaps()
        # A table that hangs has used up the time, but it must not take the recorder's own rows with it.
        hanging = self.logs is not None and self.logs.hanging()  # then nothing of them is sealed, or gets in
        own_s = OWN_ROWS_S if self.contact.made and not hanging else 0.0
        await self._unless_hurried(self._own_resolved(), max(deadline, self._loop.time() + own_s))
        await self.abort()

    async def _unless_hurried(self, work: Awaitable[object], deadline: float) -> None:
        """Wait for work until it is done, its time is over, or whoever closes is in a hurry."""
        task = asyncio.ensure_future(work)
        hurried = asyncio.create_task(self._hurried.wait())
        left_s = max(0.0, deadline - self._loop.time())
        await asyncio.wait({task, hurried}, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        for ended in (task, hurried):
            ended.cancel()
        await asyncio.gather(task, hurried, return_exceptions=True)

    async def _others_resolved(self) -> None:
        """Return when all rows but the recorder's own are resolved, or on the log while the database takes none."""
        await asyncio.gather(*(self._safe_now(name) for name in self.tables if name not in OWN_TABLES))

    async def _safe_now(self, name: str) -> None:
        pipeline = self.pipelines[name]
        resolved = asyncio.ensure_future(self._resolved_now(name))
        try:
            if pipeline.wal is not None:
                await self._durable_now(name)
                while not resolved.done() and pipeline.state is WorkerState.FLOWING:
                    await asyncio.wait({resolved}, timeout=FLOWING_LOOK_S)
            else:
                await resolved
        finally:
            resolved.cancel()
            await asyncio.gather(resolved, return_exceptions=True)

    async def _own_resolved(self) -> None:
        """Return when the recorder's own rows are resolved, or wait for tables that are held."""
        flush = asyncio.create_task(self.flush(OWN_TABLES))
        try:
            flowing_s = self._loop.time()
            while not flush.done() and self._loop.time() - flowing_s < HELD_OWN_S:
                await asyncio.wait({flush}, timeout=HELD_OWN_S / 5)
                if not self._only_held_own():
                    flowing_s = self._loop.time()
        finally:
            flush.cancel()
            await asyncio.gather(flush, return_exceptions=True)

    def _only_held_own(self) -> bool:
        """Whether rows wait in held tables alone."""
        waiting = [pipe for pipe in self.pipelines.values() if pipe.queue.waiting_rows or pipe.flying_rows]
        return all(pipeline.state is WorkerState.HELD for pipeline in waiting)

    def hurry(self) -> None:
        """Let a `close` under way flush no more."""
        self._hurried.set()

    async def abort(self) -> None:
        """Stop without flushing; what memory held is counted as shed."""
        await self.contact.close()
        await self._housekeeping.close()
        self._loop_watch.close()
        if self._unread is not None:
            self._unread.cancel()
        for care in self._cares:
            await care.close()
        await self.settling.close()
        await asyncio.gather(*(pipeline.close(SETTLE_S) for pipeline in self.pipelines.values()))
        hanging = self.logs is not None and self.logs.hanging()
        if self.logs is not None:
            await self.logs.close()
        if self.log_disk is not None:
            await self.log_disk.close(HUNG_CLOSE_S if hanging else 1.0)
        self._observer.tell()
        self.board.tell()
        tell_lost(self.given_up(), lambda table: self.contact.why or self.pipelines[table].why_held)
        if self._health_server is not None:
            await self._health_server.close()
        try:
            await self.sink.close()
        except SinkError as error:
            self.stuck = True
            log.error("the database was left with calls under way", why=str(error))

    def given_up(self) -> dict[str, GivenUp]:
        """Of tables that had rows to give up at the end: what is lost, and what comes again."""
        return given_up_of(self.pipelines, self.settling)

    # -- waiting for rows -------------------------------------------------------------------------------------------

    async def flush(self, tables: Iterable[str] | None = None) -> None:
        """Return when every row accepted before the call is queryable (or a queryable dead letter).

        So are the gap rows and dead letters that these rows caused, whatever table they are of.
        """
        names = list(self.pipelines if tables is None else tables)
        await asyncio.gather(*(self._resolved_now(name) for name in names if name not in OWN_TABLES))
        self._housekeeping.report_gaps()
        for name in OWN_TABLES:
            if name == GAPS:
                self._housekeeping.report_gaps()  # of the recorder's own tables before it
            if name in names:
                await self._resolved_now(name)
        # Dead letters that found no room are gaps too, and told in an event.
        self._housekeeping.report_gaps()
        for name in (GAPS, EVENTS):
            if name in names:
                await self._resolved_now(name)

    async def sync(self) -> None:
        """Return when every accepted row of a critical table is durable: without a log, inserted and confirmed.

        So are the gap rows and dead letters that these rows caused.
        """
        names = [name for name, recorded in self.tables.items() if recorded.table.policy.critical]
        if self.logs is None:
            await self.flush(names)
            return
        await asyncio.gather(*(self._durable_now(name) for name in names if name not in OWN_TABLES))
        self._housekeeping.report_gaps()
        for name in OWN_TABLES:
            if name in names:
                await self._durable_now(name)

    async def _durable_now(self, name: str) -> None:
        pipeline = self.pipelines[name]
        await pipeline.durable(pipeline.position)

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
        await self.pipelines[table].durable(position)
        bad_before, unkept_before = before
        if self.letters(table)[0] == bad_before:
            return True
        dead = self.pipelines[DEAD_LETTERS]
        if dead.queue.waiting_rows or dead.flying_rows:
            await self._durable_now(DEAD_LETTERS)
        return self.letters(table)[1] == unkept_before

    async def _resolved_now(self, name: str) -> None:
        pipeline = self.pipelines[name]
        pipeline.nudge()
        await pipeline.resolved(pipeline.position)

    def change(self, changes: Mapping[str, ResolvedTable]) -> None:
        """Let tables go on with other settings, as far as those can change while rows are under way."""
        for name, settings in changes.items():
            recorded = self.tables[name]
            recorded.door.enabled = settings.enabled
            limits = _limits(recorded.table, settings)
            if limits != recorded.pipeline.queue.limits:
                recorded.pipeline.queue.change(limits)
            recorded.pipeline.change(_flush_policy(settings))

    # -- what it tells ------------------------------------------------------------------------------------------------

    def event(self, kind: str, severity: str, component: str, message: str) -> None:
        """Tell in `system_events` of something that happened to the recorder or its infrastructure."""
        self._own.event(kind, severity, component, message)

    def balance(self) -> dict[str, Balance]:
        """Where every table's rows are."""
        return self.health.balance()

    def status(self) -> dict[str, Any]:
        """State of everything, ready for JSON."""
        return self.health.status()


def _flush_policy(settings: ResolvedTable) -> FlushPolicy:
    return FlushPolicy(
        batch_rows=settings.batch_rows,
        batch_bytes=settings.batch_bytes,
        linger_ms=settings.linger_ms,
        linger_max_ms=settings.linger_max_ms,
    )


def _limits(table: Table, settings: ResolvedTable) -> QueueLimits:
    return QueueLimits(
        max_rows=settings.queue_rows,
        max_bytes=settings.queue_bytes,
        high_watermark=settings.high_watermark,
        low_watermark=settings.low_watermark,
        overflow=settings.overflow,
        overflow_second=settings.overflow_second or Overflow.DROP_OLDEST,
        block_timeout_s=settings.block_timeout_ms / 1_000,
        conflate_key=table.policy.conflate_key,
    )
