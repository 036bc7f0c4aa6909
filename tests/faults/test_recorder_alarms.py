"""The alarms of a recorder on a real database: what raises each, where it is told, and that it is cleared."""

from __future__ import annotations

import logging
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from harness.alarms import LOOK_S, QUICK, events, metric, raises, standing
from harness.backends import Backend
from harness.dev_server import DevServerProcess
from harness.faulty_sink import Fail, FaultySink, Hang
from harness.recorders import WAIT_S, faulty, order, rows, settings_for, wait_until

from recorder import Recorder, Settings
from recorder.alarms import rules
from recorder.sink.errors import HoldError, SinkUnavailable

Make = Callable[..., tuple[Recorder, FaultySink]]
FAILURE, LOSS, LAG, SHEDDING = "RecorderFailure", "RecorderDataLoss", "RecorderLag", "RecorderShedding"


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recorder.housekeeping.ALARM_LOOK_S", LOOK_S)
    monkeypatch.setattr(rules, "LAG_LEAST_S", 3_600.0)  # a busy machine is late, too


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


def lines(caplog: pytest.LogCaptureFixture, event: str, alarm: str) -> list[logging.LogRecord]:
    return [
        one for one in caplog.records if one.message.startswith(event) and f"alarm='{alarm}'" in one.message
    ]


def test_a_dropped_table_is_a_failure_until_it_is_back(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """Told once in the log, the events, the metrics and the status, and once that it is over; no other table is."""
    recorder, _ = make()
    with caplog.at_level("INFO", logger="recorder"), recorder:
        recorder.record("orders", order(0))
        recorder.flush(WAIT_S)
        recorder.ask(lambda sink: sink.command("RENAME TABLE orders TO away"), WAIT_S)
        recorder.record("orders", order(1))
        wait_until(lambda: bool(standing(recorder)), "the alarm")
        ((place, why),) = standing(recorder).items()
        assert place == (FAILURE, "orders")
        assert why.startswith("is held: ")
        assert metric(recorder, "recorder_alarm", alarm=FAILURE, table="orders") == 1
        assert metric(recorder, "recorder_alarm", alarm=FAILURE, table="fills") == 0
        recorder.ask(lambda sink: sink.command("RENAME TABLE away TO orders"), WAIT_S)
        wait_until(lambda: not standing(recorder), "the end of the alarm")
        recorder.flush(WAIT_S)
        assert metric(recorder, "recorder_alarm", alarm=FAILURE, table="orders") == 0
        assert raises(recorder, FAILURE, "orders") == 1
        assert events(recorder) == [
            (FAILURE, "orders", "raised", "error"),
            (FAILURE, "orders", "cleared", "info"),
        ]
        wait_until(lambda: len(lines(caplog, "alarm cleared", FAILURE)) == 1, "the line")
    (raised,) = lines(caplog, "alarm raised", FAILURE)
    assert raised.levelname == "ERROR"
    assert "tables=['orders']" in raised.message


def test_short_trouble_is_no_failure_and_longer_trouble_is_one(make: Make) -> None:
    """Inserts may fail for `alarm_retry_s`; one that gets through in between begins it anew."""
    recorder, sink = make(alarm_retry_s=3_600.0)
    with recorder:
        sink.plan("orders", *[Fail(SinkUnavailable("reset"))] * 5)
        recorder.record("orders", order(0))
        recorder.flush(WAIT_S)
        assert raises(recorder, FAILURE, "orders") == 0
        assert events(recorder) == []
    recorder, sink = make()
    with recorder:
        sink.always("orders", Fail(SinkUnavailable("reset")))
        recorder.record("orders", order(1))
        wait_until(lambda: (FAILURE, "orders") in standing(recorder), "the alarm")
        assert standing(recorder)[FAILURE, "orders"] == "gets no rows in, trying on: reset"
        sink.always("orders", None)
        recorder.flush(WAIT_S)


@pytest.mark.parametrize(
    ("table", "alarm", "severity"),
    [("orders", LOSS, "critical"), ("market_data", SHEDDING, "warning")],
    ids=["critical", "thinned"],
)
def test_shed_rows_are_an_alarm_that_says_how_many_in_all(
    make: Make, table: str, alarm: str, severity: str
) -> None:
    """Raised once however many bursts there are, and cleared; of a critical table it outlasts the others' time."""
    recorder, sink = make(
        tables={table: {"queue_rows": 100, "batch_rows": 50}}, alarm_retry_s=60.0, alarm_loss_s=1.0
    )
    row = order(0) if table == "orders" else {"symbol": "A"}
    with recorder:
        sink.always(table, Fail(SinkUnavailable("nobody answers")))
        for burst in (1, 2):
            for _ in range(3_000):
                recorder.record(table, row)
            shed = recorder.balance()[table].shed
            assert shed >= burst * 100
            wait_until(
                lambda shed=shed: f" {shed:,} rows in all" in standing(recorder).get((alarm, table), "")
            )  # type: ignore[misc]
        sink.always(table, None)
        recorder.flush(WAIT_S)
        wait_until(lambda: (alarm, table) not in standing(recorder), "the end of the alarm")
        recorder.flush(WAIT_S)
        assert raises(recorder, alarm, table) == 1
        assert [event for event in events(recorder) if event[0] == alarm] == [
            (alarm, table, "raised", severity),
            (alarm, table, "cleared", "info"),
        ]
        lasted = rows(
            recorder, f"SELECT min(ts_local), max(ts_local) FROM system_events WHERE kind = '{alarm}'"
        )
        ((first, last),) = lasted
        assert (last - first).total_seconds() >= (1.0 if alarm == LOSS else 0.2)


def test_rows_lost_at_the_end_are_an_alarm_too(make: Make, backend: Backend, database: str) -> None:
    """Whoever reads the table finds it, though the recorder has ended; and nothing is said to wait any more."""
    recorder, sink = make(wal=False, shutdown_timeout_s=0.5, insert_timeout_s=3_600.0)
    with recorder:
        sink.always("orders", Hang(3_600.0))
        recorder.record("orders", order(0))
        wait_until(lambda: bool(sink.attempts_of("orders")), "the insert")
        assert recorder._life.thread is not None
        pipeline = recorder._life.thread.runtime.pipelines["orders"]
        assert pipeline.oldest_waiting_ns() is not None
    assert pipeline.oldest_waiting_ns() is None
    sql = f"SELECT message FROM {database}.system_events WHERE kind = '{LOSS}'"
    assert backend.client.query(sql).result_rows == [("orders lost 1 rows in all (shutdown 1)",)]


def test_rows_that_wait_are_late_before_they_are_in(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lag of what waits counts, wherever it waits: nothing got in when the alarm is raised."""
    monkeypatch.setattr(rules, "LAG_LEAST_S", 0.3)
    recorder, sink = make(alarm_retry_s=3_600.0)
    with recorder:
        sink.always("orders", Fail(SinkUnavailable("nobody answers")))
        recorder.record("orders", order(0))
        wait_until(lambda: (LAG, "orders") in standing(recorder), "the alarm")
        assert recorder.balance()["orders"].inserted == 0
        assert (FAILURE, "orders") not in standing(recorder)
        assert metric(recorder, "recorder_oldest_waiting_seconds", table="orders") > 0.3
        sink.always("orders", None)
        recorder.flush(WAIT_S)
        assert metric(recorder, "recorder_oldest_waiting_seconds", table="orders") == 0
        wait_until(lambda: (LAG, "orders") not in standing(recorder), "the end of the alarm")
        recorder.flush(WAIT_S)
        assert [event for event in events(recorder) if event[1] == "orders"] == [
            (LAG, "orders", "raised", "warning"),
            (LAG, "orders", "cleared", "info"),
        ]


def test_rows_that_got_in_late_are_late(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where nobody looked while they waited: here nobody does but the test."""
    recorder, sink = make(gap_window_s=3_600.0)
    with monkeypatch.context() as blind:
        blind.setattr("recorder.alarms.board.AlarmBoard.look", lambda board: None)
        recorder.start()
        sink.plan("orders", Hang(0.5))
        recorder.record("orders", order(0))
        recorder.flush(WAIT_S)
        monkeypatch.setattr(rules, "LAG_LEAST_S", 0.3)
    assert not standing(recorder)
    recorder._life.ask(lambda runtime: runtime.board.look())
    assert "rows got in" in standing(recorder)[LAG, "orders"]


def test_an_alarm_about_the_events_themselves_writes_none(make: Make) -> None:
    """Held, late or shed, `system_events` gets no row about itself: nothing feeds on itself, and others' rows wait."""
    recorder, sink = make(tables={"system_events": {"queue_rows": 10, "batch_rows": 5}})
    with recorder:
        recorder.flush(WAIT_S)
        sink.always("system_events", Fail(HoldError("no such table", code=60)))
        for n in range(3_000):
            recorder.record("system_events", {"kind": "test", "message": str(n)})
        wait_until(
            lambda: {(FAILURE, "system_events"), (SHEDDING, "system_events")} <= set(standing(recorder))
        )
        wait_until(lambda: (SHEDDING, "system_events") not in standing(recorder), "the end of the shedding")
        assert raises(recorder, SHEDDING, "system_events") == 1
        assert recorder.balance()["system_events"].received == 3_000
        sink.always("system_events", None)
        recorder.flush(WAIT_S)
        wait_until(lambda: not standing(recorder), "the end of the alarms")
        recorder.flush(WAIT_S)
        assert events(recorder) == []
        assert all(balance.exact for balance in recorder.balance().values())


@pytest.fixture
def server(tmp_path: pathlib.Path) -> Iterator[DevServerProcess]:
    with DevServerProcess(tmp_path / "server") as server:
        yield server


def on(server: DevServerProcess, folder: pathlib.Path) -> Settings:
    return Settings(
        target=server.url, data_dir=folder, migrate_on_start=True, retry_initial_s=0.02, retry_max_s=0.1,
        insert_timeout_s=1.0, connect_timeout_s=0.5, defaults={"linger_ms": 5, "linger_max_ms": 20}, **QUICK,
    )  # fmt: skip


def test_a_server_that_goes_away_is_a_failure_told_in_its_table_once_it_is_back(
    server: DevServerProcess, tmp_path: pathlib.Path
) -> None:
    """The alarm stands while nobody could write it down, and its rows are there afterwards, each once."""
    with Recorder(on(server, tmp_path)) as recorder:
        recorder.record("orders", order(0))
        recorder.flush(WAIT_S)
        server.kill()
        recorder.record("orders", order(1))
        wait_until(lambda: (FAILURE, "orders") in standing(recorder), "the alarm")
        assert recorder.balance()["system_events"].pending > 0
        server.restart()
        recorder.flush(WAIT_S)
        wait_until(lambda: not standing(recorder), "the end of the alarm")
        recorder.flush(WAIT_S)
        assert [event for event in events(recorder) if event[1] == "orders"] == [
            (FAILURE, "orders", "raised", "error"),
            (FAILURE, "orders", "cleared", "info"),
        ]
        assert rows(recorder, "SELECT count() FROM orders") == [(2,)]


def test_a_server_that_is_not_there_at_the_start_is_one_failure(
    server: DevServerProcess, tmp_path: pathlib.Path
) -> None:
    """Of the recorder, not of each of its tables; over when it answers."""
    server.kill()
    with Recorder(on(server, tmp_path), wait_for_database=True) as recorder:
        recorder.record("orders", order(0))
        wait_until(lambda: bool(standing(recorder)), "the alarm")
        assert [*standing(recorder)] == [(FAILURE, "")]
        server.restart()
        recorder.flush(WAIT_S)
        wait_until(lambda: not standing(recorder), "the end of the alarm")
        recorder.flush(WAIT_S)
        assert events(recorder) == [(FAILURE, "", "raised", "error"), (FAILURE, "", "cleared", "info")]
