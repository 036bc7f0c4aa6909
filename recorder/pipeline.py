"""One table's way from its door to its sink: queue, builder, lane, worker; its account says what became of rows.

Two supervised tasks on the recorder's loop: the *builder's* drains the queue, builds slices and cuts batches that are
due (`recorder.cutting`); the *worker's* takes cuts from the lane, has read back what stands on the log alone, takes out
what has left the table (`recorder.gone_rows`), and gets the rest in. The lane's memory is bounded, so that a sink that
stands still fills the lane, then the queue, and then the queue's overflow policy decides, where no log takes the rows;
nothing else of the recorder waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import pyarrow as pa

from recorder.account import PipelineObserver, TableAccount
from recorder.alarms.stillness import Work
from recorder.bad_rows import BadRow
from recorder.batch import Batch
from recorder.budget import InsertBudget
from recorder.build import BatchBuilder
from recorder.contact import Contact
from recorder.cutting import Cutter
from recorder.earlier_stats import EarlierStats
from recorder.elsewhere import Elsewhere
from recorder.entries import Waiting
from recorder.flush_policy import NS_PER_S, FlushPolicy
from recorder.flush_worker import FlushWorker, WorkerState
from recorder.gone_rows import GoneRows
from recorder.lane import Cut, Lane
from recorder.log_read_back import read_back
from recorder.pulse import Pulse
from recorder.queue import TableQueue
from recorder.sink.errors import DataError
from recorder.spill import Spill
from recorder.stats import TableLogStats
from recorder.supervised import Supervised
from recorder.table_log import TableLog
from schemas.policy import Overflow
from schemas.table import Table
from wal.places import Range


class Load(NamedTuple):
    """How a table fares: the fullness of its queue, 0 to 1, a number that grows as rows get in, its worker's state, and
    whether it must not lose rows."""

    usage: float
    moved: int
    state: WorkerState
    keeps: bool


class TablePipeline(TableAccount):
    """See the module. Everything but the queue's `put` happens on the recorder's loop.

    It keeps its own account: that is what its worker tells, and what others read of it.
    """

    def __init__(
        self,
        table: Table,
        *,
        queue: TableQueue,
        builder: BatchBuilder,
        policy: FlushPolicy,
        budget: InsertBudget,
        observer: PipelineObserver,
        row_of_dead: Callable[[pa.RecordBatch, DataError], BadRow],
        wal: TableLog | None = None,
        elsewhere: Elsewhere | None = None,
    ):
        super().__init__(table, queue, observer=observer, row_of_dead=row_of_dead)
        self.wal = wal
        """Where its rows are safe before the database has them; None where they are in memory alone."""
        self._builder = builder
        self._worker: FlushWorker | None = None
        self._contact: Contact | None = None
        self.supervised: tuple[Supervised, ...] = ()
        """Its tasks, once it has started and until it is closed."""
        self._pulse = Pulse() if wal is None else wal.pulse
        self._lane = Lane(policy.batch_rows, self._pulse)
        if wal is not None:
            self._lane.readable = wal.reading.readable
        self._gone = GoneRows(elsewhere, self, self._lane, wal)
        self._spill = Spill(wal, self._lane, queue) if wal is not None and not wal.always else None
        self._cutter = Cutter(queue, builder, policy, budget, self, self._lane, wal=wal, on_log=self._on_log)
        self._current: Cut | None = None  # what the worker is at, until all of it is resolved
        self._taken_up = False  # what earlier runs left on the log
        self._written_off = False  # it is closed: nothing waits any more

    # -- lifecycle ----------------------------------------------------------------------------------------------

    def start(self, worker: FlushWorker, *, contact: Contact | None = None) -> None:
        """Start both tasks. The worker waits for the first contact with the database, and until its table is fit."""
        self._worker = worker
        self._contact = contact
        if contact is not None and not contact.made:
            self.state = WorkerState.RETRYING
        name = self.table.name
        self.supervised = (
            Supervised("builder", self._cutter.run, table=name, died=self._task_died),
            Supervised("worker", self._work_forever, table=name, died=self._task_died),
        )
        for task in self.supervised:
            task.start()

    async def close(self, settle_s: float = 0.0) -> None:
        """Stop both tasks; rows not resolved by now are counted as lost. Call `flush` first.

        What was being inserted is looked up, for at most `settle_s`, before it is given up.
        """
        if self._written_off:
            return
        await asyncio.gather(*(task.close() for task in self.supervised))
        await self._gone.close()
        unknown = await self._worker.settle(settle_s) if self._worker and self.supervised else 0
        self.supervised = ()
        self.queue.close()
        oldest_ns = self.oldest_waiting_ns()
        left = self._cutter.take_rest()
        kept = 0 if self.wal is None else await self._log_the_rest(self.wal, left)
        self._write_off(oldest_ns, unknown, kept)
        self._written_off = True

    async def _log_the_rest(self, wal: TableLog, left: Sequence[Waiting]) -> int:
        """Bring what waited into the log; how many rows are on it now and not in the database, or not known to be."""
        unlogged = await self._cutter.build_rest(left)
        if self._spill is None:
            unlogged += wal.unlogged_rows
        else:
            self._spill.memory(self._worker)
            with contextlib.suppress(Exception):
                unlogged += self._builder.rows
                for batch in self._builder.seal():
                    unlogged -= batch.rows if wal.spill(batch).places else 0
        unlogged += sum(self._unlogged_rows(cut) for cut in self._lane.unresolved())
        return max(0, self.flying_rows - unlogged - await wal.close())

    def _unlogged_rows(self, cut: Cut) -> int:
        """Rows that are not resolved, and that the log did not take."""
        batches = cut.batches
        if batches and self._worker is not None and self._worker.began(batches[0]):
            batches = [*self._worker.left(), *batches[1:]]
        return sum(batch.rows for batch in batches if not batch.places)

    def state_changed(self, state: WorkerState, why: str) -> None:
        """The worker's state changed."""
        super().state_changed(state, why)
        if self._spill is not None and state is not WorkerState.FLOWING:
            self._spill.memory(self._worker)

    def _on_log(self, cut: Cut) -> bool:
        """Put a new cut on the log if it is to go there; whether it is on it, or never goes there by itself."""
        return self._spill is None or self._spill.takes(cut, self.state, self._worker)

    def _task_died(self, why: str) -> None:
        self.last_error = why

    def fault(self) -> str:
        """What is broken in it: a task that is gone, or one that died and waits to be started; empty when none is."""
        return "; ".join(filter(None, (task.down() for task in self.supervised)))

    # -- how it fares -------------------------------------------------------------------------------------------

    @property
    def linger_s(self) -> float:
        """The longest that its rows may wait for company, in seconds."""
        return self._cutter.linger_s

    def oldest_waiting_ns(self) -> int | None:
        """Acceptance (monotonic) of the oldest row that is not resolved; None where none waits."""
        if self._written_off:
            return None
        if self._current is not None and self._current.batches:
            return self._current.batches[0].accepted_ns
        oldest_ns = self._lane.oldest_ns()
        return oldest_ns if oldest_ns is not None else self._cutter.oldest_ns()

    @property
    def asking_why(self) -> str:
        """Why rows wait that may have left the table: the database does not say where they are. Empty while it does."""
        return self._gone.asking_why

    def at_work(self) -> Work | None:
        """Which of its tasks has work, and how much of it was done; None where none has, or before first contact."""
        if self._written_off or (self._contact is not None and not self._contact.made):
            return None
        # Who waits for an archive's answer is not stuck: that has its own patience, and a large one takes its time.
        if self._gone.asks if self._current is not None else self._gone.asks_beside:
            return None
        if self._current is not None or self._lane.waiting:
            return Work("worker", self.told + self.resolved_upto)
        if self._cutter.oldest_ns() is not None:
            return Work("builder", self._cutter.progress)
        return None

    def log_stats(self) -> TableLogStats | None:
        """How its log stands; None without one."""
        if self.wal is None:
            return None
        stats = self.wal.writer.stats()
        earlier = self.wal.reading.earlier
        return TableLogStats(
            unsynced_rows=stats.unsynced_rows,
            unsynced_s=stats.unsynced_age_s,
            disk_bytes=stats.disk_bytes,
            segments=stats.segments,
            backlog_rows=self._lane.backlog_rows + (earlier.rows if earlier is not None else 0),
            refused_rows=self.wal.refused_rows,
            failures=stats.failures,
        )

    def earlier_stats(self) -> EarlierStats | None:
        """How far what earlier runs left on its log has come; None without one."""
        wal = self.wal
        if wal is None:
            return None
        confirmed = [one for one in wal.done.checkpoint.confirmed if one.range.epoch != wal.writer.epoch]
        idle = self._current is None and not self._lane.waiting
        return EarlierStats(
            inserted=self.earlier.inserted,
            there=self.earlier.there,
            dead_lettered=self.earlier.dead_lettered,
            expired=self.earlier.expired,
            restored=self.restored_rows,
            kept=wal.reading.left_rows,
            kept_why=wal.reading.left_why,
            unread=wal.reading.unread,
            unsettled=sum(one.range.rows for one in confirmed),
            # What another run of the database confirmed is looked up, too.
            done=self._taken_up
            and wal.reading.earlier is None
            and idle
            and all(one.server == wal.done.server or wal.reading.left.covers(one.range) for one in confirmed),
            why=self.why_held
            or self.asking_why
            or "; ".join(filter(None, (task.trouble() for task in self.supervised)))
            or (self.last_error if self.state is WorkerState.RETRYING else ""),
        )

    # -- worker -------------------------------------------------------------------------------------------------

    async def _work_forever(self) -> None:
        assert self._worker is not None
        unfit = ""
        if self._contact is not None:
            unfit = await self._contact.unfit(self.table.name)
            self.state, self._contact = WorkerState.FLOWING, None
            if unfit:
                self._worker.unfit(unfit)
        if self.wal is not None and not self._taken_up:
            if self.wal.always or self.wal.reading.had_segments:
                # Also of a table that is held: what waits on its log is counted, and can be seen.
                self._lane.earlier = await self.wal.reading.take_up(self)
            self._taken_up = True
        if unfit:
            await self._worker.hold(unfit)
        while True:
            if self._current is None:
                self._current = await self._lane.next()
            cut = self._current
            if cut.on_log_alone:
                assert self.wal is not None
                cut.batches = await read_back(cut, self.wal, self._worker, self)
            if self.wal is not None and cut.server is None:
                cut.server = self.wal.done.server
            if not cut.sorted_out and not await self._gone.sort_out(cut, self._worker):
                self._current = None  # it is parked in the lane, and comes again
                continue
            while cut.batches:
                await self._flush_batch(cut.batches[0], cut)
                del cut.batches[0]
            if self.wal is not None and cut.partly:
                self.wal.confirm(cut.partly, cut.server or "", letters=True)
            self._current = None
            self._worker.let_go()  # the next one may be long in coming
            self._lane.done(cut)
            now_ns = time.monotonic_ns()
            for accepted_ns, rows in cut.accepted:
                self._observer.lag(self.table.name, (now_ns - accepted_ns) / NS_PER_S, rows)

    async def _flush_batch(self, batch: Batch, cut: Cut) -> None:
        """Flush one batch. After a fault of our own the table is held until the worker, started again, went on with it
        where it was.
        """
        assert self._worker is not None
        dead_before = self.dead_rows
        server = self.wal.done.server if self.wal is not None else ""
        self.rechecking = cut.recheck
        self.of_earlier = cut.upto == 0 and not cut.recheck
        try:
            await self._worker.flush(batch, sent_before=cut.sent_before)
        except Exception as error:
            self._worker.fault(f"internal error: {error!r}")
            raise
        if self.wal is not None:
            places = batch.places if self._spill is None else (*batch.places, *self._spill.late_places())
            self.wal.confirm(places, server, letters=self.dead_rows != dead_before)

    # -- waiting for rows -------------------------------------------------------------------------------------------

    @property
    def epoch(self) -> int:
        """`_log` of rows of this process."""
        return self._builder.epoch

    @property
    def unknown_fields(self) -> int:
        """Fields ignored because the table has no such column."""
        return self._builder.unknown_fields

    @property
    def redacted_spans(self) -> int:
        """Secrets cut out of its rows."""
        return self._builder.redacted_spans

    @property
    def position(self) -> int:
        """The queue position of the last row accepted so far. On the loop: elsewhere a drain under way hides rows."""
        return self.queue.position()

    @property
    def resolved_upto(self) -> int:
        """All rows up to this queue position are inserted, duplicates, dead letters, or shed."""
        return self._lane.resolved_upto

    def load(self) -> Load:
        """How the table fares. From any thread."""
        keeps = self.queue.limits.overflow in (Overflow.SPILL, Overflow.BLOCK)
        return Load(self.queue.usage(), self.resolved_upto, self.state, keeps)

    def wake(self) -> None:
        """Rows came, or a flush is asked for. On the loop."""
        self._cutter.wake()

    def change(self, policy: FlushPolicy) -> None:
        """Use other triggers from the next look on."""
        self._cutter.change(policy)

    @property
    def durable_upto(self) -> int:
        """All rows up to this queue position are on the log, resolved, or dead letters: durable, each in its way."""
        return self.resolved_upto if self.wal is None else self.wal.durable_upto(self.resolved_upto)

    async def durable(self, upto: int, *, hurry: bool = True) -> None:
        """Return when all rows up to a queue position are on the log, or resolved where there is none."""
        if self.wal is None:
            await self.resolved(upto, hurry=hurry)
            return
        if hurry:
            self._cutter.hurry_to_log(upto)
        await self._pulse.until(lambda: self.durable_upto >= upto)

    def recheck(self, ranges: Sequence[Range]) -> None:
        """The database restarted since it confirmed these: put back what it lost."""
        step = self._cutter.policy.batch_rows
        self._lane.recheck(
            [
                Cut([], 0, place.rows, places=(place,), from_source=True, recheck=True)
                for whole in ranges
                for start in range(whole.first, whole.stop, step)
                if (place := Range(whole.epoch, start, min(start + step, whole.stop)))
            ]
        )

    @property
    def reads_earlier(self) -> bool:
        """Whether what earlier runs left is being read just now: which of it memory has, nobody knows."""
        wal = self.wal
        return wal is not None and (
            wal.reading.earlier is not None
            or self._lane.parked
            or (bool(wal.done.server) and not self._taken_up)
        )

    def drop_logged(self, gone: Range, where: str, accepted_ns: int) -> int:
        """Count what nobody has when these are removed from the log, which is done next; how many rows.

        What memory holds goes on, and what the database has is in it. Not for rows of earlier runs while
        `reads_earlier`.
        """
        wal = self.wal
        assert wal is not None
        lost = self._lane.drop(gone) + wal.reading.drop_left(gone)
        if gone.epoch != wal.writer.epoch and not self._taken_up:
            lost = wal.done.checkpoint.done().missing_of(gone)
            self.replayed(sum(one.rows for one in lost))
        wal.done.resolve([gone])
        rows = sum(one.rows for one in lost)
        if rows:
            spans = ", ".join(f"{one.epoch:016x} {one.first} to {one.stop - 1}" for one in lost)
            self.dropped(rows, f"{where}, rows {spans}", accepted_ns)
        return rows

    async def resolved(self, upto: int, *, hurry: bool = True) -> None:
        """Return when all rows up to a queue position are inserted, duplicates or dead letters.

        With `hurry` they go at once instead of waiting for company.
        """
        if hurry:
            self._cutter.hurry(upto)
        await self._pulse.until(lambda: self.resolved_upto >= upto)

    def nudge(self) -> None:
        """Try again now instead of at the end of the back-off."""
        if self._worker is not None:
            self._worker.nudge()
