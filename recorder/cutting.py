"""A table's rows on their way from its queue to its lane: built in slices, and cut when they are due.

It is the task of the table's *builder*: it drains the queue, has slices built, which go to the log at once where all
rows do, and cuts what is due as batches with their places. A slice costs its columns and a cut its insert, so that both
wait for company, until the flush policy and the budget of inserts have them go, or somebody asks for it.

It sends nothing, and does not decide what goes to a log that is for need alone (`recorder.spill`): `on_log` does.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from recorder.account import TableAccount
from recorder.batch import Batch, cut_places
from recorder.budget import InsertBudget
from recorder.build import SLICE_ROWS, BatchBuilder
from recorder.entries import Waiting, rows_in
from recorder.flush_policy import NS_PER_MS, NS_PER_S, FlushPolicy, is_due, is_full
from recorder.lane import Cut, Lane
from recorder.queue import TableQueue
from recorder.table_log import TableLog
from wal.places import Range

LOG_AFTER_MS = 50
"""The longest that rows wait for company on their way to the log: a slice costs its columns, however few its rows."""

DRAIN_MS = 20
"""A builder looks at its queue this often while rows trickle in: rare enough to cost nothing beside 13 tables."""


class Cutter:
    """See the module. Of one table; all of it is called on the recorder's loop, `run` as the one task of its builder.

    `account` counts what it takes from the `queue` and what it gives up; cuts go to the `lane`, and `on_log` puts one
    on the log `wal`, if it is to go there by itself, and says whether it is there by now, or never goes.
    """

    def __init__(
        self,
        queue: TableQueue,
        builder: BatchBuilder,
        policy: FlushPolicy,
        budget: InsertBudget,
        account: TableAccount,
        lane: Lane,
        *,
        wal: TableLog | None,
        on_log: Callable[[Cut], bool],
    ):
        self.policy = policy
        """When what was built is due."""
        self._queue = queue
        self._builder = builder
        self._budget = budget
        self._account = account
        self._lane = lane
        self._wal = wal
        self._logged = wal if wal is not None and wal.always else None
        """The log that rows go to as they are built."""
        self._on_log = on_log
        self._woken = asyncio.Event()
        self._flush_upto = -1
        self._durable_upto_wanted = -1  # somebody waits for these to be on the log
        self._drained_upto = 0
        self._sealed_upto = 0
        self._building: Iterator[int] | None = None  # rows taken from the queue, as far as they are not built
        self._built_then = 0  # rows and bad rows of the builder when they will be
        self._accepted: list[tuple[int, int]] = []

    # -- what others ask of it --------------------------------------------------------------------------------------

    @property
    def linger_s(self) -> float:
        """The longest that rows may wait for company, in seconds."""
        return max(self.policy.linger_ms, self.policy.linger_max_ms) / 1_000

    @property
    def progress(self) -> int:
        """A number that grows as rows are taken from the queue, and as they are cut."""
        return self._drained_upto + self._sealed_upto

    def oldest_ns(self) -> int | None:
        """Acceptance (monotonic) of the oldest row that is not cut, built or not; None where there is none."""
        return self._builder.oldest_ns if self._builder.oldest_ns is not None else self._queue.oldest_ns()

    def wake(self) -> None:
        """Rows came, or a flush is asked for."""
        self._woken.set()

    def change(self, policy: FlushPolicy) -> None:
        """Use other triggers from the next look on."""
        self.policy = policy
        self.wake()

    def hurry(self, upto: int) -> None:
        """All rows up to this queue position are due at once."""
        if upto > self._flush_upto:
            self._flush_upto = upto
            self.wake()

    def hurry_to_log(self, upto: int) -> None:
        """All rows up to this queue position are to be on the log at once; those that do not go there as they are
        built are due.
        """
        if self._logged is None and upto > self._flush_upto:
            self.hurry(upto)
        elif upto > self._durable_upto_wanted:
            self._durable_upto_wanted = upto
            self.wake()

    # -- the end ----------------------------------------------------------------------------------------------------

    def take_rest(self) -> Sequence[Waiting]:
        """What waits in the queue, which is closed. The builder's task has ended."""
        left = self._queue.drain(1 << 62)
        self._drained_upto = self._queue.position()
        return left

    async def build_rest(self, left: Sequence[Waiting]) -> int:
        """Build what was taken and not built, and then these, so that they go to the log; how many rows could not be
        built. The builder's task has ended. Whoever is cancelled here leaves the rest of it to the next.
        """
        builder = self._builder
        if self._building is None:
            self._building, self._built_then = iter(()), builder.rows + builder.bad_rows
        # One after the other, and remembered.
        self._building = itertools.chain(self._building, builder.add(left))
        self._built_then += rows_in(left)
        self._account.flying_rows += rows_in(left)
        building = True
        while building:
            with contextlib.suppress(Exception):  # what is not on the log is counted as lost
                for _ in self._building:
                    await asyncio.sleep(0)
                building = False
        return self._built_then - builder.rows - builder.bad_rows

    # -- the builder's task -----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Cut what comes, for ever: the builder's task. One that died may be started again."""
        queue, builder = self._queue, self._builder
        while True:
            waiting = queue.waiting_rows
            if self._worth_a_slice(waiting, time.monotonic_ns()):
                room = self.policy.batch_rows - builder.rows
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
        if self._logged is not None:
            # Rows are durable as soon as the log has them, and that does not wait for the linger.
            oldest_ns = self._queue.oldest_ns()
            late = oldest_ns is None or now_ns - oldest_ns >= LOG_AFTER_MS * NS_PER_MS
            return late or self._durable_upto_wanted > self._drained_upto
        if self._queue.usage() >= self._queue.limits.low_watermark:
            return True  # a small queue, or large rows: company would be shed
        oldest_ns = self.oldest_ns()
        return oldest_ns is None or now_ns - oldest_ns >= self._budget.linger_ns(self.policy, now_ns)

    async def _build(self, entries: Sequence[Waiting]) -> None:
        builder, rows_before = self._builder, self._builder.rows
        unbuilt = rows_in(entries) + rows_before + builder.bad_rows
        self._account.flying_rows += rows_in(entries)
        self._budget.saw_rows(self._account.table.name, time.monotonic_ns())
        self._building, self._built_then = builder.add(entries), unbuilt
        try:
            for _ in self._building:
                if (built := builder.rows - rows_before) > 0:
                    self._accepted.append((builder.slice_accepted_ns, built))
                rows_before = builder.rows
                # Lets the other tables run, and the producers have the interpreter's lock.
                await asyncio.sleep(0)
        except Exception:
            # They are drained, and nobody else will speak of them.
            self._account.given_up(unbuilt - builder.rows - builder.bad_rows)
            self._built()
            raise
        self._built()  # not where it was cancelled: what is not built yet still goes to the log

    def _built(self) -> None:
        self._building = None
        if self._logged is not None:
            self._logged.built_upto(self._drained_upto, self._lane.resolved_upto)

    def _is_due(self, now_ns: int) -> bool:
        builder = self._builder
        if not builder.rows:
            # Nothing to send, but rows that became dead letters are resolved too.
            return self._drained_upto > self._sealed_upto
        if self._drained_upto >= self._flush_upto > self._sealed_upto:
            return True
        if self._queue.waiting_rows >= SLICE_ROWS and not is_full(self.policy, builder.rows, builder.nbytes):
            # Company is here already. Rows of a backlog are all older than the linger: without this, each drain would
            # be a batch of its own, and so many small inserts would keep the backlog for ever.
            return False
        linger_ns = self._budget.linger_ns(self.policy, now_ns)
        return is_due(self.policy, builder.rows, builder.nbytes, builder.oldest_ns, now_ns, linger_ns)

    async def _seal(self, now_ns: int) -> None:
        builder = self._builder
        if is_full(self.policy, builder.rows, builder.nbytes):
            self._budget.sent_full(now_ns)
        rows, accepted, self._accepted = builder.rows, self._accepted, []
        try:
            batches = builder.seal()
        except Exception:
            self._account.given_up(rows)
            if self._logged is not None:
                self._logged.take_places()
            raise
        self._sealed_upto = self._drained_upto
        await self._lane.put(self._cut(batches, rows, accepted), self._on_log)

    def _cut(self, batches: list[Batch], rows: int, accepted: Sequence[tuple[int, int]]) -> Cut:
        """What was built, with where it stands on the log."""
        from_source = any(batch.from_source for batch in batches)
        if self._logged is None:
            cut = Cut(batches, self._drained_upto, rows, accepted, from_source=from_source)
            if self._wal is not None:
                cut.stand = self._wal.stand(cut.upto, self._lane.resolved_upto)
            return cut
        places, missing = self._logged.take_places()
        partly = tuple[Range, ...]()
        if missing or sum(place.rows for place in places) != rows:
            # It does not have all of them. Those that it has the next run looks up, if this one does not get them in;
            # if it does, they are done: else no later segment could ever be purged.
            if sum(place.rows for place in places) + missing == rows:
                partly = places
            places = ()
        start, placed = 0, []
        for batch in batches:
            placed.append(replace(batch, places=cut_places(places, start, start + batch.rows)))
            start += batch.rows
        return Cut(placed, self._drained_upto, rows, accepted, places, from_source, partly=partly)

    async def _rest(self, now_ns: int, *, busy: bool) -> None:
        """Sleep until rows come or what was built is due.

        While rows keep coming the queue is looked at every `DRAIN_MS` and no producer pays for waking anybody; only
        a queue that was found empty is armed.
        """
        queue = self._queue
        if max(self._flush_upto, self._durable_upto_wanted) > self._drained_upto:
            return
        drain_s = min(DRAIN_MS, self.policy.linger_ms) / 1_000
        wait_s = None
        if (oldest_ns := self.oldest_ns()) is not None:
            due_ns = oldest_ns + self._budget.linger_ns(self.policy, now_ns) - now_ns
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
