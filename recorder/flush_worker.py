"""Gets the batches of one table into ClickHouse, each row once: insert, look up, retry, bisect, hold.

What is sent is never sent again, and no error is believed, before the table was asked which of the rows it has. Nor is
a yes to what was sent before: a server writes a token down before it puts the rows in their place, and one killed in
between swallows them under that token for ever. What such a yes left out goes under a fresh token.

The states of a table's worker:

    FLOWING ──retryable──► RETRYING ──success──► FLOWING
       │  └──────hold error, drift──────┐          ▲
       └──unknown, too often──► HELD ◄──┘──mended──┘

A held table loses nothing: its batch waits, is tried again every `hold_probe_s`, and the queue behind it fills up to
its bounds. Other tables do not notice.

A batch's progress is a list of *parts*, each with a phase that says what comes next for it: look up rows of a source,
insert, or look up what was sent. A part leaves the list in the same step as its rows are counted, so that a batch whose
flush ended in the middle, even by a fault of our own, goes on from its list and counts no row twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import pyarrow as pa

from recorder.backoff import Backoff
from recorder.batch import Batch
from recorder.log import get_logger
from recorder.pause import Pause
from recorder.refusals import Refusals
from recorder.sink.base import Sink
from recorder.sink.errors import DataError, HoldError, Retryable, SinkError, UnknownError
from recorder.subset import Identities, halves, judge, without
from schemas.policy import Partition

log = get_logger("recorder.flush_worker")
T = TypeVar("T")

SETTLE_PAUSE_S = 0.05


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


class Seals(Protocol):
    """Where a table's log freezes what is sent, before it is."""

    async def seal(self, batch: Batch) -> None:
        """Return when it is durable which rows the batch's token stands for, or while the log takes nothing."""

    def void(self, batch: Batch) -> None:
        """The batch's token stands for nothing any more: what is left of it goes under others."""

    def refused(self, row: Batch) -> None:
        """A row became a dead letter: nobody sends it again."""


class _Phase(enum.Enum):
    """What comes next for a part of a batch."""

    UNASKED = "rows of a source: look up which the table has"
    READY = "insert"
    SENT = "look up what is in, then send the rest again, or bisect it"


@dataclass(eq=False)
class _Part:
    """Rows of the batch under way that are not resolved yet."""

    batch: Batch
    phase: _Phase
    refused: DataError | None = None
    """What the last insert said of its data."""
    judged: bool = False
    """The table was held for refusing too many rows, this one too."""
    attempt: int = 0
    unknown: int = 0
    sealed: bool = False
    """Its token is on the log."""
    sent: bool = False
    """It went out under its token before."""
    said_yes_s: float | None = None
    """The server said yes to it after so long, but not to its first sending: the look-up decides."""


class FlushWorker:
    """One table's worker. `flush` takes its batches one after the other."""

    def __init__(
        self,
        sink: Sink,
        policy: WorkerPolicy,
        events: WorkerEvents,
        *,
        ready: Callable[[], Awaitable[str | None]] | None = None,
        seals: Seals | None = None,
    ):
        """`ready` says what is wrong with the live table, or None; asked while it is held, and after odd errors.
        `seals` is the table's log, where it has one.
        """
        self._sink = sink
        self._policy = policy
        self._events = events
        self._ready = ready
        self._seals = seals
        self._state = WorkerState.FLOWING
        self._refusals = Refusals(policy.dead_letter_ratio)
        self._batch: Batch | None = None
        self._parts: list[_Part] = []  # of `_batch`, the next one last
        self._schema_asked = False
        self._unfit = ""
        self._pause = Pause(policy.backoff.initial_s)

    def nudge(self) -> None:
        """Ask to try again soon instead of at the end of the wait under way."""
        self._pause.nudge()

    def database_is_back(self) -> None:
        """Try again now: what the wait under way was for is over."""
        if self._state is WorkerState.RETRYING:
            self._pause.end()

    def unfit(self, why: str | None) -> None:
        """The live table was looked at: nothing more is inserted while `why` says what is wrong with it."""
        self._unfit = why or ""
        if why:
            self._set(WorkerState.HELD, why)
        elif not self._parts:
            self._set(WorkerState.FLOWING, "")

    def fault(self, why: str) -> None:
        """Something of our own failed: the table counts as held until its flush goes through."""
        self._set(WorkerState.HELD, why)

    async def flush(self, batch: Batch, *, sent_before: bool = False) -> None:
        """Return when every row of the batch is inserted, a duplicate or a dead letter. Cancel it to give up.

        Where an earlier call with this batch ended in the middle, it goes on from there. `sent_before` is of a batch
        whose seal was found in the log: it may have been inserted, and is under its token if at all.
        """
        if batch is not self._batch:
            self._batch = batch
            phase = _Phase.SENT if sent_before else _Phase.UNASKED if batch.from_source else _Phase.READY
            self._parts = [_Part(batch, phase, sealed=sent_before, sent=sent_before)]
            self._refusals.begin(batch.rows)
            self._schema_asked = False
        while self._parts:
            part = self._parts[-1]
            if part.phase is _Phase.UNASKED:
                await self._skip_duplicates(part)
            elif part.phase is _Phase.READY:
                await self._insert(part)
            else:
                await self._take_up(part)
        if not self._unfit:
            self._set(WorkerState.FLOWING, "")

    async def hold(self, why: str) -> None:
        """Keep the table held until `ready` finds it mended."""
        await self._held(why)
        self._set(WorkerState.FLOWING, "")

    async def settle(self, timeout_s: float) -> int:
        """After `flush` was cancelled: count what the table has of the parts that were sent; rows still unknown.

        For the end of a shutdown: nothing is sent again.
        """
        sent = [part for part in self._parts if part.phase is _Phase.SENT]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while sent:
                    present = await self._answer_of(sent[-1].batch)
                    part = sent.pop()
                    if len(present) == part.batch.rows:
                        self._parts.remove(part)
                    if present:
                        self._events.found(part.batch, len(present))
        return sum(part.batch.rows for part in sent)

    async def present(self, batch: Batch) -> Identities:
        """Which of a batch's rows the table has, asked until it says so. Not while a flush is under way."""
        present = await self._persist(lambda: self._sink.look_up(batch))
        if not self._unfit:
            self._set(WorkerState.FLOWING, "")
        return present

    def let_go(self) -> None:
        """Hold no more the batch that it was given last: all of it is resolved, and told."""
        self._batch = None

    def began(self, batch: Batch) -> bool:
        """Whether this is the batch that it was given last."""
        return batch is self._batch

    def left(self) -> list[Batch]:
        """What is not resolved of the batch that it was given last, in parts; also after `settle`."""
        return [part.batch for part in reversed(self._parts)]

    def place(self, placed: Callable[[Batch, bool], Batch]) -> None:
        """Go on with the same rows and tokens, from a log now; `placed` is told whether they were sent, so that it has
        sealed them.
        """
        for part in reversed(self._parts):
            part.batch = placed(part.batch, part.sent)

    async def _answer_of(self, batch: Batch) -> Identities:
        """What the table has of a batch, asked until it says so."""
        while True:
            try:
                return await self._asked(self._sink.look_up(batch))
            except SinkError:
                await asyncio.sleep(SETTLE_PAUSE_S)

    # -- steps of a part ----------------------------------------------------------------------------------------

    async def _skip_duplicates(self, part: _Part) -> None:
        """Leave out rows of a source that the table has already."""
        present = await self._persist(lambda: self._sink.look_up(part.batch))
        rest = without(part.batch, present)
        self._replace(part, *([] if rest is None else [_Part(rest, _Phase.READY)]))
        if skipped := part.batch.rows - (rest.rows if rest else 0):
            self._events.duplicates(skipped)

    async def _insert(self, part: _Part) -> None:
        """Send a part once. Whatever becomes of it, it is looked up before anything else is done with it."""
        while self._unfit:
            await self._held(self._unfit)
        batch = part.batch
        if self._seals is not None and not part.sealed:
            await self._seals.seal(batch)
        part.sealed = True
        again, part.sent = part.sent, True
        part.phase, part.refused, part.said_yes_s = _Phase.SENT, None, None
        started = asyncio.get_running_loop().time()
        try:
            await self._asked(self._sink.insert(batch, timeout_s=self._policy.insert_timeout_s))
        except SinkError as error:
            failure = error
        else:
            took_s = asyncio.get_running_loop().time() - started
            if again:
                # A server that was killed at the wrong moment knows the token and has not the rows: its yes to the
                # same token means nothing until the rows were seen.
                part.said_yes_s = took_s
            else:
                self._inserted(part, took_s)
            return
        self._events.error(failure)
        if isinstance(failure, DataError | UnknownError) and await self._drifted():
            return  # the table is mended by now: the error told nothing of the rows
        part.unknown += isinstance(failure, UnknownError)
        if isinstance(failure, HoldError) or part.unknown > self._policy.unknown_retries:
            await self._held(str(failure))
        elif isinstance(failure, DataError):
            part.refused = failure
        else:
            self._set(WorkerState.RETRYING, str(failure))
            attempt, part.attempt = part.attempt, part.attempt + 1
            await self._pause.wait(self._policy.backoff.wait_s(attempt))

    async def _take_up(self, part: _Part) -> None:
        """Ask the table what it has of a part that was sent, and say what comes next for the rest."""
        batch = part.batch
        present: Identities = await self._persist(lambda: self._sink.look_up(batch))
        batch = part.batch  # the same rows, which may have got their places meanwhile
        verdict = judge(batch, present, self._policy.partition)
        if verdict.partly:
            # No insert of ours does that, so a person must look.
            named = ", ".join(map(str, verdict.partly[:5]))
            await self._hold_a_while(
                f"{batch.table}: of batch {batch.token} some rows of partition {named} are "
                "there and some are not; rows were deleted by hand, or another writer uses "
                "its identities"
            )
            return
        absent, refused = verdict.absent, part.refused
        if absent is None and part.said_yes_s is not None:
            self._inserted(part, part.said_yes_s)
            return
        if absent is None:
            self._replace(part)
        elif part.said_yes_s is not None:
            log.warning("a token is spent and its rows are not there; sent under another", table=batch.table,
                        token=batch.token, rows=absent.rows)  # fmt: skip
            self._void(batch)
            again = replace(part, batch=absent.renamed(), phase=_Phase.READY, said_yes_s=None)
            again.sealed = again.sent = False
            self._replace(part, again)
        elif refused is None:
            self._replace(part, replace(part, batch=absent, phase=_Phase.READY))
        elif absent.rows > 1:
            self._void(batch)
            self._replace(part, *(_Part(half, _Phase.READY) for half in halves(absent)))
        else:
            await self._refuse(part, absent, refused)
        if verdict.present_rows:
            self._events.found(batch, verdict.present_rows)

    def _void(self, batch: Batch) -> None:
        if self._seals is not None:
            self._seals.void(batch)

    async def _refuse(self, part: _Part, row: Batch, refused: DataError) -> None:
        """Make a row that the table refuses a dead letter, unless there are so many that the table is to blame."""
        if self._refusals.too_many():
            # Wait for a person, then try the row again.
            await self._hold_a_while(
                f"{self._refusals.count} of the last {self._refusals.rows} rows were refused: {refused}"
            )
            part.phase, part.judged = _Phase.READY, True
        else:
            self._replace(part)
            self._refusals.add()
            self._events.dead_letter(row.data, refused)
            if self._seals is not None:
                self._seals.refused(row)

    def _inserted(self, part: _Part, took_s: float) -> None:
        self._replace(part)
        if part.judged:
            self._refusals.forgive()  # the table was mended
        self._events.inserted(part.batch, part.batch.rows, took_s)

    def _replace(self, part: _Part, *others: _Part) -> None:
        """Put others, the first of them next, in the place of the part under way."""
        assert self._parts[-1] is part
        self._parts[-1:] = reversed(others)

    # -- asking and waiting -------------------------------------------------------------------------------------

    async def _hold_a_while(self, why: str) -> None:
        """Say that the table is held, and wait a probe's time."""
        self._set(WorkerState.HELD, why)
        await self._pause.wait(self._policy.hold_probe_s)

    async def _held(self, why: str) -> None:
        """Wait a probe's time at least, and on until `ready` finds nothing wrong; trying will show what it cannot."""
        while why:
            await self._hold_a_while(why)
            try:
                found = await self._asked(self._ready()) if self._ready else None
            except SinkError as error:
                self._events.error(error)
            else:
                why = self._unfit = found or ""

    async def _drifted(self) -> bool:
        """Whether the table had changed, asked once a batch; if so it is mended by the time this returns."""
        if self._ready is None or self._schema_asked:
            return False
        self._schema_asked = True
        why = await self._persist(self._ready)
        if why:
            await self._held(why)
        return bool(why)

    async def _persist(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask until there is an answer: nothing goes on without one."""
        attempt = 0
        while True:
            try:
                return await self._asked(ask())
            except SinkError as error:
                self._events.error(error)
                if isinstance(error, Retryable):
                    self._set(WorkerState.RETRYING, str(error))
                    await self._pause.wait(self._policy.backoff.wait_s(attempt))
                else:
                    await self._hold_a_while(str(error))
                attempt += 1

    async def _asked(self, call: Awaitable[T]) -> T:
        """The call's answer; a fault inside it is an unknown error of the sink.

        Raises:
            SinkError: the call failed.
        """
        try:
            return await call
        except SinkError:
            raise
        except Exception as error:
            log.error("a call of the sink failed unexpectedly", error=repr(error), exc_info=True)
            raise UnknownError(f"internal error: {error!r}") from error

    def _set(self, state: WorkerState, why: str) -> None:
        if state is not self._state or state is WorkerState.HELD:
            self._state = state
            self._events.state_changed(state, why)
