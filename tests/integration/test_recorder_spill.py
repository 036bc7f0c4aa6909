"""Tables that spill: memory in the good case, the log when the database is away or too slow, each row once."""

from __future__ import annotations

import json
import pathlib
import signal
import subprocess
import sys
from typing import Any

import pytest
from harness.backends import Backend
from harness.faulty_sink import Fail, Hang, LoseAnswer
from harness.ingest_files import child_environment
from harness.recorders import WAIT_S, faulty, in_trouble, order, rows, settings_for, wait_until

from recorder import Recorder, Settings
from recorder.pipeline import TablePipeline
from recorder.settings_tables import TableSettings
from recorder.sink.errors import DataError, HoldError, SinkUnavailable
from schemas.policy import Durability
from wal.errors import LogFull
from wal.writer import LogWriter

TESTS = pathlib.Path(__file__).parents[1]
AWAY = SinkUnavailable("connection refused")
GONE = HoldError("no such table", code=60)
SMALL: dict[str, Any] = {"queue_rows": 500, "batch_rows": 100, "linger_ms": 5, "linger_max_ms": 20}


@pytest.fixture
def settings(backend: Backend, database: str, tmp_path: pathlib.Path) -> Settings:
    tables = {"orders": {"durability": "spill"}}
    return settings_for(backend, database, tmp_path, shutdown_timeout_s=1, tables=tables)


def small(settings: Settings, **changes: Any) -> Settings:
    table = TableSettings(durability=Durability.SPILL, **(SMALL | changes))
    return settings.model_copy(update={"tables": {"orders": table}})


def put(recorder: Recorder, numbers: range) -> int:
    """How many were accepted."""
    return sum(recorder.record("orders", order(n)) for n in numbers)


def ids(recorder: Recorder) -> list[str]:
    """Of all orders, in the order of their identities."""
    return [row[0] for row in rows(recorder, "SELECT client_order_id FROM orders ORDER BY _log, _seq")]


def names(numbers: range) -> list[str]:
    return [f"c-{n}" for n in numbers]


def pipeline_of(recorder: Recorder) -> TablePipeline:
    return recorder._life.running()[0].pipelines["orders"]


def segments(settings: Settings, table: str = "orders") -> list[pathlib.Path]:
    return list((settings.data_dir / "wal" / table).glob("*.wal*"))


def nothing_left(settings: Settings, stored: range) -> None:
    """The next run has nothing to begin with, and all is there once."""
    with Recorder(settings) as recorder:
        recorder.flush(WAIT_S)
        wait_until(lambda: bool(pipeline_of(recorder).wal.done.server))  # type: ignore[union-attr]
        recorder.flush(WAIT_S)
        assert recorder.balance()["orders"].received == 0
        assert sorted(ids(recorder)) == sorted(names(stored))


def test_in_the_good_case_nothing_is_written(settings: Settings) -> None:
    """Neither a segment nor a checkpoint, of no table that spills."""
    with Recorder(settings) as recorder:
        put(recorder, range(2_000))
        recorder.flush(WAIT_S)
        assert ids(recorder) == names(range(2_000))
    assert segments(settings) == segments(settings, "system_events") == []
    assert not (settings.data_dir / "wal" / "orders" / "checkpoint").exists()
    assert recorder.balance()["orders"].inserted == 2_000


def test_while_the_database_is_away_rows_leave_memory_and_are_durable(settings: Settings) -> None:
    """Far more than the queue holds: tickets say that they are safe, nothing is shed, all arrive once and in order."""
    settings = small(settings)
    with in_trouble(settings, "orders", AWAY) as (recorder, mend):
        for start in range(0, 5_000, 200):
            assert put(recorder, range(start, start + 199)) == 199
            ticket = recorder.record("orders", order(start + 199), ticket=True)
            assert ticket.wait(WAIT_S)
        lane = pipeline_of(recorder)._lane
        assert sum(batch.rows for cut in lane.unresolved() for batch in cut.batches) <= 3 * 200
        balance = recorder.balance()["orders"]
        assert (balance.received, balance.pending, balance.exact) == (5_000, 5_000, True)
        mend()
        recorder.flush(WAIT_S)
        assert ids(recorder) == names(range(5_000))
        balance = recorder.balance()["orders"]
        assert (balance.inserted, balance.shed, balance.exact) == (5_000, 0, True)
    nothing_left(settings, range(5_000))


def test_what_is_too_much_for_the_worker_waits_on_the_log(settings: Settings) -> None:
    """Past the high watermark, though the database answers: nothing is shed, each row arrives once."""
    settings = small(settings)
    sink = faulty(settings)
    sink.plan("orders", *[Hang(0.4)] * 3)
    with Recorder(settings, sink=sink) as recorder:
        put(recorder, range(50))
        wait_until(lambda: len(sink.attempts_of("orders")) == 1)
        for n in range(50, 3_000):
            assert recorder.record("orders", order(n))
            if n % 100 == 0:
                wait_until(lambda: pipeline_of(recorder).queue.waiting_rows < 400, "the queue to drain")
        assert pipeline_of(recorder).wal.writer.stats().rows_appended > 0  # type: ignore[union-attr]
        recorder.flush(WAIT_S)
        assert sorted(ids(recorder)) == sorted(names(range(3_000)))
        balance = recorder.balance()["orders"]
        assert (balance.inserted, balance.shed, balance.exact) == (3_000, 0, True)


@pytest.mark.parametrize("durability", [Durability.SPILL, Durability.WAL])
@pytest.mark.parametrize("error", [AWAY, GONE], ids=["away", "held"])
def test_what_is_not_in_at_the_end_begins_the_next_run(
    settings: Settings, durability: Durability, error: SinkUnavailable | HoldError
) -> None:
    """Also what nobody had built by then, and however short the time: pending, not lost; each row is there once."""
    kept = settings.model_copy(
        update={"shutdown_timeout_s": 0.5, "tables": {"orders": TableSettings(durability=durability)}}
    )
    with in_trouble(kept, "orders", error) as (recorder, _):
        put(recorder, range(500))
        wait_until(lambda: recorder.state_of("orders").value != "flowing")
        put(recorder, range(500, 20_000))
    balance = recorder.balance()["orders"]
    assert (balance.received, balance.pending, balance.shed, balance.exact) == (20_000, 20_000, 0, True)
    with Recorder(kept) as recorder:
        put(recorder, range(20_000, 20_010))
        wait_until(lambda: recorder.balance()["orders"].inserted == 20_010, "the rows of the run before")
        assert sorted(ids(recorder)) == sorted(names(range(20_010)))
        assert rows(recorder, "SELECT uniqExact(_log, _seq) FROM orders") == [(20_010,)]
        assert recorder.balance()["orders"].exact
    nothing_left(kept, range(20_010))


def test_what_hangs_at_the_end_is_sent_again_under_its_token(settings: Settings) -> None:
    """The database answers nothing, and says so to nobody: the batch under way comes again as it was."""
    sink = faulty(settings)
    sink.always("orders", Hang(3_600))
    sink.plan_look_up("orders", *[AWAY] * 10_000)
    with Recorder(settings, sink=sink) as recorder:
        put(recorder, range(100))
        wait_until(lambda: len(sink.attempts_of("orders")) == 1)
        put(recorder, range(100, 1_000))
    hung = sink.attempts_of("orders")[0]
    balance = recorder.balance()["orders"]
    assert (balance.pending, balance.shed, balance.exact) == (1_000, 0, True)
    sink = faulty(settings)
    with Recorder(settings, sink=sink) as recorder:
        wait_until(lambda: recorder.balance()["orders"].inserted == 1_000)
        again = sink.attempts_of("orders")[0]
        assert (again.token, again.data.equals(hung.data)) == (hung.token, True)
        assert ids(recorder) == names(range(1_000))


def test_what_was_in_though_nobody_said_so_is_not_sent_again(settings: Settings) -> None:
    """The answer was lost, and the recorder closed before it could ask: the next run finds the rows."""
    sink = faulty(settings)
    sink.plan("orders", LoseAnswer())
    sink.plan_look_up("orders", *[AWAY] * 10_000)
    with Recorder(settings, sink=sink) as recorder:
        put(recorder, range(100))
        wait_until(lambda: recorder.state_of("orders").value != "flowing")
    assert recorder.balance()["orders"].pending == 100
    sink = faulty(settings)
    with Recorder(settings, sink=sink) as recorder:
        wait_until(lambda: recorder.balance()["orders"].inserted == 100)
        assert ids(recorder) == names(range(100))
        assert not sink.attempts_of("orders")


def test_a_batch_that_is_bisected_after_it_was_spilled(settings: Settings) -> None:
    """Its token is taken back and its rows go in under others; the checkpoint has all of them."""
    sink = faulty(settings)
    refused = DataError("cannot parse", code=27)
    sink.plan("orders", Fail(AWAY), Fail(refused), Fail(AWAY), None, Fail(refused))
    with Recorder(settings, sink=sink) as recorder:
        put(recorder, range(100))
        recorder.flush(WAIT_S)
        assert ids(recorder) == names(range(100))
        assert len({batch.token for batch in sink.attempts_of("orders")}) >= 3
        assert all(batch.places for batch in sink.attempts_of("orders")[1:]), (
            "they are on the log, and sealed"
        )
    nothing_left(settings, range(100))


@pytest.mark.parametrize("overflow", ["spill", "drop_oldest"])
def test_what_the_log_does_not_take_is_shed_and_counted(
    settings: Settings, overflow: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the table's overflow, once memory and queue are full; when it takes rows again, nothing more is shed."""

    def full(*_: object) -> None:
        raise LogFull("no room")

    settings = small(settings, overflow=overflow)
    with in_trouble(settings, "orders", AWAY) as (recorder, mend):
        with monkeypatch.context() as patched:
            patched.setattr(LogWriter, "append", full)
            accepted = put(recorder, range(5_000))
            shed = recorder.balance()["orders"].shed
            assert shed >= 3_000
            assert accepted == (5_000 if overflow == "drop_oldest" else 5_000 - shed)
            assert recorder.balance()["orders"].exact
        wait_until(lambda: pipeline_of(recorder).queue.waiting_rows == 0, "the log to take the rest")
        assert put(recorder, range(5_000, 5_400)) == 400
        ticket = recorder.record("orders", order(5_400), ticket=True)
        assert ticket.wait(WAIT_S)
        mend()
        recorder.flush(WAIT_S)
        balance = recorder.balance()["orders"]
        assert (balance.shed, balance.inserted, balance.exact) == (shed, 5_401 - shed, True)
        assert len(ids(recorder)) == 5_401 - shed
        gaps = rows(recorder, "SELECT sum(rows) FROM recorder_gaps WHERE table_name = 'orders'")
        assert gaps == [(shed,)]


def test_without_logs_nothing_spills(settings: Settings) -> None:
    """`wal = false`: what memory held at the end is counted as shed, and no folder is made."""
    bare = settings.model_copy(update={"wal": False})
    with in_trouble(bare, "orders", AWAY) as (recorder, _):
        put(recorder, range(100))
    balance = recorder.balance()["orders"]
    assert (balance.shed, balance.pending, balance.exact) == (100, 0, True)
    assert not (bare.data_dir / "wal").exists()


@pytest.mark.slow
def test_what_was_spilled_survives_a_kill(tmp_path: pathlib.Path) -> None:
    """SIGKILL while the database is away, its first batch committed and the answer lost: all is there once."""

    def run(first: int, count: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "harness.spill_child", str(tmp_path / "data"), str(first), str(count)],
            cwd=TESTS, text=True, capture_output=True, timeout=120, check=False,
            env=child_environment(TMPDIR=str(tmp_path), PYTHONPATH=f"{TESTS.parent}:{TESTS}"),
        )  # fmt: skip

    killed = run(0, 1_000)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    last = run(0, 0)
    assert last.returncode == 0, last.stderr
    found = json.loads(last.stdout)
    assert sorted(name for _, _, name in found["stored"]) == sorted(names(range(1_000)))
    assert len({(log, seq) for log, seq, _ in found["stored"]}) == 1_000
    assert found["exact"], found["balance"]
    assert found["balance"]["shed"] == 0
