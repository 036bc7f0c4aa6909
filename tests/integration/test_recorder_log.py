"""A recorder with its log: rows are durable before the database has them, and arrive once whatever happens between."""

from __future__ import annotations

import itertools
import pathlib
from collections.abc import Sequence
from typing import Any

import pytest
from harness.backends import Backend
from harness.faulty_sink import Fail, LoseAnswer
from harness.recorders import WAIT_S, faulty, in_trouble, order, rows, settings_for, wait_until

from recorder import Recorder, Settings, SourceRow
from recorder.errors import LogInUse
from recorder.sink.base import ServerInfo
from recorder.sink.errors import HoldError, SinkUnavailable
from wal.places import Range

AWAY = SinkUnavailable("connection refused")
GONE = HoldError("no such table", code=60)


@pytest.fixture
def settings(backend: Backend, database: str, tmp_path: pathlib.Path) -> Settings:
    return settings_for(backend, database, tmp_path, shutdown_timeout_s=2)


def ids(recorder: Recorder) -> list[str]:
    """Of all orders, in the order of their identities."""
    return [row[0] for row in rows(recorder, "SELECT client_order_id FROM orders ORDER BY _log, _seq")]


def names(numbers: Sequence[int] | range) -> list[str]:
    return [f"c-{n}" for n in numbers]


def put(recorder: Recorder, numbers: Sequence[int] | range, **fields: Any) -> None:
    for n in numbers:
        assert recorder.record("orders", order(n, **fields))


def test_rows_are_durable_while_the_database_is_away(settings: Settings) -> None:
    """`sync` and a ticket return; the rows are pending, and go in when it is back, in order and once."""
    with in_trouble(settings, "orders", AWAY) as (recorder, mend):
        put(recorder, range(1_000))
        recorder.sync(WAIT_S)
        ticket = recorder.record("orders", order(1_000), ticket=True)
        assert ticket
        assert ticket.wait(WAIT_S)
        balance = recorder.balance()["orders"]
        assert (balance.received, balance.pending, balance.inserted) == (1_001, 1_001, 0)
        mend()
        recorder.flush(WAIT_S)
        assert ids(recorder) == names(range(1_001))
        balance = recorder.balance()["orders"]
        assert (balance.inserted, balance.pending, balance.exact) == (1_001, 0, True)


def test_what_is_not_in_when_it_closes_is_there_after_the_next_start(
    settings: Settings, backend: Backend, database: str
) -> None:
    """Nothing is lost or counted as lost; the next run begins with it, counts it as received, and inserts it once."""
    with in_trouble(settings, "orders", AWAY) as (recorder, _):
        put(recorder, range(500))
    balance = recorder.balance()["orders"]
    assert (balance.received, balance.pending, balance.shed, balance.exact) == (500, 500, 0, True)
    with Recorder(settings) as recorder:
        put(recorder, range(500, 600))
        wait_until(lambda: recorder.balance()["orders"].inserted == 600, "the rows of the run before")
        assert sorted(ids(recorder)) == sorted(names(range(600)))
        assert recorder.balance()["orders"].exact
    with Recorder(settings) as recorder:
        put(recorder, range(600, 601))
        recorder.flush(WAIT_S)
        assert recorder.balance()["orders"].received == 1, "nothing is left to begin with"
        assert sorted(ids(recorder)) == sorted(names(range(601)))


def test_an_outage_leaves_memory_to_the_log(settings: Settings) -> None:
    """Far more rows than the queue holds: none is shed, all arrive once and in order, and new ones do not wait."""
    small = settings.model_copy(
        update={
            "tables": {
                "orders": settings.defaults.model_copy(
                    update={"queue_rows": 500, "batch_rows": 400, "linger_ms": 5, "linger_max_ms": 20}
                )
            }
        }
    )
    with in_trouble(small, "orders", AWAY) as (recorder, mend):
        for start in range(0, 20_000, 200):
            put(recorder, range(start, start + 200))
            recorder.sync(WAIT_S)
        pipeline = recorder._life.running()[0].pipelines["orders"]
        held = sum(batch.rows for cut in pipeline._lane._under_way for batch in cut.batches)
        assert held <= 3 * 400, "what memory holds"
        mend()
        recorder.flush(WAIT_S)
        assert ids(recorder) == names(range(20_000))
        balance = recorder.balance()["orders"]
        assert (balance.received, balance.inserted, balance.shed) == (20_000, 20_000, 0)
        put(recorder, range(20_000, 20_001))
        recorder.flush(WAIT_S)


def test_rows_of_a_batch_that_the_log_took_in_part_are_done_with_it(
    backend: Backend, database: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A moment without room leaves no hole in the checkpoint: no later segment would be purged while it runs."""
    lingers = {"linger_ms": 300, "linger_max_ms": 300}
    settings = settings_for(backend, database, tmp_path, tables={"orders": lingers})
    with Recorder(settings) as recorder:
        wal = recorder._life.running()[0].pipelines["orders"].wal
        assert wal is not None
        taken, slices = wal._taken, itertools.count(1)
        monkeypatch.setattr(wal, "_taken", lambda rows: None if next(slices) == 2 else taken(rows))
        put(recorder, range(1_000))
        recorder.flush(WAIT_S)
        logged = wal.writer.stats().rows_appended
        assert 0 < wal.refused_rows < 1_000
        assert logged == 1_000 - wal.refused_rows
        whole = Range(wal.writer.epoch, 0, logged)
        wait_until(lambda: wal.done.checkpoint.done().covers(whole), "what the log has of them")
        assert ids(recorder) == names(range(1_000))


def test_a_lost_answer_is_looked_up_by_the_next_run(settings: Settings) -> None:
    """The rows are in, and nobody said so: the next run finds them under their seal, and sends nothing twice."""
    sink = faulty(settings)
    sink.plan("orders", LoseAnswer(), *[Fail(AWAY)] * 1_000)
    sink.plan_look_up("orders", *[AWAY] * 1_000)
    with Recorder(settings, sink=sink) as recorder:
        put(recorder, range(100))
        recorder.sync(WAIT_S)
        wait_until(lambda: len(sink.attempts_of("orders")) >= 1)
    assert recorder.balance()["orders"].pending == 100
    sink = faulty(settings)
    with Recorder(settings, sink=sink) as recorder:
        wait_until(lambda: recorder.balance()["orders"].inserted == 100, "what was looked up")
        assert ids(recorder) == names(range(100))
        assert not sink.attempts_of("orders")


def test_a_sealed_batch_is_sent_again_as_it_was(settings: Settings) -> None:
    """The same rows in the same order under the same token, also by the next run."""
    sink = faulty(settings)
    sink.always("orders", Fail(AWAY))
    with Recorder(settings, sink=sink) as recorder:
        put(recorder, range(100))
        recorder.sync(WAIT_S)
        wait_until(lambda: len(sink.attempts_of("orders")) >= 1)
    sealed = sink.attempts_of("orders")[0]
    sink = faulty(settings)
    with Recorder(settings, sink=sink) as recorder:
        wait_until(lambda: recorder.balance()["orders"].inserted == 100)
        again = sink.attempts_of("orders")[0]
        assert (again.token, again.places) == (sealed.token, sealed.places)
        assert again.data.equals(sealed.data)
        assert ids(recorder) == names(range(100))


def test_what_a_restarted_database_lost_is_put_back(settings: Settings) -> None:
    """It had confirmed it, and was started anew: its rows are looked up, and those it lost are there again, once."""
    sink = faulty(settings)
    with Recorder(settings, sink=sink) as recorder:
        put(recorder, range(1_000))
        recorder.flush(WAIT_S)
        wait_until(lambda: bool(recorder._life.running()[0].pipelines["orders"].wal.done.server))  # type: ignore[union-attr]
        put(recorder, range(1_000, 2_000))
        recorder.flush(WAIT_S)
        recorder.ask(
            lambda it: it.command(
                "ALTER TABLE orders DELETE WHERE toUInt32(qty) % 2 = 0 SETTINGS mutations_sync = 1"
            ),
            WAIT_S,
        )
        assert len(ids(recorder)) == 1_000
        sink.server_info = ServerInfo("26.1", "11111111-1111-1111-1111-111111111111", 1)
        pipeline = recorder._life.running()[0].pipelines["orders"]
        wait_until(lambda: pipeline.restored_rows == 1_000, "what was lost")
        assert ids(recorder) == names(range(2_000))
        balance = recorder.balance()["orders"]
        assert (balance.received, balance.inserted, balance.exact) == (2_000, 2_000, True)


def test_a_second_recorder_on_the_same_folder_is_refused(settings: Settings) -> None:
    """By name, with what to do; the first one goes on, and the refused one has left nothing open."""
    with Recorder(settings) as first:
        with pytest.raises(LogInUse, match=r"process \d+ .* one recorder a data_dir"):
            Recorder(settings).start()
        put(first, range(10))
        first.flush(WAIT_S)
    with Recorder(settings) as third:
        put(third, range(10, 20))
        third.flush(WAIT_S)
        assert sorted(ids(third)) == sorted(names(range(20)))


def test_rows_of_a_source_come_back_as_themselves(settings: Settings) -> None:
    """With their source's identity: delivered again to the next run, beside what the log has, each is there once."""
    now_ns = 1_700_000_000_000_000_000
    entries = [SourceRow("orders", n, order(n, ts_local=now_ns + n)) for n in range(300)]
    with in_trouble(settings, "orders", AWAY) as (recorder, _):
        assert recorder.record_source(11, entries) == 300
        recorder.sync(WAIT_S)
    with Recorder(settings) as recorder:
        assert recorder.record_source(11, entries) == 300
        wait_until(lambda: recorder.balance()["orders"].pending == 0)
        balance = recorder.balance()["orders"]
        assert (balance.received, balance.inserted, balance.duplicates_skipped) == (600, 300, 300)
        assert rows(recorder, "SELECT count(), uniqExact(_seq), any(_log) FROM orders") == [(300, 300, 11)]


def test_a_held_table_holds_its_rows_on_the_log(settings: Settings) -> None:
    """Over a restart; what else is recorded goes its way."""
    with in_trouble(settings, "orders", GONE) as (recorder, _):
        put(recorder, range(50))
        recorder.record(
            "fills", {"fill_id": "f", "symbol": "B", "side": "buy", "fill_qty": 1, "fill_price": 1}
        )
        recorder.sync(WAIT_S)
        wait_until(lambda: recorder.balance()["fills"].inserted == 1)
    with Recorder(settings) as recorder:
        wait_until(lambda: recorder.balance()["orders"].inserted == 50)
        assert ids(recorder) == names(range(50))


def test_a_torn_or_lost_checkpoint_costs_a_look_and_no_row(settings: Settings) -> None:
    """What was confirmed is found in the table, and nothing is sent again."""
    with Recorder(settings) as recorder:
        put(recorder, range(200))
        recorder.flush(WAIT_S)
    checkpoint = settings.data_dir / "wal" / "orders" / "checkpoint"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-5])
    with Recorder(settings) as recorder:
        wait_until(lambda: recorder.balance()["orders"].received == 200)
        wait_until(lambda: recorder.balance()["orders"].pending == 0)
        assert ids(recorder) == names(range(200))
        assert recorder.balance()["orders"].exact


def test_what_was_confirmed_is_no_row_of_a_later_run(settings: Settings) -> None:
    """However short that is, also before it has looked up what the database has of it; nothing is sent again."""
    with Recorder(settings) as recorder:
        put(recorder, range(2_000))
        recorder.flush(WAIT_S)
    for run in range(3):
        sink = faulty(settings)
        sink.server_info = ServerInfo("26.1", f"{run}1111111-1111-1111-1111-111111111111", 1_000 * run)
        with Recorder(settings, sink=sink) as recorder:
            pass
        balance = recorder.balance()["orders"]
        assert (balance.received, balance.exact) == (0, True)
        assert not sink.attempts_of("orders")
    with Recorder(settings) as recorder:
        assert ids(recorder) == names(range(2_000))


def test_the_same_run_of_a_server_is_known_again(settings: Settings, backend: Backend) -> None:
    """Though its start is reckoned some seconds elsewhere: nothing is looked up for it."""
    looked_up = []
    for started_at_s in (1_000_000, 1_000_002, 999_999):
        sink = faulty(settings)
        sink.server_info = ServerInfo("26.1", "11111111-1111-1111-1111-111111111111", started_at_s)
        with Recorder(settings, sink=sink) as recorder:
            put(recorder, range(10))
            recorder.flush(WAIT_S)
            looked_up += [batch for batch in sink.look_ups if batch.table == "orders"]
    assert not looked_up
