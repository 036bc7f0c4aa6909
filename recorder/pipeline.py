"""One table's way from its door to its sink: queue, builder, channel, worker; its account says what became of rows.

Two supervised tasks on the recorder's loop: the *builder's* drains the queue, builds slices and seals batches that are
due; the *worker's* takes batches from the channel and gets them in. The channel is bounded, so that a sink that stands
still fills the channel, then the queue, and then the queue's overflow policy decides; nothing else of the recorder
waits.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa
from aiochannel import Channel

from recorder.account import PipelineObserver, TableAccount
from recorder.alarms.stillness import Work
from recorder.bad_rows import BadRow
from recorder.batch import Batch
from recorder.budget import InsertBudget
from recorder.build import SLICE_ROWS, BatchBuilder
from recorder.contact import Contact
from recorder.entries import Waiting, rows_in
from recorder.flush_policy import NS_PER_S, FlushPolicy, is_due, is_full
from recorder.flush_worker import FlushWorker, WorkerState
from recorder.queue import TableQueue
from recorder.sink.errors import DataError
from recorder.supervised import Supervised
from schemas.policy import Overflow
from schemas.table import Table

DRAIN_MS = 20
"""A builder looks at its queue this often while rows trickle in: rare enough to cost nothing beside 13 tables."""
CHANNEL_BATCHES = 1
"""Batches that wait for the worker; with the one under way and the one being built, three in memory a table."""


@dataclass(frozen=True)
class Sealed:
    """What the builder hands to the worker. All rows up to queue position `upto` are resolved with it."""

    batches: Sequence[Batch]
    upto: int
    accepted: Sequence[tuple[int, int]]
    """(acceptance in monotonic ns, rows) of its slices, for the lag."""


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
    ):
        super().__init__(table, queue, observer=observer, row_of_dead=row_of_dead)
        self._builder = builder
        self._policy = policy
        self._budget = budget
        self._worker: FlushWorker | None = None
        self._contact: Contact | None = None
        self.supervised: tuple[Supervised, ...] = ()
        """Its tasks, once it has started and until it is closed."""
        self._woken = asyncio.Event()
        self._flush_upto = -1
        self._drained_upto = 0
        self._sealed_upto = 0
        self._resolved_upto = 0
        self._progress = asyncio.Condition()
        self._channel: Channel[Sealed] = Channel(CHANNEL_BATCHES)
        self._current: Sealed | None = None  # what the worker is at, until all of it is resolved
        self._unflushed: list[Batch] = []  # of `_current`
        self._under_way: deque[Sealed] = deque()  # handed to the worker and not resolved, the oldest first
        self._accepted: list[tuple[int, int]] = []
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
            Supervised("builder", self._build_forever, table=name, died=self._task_died),
            Supervised("worker", self._work_forever, table=name, died=self._task_died),
        )
        for task in self.supervised:
            task.start()

    async def close(self, settle_s: float = 0.0) -> None:
        """Stop both tasks; rows not resolved by now are counted as lost. Call `flush` first.

        What was being inserted is looked up, for at most `settle_s`, before it is given up.
        """
        await asyncio.gather(*(task.close() for task in self.supervised))
        unknown = await self._worker.settle(settle_s) if self._worker and self.supervised else 0
        self.supervised = ()
        self.queue.close()
        oldest_ns = self.oldest_waiting_ns()
        self.queue.drain(1 << 62)
        self._drained_upto = self.position
        self._write_off(oldest_ns, unknown)
        self._written_off = True

    def _task_died(self, why: str) -> None:
        self.last_error = why

    def fault(self) -> str:
        """What is broken in it: a task that is gone, or one that died and waits to be started; empty when none is."""
        return "; ".join(filter(None, (task.down() for task in self.supervised)))

    # -- how it fares -------------------------------------------------------------------------------------------

    @property
    def linger_s(self) -> float:
        """The longest that its rows may wait for company, in seconds."""
        return max(self._policy.linger_ms, self._policy.linger_max_ms) / 1_000

    def oldest_waiting_ns(self) -> int | None:
        """Acceptance (monotonic) of the oldest row that is not resolved; None where none waits."""
        if self._written_off:
            return None
        for batches in (self._unflushed, *(sealed.batches for sealed in self._under_way)):
            if batches:
                return batches[0].accepted_ns
        return self._oldest_ns()

    def at_work(self) -> Work | None:
        """Which of its tasks has work, and how much of it was done; None where none has, or before first contact."""
        if self._written_off or (self._contact is not None and not self._contact.made):
            return None
        if self._under_way:
            return Work("worker", self.told + self._resolved_upto)
        if self._oldest_ns() is not None:
            return Work("builder", self._drained_upto + self._sealed_upto)
        return None

    # -- builder ------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Rows came, or a flush is asked for. On the loop."""
        self._woken.set()

    async def _build_forever(self) -> None:
        queue, builder = self.queue, self._builder
        while True:
            waiting = queue.waiting_rows
            if self._worth_a_slice(waiting, time.monotonic_ns()):
                room = self._policy.batch_rows - builder.rows
                entries = queue.drain(max(SLICE_ROWS, min(room, 4 * SLICE_ROWS)))
                self._drained_upto = queue.drained_upto
                if entries:
                    await self._build(entries)
            now_ns = time.monotonic_ns()
            if self._is_due(now_ns):
                await self._seal(now_ns)
            elif queue.waiting_rows < SLICE_ROWS:
                await self._rest(now_ns, busy=waiting > 0)

    def _worth_a_slice(self, waiting: int, now_ns: int) -> bool:
        """Whether to build now: a slice costs its columns, however few its rows, so they wait for company."""
        if waiting >= SLICE_ROWS or self._flush_upto > self._drained_upto:
            return True
        if self.queue.usage() >= self.queue.limits.low_watermark:
            return True  # a small queue, or large rows: company would be shed
        oldest_ns = self._oldest_ns()
        return oldest_ns is None or now_ns - oldest_ns >= self._budget.linger_ns(self._policy, now_ns)

    def _oldest_ns(self) -> int | None:
        """Acceptance of the oldest row that is not sealed, built or not."""
        return self._builder.oldest_ns if self._builder.oldest_ns is not None else self.queue.oldest_ns()

    async def _build(self, entries: Sequence[Waiting]) -> None:
        builder, rows_before = self._builder, self._builder.rows
        unbuilt = rows_in(entries) + rows_before + builder.bad_rows
        self.flying_rows += rows_in(entries)
        self._budget.saw_rows(self.table.name, time.monotonic_ns())
        try:
            for _ in builder.add(entries):
                if (built := builder.rows - rows_before) > 0:
                    self._accepted.append((builder.slice_accepted_ns, built))
                rows_before = builder.rows
                await asyncio.sleep(
                    0
                )  # lets the other tables run, and the producers have the interpreter's lock
        except Exception:
            # They are drained, and nobody else will speak of them.
            self._given_up(unbuilt - builder.rows - builder.bad_rows)
            raise

    def _is_due(self, now_ns: int) -> bool:
        builder = self._builder
        if not builder.rows:
            # Nothing to send, but rows that became dead letters are resolved too.
            return self._drained_upto > self._sealed_upto
        if self._drained_upto >= self._flush_upto > self._sealed_upto:
            return True
        if self.queue.waiting_rows >= SLICE_ROWS and not is_full(self._policy, builder.rows, builder.nbytes):
            # Company is here already. Rows of a backlog are all older than the linger: without this, each drain would
            # be a batch of its own, and so many small inserts would keep the backlog for ever.
            return False
        linger_ns = self._budget.linger_ns(self._policy, now_ns)
        return is_due(self._policy, builder.rows, builder.nbytes, builder.oldest_ns, now_ns, linger_ns)

    async def _seal(self, now_ns: int) -> None:
        builder = self._builder
        if is_full(self._policy, builder.rows, builder.nbytes):
            self._budget.sent_full(now_ns)
        rows, accepted, self._accepted = builder.rows, self._accepted, []
        try:
            batches = builder.seal()
        except Exception:
            self._given_up(rows)
            raise
        sealed = Sealed(batches, self._drained_upto, accepted)
        self._sealed_upto = sealed.upto
        self._under_way.append(sealed)
        await self._channel.put(sealed)

    async def _rest(self, now_ns: int, *, busy: bool) -> None:
        """Sleep until rows come or what was built is due.

        While rows keep coming the queue is looked at every `DRAIN_MS` and no producer pays for waking anybody; only
        a queue that was found empty is armed.
        """
        queue = self.queue
        if self._flush_upto > self._drained_upto:
            return
        drain_s = min(DRAIN_MS, self._policy.linger_ms) / 1_000
        wait_s = None
        if (oldest_ns := self._oldest_ns()) is not None:
            due_ns = oldest_ns + self._budget.linger_ns(self._policy, now_ns) - now_ns
            wait_s = max(0.0, due_ns / NS_PER_S)
        self._woken.clear()
        if busy or not queue.arm():
            await self._woken_within(drain_s if wait_s is None else min(drain_s, wait_s))
        elif await self._woken_within(wait_s) and self._flush_upto <= self._sealed_upto:
            self._woken.clear()
            await self._woken_within(drain_s)  # the first row of a burst: let some company come

    async def _woken_within(self, seconds: float | None) -> bool:
        """Wait to be woken; False if that did not happen in time.

        All tables' waits end on the same ticks: every time the loop wakes it takes the interpreter's lock from the
        producers, so thirteen tables that wake apart cost them thirteen times as much as together.
        """
        if seconds is not None:
            loop, tick_s = asyncio.get_running_loop(), DRAIN_MS / 1_000
            seconds = (int((loop.time() + seconds) / tick_s) + 1) * tick_s - loop.time()
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            return False
        return True

    # -- worker -------------------------------------------------------------------------------------------------

    async def _work_forever(self) -> None:
        assert self._worker is not None
        if self._contact is not None:
            unfit = await self._contact.unfit(self.table.name)
            self.state, self._contact = WorkerState.FLOWING, None
            if unfit:
                await self._worker.hold(unfit)
        while True:
            if self._current is None:
                self._current = await self._channel.get()
                self._unflushed = list(self._current.batches)
            while self._unflushed:
                await self._flush_batch(self._unflushed[0])
                del self._unflushed[0]
            sealed, self._current = self._current, None
            self._under_way.popleft()
            self._resolved_upto = sealed.upto
            async with self._progress:
                self._progress.notify_all()
            now_ns = time.monotonic_ns()
            for accepted_ns, rows in sealed.accepted:
                self._observer.lag(self.table.name, (now_ns - accepted_ns) / NS_PER_S, rows)

    async def _flush_batch(self, batch: Batch) -> None:
        """Flush one batch. After a fault of our own the table is held until the worker, started again, went on with it
        where it was.
        """
        assert self._worker is not None
        try:
            await self._worker.flush(batch)
        except Exception as error:
            self._worker.fault(f"internal error: {error!r}")
            raise

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
        return self._resolved_upto

    def load(self) -> Load:
        """How the table fares. From any thread."""
        keeps = self.queue.limits.overflow in (Overflow.SPILL, Overflow.BLOCK)
        return Load(self.queue.usage(), self._resolved_upto, self.state, keeps)

    def change(self, policy: FlushPolicy) -> None:
        """Use other triggers from the next look on."""
        self._policy = policy
        self.wake()

    async def resolved(self, upto: int, *, hurry: bool = True) -> None:
        """Return when all rows up to a queue position are inserted, duplicates or dead letters.

        With `hurry` they go at once instead of waiting for company.
        """
        if hurry and upto > self._flush_upto:
            self._flush_upto = upto
            self.wake()
        async with self._progress:
            await self._progress.wait_for(lambda: self._resolved_upto >= upto)

    def nudge(self) -> None:
        """Try again now instead of at the end of the back-off."""
        if self._worker is not None:
            self._worker.nudge()
