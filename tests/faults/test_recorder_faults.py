"""The recorder while its database misbehaves: load never raises, every row is counted, other tables do not notice."""

from __future__ import annotations

import pathlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client
from harness.faulty_sink import Fail, FaultySink, Hang, LoseAnswer
from harness.recorders import WAIT_S, faulty, order, rows, settings_for, wait_until

from recorder import NotDurable, Recorder, RecorderClosed
from recorder.sink.errors import HoldError, Retryable, SinkUnavailable

Make = Callable[..., tuple[Recorder, FaultySink]]


@pytest.fixture
def make(chdb_path: pathlib.Path, database: str, tmp_path: pathlib.Path, engine: Client) -> Iterator[Make]:
    """Makes recorders on the test's database with a faulty sink, not started; those left running are closed."""
    made: list[tuple[Recorder, FaultySink]] = []

    def new(**changes: Any) -> tuple[Recorder, FaultySink]:
        settings = settings_for(chdb_path, database, tmp_path, **changes)
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
        assert rows(recorder, f"SELECT DISTINCT kind FROM system_events WHERE component = '{table}'") == [
            (kind,)
        ]
        balanced(recorder)


@pytest.mark.parametrize(
    "fault", [Hang(3_600), Fail(HoldError("no such table", code=60))], ids=["hangs", "held"]
)
def test_one_bad_table_costs_one_table(make: Make, fault: Any) -> None:
    """While one table hangs or is held, rows of the others arrive as ever."""
    recorder, sink = make(insert_timeout_s=3_600.0, shutdown_timeout_s=0.2)
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
    """The table is dropped and made anew while rows come: held, alarmed, and all are in afterwards, once."""
    recorder, _ = make()
    with recorder:
        recorder.record("orders", order(0))
        recorder.flush(WAIT_S)
        (statement,) = rows(recorder, "SHOW CREATE TABLE orders")[0]
        recorder.ask(lambda sink: sink.command("DROP TABLE orders SYNC"), WAIT_S)
        for n in range(1, 50):
            assert recorder.record("orders", order(n))
        wait_until(lambda: recorder.status()["tables"]["orders"]["state"] == "held")
        with pytest.raises(NotDurable, match="held"):
            recorder.flush(0.1)
        recorder.ask(lambda sink: sink.command(str(statement)), WAIT_S)
        recorder.flush(WAIT_S)
        assert rows(recorder, "SELECT count(), uniqExact(_seq) FROM orders") == [(49, 49)]
        assert recorder.status()["tables"]["orders"]["state"] == "flowing"
        assert rows(recorder, "SELECT DISTINCT component, severity FROM system_events") == [
            ("orders", "error")
        ]
        balanced(recorder)


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
    """What the hanging table held is counted as shed and told in a gap row; the others and the dead letters are in."""
    recorder, sink = make(insert_timeout_s=3_600.0, shutdown_timeout_s=0.5)
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
    recorder, sink = make(insert_timeout_s=3_600.0, shutdown_timeout_s=0.2)
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
