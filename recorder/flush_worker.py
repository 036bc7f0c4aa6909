"""Gets the batches of one table into ClickHouse, each row once: insert, look up, retry, bisect, hold.

What is sent is never sent again, and no error is believed, before the table was asked which of the rows it has. The
states of a table's worker:

    FLOWING ──retryable──► RETRYING ──success──► FLOWING
       │  └──────hold error, drift──────┐          ▲
       └──unknown, too often──► HELD ◄──┘──mended──┘

A held table loses nothing: its batch waits, is tried again every `hold_probe_s`, and the queue behind it fills up to
its bounds. Other tables do not notice.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import pyarrow as pa

from recorder.backoff import Backoff
from recorder.batch import Batch
from recorder.sink.base import Sink
from recorder.sink.errors import DataError, HoldError, Retryable, SinkError, UnknownError
from recorder.subset import Identities, halves, judge, without
from schemas.policy import Partition

T = TypeVar("T")

DEAD_LETTER_MIN_ROWS = 20
"""A batch must have at least so many dead letters before their ratio can hold the table."""


class WorkerState(enum.Enum):
    """Where a worker stands."""

    FLOWING = "flowing"
    RETRYING = "retrying"
    HELD = "held"


@dataclass(frozen=True, kw_only=True)
class WorkerPolicy:
    """The limits of one worker."""

    partition: Partition
    insert_timeout_s: float
    backoff: Backoff
    hold_probe_s: float
    unknown_retries: int
    dead_letter_ratio: float


class WorkerEvents(Protocol):
    """What a worker tells its table. Called on the recorder's loop; none may block."""

    def inserted(self, batch: Batch, rows: int, seconds: float) -> None:
        """Rows of the batch are in, by an insert that took so long."""

    def found(self, batch: Batch, rows: int) -> None:
        """Rows of the batch are in: an insert whose answer was lost had committed them."""

    def duplicates(self, rows: int) -> None:
        """Rows of a source that the table had already."""

    def dead_letter(self, row: pa.RecordBatch, error: DataError) -> None:
        """A row (a record batch of one) that the table refuses."""

    def error(self, error: SinkError) -> None:
        """An attempt failed."""

    def state_changed(self, state: WorkerState, why: str) -> None:
        """The worker's state changed."""


class FlushWorker:
    """One table's worker. `flush` takes its batches one after the other."""

    def __init__(
        self,
        sink: Sink,
        policy: WorkerPolicy,
        events: WorkerEvents,
        *,
        ready: Callable[[], Awaitable[str | None]] | None = None,
    ):
        """`ready` is asked while the table is held, and says what is still wrong with it, or None."""
        self._sink = sink
        self._policy = policy
        self._events = events
        self._ready = ready
        self._state = WorkerState.FLOWING
        self._nudge = asyncio.Event()

    def nudge(self) -> None:
        """End the wait under way: try again now."""
        self._nudge.set()

    async def flush(self, batch: Batch, *, sent: bool = False) -> None:
        """Return when every row of the batch is inserted, a duplicate or a dead letter. Cancel it to give up.

        `sent` says that an earlier call ended in the middle: what it got in is looked up first.
        """
        whole = batch
        if sent:
            absent = await self._absent(batch)
            if absent is None:
                return
            whole = absent
        elif batch.from_source:
            present = await self._persist(lambda: self._sink.look_up(batch))
            rest = without(batch, present)
            if skipped := batch.rows - (rest.rows if rest else 0):
                self._events.duplicates(skipped)
            if rest is None:
                self._set(WorkerState.FLOWING, "")
                return
            whole = rest
        dead = _DeadLetters(whole.rows, self._policy.dead_letter_ratio)
        await self._insert(whole, dead)
        self._set(WorkerState.FLOWING, "")

    async def hold(self, why: str) -> None:
        """Keep the table held until `ready` finds it mended."""
        await self._held(why)
        self._set(WorkerState.FLOWING, "")

    async def _held(self, why: str) -> None:
        """Wait a probe's time at least, and on until `ready` finds nothing wrong; trying will show what it cannot."""
        while why:
            self._set(WorkerState.HELD, why)
            await self._wait(self._policy.hold_probe_s)
            try:
                why = (await self._ready() if self._ready else None) or ""
            except SinkError as error:
                self._events.error(error)

    async def _insert(self, batch: Batch, dead: _DeadLetters) -> None:
        """Insert one sealed batch, whatever it takes."""
        attempt = unknown = 0
        while True:
            started = asyncio.get_running_loop().time()
            try:
                await self._sink.insert(batch, timeout_s=self._policy.insert_timeout_s)
            except SinkError as error:
                failure = error
            else:
                self._events.inserted(batch, batch.rows, asyncio.get_running_loop().time() - started)
                return
            self._events.error(failure)
            unknown += isinstance(failure, UnknownError)
            if isinstance(failure, HoldError) or unknown > self._policy.unknown_retries:
                await self._held(str(failure))
            elif not isinstance(failure, DataError):
                self._set(WorkerState.RETRYING, str(failure))
                await self._wait(self._policy.backoff.wait_s(attempt))
            absent = await self._absent(batch)
            if absent is None:
                return
            batch = absent
            if isinstance(failure, DataError):
                await self._bisect(batch, failure, dead)
                return
            attempt += 1

    async def _absent(self, batch: Batch) -> Batch | None:
        """The partitions of a batch that was sent which the table does not have; None where it has all.

        While a partition is partly there the table is held: no insert of ours does that, so a person must look.
        """
        while True:
            present: Identities = await self._persist(lambda: self._sink.look_up(batch))
            verdict = judge(batch, present, self._policy.partition)
            if not verdict.partly:
                break
            named = ", ".join(map(str, verdict.partly[:5]))
            self._set(
                WorkerState.HELD,
                f"{batch.table}: of batch {batch.token} some rows of partition {named} are "
                "there and some are not; rows were deleted by hand, or another writer uses "
                "its identities",
            )
            await self._wait(self._policy.hold_probe_s)
        if verdict.present_rows:
            self._events.found(batch, verdict.present_rows)
        return verdict.absent

    async def _bisect(self, batch: Batch, error: DataError, dead: _DeadLetters) -> None:
        """Find the rows that the table refuses, and insert the others."""
        if batch.rows == 1:
            while dead.too_many():
                # So many refusals speak of the table, not of the rows: wait for a person, then try the row again.
                self._set(
                    WorkerState.HELD, f"{dead.count} of {dead.rows} rows of one batch were refused: {error}"
                )
                await self._wait(self._policy.hold_probe_s)
                try:
                    await self._sink.insert(batch, timeout_s=self._policy.insert_timeout_s)
                except SinkError as again:
                    self._events.error(again)
                    absent = await self._absent(batch)
                    if absent is None:
                        return
                    if not isinstance(again, DataError):
                        await self._insert(absent, dead)
                        return
                    error = again
                else:
                    self._events.inserted(batch, 1, 0.0)
                    dead.forgive()
                    return
            dead.count += 1
            self._events.dead_letter(batch.data, error)
            return
        for half in halves(batch):
            await self._insert(half, dead)

    async def _persist(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask until there is an answer: nothing goes on without one."""
        attempt = 0
        while True:
            try:
                return await ask()
            except SinkError as error:
                self._events.error(error)
                if isinstance(error, Retryable):
                    self._set(WorkerState.RETRYING, str(error))
                    await self._wait(self._policy.backoff.wait_s(attempt))
                else:
                    self._set(WorkerState.HELD, str(error))
                    await self._wait(self._policy.hold_probe_s)
                attempt += 1

    async def _wait(self, seconds: float) -> None:
        self._nudge.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._nudge.wait()
        except TimeoutError:
            pass

    def _set(self, state: WorkerState, why: str) -> None:
        if state is not self._state or state is WorkerState.HELD:
            self._state = state
            self._events.state_changed(state, why)


@dataclass
class _DeadLetters:
    """The dead letters of one batch, against the ratio that holds its table."""

    rows: int
    ratio: float
    count: int = 0

    def too_many(self) -> bool:
        """Whether one more dead letter would say that the table is to blame."""
        return self.count + 1 > max(DEAD_LETTER_MIN_ROWS, self.ratio * self.rows)

    def forgive(self) -> None:
        """The table was mended: count anew."""
        self.count = 0
