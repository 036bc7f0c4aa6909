"""The library as its users call it, on a real ClickHouse."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import os
import pathlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pytest
from clickhouse_connect.driver.client import Client
from harness.backends import Backend, Place
from harness.recorders import WAIT_S, order, rows, settings_for, wait_until

from recorder import (
    NotDurable,
    Recorder,
    RecorderClosed,
    RecorderForked,
    SettingsError,
    SourceRow,
    UnknownTable,
    WrongColumns,
    correlated,
)
from recorder.sink.chdb import ChdbSink
from recorder.sink.errors import SinkError
from schemas.core.tables import PACK, Order

NOW_NS = time.time_ns()
FILL = {"fill_id": "f-1", "symbol": "B", "side": "buy", "fill_qty": 1, "fill_price": 1}
Make = Callable[..., Recorder]


@pytest.fixture
def make(backend: Backend, database: str, tmp_path: pathlib.Path) -> Iterator[Make]:
    """Makes recorders on the test's database, not started; those left running are closed."""
    made: list[Recorder] = []

    def new(**changes: Any) -> Recorder:
        made.append(Recorder(settings_for(backend, database, tmp_path, **changes)))
        return made[-1]

    yield new
    for recorder in made:
        recorder.close()


def balanced(recorder: Recorder) -> None:
    for table, balance in recorder.balance().items():
        assert balance.exact, f"{table}: {balance}"


def test_rows_of_every_shape_are_queryable_after_flush(make: Make) -> None:
    """An object, a mapping, a tuple: recorded, flushed, there, each once, with run and identity."""
    with make() as recorder:
        names = [column.name for column in PACK.table("orders").columns]
        whole = {column.name: column.default for column in PACK.table("orders").columns} | order(3)
        assert recorder.record("orders", order(0))
        assert recorder.record("orders", Order(**order(1)))
        assert recorder.record("orders", MappingProxyType(order(2)))
        assert recorder.record("orders", tuple(whole[name] for name in names))
        recorder.flush(WAIT_S)
        stored = rows(recorder, "SELECT client_order_id, qty, run_id, _seq FROM orders ORDER BY _seq")
        assert [(order_id, int(qty), run, seq) for order_id, qty, run, seq in stored] == [
            (f"c-{n}", n, "run-1", n) for n in range(4)
        ]
        assert rows(recorder, "SELECT count(DISTINCT _log) FROM orders") == [(1,)]
        balance = recorder.balance()["orders"]
        assert (balance.received, balance.inserted, balance.pending) == (4, 4, 0)
        balanced(recorder)


def test_a_mapping_is_copied(make: Make) -> None:
    """What a producer does to its mapping afterwards does not change the row."""
    with make() as recorder:
        row = order(0)
        recorder.record("orders", row)
        row["client_order_id"] = "changed"
        recorder.flush(WAIT_S)
        assert rows(recorder, "SELECT client_order_id FROM orders") == [("c-0",)]


def test_many_threads_record_at_once(make: Make) -> None:
    """Every row of every thread is there, and the balance is exact at every moment meanwhile."""
    threads, each = 4, 2_000
    with make() as recorder:

        def produce(thread: int) -> None:
            for n in range(each):
                assert recorder.record("orders", order(n, strategy=f"s{thread}"))

        producers = [threading.Thread(target=produce, args=(n,)) for n in range(threads)]
        for producer in producers:
            producer.start()
        received = 0
        while any(producer.is_alive() for producer in producers):
            balance = recorder.balance()["orders"]
            assert balance.exact, balance
            assert balance.received >= received, "what was received stays received"
            assert min(balance.as_dict().values()) >= 0
            received = balance.received
        recorder.flush(WAIT_S)
        assert recorder.balance()["orders"].inserted == threads * each
        counts = rows(
            recorder, "SELECT strategy, count(), uniqExact(client_order_id) FROM orders GROUP BY 1 ORDER BY 1"
        )
        assert counts == [(f"s{n}", each, each) for n in range(threads)]
        assert rows(recorder, "SELECT uniqExact(_log, _seq) FROM orders") == [(threads * each,)]
        out_of_order = (
            "SELECT countIf(n < before) FROM (SELECT toUInt32(qty) AS n, "
            "lagInFrame(n) OVER (PARTITION BY strategy ORDER BY _seq) AS before FROM orders)"
        )
        assert rows(recorder, out_of_order) == [(0,)], "a thread's rows keep their order"


async def test_asyncio_awaits_sync_and_flush(make: Make) -> None:
    """`async with` gives the same recorder with awaitable waits; tickets are awaited too."""
    async with make() as recorder:
        ticket = recorder.record("orders", order(0), ticket=True)
        assert await ticket is True
        assert recorder.record("orders", order(1))
        await recorder.sync(WAIT_S)
        recorder.record_batch("orders", pa.table({"symbol": ["A"], "status": ["Open"]}))
        await recorder.flush(WAIT_S)
        assert await recorder.ask(lambda sink: sink.query("SELECT count() FROM orders"), WAIT_S) == [(3,)]
        assert (await recorder.balance())["orders"].inserted == 3


def test_a_ticket_waits_for_its_row(make: Make) -> None:
    """When `wait` returns, without a log, the row is queryable, in its table or as a dead letter, under load too."""
    with make(wal=False, defaults={"linger_ms": 200}) as recorder:
        stop = threading.Event()

        def load() -> None:
            while not stop.is_set():
                recorder.record("orders", order(-1))
                time.sleep(0.0005)

        producer = threading.Thread(target=load)
        producer.start()
        try:
            for n in range(1, 4):
                assert recorder.record("orders", order(n), ticket=True).wait(WAIT_S)
                assert rows(recorder, f"SELECT count() FROM orders WHERE client_order_id = 'c-{n}'") == [(1,)]
        finally:
            stop.set()
            producer.join()
        bad = recorder.record("orders", order(9, status="Lost"), ticket=True)
        assert bad
        assert bad.wait(WAIT_S)
        assert rows(recorder, "SELECT reason FROM dead_letters") == [("unknown_choice",)]
        disabled = recorder.record("book_deltas", {"symbol": "A"}, ticket=True)
        assert not disabled
        assert disabled.wait(WAIT_S) is False


def test_sync_waits_for_critical_rows_only(make: Make) -> None:
    """A dense table that lingers does not delay `sync`, here without a log; `flush` waits for it."""
    with make(
        wal=False, tables={"market_data": {"linger_ms": 3_600_000, "linger_max_ms": 3_600_000}}
    ) as recorder:
        recorder.record("market_data", {"symbol": "A"})
        recorder.record("orders", order(0))
        recorder.sync(WAIT_S)
        assert recorder.balance()["orders"].inserted == 1
        assert recorder.balance()["market_data"].pending == 1
        recorder.flush(WAIT_S)
        assert recorder.balance()["market_data"].inserted == 1


def test_a_bad_row_is_a_dead_letter_with_its_identity_and_bytes(make: Make) -> None:
    """Whatever is wrong with it, and whatever came with it, the dead letter is there and the other rows are in."""
    with make() as recorder:
        recorder.record("orders", order(0))
        recorder.record("orders", order(1, qty="1.5 apples"), correlation_id="chain-1")
        recorder.record("orders", order(2, colour="red"), correlation_id=5)  # type: ignore[arg-type]
        recorder.record("orders", object(), correlation_id="\ud800")
        recorder.record("orders", order(4))
        recorder.flush(WAIT_S)
        (log,) = rows(recorder, "SELECT DISTINCT _log FROM orders")[0]
        letters = rows(
            recorder,
            "SELECT source_seq, reason, correlation_id, table_name, recorder_run_id, payload_format, source_log "
            "FROM dead_letters ORDER BY source_seq",
        )
        assert letters == [
            (1, "bad_decimal", "chain-1", "orders", recorder.recorder_run_id, "json", log),
            (2, "unknown_field", "5", "orders", recorder.recorder_run_id, "json", log),
            (3, "wrong_row", "\\ud800", "orders", recorder.recorder_run_id, "json", log),
        ]
        (payload,) = rows(recorder, "SELECT payload FROM dead_letters WHERE source_seq = 1")[0]
        assert "1.5 apples" in str(payload)
        assert recorder.balance()["orders"].dead_lettered == 3
        balanced(recorder)


def test_where_the_correlation_id_comes_from(make: Make) -> None:
    """The row's own stands; else the argument; else the context; else none."""
    with make() as recorder:
        recorder.record("orders", order(0))
        with correlated("context"):
            recorder.record("orders", order(1))
            recorder.record("orders", order(2), correlation_id="argument")
            recorder.record("orders", order(3, correlation_id="own"), correlation_id="argument")
        recorder.record("orders", order(4))
        recorder.flush(WAIT_S)
        stored = rows(recorder, "SELECT correlation_id FROM orders ORDER BY _seq")
        assert stored == [(None,), ("context",), ("argument",), ("own",), (None,)]


def test_record_batch_takes_columns(make: Make) -> None:
    """Columns of an exact type go in as they are; bad rows leave one by one; wrong columns raise."""
    with make() as recorder:
        qty = pa.array([1.5, float("nan"), 3.25])
        data = pa.table({"symbol": ["A", "B", "C"], "status": ["Open", "Open", "Filled"], "qty": qty})
        assert recorder.record_batch("orders", data) == 3
        with pytest.raises(WrongColumns, match="colour"):
            recorder.record_batch("orders", data.append_column("colour", pa.array(["red"] * 3)))
        with pytest.raises(WrongColumns, match="symbol"):
            recorder.record_batch("orders", data.drop_columns(["symbol"]))
        recorder.flush(WAIT_S)
        stored = rows(recorder, "SELECT symbol, toString(qty) FROM orders ORDER BY symbol")
        assert stored == [("A", "1.5"), ("C", "3.25")]
        assert recorder.balance()["orders"].dead_lettered == 1
        balanced(recorder)


def test_rows_of_a_source_are_there_once(make: Make) -> None:
    """Delivered twice, to one recorder or to two, a source's row is stored once and the rest counted as skipped."""
    entries = [SourceRow("orders", n, order(n, ts_local=NOW_NS + n)) for n in range(500)]
    first = make()
    with first as recorder:
        assert recorder.record_source(11, entries) == 500
        assert recorder.record_source(11, entries[:200]) == 200
        recorder.flush(WAIT_S)
        balance = recorder.balance()["orders"]
        assert (balance.received, balance.inserted, balance.duplicates_skipped) == (700, 500, 200)
        recorder.record("orders", order(0))
        recorder.flush(WAIT_S)
    with make() as recorder:
        more = [SourceRow("orders", n, order(n, ts_local=NOW_NS + n)) for n in range(400, 600)]
        assert recorder.record_source(11, more) == 200
        recorder.flush(WAIT_S)
        balance = recorder.balance()["orders"]
        assert (balance.inserted, balance.duplicates_skipped) == (100, 100)
        assert rows(recorder, "SELECT count(), uniqExact(_seq) FROM orders WHERE _log = 11") == [(600, 600)]
        assert recorder.record_source(12, more) == 200, "the same numbers of another source are other rows"
        recorder.flush(WAIT_S)
        assert recorder.balance()["orders"].inserted == 300
        balanced(recorder)


def test_a_dead_letter_of_a_source_is_there_once(make: Make) -> None:
    """A message that cannot be decoded is kept once, however often it is delivered; one without identity each time."""
    with make() as recorder:
        for _ in range(2):
            recorder.dead_letter(
                reason="no_json",
                detail="at byte 3 \ud800",
                payload=b"\xff\x00",
                origin="bus",
                log=5,
                seq=9,
                ts_local=NOW_NS,
                wait=True,
            )
            recorder.flush(WAIT_S)
        assert recorder.dead_letter(reason="no_json", detail="", payload=b"")
        recorder.flush(WAIT_S)
        letters = rows(
            recorder,
            "SELECT hex(payload), source_log = 5 AND source_seq = 9 AND _seq = 9, origin "
            "FROM dead_letters ORDER BY 1 DESC",
        )
        assert letters == [("FF00", 1, "bus"), ("", 0, "")]


def test_an_identity_that_is_none_is_refused_at_once(make: Make) -> None:
    """It is the caller's mistake, and no row was taken."""
    wrong: list[tuple[Any, Any]] = [(-1, 0), (0, -1), (0, 1.5), (2**64, 0), ("log", 0)]
    with make(packs=("core",)) as recorder:
        for log, seq in wrong:
            with pytest.raises(ValueError, match="identity"):
                recorder.record_source(log, [SourceRow("orders", seq, order(0))])
        assert recorder.balance()["orders"].received == 0


def test_wrong_use_raises(make: Make) -> None:
    """An unknown table, a recorder that is not started, started twice, or closed: each says which and what to do."""
    recorder = make()
    with pytest.raises(RecorderClosed, match="not started"):
        recorder.record("orders", order(0))
    with recorder:
        with pytest.raises(UnknownTable, match="market_data"):
            recorder.record("nowhere", {})
        with pytest.raises(UnknownTable, match="nowhere"):
            recorder.record_batch("nowhere", pa.table({}))
        with pytest.raises(UnknownTable, match="nowhere"):
            recorder.record_source(1, [SourceRow("orders", 0, order(0)), SourceRow("nowhere", 1, {})])
        with pytest.raises(RecorderClosed, match="running"):
            recorder.start()
        assert recorder.balance()["orders"].received == 0
        recorder.record("orders", order(0))
    for ask in (lambda: recorder.record("orders", order(0)), recorder.sync, recorder.flush, recorder.status):
        with pytest.raises(RecorderClosed, match="closed"):
            ask()
    with pytest.raises(RecorderClosed, match="closed"):
        recorder.start()
    assert recorder.balance()["orders"].inserted == 1, "the balance outlives the recorder"
    recorder.close()


def test_closing_wakes_who_waits(make: Make) -> None:
    """A flush that another thread's `close` overtakes ends, with an answer or with `RecorderClosed`."""
    recorder = make(tables={"orders": {"linger_ms": 3_600_000, "linger_max_ms": 3_600_000}}).start()
    ends: list[Any] = []

    def flush() -> None:
        try:
            while True:
                recorder.record("orders", order(0))
                recorder.flush()
        except Exception as error:  # noqa: BLE001 - the test looks at it
            ends.append(error)

    waiting = threading.Thread(target=flush)
    waiting.start()
    wait_until(lambda: recorder.balance()["orders"].inserted > 3)
    recorder.close()
    waiting.join(WAIT_S)
    assert not waiting.is_alive()
    assert [type(error) for error in ends] == [RecorderClosed]


def in_a_fork(do: Callable[[], Any]) -> str:
    """What a forked child's call came to."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        told = b"nothing"
        try:
            do()
        except RecorderForked as error:
            told = str(error).encode()
        except BaseException as error:  # noqa: BLE001 - told to the parent
            told = repr(error).encode()
        os.write(writing, told)
        os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as pipe:
        return pipe.read()


def test_a_forked_child_has_no_recorder(make: Make) -> None:
    """The recorder's thread stayed in the parent: whatever the child asks it is told so, and the parent goes on."""
    with make() as recorder:
        ticket = recorder.record("orders", order(0), ticket=True)
        for ask in (
            lambda: recorder.record("orders", order(1)),
            lambda: recorder.record("orders", order(1), ticket=True),
            lambda: recorder.record_batch("orders", pa.table({"symbol": ["A"]})),
            lambda: ticket.wait(WAIT_S),
            lambda: recorder.flush(WAIT_S),
            lambda: recorder.sync(WAIT_S),
            recorder.balance,
            recorder.status,
        ):
            assert "make a Recorder in the child" in in_a_fork(ask)
        assert in_a_fork(recorder.close) == "nothing", "closing what is not there is no error"
        recorder.record("orders", order(2))
        recorder.flush(WAIT_S)
        assert ticket.wait(WAIT_S)
        assert recorder.balance()["orders"].inserted == 2


def test_a_ticket_of_a_displaced_row_says_so(make: Make) -> None:
    """A row that was accepted and shed later is not durable, whatever became of the rows around it."""
    small = {"queue_rows": 10, "overflow": "drop_oldest", "linger_ms": 1_000, "linger_max_ms": 1_000}
    with make(tables={"market_data": small}) as recorder:
        tickets = [recorder.record("market_data", {"symbol": f"S{n}"}, ticket=True) for n in range(400)]
        assert all(tickets)
        said = {f"S{n}" for n, ticket in enumerate(tickets) if ticket.wait(WAIT_S)}
        stored = {symbol for (symbol,) in rows(recorder, "SELECT symbol FROM market_data")}
        assert said == stored
        assert recorder.balance()["market_data"].shed == 400 - len(stored) > 0


async def test_an_awaited_ticket_of_a_displaced_row_says_so(make: Make) -> None:
    """The same for a coroutine."""
    small = {"queue_rows": 1, "overflow": "drop_oldest", "linger_ms": 1_000, "linger_max_ms": 1_000}
    async with make(tables={"market_data": small}) as recorder:
        tickets = [recorder.record("market_data", {"symbol": f"S{n}"}, ticket=True) for n in range(50)]
        said = [await ticket for ticket in tickets]
        assert said.count(True) == (await recorder.balance())["market_data"].inserted < 50


def test_a_ticket_of_a_row_whose_dead_letter_was_shed_says_so(make: Make) -> None:
    """A bad row is durable as its dead letter; where that found no room, it is nowhere but in the log."""
    held = {"queue_rows": 1, "overflow": "drop_oldest", "linger_ms": 500, "linger_max_ms": 500}
    with make(tables={"dead_letters": held}) as recorder:
        tickets = [recorder.record("orders", order(n, status="Lost"), ticket=True) for n in range(50)]
        good = recorder.record("fills", FILL, ticket=True)
        said = [ticket.wait(WAIT_S) for ticket in tickets]
        recorder.flush(WAIT_S)
        assert good.wait(WAIT_S) is True, "a good row's ticket does not mind"
        ((kept,),) = rows(recorder, "SELECT count() FROM dead_letters")
        assert kept < 50
        assert said.count(True) <= kept


def test_what_a_mapping_holds_is_copied_too(make: Make) -> None:
    """Lists and mappings inside a row may be gone on with as well."""
    with make() as recorder:
        sample = {"name": "m", "value": 1.0, "labels": {"k": "1"}}
        quote = {"symbol": "A", "bid_pxs": [1.0]}
        for row in (quote, MappingProxyType(quote)):
            assert recorder.record("market_data", row)
        assert recorder.record("metrics_timeseries", sample)
        sample["labels"]["k"] = "changed"  # type: ignore[index]
        quote["bid_pxs"].append(2.0)  # type: ignore[attr-defined]
        recorder.flush(WAIT_S)
        assert rows(recorder, "SELECT labels FROM metrics_timeseries WHERE name = 'm'") == [({"k": "1"},)]
        assert rows(recorder, "SELECT bid_pxs FROM market_data") == [([1.0],), ([1.0],)]


def test_columns_meet_the_overflow_policy(make: Make) -> None:
    """Under `drop_oldest` the newest columns are kept, under `spill` the oldest, and the rest is counted."""
    data = pa.table({"symbol": ["S"] * 10_000, "last_price": [float(n) for n in range(10_000)]})
    lingers = {"queue_rows": 2_048, "durability": "wal", "linger_ms": 1_000, "linger_max_ms": 1_000}
    for overflow, kept in (
        ("drop_oldest", 9_999.0),
        ("sample", 9_999.0),
        ("conflate", 9_999.0),
        ("spill", None),
    ):
        with make(tables={"market_data": lingers | {"overflow": overflow}}) as recorder:
            accepted = recorder.record_batch("market_data", data)
            recorder.flush(WAIT_S)
            ((newest,),) = rows(recorder, "SELECT max(last_price) FROM market_data")
            balance = recorder.balance()["market_data"]
            assert balance.received == 10_000 == balance.inserted + balance.shed
            if kept is None:
                assert accepted == balance.inserted
            else:
                assert accepted == 10_000
                assert newest == kept


def test_columns_that_wait_keep_only_themselves_in_memory(make: Make) -> None:
    """A block is copied where it is a small part of what came, so that shed rows are gone."""
    rows_ = 50_000
    data = pa.record_batch({
        "ts_local": pa.array([NOW_NS] * rows_, pa.timestamp("ns", tz="UTC")), "kind": ["k"] * rows_,
        "message": ["m" * 200] * rows_,
    })  # fmt: skip
    small = {"queue_rows": 3_000, "overflow": "spill", "linger_ms": 60_000, "linger_max_ms": 60_000}
    with make(tables={"system_events": small}) as recorder:
        queue = recorder._doors["system_events"].queue
        taken: list[Any] = []
        put_block = queue.put_block
        queue.put_block = lambda block, **how: taken.append(block) or put_block(block, **how)  # type: ignore[assignment, func-returns-value]
        recorder.record_batch("system_events", data)
        assert len(taken) == 25
        for block in taken:
            assert block.rows.get_total_buffer_size() <= 2 * block.rows.nbytes + 65_536


def test_the_switch_interval_is_set_and_restored(
    make: Make, backend: Backend, tmp_path: pathlib.Path
) -> None:
    """While the recorder runs it is the setting's; afterwards what it was, after a failed start too."""
    before = sys.getswitchinterval()
    with make(switch_interval_s=0.0007):
        assert sys.getswitchinterval() == pytest.approx(0.0007)
    assert sys.getswitchinterval() == before
    nowhere = f"chdb://{tmp_path}/another-engine" if backend.embedded else "http://127.0.0.1:1"
    failing = make(switch_interval_s=0.0007, target=nowhere)
    with pytest.raises(SinkError):
        failing.start()
    assert sys.getswitchinterval() == before


def test_a_closing_recorder_answers(make: Make) -> None:
    """While one thread closes it, `balance` and `status` answer, and another `close` returns when it has ended."""
    recorder = make(wal=False, shutdown_timeout_s=2).start()
    recorder.ask(lambda sink: sink.command(f"RENAME TABLE {recorder.settings.database}.orders TO away"))
    recorder.record("orders", order(0))
    first = threading.Thread(target=recorder.close)
    first.start()
    wait_until(lambda: not recorder.running)
    assert recorder.balance()["orders"].exact
    assert recorder.status()["tables"]["orders"]
    second = threading.Thread(target=recorder.close)
    second.start()
    while first.is_alive():
        assert recorder.balance()["orders"].exact
    second.join(WAIT_S)
    assert recorder._life.thread is not None
    assert not recorder._life.thread.alive
    recorder.close()
    balance = recorder.balance()["orders"]
    assert (balance.received, balance.shed, balance.pending) == (1, 1, 0)


def test_the_parts_of_all_tables_are_watched_from_the_start(make: Make, engine: Client) -> None:
    """Also of a table without a row yet: what a full disk breaks of it is mended before its first insert.

    About the embedded engine: a server's disk is its own to watch.
    """
    recorder = make().start()
    sink = recorder.sink
    assert isinstance(sink, ChdbSink)
    assert sink._guard._ours >= {(sink.database, table) for table in recorder.tables}


def test_a_question_that_fails_is_told_its_error(make: Make) -> None:
    """What the asking does raise is not taken for a loop that has gone."""
    recorder = make().start()

    def ask(kind: type[Exception]) -> None:
        raise kind("of the question")

    for kind in (RuntimeError, TimeoutError, LookupError):
        with pytest.raises(kind, match="of the question"):
            recorder._life.ask(lambda _, kind=kind: ask(kind))
    assert recorder.balance()["orders"].exact


def test_a_recorder_that_failed_is_closed_and_counts(make: Make) -> None:
    """Its doors are shut, its balance is there, `close` waits for its thread, and nothing of it goes on."""
    threads = set(threading.enumerate())
    recorder = make().start()
    assert recorder._life.thread is not None
    loop, stop = recorder._life.thread.loop, recorder._life.thread._stop

    async def broken() -> None:
        raise RuntimeError("a fault")

    stop.wait = broken  # type: ignore[assignment, method-assign]
    task = next(task for task in asyncio.all_tasks(loop) if "_live" in repr(task))
    loop.call_soon_threadsafe(task.cancel)
    wait_until(lambda: recorder._life.state.value == "failed")
    with pytest.raises(RecorderClosed, match="unexpectedly"):
        recorder.record("orders", order(0))
    recorder.close()
    assert recorder._life.thread is not None
    assert not recorder._life.thread.alive
    assert recorder.balance()["orders"].received == 0
    wait_until(lambda: set(threading.enumerate()) <= threads)
    with make() as another:  # its log is nobody's
        another.record("orders", order(0))


CHILD = """
import sys
from recorder import Recorder, Settings
rec = Recorder(Settings(data_dir=sys.argv[1])).start()
for n in range(500):
    rec.record("fills", {"fill_id": str(n), "symbol": "B", "side": "buy", "fill_qty": 1, "fill_price": 1})
"""
END = {"plainly": "", "by sys.exit": "sys.exit(0)", "by an error": "raise RuntimeError"}
COUNT = """
import sys
from recorder import Recorder, Settings
with Recorder(Settings(data_dir=sys.argv[1])) as rec:
    print(rec.ask(lambda sink: sink.query("SELECT count() FROM fills"))[0][0])
"""


@pytest.mark.parametrize("end", END)
def test_a_program_that_ends_without_closing_loses_nothing(
    place: Place, tmp_path: pathlib.Path, end: str
) -> None:
    """Whoever forgets `close` has it done when the interpreter exits, and the exit is as clean."""
    run = functools.partial(
        subprocess.run,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=os.environ | place.variables,
    )
    ended = run([sys.executable, "-c", CHILD + END[end], str(tmp_path)])
    assert ended.returncode == (1 if end == "by an error" else 0), ended.stderr
    assert ("Traceback" in ended.stderr) == (end == "by an error"), ended.stderr
    counted = run([sys.executable, "-c", COUNT, str(tmp_path)])
    assert counted.stdout.split() == ["500"], counted.stderr


def test_a_disabled_table_counts_its_rows_as_filtered(make: Make) -> None:
    """`book_deltas` is off unless asked for; what it leaves out is counted and nothing else happens."""
    with make() as recorder:
        assert recorder.record("book_deltas", {"symbol": "A"}) is False
        assert recorder.record_batch("book_deltas", pa.table({"symbol": ["A", "B"]})) == 0
        assert recorder.record_source(1, [SourceRow("book_deltas", 0, {})]) == 0
        assert recorder.status()["tables"]["book_deltas"]["filtered_rows"] == 4
        assert recorder.balance()["book_deltas"].received == 0
    with make(tables={"book_deltas": {"enabled": True}}) as recorder:
        assert recorder.record("book_deltas", {"symbol": "A", "bid_pxs": [1.5]})
        recorder.flush(WAIT_S)
        assert rows(recorder, "SELECT bid_pxs FROM book_deltas") == [([1.5],)]


def test_the_recorder_writes_about_itself(make: Make) -> None:
    """A run row at start, samples of its metrics, and a status that JSON can hold."""
    import json

    with make(metrics_interval_s=0.05) as recorder:
        recorder.record("orders", order(0))
        wait_until(lambda: recorder.balance()["metrics_timeseries"].inserted > 0, "samples")
        recorder.flush(WAIT_S)
        (run,) = rows(
            recorder, "SELECT recorder_run_id, config_hash, pid, packs['core'] != '' FROM recorder_runs"
        )
        assert run == (recorder.recorder_run_id, recorder.settings.config_hash, os.getpid(), True)
        names = {name for (name,) in rows(recorder, "SELECT DISTINCT name FROM metrics_timeseries")}
        assert any(name.startswith("recorder_queue") for name in names)
        status = json.loads(json.dumps(recorder.status()))
        assert status["balance"]["orders"]["inserted"] == 1
        assert status["tables"]["orders"]["lag"]
        assert recorder.tables["orders"].row is PACK.table("orders").row


def test_a_drifted_table_is_held_at_start_and_resumes(make: Make, client: Client, database: str) -> None:
    """Nothing is written to it; the event names the column; mended, it takes the rows that waited."""
    with make() as recorder:
        recorder.flush(WAIT_S)
    client.command(f"ALTER TABLE {database}.orders DROP COLUMN notes")
    with make() as recorder:
        status = recorder.status()["tables"]
        wait_until(lambda: recorder.status()["tables"]["orders"]["state"] == "held")
        assert "notes" in recorder.status()["tables"]["orders"]["held_because"]
        assert status["fills"]["state"] == "flowing"
        recorder.record("orders", order(0, notes="kept"))
        with pytest.raises(NotDurable, match=r"orders 1 rows \(held: .*notes"):
            recorder.flush(0.2)
        assert rows(recorder, "SELECT count() FROM orders") == [(0,)]
        client.command(
            f"ALTER TABLE {database}.orders ADD COLUMN notes Nullable(String) AFTER risk_decision_id"
        )
        recorder.flush(WAIT_S)
        assert rows(recorder, "SELECT notes FROM orders") == [("kept",)]
        (event,) = rows(
            recorder, "SELECT DISTINCT severity, component FROM system_events WHERE kind = 'RecorderFailure'"
        )
        assert event == ("error", "orders")


def test_pending_migrations_hold_their_tables_and_name_the_command(make: Make) -> None:
    """Where migrating at start is off, the recorder starts, takes rows, and says what to run."""
    with make(migrate_on_start=False) as recorder:
        recorder.record("orders", order(0))
        wait_until(lambda: recorder.status()["tables"]["orders"]["state"] == "held")
        why = recorder.status()["tables"]["orders"]["held_because"]
        assert "recorder migrate up" in why
        assert "core/0002" in why
        balance = recorder.balance()["orders"]
        assert (balance.received, balance.pending) == (1, 1)
        with pytest.raises(NotDurable, match="recorder migrate up"):
            recorder.flush(0.2)
        recorder.settings = recorder.settings.model_copy(update={"shutdown_timeout_s": 0.2})
        with make(wal=False):  # another recorder, which migrates
            pass
        recorder.flush(WAIT_S)
        assert recorder.balance()["orders"].inserted == 1


def test_settings_of_a_table_that_is_not_there_are_refused(make: Make) -> None:
    """A misspelt table would be recorded with the defaults, unseen."""
    with pytest.raises(SettingsError, match="orders"):
        make(tables={"oders": {"linger_ms": 1}})


def test_balance_says_what_is_missing() -> None:
    """A balance that does not add up is not exact."""
    from recorder import Balance

    whole = Balance(
        received=6, inserted=1, pending=1, shed=1, dead_lettered=1, duplicates_skipped=1, expired=1
    )
    assert whole.exact
    for name in whole.as_dict():
        assert not dataclasses.replace(whole, **{name: 0}).exact


async def test_a_block_policy_never_waits_on_the_users_loop(make: Make) -> None:
    """`record` from a coroutine returns at once, whatever the overflow policy."""
    block = {
        "overflow": "block",
        "overflow_second": "drop_oldest",
        "block_timeout_ms": 600_000,
        "queue_rows": 10,
    }
    async with make(tables={"market_data": block | {"linger_ms": 100, "linger_max_ms": 200}}) as recorder:
        async with asyncio.timeout(WAIT_S):
            for _ in range(100):
                recorder.record("market_data", {"symbol": "A"})
            await recorder.flush(WAIT_S)
        assert (await recorder.balance())["market_data"].exact


BAD_OF_EVERY_TABLE = sorted({table.name for table in PACK.tables} - {"dead_letters"})


@pytest.mark.parametrize("way", ["record", "record_source"])
def test_flush_waits_for_the_dead_letters_of_every_table(make: Make, way: str) -> None:
    """After `flush` a bad row of any table, of the recorder's own too, is a queryable dead letter."""
    # Nothing goes out by itself meanwhile, so only what `flush` waits for is there.
    slow = {"linger_ms": 10_000, "linger_max_ms": 10_000}
    with make(defaults=slow, gap_window_s=60, tables={"book_deltas": {"enabled": True}}) as recorder:
        for seq, table in enumerate(BAD_OF_EVERY_TABLE):
            bad = {"no_such_column": 1, "ts_local": NOW_NS}
            if way == "record":
                assert recorder.record(table, bad)
            else:
                assert recorder.record_source(77, [SourceRow(table, seq, bad)]) == 1
        recorder.flush(WAIT_S)
        letters = rows(recorder, "SELECT table_name, count() FROM dead_letters GROUP BY 1 ORDER BY 1")
        assert letters == [(table, 1) for table in BAD_OF_EVERY_TABLE]
        assert recorder.balance()["dead_letters"].pending == 0


@pytest.mark.parametrize("table", ["orders", "metrics_timeseries"])
def test_flush_waits_for_the_gap_rows_of_shed_dead_letters(make: Make, table: str) -> None:
    """After `flush` each bad row is a queryable dead letter, or counted in a queryable gap row of them."""
    slow = {"linger_ms": 10_000, "linger_max_ms": 10_000}
    with make(defaults=slow, gap_window_s=60, tables={"dead_letters": {"queue_rows": 10}}) as recorder:
        for _ in range(200):
            recorder.record(table, {"no_such_column": 1})
        recorder.flush(WAIT_S)
        letters = rows(recorder, "SELECT count() FROM dead_letters")[0][0]
        shed = rows(recorder, "SELECT sum(rows) FROM recorder_gaps WHERE table_name = 'dead_letters'")[0][0]
        assert shed > 0
        assert letters + shed == 200
