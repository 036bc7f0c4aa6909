"""The recorder while its database misbehaves: load never raises, every row is counted, other tables do not notice."""

from __future__ import annotations

import asyncio
import errno
import logging
import pathlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from harness.backends import Backend
from harness.faulty_sink import Fail, FaultySink, Hang, LoseAnswer
from harness.recorders import WAIT_S, faulty, order, rows, settings_for, wait_until

from recorder import NotDurable, Recorder, RecorderClosed
from recorder.batch import Batch
from recorder.sink.errors import HoldError, Retryable, SinkUnavailable

Make = Callable[..., tuple[Recorder, FaultySink]]


@pytest.fixture
def make(backend: Backend, database: str, tmp_path: pathlib.Path) -> Iterator[Make]:
    """Makes recorders on the test's database with a faulty sink, not started; those left running are closed."""
    made: list[tuple[Recorder, FaultySink]] = []

    def new(**changes: Any) -> tuple[Recorder, FaultySink]:
        settings = settings_for(backend, database, tmp_path, **changes)
        sink = faulty(settings)
        made.append((Recorder(settings, sink=sink), sink))
        return made[-1]

    yield new
    for recorder, sink in made:
        sink._always.clear()
        recorder.close()


def balanced(recorder: Recorder) -> None:
    for table, balance in recorder.balance().items():
        assert balance.exact, f"{table}: {balance}"


def gap_rows(recorder: Recorder, table: str) -> dict[str, int]:
    sql = f"SELECT reason, sum(rows) FROM recorder_gaps WHERE table_name = '{table}' GROUP BY reason"
    return {str(reason): int(count) for reason, count in rows(recorder, sql)}


@pytest.mark.parametrize("table", ["market_data", "orders"])
def test_a_flood_at_a_database_that_stands_still_raises_nothing(make: Make, table: str) -> None:
    """Memory stays within the queue, what is shed is counted to the row, and the gap rows say the same afterwards."""
    small = {"queue_rows": 1_000, "batch_rows": 200}
    recorder, sink = make(tables={table: small})
    with recorder:
        sink.always(table, Fail(SinkUnavailable("nobody answers")))
        offered = 20_000
        fields = order(0) if table == "orders" else {"symbol": "A"}
        accepted = sum(recorder.record(table, fields) for _ in range(offered))
        wait_until(lambda: recorder.status()["tables"][table]["state"] == "retrying")
        balance = recorder.balance()[table]
        assert balance.exact
        assert balance.received == offered
        assert balance.inserted == 0
        # Three batches may be on their way beside the queue; a batch is sealed at the end of a drain of 1,024 rows.
        assert balance.pending <= 1_000 + 3 * (200 + 1_024)
        assert balance.shed == offered - balance.pending
        assert accepted == offered if table == "market_data" else accepted == balance.pending
        sink.always(table, None)
        recorder.flush(WAIT_S)
        balance = recorder.balance()[table]
        assert (balance.inserted, balance.pending) == (offered - balance.shed, 0)
        assert sum(gap_rows(recorder, table).values()) == balance.shed
        assert rows(recorder, f"SELECT count(), uniqExact(_log, _seq) FROM {table}") == [
            (balance.inserted,) * 2
        ]
        kind = "RecorderDataLoss" if table == "orders" else "RecorderShedding"
        sql = "SELECT DISTINCT kind FROM system_events WHERE kind IN ('RecorderDataLoss', 'RecorderShedding')"
        assert rows(recorder, f"{sql} AND component = '{table}'") == [(kind,)]
        balanced(recorder)


@pytest.mark.parametrize(
    "fault", [Hang(3_600), Fail(HoldError("no such table", code=60))], ids=["hangs", "held"]
)
def test_one_bad_table_costs_one_table(make: Make, fault: Any) -> None:
    """While one table hangs or is held, rows of the others arrive as ever; without a log they are not durable."""
    recorder, sink = make(wal=False, insert_timeout_s=3_600.0, shutdown_timeout_s=0.2)
    with recorder:
        sink.always("orders", fault)
        recorder.record("orders", order(0))
        wait_until(lambda: bool(sink.attempts_of("orders")))
        for n in range(5):
            ticket = recorder.record("fills", {
                "fill_id": f"f-{n}", "symbol": "A", "side": "buy", "fill_qty": 1, "fill_price": 1
            }, ticket=True)  # fmt: skip
            assert ticket.wait(WAIT_S)
        assert recorder.record("market_data", {"symbol": "A"}, ticket=True).wait(WAIT_S)
        assert recorder.balance()["fills"].inserted == 5
        assert recorder.balance()["orders"].pending == 1
        with pytest.raises(NotDurable, match="orders 1 rows"):
            recorder.sync(0.1)
        balanced(recorder)


def test_a_held_table_is_told_and_resumes(make: Make) -> None:
    """The table is taken away and put back while rows come: held, alarmed once, and all are in afterwards, once."""
    recorder, _ = make()
    with recorder:
        recorder.record("orders", order(0))
        recorder.flush(WAIT_S)
        recorder.ask(lambda sink: sink.command("RENAME TABLE orders TO away"), WAIT_S)
        for n in range(1, 50):
            assert recorder.record("orders", order(n))
        wait_until(lambda: recorder.status()["tables"]["orders"]["state"] == "held")
        with pytest.raises(NotDurable, match="held"):
            recorder.flush(0.1)
        recorder.ask(lambda sink: sink.command("RENAME TABLE away TO orders"), WAIT_S)
        recorder.flush(WAIT_S)
        assert rows(recorder, "SELECT count(), uniqExact(_seq) FROM orders") == [(50, 50)]
        assert recorder.status()["tables"]["orders"]["state"] == "flowing"
        sql = "SELECT component, severity FROM system_events WHERE kind = 'RecorderFailure' AND severity != 'info'"
        assert rows(recorder, sql) == [("orders", "error")]
        balanced(recorder)


@pytest.mark.parametrize(
    ("table", "change", "back"),
    [
        ("fills", "ALTER TABLE fills MODIFY COLUMN fees Nullable(Decimal(38, 2))",
         "ALTER TABLE fills MODIFY COLUMN fees Nullable(Decimal(38, 18))"),
        ("market_data", "ALTER TABLE market_data ADD COLUMN extra String",
         "ALTER TABLE market_data DROP COLUMN extra"),
    ],
)  # fmt: skip
def test_a_table_that_drifts_while_rows_come_is_held(make: Make, table: str, change: str, back: str) -> None:
    """ClickHouse would change rows and say nothing, so the live columns are compared again and again."""
    recorder, _ = make(schema_check_s=0.05)
    row = {"symbol": "A"} | ({"side": "buy", "fill_qty": 1, "fill_price": 1, "fees": "0.123456"}
                             if table == "fills" else {})  # fmt: skip
    with recorder:
        recorder.ask(lambda sink: sink.command(change), WAIT_S)
        wait_until(lambda: recorder.status()["tables"][table]["state"] == "held")
        recorder.record(table, {**row, "fill_id": "f-1"} if table == "fills" else row)
        with pytest.raises(NotDurable, match="held"):
            recorder.flush(0.3)
        recorder.ask(lambda sink: sink.command(back), WAIT_S)
        recorder.flush(WAIT_S)
        assert rows(recorder, f"SELECT count() FROM {table}") == [(1,)]
        if table == "fills":
            assert rows(recorder, "SELECT toString(fees) FROM fills") == [("0.123456",)]
        balanced(recorder)


def test_a_critical_table_that_was_replaced_is_held_until_a_restart(make: Make) -> None:
    """Rows confirmed before are in another table, so somebody has to look; a restart accepts the new one, and what the
    log kept for it goes in."""
    recorder, _ = make(schema_check_s=0.05, shutdown_timeout_s=0.5)
    with recorder:
        recorder.record("orders", order(0))
        recorder.flush(WAIT_S)
        (statement,) = rows(recorder, "SHOW CREATE TABLE orders")[0]
        recorder.ask(lambda sink: sink.command("RENAME TABLE orders TO away"), WAIT_S)
        recorder.ask(lambda sink: sink.command(str(statement)), WAIT_S)
        wait_until(lambda: "was replaced" in str(recorder.status()["tables"]["orders"]))
        recorder.record("orders", order(1))
        with pytest.raises(NotDurable, match="was replaced"):
            recorder.flush(0.3)
        assert rows(recorder, "SELECT count() FROM orders") == [(0,)]
    again, _ = make()
    with again:
        again.record("orders", order(2))
        wait_until(lambda: again.balance()["orders"].inserted == 2)
        assert rows(again, "SELECT client_order_id FROM orders ORDER BY ALL") == [("c-1",), ("c-2",)]


def test_a_table_that_stays_held_is_told_once_however_its_reason_changes(make: Make) -> None:
    """Ten reasons within a minute are one alarm; the state shows the last of them."""
    recorder, sink = make()
    with recorder:
        sink.plan("orders", *[Fail(HoldError(f"reason {n}", code=60)) for n in range(10)])
        recorder.record("orders", order(0))
        wait_until(lambda: recorder.balance()["orders"].inserted == 1)
        recorder.flush(WAIT_S)
        sql = "SELECT message FROM system_events WHERE kind = 'RecorderFailure' AND severity != 'info'"
        assert rows(recorder, sql) == [("orders is held: reason 0",)]
        assert recorder.status()["tables"]["orders"]["last_error"] == "reason 9"


def test_a_dead_letter_that_is_shed_is_told_without_its_content(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says which one and how large: what is in it may be long, or secret."""
    recorder, _ = make()
    with recorder:
        assert recorder._life.thread is not None
        recorder._life.thread.runtime.pipelines["dead_letters"].queue.close()
        recorder.record("orders", order(0, api_key="SECRET-1"))
        wait_until(lambda: "a dead letter was shed" in caplog.text)
        assert "unknown_field" in caplog.text
        assert "source_seq=0" in caplog.text
        assert "SECRET-1" not in caplog.text


def test_a_start_reads_the_tables_a_few_times_not_once_each(make: Make) -> None:
    """What a start costs does not grow with the tables."""
    recorder, sink = make()
    asked: list[str] = []
    real = sink.query

    async def query(sql: str, parameters: Any = None) -> Any:
        asked.append(sql)
        return await real(sql, parameters)

    sink.query = query  # type: ignore[method-assign]
    with recorder:
        assert sum("system.columns" in sql for sql in asked) <= 4


def test_a_row_that_cannot_even_be_shown_costs_itself(make: Make) -> None:
    """A correlation id whose text raises, an error that cannot be told: dead letters, and the others are in."""

    class Odd:
        def __str__(self) -> str:
            raise RuntimeError("no")

        __repr__ = __str__

    class Unsayable(dict[str, Any]):
        def __iter__(self) -> Iterator[str]:
            class Silent(Exception):  # noqa: N818
                __str__ = Odd.__str__

            raise Silent

        keys = __iter__  # type: ignore[assignment]

    recorder, _ = make()
    with recorder:
        for n in range(5):
            recorder.record("orders", order(n), correlation_id=Odd() if n == 2 else None)  # type: ignore[call-overload]
        recorder.record("orders", Unsayable(order(5)))
        recorder.flush(WAIT_S)
        balance = recorder.balance()["orders"]
        assert (balance.inserted, balance.dead_lettered, balance.pending) == (4, 2, 0)
        assert rows(recorder, "SELECT count() FROM dead_letters") == [(2,)]
        assert rows(recorder, "SELECT count() FROM orders") == [(4,)]
        balanced(recorder)


def test_a_builder_that_dies_counts_the_rows_it_had(make: Make) -> None:
    """Rows drained and not built are shed, told in a gap row and alarmed; the table goes on."""
    recorder, _ = make()
    with recorder:
        assert recorder._life.thread is not None
        builder = recorder._life.thread.runtime.pipelines["orders"]._builder
        real = builder._keep
        builder._keep = None  # type: ignore[method-assign, assignment]
        builder._bad = None  # type: ignore[method-assign, assignment]
        for n in range(10):
            recorder.record("orders", order(n))
        wait_until(lambda: recorder.balance()["orders"].shed == 10)
        builder._keep = real  # type: ignore[method-assign]
        del builder._bad
        recorder.record("orders", order(10))
        recorder.flush(WAIT_S)
        assert recorder.balance()["orders"].inserted == 1
        assert gap_rows(recorder, "orders") == {"internal_error": 10}
        balanced(recorder)


class _Broken:
    """A stream whose reader is gone."""

    def write(self, text: str) -> int:
        raise ValueError("I/O operation on closed file")

    flush = write


def test_log_lines_that_cannot_be_written_stop_nobody(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard error is closed, and the host's handler raises: errors are logged all the while, and rows arrive."""

    class Raising(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise OSError(errno.ENOSPC, "no space left on device")

    recorder, sink = make()
    handler = Raising()
    logging.getLogger("recorder").addHandler(handler)
    monkeypatch.setattr(sys, "stderr", _Broken())
    try:
        with recorder:
            sink.plan("orders", Fail(HoldError("gone", code=60)), Fail(Retryable("busy")))
            for n in range(10):
                recorder.record("orders", order(n))
            recorder.flush(WAIT_S)
            assert recorder._life.thread is not None
            assert recorder._life.thread.runtime.health.sick() == []
            assert rows(recorder, "SELECT count() FROM orders") == [(10,)]
            balanced(recorder)
    finally:
        logging.getLogger("recorder").removeHandler(handler)


def test_lost_answers_under_load_double_nothing(make: Make) -> None:
    """Every third answer is lost: all rows are there, each once, and the balance adds up."""
    recorder, sink = make(defaults={"linger_ms": 5, "linger_max_ms": 10, "batch_rows": 200})
    with recorder:
        sink.plan("orders", *[None, LoseAnswer(), Fail(Retryable("busy")), LoseAnswer()] * 200)
        for n in range(5_000):
            assert recorder.record("orders", order(n))
        recorder.flush(WAIT_S)
        assert recorder.balance()["orders"].inserted == 5_000
        assert rows(recorder, "SELECT count(), uniqExact(_seq), uniqExact(client_order_id) FROM orders") == [
            (5_000,) * 3
        ]
        assert len(sink.attempts_of("orders")) > 5
        balanced(recorder)


def test_a_row_that_the_table_refuses_is_a_dead_letter(make: Make) -> None:
    """A constraint that the recorder knows nothing of costs one row: its values, identity and chain are kept."""
    recorder, _ = make()
    with recorder:
        recorder.ask(
            lambda sink: sink.command("ALTER TABLE orders ADD CONSTRAINT c CHECK symbol != 'BAD'"), WAIT_S
        )
        for n in range(300):
            recorder.record(
                "orders", order(n, symbol="BAD" if n == 123 else "GOOD"), correlation_id=f"chain-{n}"
            )
        recorder.flush(WAIT_S)
        assert rows(recorder, "SELECT count() FROM orders") == [(299,)]
        (letter,) = rows(
            recorder,
            "SELECT reason, correlation_id, JSONExtractString(payload, 'client_order_id'), "
            "source_log = (SELECT any(_log) FROM orders) FROM dead_letters",
        )
        assert letter == ("refused_469", "chain-123", "c-123", 1)
        balance = recorder.balance()["orders"]
        assert (balance.inserted, balance.dead_lettered) == (299, 1)
        balanced(recorder)


def test_closing_ends_in_time_beside_a_table_that_hangs(make: Make) -> None:
    """What the hanging table held, which has no log, is counted as shed and told in a gap row; all else is in."""
    recorder, sink = make(wal=False, insert_timeout_s=3_600.0, shutdown_timeout_s=0.5)
    recorder.start()
    sink.always("orders", Hang(3_600))
    for n in range(10):
        recorder.record("orders", order(n))
    wait_until(lambda: bool(sink.attempts_of("orders")))
    recorder.record("account_state", {"account_id": "a"})
    recorder.record("account_state", {"account": "a"})
    started = time.monotonic()
    recorder.close()
    assert time.monotonic() - started < 15
    orders, account = recorder.balance()["orders"], recorder.balance()["account_state"]
    assert orders.exact
    assert (orders.received, orders.shed, orders.pending) == (10, 10, 0)
    assert (account.inserted, account.dead_lettered) == (1, 1)
    again, _ = make()
    with again:
        assert gap_rows(again, "orders") == {"shutdown": 10}
        assert rows(again, "SELECT table_name, reason FROM dead_letters") == [
            ("account_state", "missing_field")
        ]
        assert rows(again, "SELECT count() FROM orders") == [(0,)]


def test_an_insert_under_way_at_the_close_is_looked_up(make: Make) -> None:
    """Rows that are in although their answer never came count as inserted, not as lost."""
    recorder, sink = make(
        shutdown_timeout_s=4.0
    )  # all of it passes; in it a busy machine must get to insert and look
    real = sink.inner.insert

    async def commit_and_hang(batch: Batch, *, timeout_s: float) -> None:
        await real(batch, timeout_s=timeout_s)
        if batch.table == "orders":
            await asyncio.sleep(3_600)

    sink.insert = commit_and_hang  # type: ignore[method-assign]
    recorder.start()
    recorder.record("orders", order(0))
    recorder.close()
    balance = recorder.balance()["orders"]
    assert (balance.inserted, balance.shed) == (1, 0)
    again, _ = make()
    with again:
        assert gap_rows(again, "orders") == {}


def test_closing_ends_in_time_beside_an_insert_that_cannot_be_killed(make: Make) -> None:
    """The engine's own brake on parts takes no kill: the close ends all the same, and says what it does not know."""
    recorder, _ = make(wal=False, shutdown_timeout_s=1.0)
    recorder.start()
    recorder.record("orders", order(0))
    recorder.flush(WAIT_S)
    brake = "parts_to_delay_insert = 1, min_delay_to_insert_ms = 6000, max_delay_to_insert = 6"
    recorder.ask(lambda sink: sink.command(f"ALTER TABLE orders MODIFY SETTING {brake}"), WAIT_S)
    recorder.record("orders", order(1))
    time.sleep(0.3)
    started = time.monotonic()
    recorder.close()
    assert time.monotonic() - started < 1.0 + 2.0 + 2.5, "the brake takes six seconds"
    balance = recorder.balance()["orders"]
    assert balance.exact
    assert (balance.inserted, balance.shed) == (1, 1)
    again, _ = make()
    with again:
        (gap,) = rows(again, "SELECT rows, detail FROM recorder_gaps WHERE table_name = 'orders'")
        assert gap == (1, "of 1 rows an insert was under way: they may be in the table")


def test_the_balance_is_exact_at_any_moment(make: Make) -> None:
    """Threads record good, bad and too many rows while inserts fail at random: every look at the balance adds up."""
    recorder, sink = make(tables={"market_data": {"queue_rows": 500, "batch_rows": 100}})
    with recorder:
        sink.plan("market_data", *[None, LoseAnswer(), Fail(Retryable("busy"))] * 500)
        stop = threading.Event()
        offered = [0, 0, 0]

        def produce(thread: int) -> None:
            while not stop.is_set():
                recorder.record("market_data", {"symbol": "A"} if offered[thread] % 10 else {"price": 1})
                offered[thread] += 1

        producers = [threading.Thread(target=produce, args=(n,)) for n in range(3)]
        for producer in producers:
            producer.start()
        try:
            for _ in range(100):
                balance = recorder.balance()["market_data"]
                assert balance.exact, balance
                assert min(balance.as_dict().values()) >= 0
        finally:
            stop.set()
            for producer in producers:
                producer.join()
        assert recorder.balance()["market_data"].received == sum(offered)
        sink._planned["market_data"].clear()
        recorder.flush(WAIT_S)
        balance = recorder.balance()["market_data"]
        assert balance.pending == 0
        assert rows(recorder, "SELECT count() FROM market_data") == [(balance.inserted,)]
        assert rows(recorder, "SELECT count() FROM dead_letters WHERE table_name = 'market_data'")[0][0] == (
            balance.dead_lettered - recorder.balance()["dead_letters"].shed
        )
        assert sum(gap_rows(recorder, "market_data").values()) == balance.shed
        balanced(recorder)


def test_a_database_that_cannot_be_opened_fails_the_start(make: Make) -> None:
    """The error of the sink reaches the caller, nothing is left running, and the recorder is closed."""
    recorder, sink = make()

    async def refuse() -> None:
        await sink.inner.start()  # has threads of its own by now
        raise SinkUnavailable("database /nowhere: cannot write there; name another folder")

    sink.start = refuse  # type: ignore[method-assign]
    before = threading.active_count()
    with pytest.raises(SinkUnavailable, match="name another folder"):
        recorder.start()
    assert threading.active_count() == before


def test_rows_the_close_finds_waiting_are_flushed(make: Make) -> None:
    """Leaving the `with` block inserts what lingers, and all that it counts is in the table."""
    recorder, sink = make(defaults={"linger_ms": 3_600_000, "linger_max_ms": 3_600_000})
    with recorder:
        for n in range(100):
            recorder.record("orders", order(n))
        assert sink.attempts_of("orders") == []
    balance = recorder.balance()["orders"]
    assert (balance.received, balance.inserted, balance.shed) == (100, 100, 0)
    again, _ = make()
    with again:
        assert rows(again, "SELECT count() FROM orders") == [(100,)]


def test_a_wait_that_closing_overtakes_says_so(make: Make) -> None:
    """Flushes and tickets of rows that a shutdown gives up end with `RecorderClosed`, not with a hang."""
    recorder, sink = make(wal=False, insert_timeout_s=3_600.0, shutdown_timeout_s=0.2)
    recorder.start()
    sink.always("orders", Hang(3_600))
    ticket = recorder.record("orders", order(0), ticket=True)
    ends: list[Exception] = []

    def end_of(wait: Callable[[], object]) -> None:
        try:
            wait()
        except Exception as error:  # noqa: BLE001 - the test looks at it
            ends.append(error)

    waiting = [
        threading.Thread(target=end_of, args=(wait,)) for wait in (recorder.flush, recorder.sync, ticket.wait)
    ]
    for thread in waiting:
        thread.start()
    wait_until(lambda: bool(sink.attempts_of("orders")))
    recorder.close()
    for thread in waiting:
        thread.join(WAIT_S)
    assert [type(error) for error in ends] == [RecorderClosed] * 3
    with pytest.raises(RecorderClosed):
        ticket.wait()
