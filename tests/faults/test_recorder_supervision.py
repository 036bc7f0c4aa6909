"""Tasks of a recorder that die or get stuck, and a loop that stands still: noticed, told, gone on from; on a real
database.
"""

from __future__ import annotations

import asyncio
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from harness.alarms import LOOK_S, QUICK, events, metric, raises, standing
from harness.backends import Backend
from harness.consuming import consuming, publish
from harness.faulty_sink import FaultySink, Hang
from harness.recorders import WAIT_S, faulty, order, rows, settings_for, wait_until
from harness.waiting import until

from recorder import Recorder, supervised
from recorder.alarms import rules
from recorder.backoff import Backoff
from recorder.bus.inprocess import InProcessBus
from recorder.housekeeping import Housekeeping
from recorder.loop_watch import LoopWatch
from recorder.service.consumer import Consumer

Make = Callable[..., tuple[Recorder, FaultySink]]
FAILURE = "RecorderFailure"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recorder.housekeeping.ALARM_LOOK_S", LOOK_S)
    monkeypatch.setattr(rules, "LAG_LEAST_S", 3_600.0)  # a busy machine is late, too
    monkeypatch.setattr(supervised, "HEALTHY_S", 1.0)
    monkeypatch.setattr(supervised, "BACKOFF", Backoff(0.01, 0.05))


@pytest.fixture
def make(backend: Backend, database: str, tmp_path: pathlib.Path) -> Iterator[Make]:
    """Makes recorders with short alarms and a faulty sink, not started; those left running are closed."""
    made: list[tuple[Recorder, FaultySink]] = []

    def new(**changes: Any) -> tuple[Recorder, FaultySink]:
        settings = settings_for(backend, database, tmp_path, **(QUICK | changes))
        sink = faulty(settings)
        made.append((Recorder(settings, sink=sink), sink))
        return made[-1]

    yield new
    for recorder, sink in made:
        sink._always.clear()
        recorder.close()


def deaths(recorder: Recorder, task: str, table: str = "") -> int:
    return int(metric(recorder, "recorder_task_deaths_total", task=task, table=table))


def dies(real: Callable[..., Any], times: int) -> Callable[..., Any]:
    """A coroutine function that raises so often, and then is the real one."""
    left = [times]

    async def call(*arguments: Any, **named: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise RuntimeError("odd")
        return await real(*arguments, **named)

    return call


def test_a_worker_that_dies_goes_on_where_it_was(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """Each death is counted and has one line with its traceback; the alarm stands until the worker is healthy; its rows
    are in, each once, and no other table had anything of it.
    """
    recorder, _ = make()
    with recorder:
        assert recorder._life.thread is not None
        worker = recorder._life.thread.runtime.pipelines["orders"]._worker
        assert worker is not None
        worker.flush = dies(worker.flush, 3)  # type: ignore[method-assign]
        for n in range(10):
            recorder.record("orders", order(n))
        why = "worker died: RuntimeError('odd')"
        wait_until(lambda: why in standing(recorder).get((FAILURE, "orders"), ""), "the alarm")
        recorder.flush(WAIT_S)
        wait_until(lambda: not standing(recorder), "the end of the alarm")
        recorder.flush(WAIT_S)
        assert deaths(recorder, "worker", "orders") == 3
        assert deaths(recorder, "worker", "fills") == 0
        assert rows(recorder, "SELECT count(), uniqExact(client_order_id) FROM orders") == [(10, 10)]
        assert events(recorder) == [
            (FAILURE, "orders", "raised", "error"),
            (FAILURE, "orders", "cleared", "info"),
        ]
        assert recorder.unready() == []
    told = [record for record in caplog.records if "a task died" in record.message]
    assert len(told) == 3
    assert all(record.exc_info for record in told)


def test_housekeeping_that_dies_is_a_failure_of_the_recorder_and_costs_no_other(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its task is started again; rows and the other tasks go on all the while."""
    real, left = Housekeeping._sample, [2]

    def sample(self: Housekeeping) -> None:
        if left[0]:
            left[0] -= 1
            raise RuntimeError("odd")
        real(self)

    monkeypatch.setattr(Housekeeping, "_sample", sample)
    recorder, _ = make(metrics_interval_s=0.01)
    with recorder:
        recorder.record("orders", order(0))
        wait_until(lambda: (FAILURE, "") in standing(recorder), "the alarm")
        assert "samples died: RuntimeError('odd')" in standing(recorder)[FAILURE, ""]
        recorder.flush(WAIT_S)
        wait_until(lambda: not standing(recorder), "the end of the alarm")
        wait_until(lambda: recorder.balance()["metrics_timeseries"].inserted > 0, "samples")
        assert deaths(recorder, "samples") == 2
        assert deaths(recorder, "gaps") == 0
        assert raises(recorder, FAILURE, "") == 1


def test_looking_for_alarms_that_fails_costs_no_row(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked for in the middle of other work, such as holding a table: its fault is told as its own task's."""
    recorder, _ = make()
    with recorder:
        recorder.watch("odd", lambda: 1 / 0)  # type: ignore[arg-type, return-value]
        recorder.ask(lambda sink: sink.command("RENAME TABLE orders TO away"), WAIT_S)
        recorder.record("orders", order(0))
        wait_until(lambda: recorder.state_of("orders").value == "held", "the hold")
        assert recorder._life.thread is not None
        runtime = recorder._life.thread.runtime
        wait_until(
            lambda: any(task.name == "alarms" and task.deaths for task in runtime.board.tasks), "its death"
        )
        recorder.ask(lambda sink: sink.command("RENAME TABLE away TO orders"), WAIT_S)
        recorder.flush(WAIT_S)
        assert recorder.balance()["orders"].inserted == 1
        assert not any(task.deaths for one in runtime.pipelines.values() for task in one.supervised)


def test_a_sink_that_never_answers_makes_a_worker_stuck(make: Make) -> None:
    """Beyond all that it may wait for: told, and nothing is killed; once the answer is there, the row is in, once."""
    recorder, sink = make(insert_timeout_s=0.05, stuck_grace_s=2.0)
    with recorder:
        assert recorder._life.thread is not None
        loop = recorder._life.thread.loop
        answer, real = asyncio.Event(), sink.insert

        async def insert(batch: Any, *, timeout_s: float) -> None:
            if batch.table == "orders":
                await answer.wait()
            await real(batch, timeout_s=WAIT_S)

        sink.insert = insert  # type: ignore[method-assign]
        recorder.record("orders", order(0))
        recorder.record("market_data", {"symbol": "A"})
        wait_until(lambda: (FAILURE, "orders") in standing(recorder), "the alarm")
        assert (FAILURE, "market_data") not in standing(recorder)
        assert "worker is stuck" in standing(recorder)[FAILURE, "orders"]
        assert recorder.balance()["market_data"].inserted == 1
        loop.call_soon_threadsafe(answer.set)
        wait_until(lambda: not standing(recorder), "the end of the alarm")
        recorder.flush(WAIT_S)
        assert recorder.balance()["orders"].inserted == 1
        assert deaths(recorder, "worker", "orders") == 0


def test_waits_that_are_allowed_are_not_stuck(make: Make) -> None:
    """A long insert within its time; a table without rows; one that is held and probed, for many times the grace."""
    recorder, sink = make(insert_timeout_s=3_600.0, stuck_grace_s=0.05)
    with recorder:
        sink.plan("orders", Hang(0.6))
        recorder.record("orders", order(0))
        recorder.flush(WAIT_S)
        assert raises(recorder, FAILURE, "orders") == 0
    recorder, sink = make(insert_timeout_s=1.0, stuck_grace_s=1.0)
    with recorder:
        recorder.ask(lambda sink: sink.command("RENAME TABLE fills TO away"), WAIT_S)
        recorder.record(
            "fills", {"fill_id": "f", "symbol": "A", "side": "buy", "fill_qty": 1, "fill_price": 1}
        )
        wait_until(lambda: (FAILURE, "fills") in standing(recorder), "the alarm")
        end_s = time.monotonic() + 3.0
        while time.monotonic() < end_s:
            assert "stuck" not in standing(recorder)[FAILURE, "fills"]
            time.sleep(0.05)
        recorder.ask(lambda sink: sink.command("RENAME TABLE away TO fills"), WAIT_S)
        recorder.flush(WAIT_S)


def test_a_loop_that_stands_still_is_an_alarm_once_it_turns(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """Its stack is in the log while it stands; alarm, count and row of the events follow, and rows go on."""
    recorder, _ = make(loop_stall_s=1.0)
    with recorder:
        assert recorder._life.thread is not None
        go_on = []

        def in_the_way() -> None:
            end_s = time.monotonic() + WAIT_S
            while not go_on and time.monotonic() < end_s:
                time.sleep(0.005)

        recorder._life.thread.loop.call_soon_threadsafe(in_the_way)
        recorder.record("orders", order(0))
        wait_until(lambda: "the event loop stands still" in caplog.text, "the line, while it stands")
        assert "in_the_way" in caplog.text
        go_on.append(True)
        wait_until(lambda: (FAILURE, "") in standing(recorder), "the alarm")
        assert "event loop recorder stand still" in standing(recorder)[FAILURE, ""]
        wait_until(lambda: (FAILURE, "") not in standing(recorder), "the end of the alarm")
        recorder.flush(WAIT_S)
        assert metric(recorder, "recorder_loop_stalls_total", loop="recorder") >= 1
        assert [event[:3] for event in events(recorder) if event[:2] == (FAILURE, "")][:2] == [
            (FAILURE, "", "raised"),
            (FAILURE, "", "cleared"),
        ]
        assert rows(recorder, "SELECT count() FROM orders") == [(1,)]


async def test_another_loop_of_the_process_that_stands_still_is_told_too(make: Make) -> None:
    """That of the buses, for which the recorder's own goes on: the alarm names it, while rows get in."""
    recorder, _ = make(alarm_clear_s=3_600.0)
    with recorder:
        watch = LoopWatch(stall_s=0.1, name="service")
        watch.start()
        recorder.watch_loop(watch)
        recorder.record("orders", order(0))
        recorder.flush(WAIT_S)
        wait_until(
            lambda: (FAILURE, "") in standing(recorder), "the alarm"
        )  # which blocks the loop of this test
        watch.close()
        assert "event loop service stand still" in standing(recorder)[FAILURE, ""]
        assert metric(recorder, "recorder_loop_stalls_total", loop="service") >= 1
        assert metric(recorder, "recorder_loop_stalls_total", loop="recorder") == 0


async def test_a_consumer_whose_task_dies_acknowledges_again_soon(
    backend: Backend, database: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is started again, and the recorder's alarm tells of it; no message is lost or taken twice."""
    monkeypatch.setattr(Consumer, "_tend_forever", dies(Consumer._tend_forever, 2))
    bus = InProcessBus()
    with Recorder(settings_for(backend, database, tmp_path, **QUICK)) as recorder:
        async with consuming(recorder, bus) as consumer:
            recorder.watch(consumer.name, consumer.counts)
            publish(bus, "orders", order(0))
            await until(lambda: bus.waiting == 0, "acknowledgement")
            assert consumer.failed == ""
            await until(lambda: raises(recorder, FAILURE, "") == 1, "the alarm")
            assert deaths(recorder, consumer.name) == 2
            await until(lambda: not standing(recorder), "the end of the alarm")
            assert recorder.balance()["orders"].received == 1
