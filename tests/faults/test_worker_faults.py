"""The flush worker with faults between it and a ClickHouse: each row is in once, or a dead letter, or waits."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import pyarrow as pa
import pytest
from harness.backends import Backend
from harness.faulty_sink import CommitPart, Fail, FaultySink, Hang, LoseAnswer, SpendToken
from harness.sink_tables import create, plain

from recorder.backoff import Backoff
from recorder.batch import Batch
from recorder.flush_worker import FlushWorker, WorkerPolicy, WorkerState
from recorder.refusals import DEAD_LETTER_MIN_ROWS
from recorder.sink.errors import (
    DataError,
    HoldError,
    InsertTimeout,
    Retryable,
    SinkError,
    SinkUnavailable,
    UnknownError,
)
from recorder.subset import halves
from schemas.policy import Partition

POLICY = WorkerPolicy(
    partition=Partition.DAY,
    insert_timeout_s=30.0,
    backoff=Backoff(0.001, 0.005),
    hold_probe_s=0.02,
    unknown_retries=3,
    dead_letter_ratio=0.5,
)


class Events:
    """What the worker told."""

    def __init__(self) -> None:
        self.inserted_rows = 0
        self.found_rows = 0
        self.duplicate_rows = 0
        self.dead: list[tuple[int, int]] = []
        self.dead_values: list[dict[str, Any]] = []
        self.errors: list[SinkError] = []
        self.states: list[tuple[WorkerState, str]] = [(WorkerState.FLOWING, "")]
        self.changed = asyncio.Event()

    def inserted(self, batch: Batch, rows: int, seconds: float) -> None:
        assert seconds >= 0
        self.inserted_rows += rows

    def found(self, batch: Batch, rows: int) -> None:
        self.found_rows += rows

    def duplicates(self, rows: int) -> None:
        self.duplicate_rows += rows

    def dead_letter(self, row: pa.RecordBatch, error: DataError) -> None:
        assert row.num_rows == 1
        assert str(error)
        values = row.to_pylist()[0]
        self.dead.append((values["_log"], values["_seq"]))
        self.dead_values.append(values)

    def error(self, error: SinkError) -> None:
        self.errors.append(error)
        self.changed.set()

    def state_changed(self, state: WorkerState, why: str) -> None:
        assert (why == "") == (state is WorkerState.FLOWING)
        self.states.append((state, why))
        self.changed.set()

    @property
    def resolved_rows(self) -> int:
        return self.inserted_rows + self.found_rows + self.duplicate_rows + len(self.dead)

    @property
    def held(self) -> bool:
        return self.states[-1][0] is WorkerState.HELD

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not true():
                self.changed.clear()
                await self.changed.wait()


class Bench:
    """A worker on a table of the test's database."""

    def __init__(self, sink: FaultySink, **policy: Any):
        self.sink = sink
        self.events = Events()
        self.worker = FlushWorker(sink, WorkerPolicy(**(vars(POLICY) | policy)), self.events)

    async def flush(self, *batches: Batch) -> None:
        async with asyncio.timeout(60):
            for batch in batches:
                await self.worker.flush(batch)

    async def check(self, *batches: Batch, absent: int = 0) -> None:
        """The laws: rows of the table are those accepted, each once; all are accounted for."""
        accepted = [identity for batch in batches for identity in batch.identities()]
        stored = [tuple(row) for row in await self.sink.query("SELECT _log, _seq FROM t")]
        assert len(stored) == len(set(stored)), "no row is there twice"
        assert Counter(stored) == Counter(set(accepted) - set(self.events.dead))
        assert len(self.events.dead) == len(set(self.events.dead)) == absent
        assert self.events.resolved_rows == len(accepted)
        assert self.events.states[-1] == (WorkerState.FLOWING, "")


@pytest.fixture
async def sink(backend: Backend, database: str) -> AsyncIterator[FaultySink]:
    real = FaultySink(backend.sink(database))
    await real.start()
    await real.command(create("t"))
    yield real
    await real.close()


async def test_an_answer_lost_after_the_commit_doubles_nothing(sink: FaultySink) -> None:
    """The look-up finds what is in; nothing is sent a second time."""
    bench = Bench(sink)
    sink.plan("t", LoseAnswer(), LoseAnswer(InsertTimeout("cut")), LoseAnswer(UnknownError("?", code=1)))
    batches = [plain("t", 100, first_seq=n * 100, days=3) for n in range(4)]
    await bench.flush(*batches)
    await bench.check(*batches)
    assert bench.events.found_rows == 300
    assert len(sink.attempts) == 4


async def test_a_yes_to_a_spent_token_is_not_believed(sink: FaultySink) -> None:
    """A server that kept the token and lost the rows swallows them: they go again under a fresh token, once."""
    bench = Bench(sink)
    sink.plan("t", SpendToken())
    batch = plain("t", 100)
    await bench.flush(batch)
    assert [attempt.token == batch.token for attempt in sink.attempts] == [True, True, False]
    rows = await sink.query("SELECT count(), uniqExact(_seq) FROM t WHERE _log = 7")
    assert [tuple(row) for row in rows] == [(100, 100)]
    assert bench.events.inserted_rows == 100
    assert bench.events.found_rows == 0


async def test_a_failure_before_the_commit_is_repeated_with_the_same_rows_and_token(sink: FaultySink) -> None:
    """Every attempt sends the same rows under the same token, after the table was asked."""
    bench = Bench(sink)
    sink.plan("t", *[Fail(Retryable("busy", code=202)), Fail(SinkUnavailable("reset"))] * 5)
    batch = plain("t", 100, days=3)
    await bench.flush(batch)
    await bench.check(batch)
    assert len(sink.attempts) == 11
    assert len(sink.look_ups) == 11  # before each repeat, and of the yes to the last
    assert {attempt.token for attempt in sink.attempts} == {batch.token}
    assert all(attempt.data.equals(batch.data) for attempt in sink.attempts)
    assert [state for state, _ in bench.events.states] == [
        WorkerState.FLOWING, WorkerState.RETRYING, WorkerState.FLOWING,
    ]  # fmt: skip


async def test_random_faults_lose_and_double_nothing(sink: FaultySink) -> None:
    """Any mixture of lost answers, failures, cuts and failing look-ups."""
    dice = random.Random(11)
    bench = Bench(sink, insert_timeout_s=1.0)
    faults = [
        None,
        None,
        LoseAnswer(),
        Fail(Retryable("busy")),
        Fail(SinkUnavailable("gone")),
        LoseAnswer(InsertTimeout("cut")),
        Fail(HoldError("away", code=60)),
        LoseAnswer(UnknownError("?")),
        Fail(DataError("bad", code=117)),
        LoseAnswer(DataError("a view failed", code=469)),
    ]
    batches = [plain("t", dice.randint(1, 60), first_seq=n * 100, days=dice.randint(1, 5)) for n in range(40)]
    for batch in batches:
        sink.plan("t", *dice.choices(faults, k=dice.randint(0, 4)))
        if dice.random() < 0.3:
            sink.plan_look_up("t", Retryable("busy"), SinkUnavailable("gone"))
        await bench.flush(batch)
        sink._planned["t"].clear()
    dead = len(bench.events.dead)
    assert dead < 20, "single rows whose insert was refused by a planned fault"
    await bench.check(*batches, absent=dead)


async def test_an_insert_that_hangs_is_cut_and_repeated(sink: FaultySink) -> None:
    """At `insert_timeout_s` it is given up; the rows go in with the next attempt."""
    bench = Bench(sink, insert_timeout_s=0.05)
    sink.plan("t", Hang(600), Hang(600))
    batch = plain("t", 10)
    attempts = asyncio.create_task(bench.flush(batch))
    await bench.events.until(lambda: len(bench.events.errors) == 2)
    bench.worker._policy = POLICY  # the real insert has its time, also on a busy machine
    await attempts
    await bench.check(batch)
    assert all(isinstance(error, InsertTimeout) for error in bench.events.errors[:2])


async def test_one_bad_row_of_ten_thousand_costs_one_row(sink: FaultySink) -> None:
    """A real constraint refuses one row: 9,999 are inserted, and one is a dead letter with all its values."""
    bench = Bench(sink)
    await sink.command("ALTER TABLE t ADD CONSTRAINT good CHECK v != 6789")
    batch = plain("t", 10_000, days=3)
    await bench.flush(batch)
    await bench.check(batch, absent=1)
    assert bench.events.dead == [(7, 6789)]
    assert bench.events.dead_values[0]["v"] == 6789
    assert len(sink.attempts) <= 40, "halves, not rows"
    tokens = [attempt.token for attempt in sink.attempts]
    assert len(set(tokens)) == len(tokens), "each half has a token of its own"


async def test_bisecting_goes_on_through_faults(sink: FaultySink) -> None:
    """Lost answers, failures and failing look-ups between the halves change nothing about the outcome."""
    dice = random.Random(5)
    bench = Bench(sink)
    await sink.command("ALTER TABLE t ADD CONSTRAINT good CHECK v % 100 != 42")
    sink.plan("t", None)
    for _ in range(60):
        sink.plan("t", *dice.choices([None, None, LoseAnswer(), Fail(Retryable("busy"))], k=2))
        sink.plan_look_up("t", *dice.choices([Retryable("busy"), SinkUnavailable("gone")], k=1))
    batch = plain("t", 400, days=2)
    await bench.flush(batch)
    await bench.check(batch, absent=4)
    assert sorted(seq for _, seq in bench.events.dead) == [42, 142, 242, 342]


async def test_a_partition_that_is_in_is_not_sent_again(sink: FaultySink) -> None:
    """Of a batch over three days of which one was committed, two are sent again, under the parent's token."""
    bench = Bench(sink)
    batch = plain("t", 90, days=3)
    days = batch.data.column("v").to_numpy() % 3
    first = Batch("t", batch.data.filter(pa.array(days == 0)), 0)
    await sink.inner.insert(first, timeout_s=30)
    sink.plan("t", Fail(SinkUnavailable("reset")))
    await bench.flush(batch)
    await bench.check(batch)
    assert [attempt.rows for attempt in sink.attempts] == [90, 60]
    assert sink.attempts[1].token == batch.token
    assert (bench.events.found_rows, bench.events.inserted_rows) == (30, 60)


async def test_a_partition_partly_there_is_held_until_it_is_whole(sink: FaultySink) -> None:
    """No insert does that; so a person must look, nothing is sent, and the rest of the recorder is told why."""
    bench = Bench(sink)
    batch = plain("t", 100)
    sink.plan("t", CommitPart(40))
    flushing = asyncio.create_task(bench.flush(batch))
    await bench.events.until(lambda: bench.events.held)
    assert "some rows" in bench.events.states[-1][1]
    assert len(sink.attempts) == 1, "nothing was sent again"
    rest = Batch("t", batch.data.slice(40), 0)
    await sink.inner.insert(rest, timeout_s=30)
    await flushing
    await bench.check(batch)


async def test_a_table_that_was_dropped_holds_and_resumes_by_itself(sink: FaultySink) -> None:
    """A missing table costs no row: its batch waits, and goes in when the table is back."""
    bench = Bench(sink)
    await sink.command("DROP TABLE t SYNC")
    batch = plain("t", 100, days=2)
    flushing = asyncio.create_task(bench.flush(batch))
    await bench.events.until(lambda: bench.events.held)
    assert "t" in bench.events.states[-1][1]
    assert not flushing.done()
    await sink.command(create("t"))
    await flushing
    await bench.check(batch)


async def test_a_missing_column_holds_and_resumes_by_itself(sink: FaultySink) -> None:
    """Rows that a column was taken from under are good rows."""
    bench = Bench(sink)
    await sink.command("ALTER TABLE t DROP COLUMN v")
    batch = plain("t", 100)
    flushing = asyncio.create_task(bench.flush(batch))
    await bench.events.until(lambda: bench.events.held)
    await sink.command("ALTER TABLE t ADD COLUMN v Int64")
    await flushing
    await bench.check(batch)
    assert int((await sink.query("SELECT sum(v) FROM t"))[0][0]) == sum(range(100))


async def test_an_unknown_error_is_retried_and_then_held(sink: FaultySink) -> None:
    """Nobody knows what it means, so nothing is dropped: some attempts, then a person."""
    bench = Bench(sink)
    sink.always("t", Fail(UnknownError("strange", code=4_711)))
    batch = plain("t", 10)
    flushing = asyncio.create_task(bench.flush(batch))
    await bench.events.until(lambda: bench.events.held)
    assert len(sink.attempts) == POLICY.unknown_retries + 1
    sink.always("t", None)
    await flushing
    await bench.check(batch)


async def test_too_many_refused_rows_hold_the_table(sink: FaultySink) -> None:
    """Past the ratio the table is to blame: the rest waits, and goes in when the constraint is gone."""
    bench = Bench(sink, dead_letter_ratio=0.3)
    await sink.command("ALTER TABLE t ADD CONSTRAINT wrong CHECK v < 0")
    batch = plain("t", 100)
    flushing = asyncio.create_task(bench.flush(batch))
    await bench.events.until(lambda: bench.events.held)
    assert len(bench.events.dead) == 30
    assert "refused" in bench.events.states[-1][1]
    sink.plan("t", LoseAnswer(), Fail(SinkUnavailable("reset")))
    await sink.command("ALTER TABLE t DROP CONSTRAINT wrong")
    await flushing
    await bench.check(batch, absent=30)


async def test_a_few_refused_rows_never_hold_a_table(sink: FaultySink) -> None:
    """A small batch of bad rows alone is no verdict on the table."""
    bench = Bench(sink)
    await sink.command("ALTER TABLE t ADD CONSTRAINT wrong CHECK v < 0")
    batch = plain("t", DEAD_LETTER_MIN_ROWS)
    await bench.flush(batch)
    await bench.check(batch, absent=DEAD_LETTER_MIN_ROWS)
    assert all(state is not WorkerState.HELD for state, _ in bench.events.states)


async def test_rows_of_a_source_are_asked_for_before_their_first_insert(sink: FaultySink) -> None:
    """What a bus delivers again, wholly or partly or twice in one batch, is skipped and counted."""
    bench = Bench(sink)
    first, again = (Batch("t", plain("t", 50, days=2).data, 0, from_source=True) for _ in range(2))
    more = Batch("t", plain("t", 80, days=2).data, 0, from_source=True)
    twice = Batch(
        "t",
        pa.Table.from_batches([plain("t", 5, first_seq=500).data] * 2).combine_chunks().to_batches()[0],
        0,
        True,
    )
    await bench.flush(first, again, more, twice)
    assert bench.events.duplicate_rows == 50 + 50 + 5
    assert bench.events.inserted_rows == 50 + 30 + 5
    stored = [tuple(row) for row in await sink.query("SELECT _log, _seq FROM t")]
    assert sorted(stored) == [(7, n) for n in [*range(80), *range(500, 505)]]


async def test_a_fault_of_our_own_at_any_step_counts_no_row_twice(sink: FaultySink) -> None:
    """Whatever raises what, wherever: flushing the same batch again goes on where it was."""
    dice = random.Random(3)
    await sink.command("ALTER TABLE t ADD CONSTRAINT good CHECK v % 50 != 42")
    for n in range(12):
        bench = Bench(sink)
        batch = Batch("t", plain("t", 120, first_seq=n * 1_000, days=2).data, 0, from_source=n % 2 == 1)
        if batch.from_source:
            await sink.inner.insert(Batch("t", batch.data.slice(0, 30), 0), timeout_s=30)
        told = bench.events
        for name in ("inserted", "found", "duplicates", "dead_letter", "error", "state_changed"):
            setattr(told, name, _raising_sometimes(getattr(told, name), dice))
        bench.sink.look_up = _raising_sometimes_async(sink.inner.look_up, dice)  # type: ignore[method-assign]
        bench.sink.insert = _raising_sometimes_async(sink.inner.insert, dice)  # type: ignore[method-assign]
        async with asyncio.timeout(60):
            while True:
                try:
                    await bench.worker.flush(batch)
                except RuntimeError:
                    continue
                break
        assert told.resolved_rows == batch.rows
        assert told.duplicate_rows == (30 if batch.from_source else 0)
        stored = {tuple(row) for row in await sink.query("SELECT _log, _seq FROM t")}
        count = (await sink.query("SELECT count() FROM t"))[0][0]
        assert count == len(stored), "no row is there twice"
        assert stored >= set(batch.identities()) - set(told.dead)
        assert not stored & set(told.dead)


def _raising_sometimes(real: Callable[..., None], dice: random.Random) -> Callable[..., None]:
    def call(*args: Any) -> None:
        real(*args)
        if dice.random() < 0.3:
            raise RuntimeError("whoever is told fails")

    return call


def _raising_sometimes_async(real: Callable[..., Any], dice: random.Random) -> Callable[..., Any]:
    async def call(*args: Any, **named: Any) -> Any:
        if dice.random() < 0.1:
            raise ValueError("before")
        answer = await real(*args, **named)
        if dice.random() < 0.1:
            raise ValueError("after")
        return answer

    return call


async def test_small_batches_are_judged_together(sink: FaultySink) -> None:
    """A table that refuses everything is held also where its rows come one by one; good rows before that count too."""
    bench = Bench(sink)
    await sink.command("ALTER TABLE t ADD CONSTRAINT wrong CHECK _seq < 30")
    batches = [plain("t", 1, first_seq=n) for n in range(80)]
    flushing = asyncio.create_task(bench.flush(*batches))
    await bench.events.until(lambda: bench.events.held)
    # One more than half of all the rows begun: 30 good ones, and as many refused ones less that one.
    assert len(bench.events.dead) == 30
    await sink.command("ALTER TABLE t DROP CONSTRAINT wrong")
    await flushing
    await bench.check(*batches, absent=30)


async def test_refusals_long_ago_are_forgotten(sink: FaultySink) -> None:
    """Only the last rows speak of the table as it is."""
    bench = Bench(sink, dead_letter_ratio=0.015)
    await sink.command("ALTER TABLE t ADD CONSTRAINT wrong CHECK _seq % 1200 >= 15")
    batches = [plain("t", 300, first_seq=n * 300) for n in range(9)]
    await bench.flush(*batches)
    await bench.check(*batches, absent=45)
    assert all(state is not WorkerState.HELD for state, _ in bench.events.states)


async def test_a_table_found_unfit_takes_nothing_until_it_is_mended(sink: FaultySink) -> None:
    """Drift noticed while rows flow holds the table before the next insert; `ready` ends it."""
    wrong: list[str | None] = ["no column v"]

    async def ready() -> str | None:
        return wrong[0]

    bench = Bench(sink)
    bench.worker._ready = ready
    bench.worker.unfit(wrong[0])
    assert bench.events.held
    batch = plain("t", 10)
    flushing = asyncio.create_task(bench.flush(batch))
    await bench.events.until(lambda: len(bench.events.states) > 4)
    assert sink.attempts == []
    wrong[0] = None
    await flushing
    await bench.check(batch)
    bench.worker.unfit("again")
    bench.worker.unfit(None)
    assert not bench.events.held, "a table without rows under way is released at once"


async def test_an_error_of_the_data_of_a_changed_table_blames_no_row(sink: FaultySink) -> None:
    """The schema is asked before rows are given up: while it differs the batch waits, whole."""
    answers: list[str | None] = ["column v has another type", "column v has another type", None]

    async def ready() -> str | None:
        return answers.pop(0)

    bench = Bench(sink)
    bench.worker._ready = ready
    sink.plan("t", Fail(DataError("cannot parse", code=6)))
    batch = plain("t", 10)
    await bench.flush(batch)
    await bench.check(batch)
    assert WorkerState.HELD in [state for state, _ in bench.events.states]


async def test_what_was_being_sent_is_looked_up_at_the_end(sink: FaultySink) -> None:
    """A flush given up while an insert's answer was awaited: rows that are in count as in, others as unknown."""
    bench = Bench(sink)

    async def commit_and_hang(batch: Batch, *, timeout_s: float) -> None:
        await sink.inner.insert(batch, timeout_s=timeout_s)
        bench.events.changed.set()
        await asyncio.sleep(3_600)

    sink.insert = commit_and_hang  # type: ignore[method-assign]
    batch = plain("t", 10)
    flushing = asyncio.create_task(bench.flush(batch))
    await bench.events.changed.wait()
    flushing.cancel()
    await asyncio.gather(flushing, return_exceptions=True)
    assert await bench.worker.settle(10.0) == 0
    assert bench.events.found_rows == 10

    bench = Bench(sink)
    flushing = asyncio.create_task(bench.flush(plain("t", 5, first_seq=100)))
    await bench.events.changed.wait()
    flushing.cancel()
    await asyncio.gather(flushing, return_exceptions=True)
    sink.plan_look_up("t", *[SinkUnavailable("gone")] * 1_000)
    assert await bench.worker.settle(0.1) == 5
    assert bench.events.found_rows == 0


async def test_nudges_do_not_end_all_back_off(sink: FaultySink) -> None:
    """However often somebody asks, a pause lasts the first back-off at least, and every second one its own time."""
    bench = Bench(sink, backoff=Backoff(0.2, 3_600.0), hold_probe_s=3_600.0)
    sink.always("t", Fail(HoldError("away", code=60)))
    flushing = asyncio.create_task(bench.flush(plain("t", 10)))
    await bench.events.until(lambda: bench.events.held)
    for _ in range(500):
        bench.worker.nudge()
        await asyncio.sleep(0.001)
    assert len(sink.attempts) == 2
    flushing.cancel()


async def test_a_nudge_ends_the_wait(sink: FaultySink) -> None:
    """Who waits for rows does not wait for a back-off, nor for the next probe of a held table."""
    bench = Bench(sink, hold_probe_s=3_600.0)
    sink.plan("t", Fail(HoldError("away", code=60)))
    batch = plain("t", 10)
    flushing = asyncio.create_task(bench.flush(batch))
    await bench.events.until(lambda: bench.events.held)
    while not flushing.done():
        bench.worker.nudge()
        await asyncio.sleep(0.001)
    await bench.check(batch)


async def test_a_held_start_ends_when_the_table_is_fit() -> None:
    """`hold` asks `ready` at each probe, tells what is still wrong, and outlives errors of the asking."""
    answers: list[str | SinkError | None] = ["still wrong", SinkUnavailable("gone"), None]

    async def ready() -> str | None:
        answer = answers.pop(0)
        if isinstance(answer, SinkError):
            raise answer
        return answer

    events = Events()
    worker = FlushWorker(FaultySink(None), POLICY, events, ready=ready)  # type: ignore[arg-type]
    async with asyncio.timeout(30):
        await worker.hold("wrong")
    assert events.states[1:] == [
        (WorkerState.HELD, "wrong"), (WorkerState.HELD, "still wrong"), (WorkerState.HELD, "still wrong"),
        (WorkerState.FLOWING, ""),
    ]  # fmt: skip
    assert len(events.errors) == 1


def test_backoff_grows_to_its_cap_and_is_spread() -> None:
    """Waits are spread over 0 to min(cap, initial * 2^attempt), for any number of attempts."""
    backoff = Backoff(0.1, 10.0)
    for attempt, ceiling in ((0, 0.1), (1, 0.2), (5, 3.2), (7, 10.0), (100, 10.0), (100_000, 10.0)):
        waits = [backoff.wait_s(attempt) for _ in range(500)]
        assert 0 <= min(waits) < 0.1 * ceiling
        assert 0.9 * ceiling < max(waits) <= ceiling


def test_halves_are_new_batches() -> None:
    """Together they are the batch, in order; neither has its token."""
    batch = plain("t", 11)
    left, right = halves(batch)
    assert left.identities() + right.identities() == batch.identities()
    assert len({batch.token, left.token, right.token}) == 3
