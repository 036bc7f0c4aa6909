"""The server commits and its answer is lost, a thousand times: no row twice, none lost.

By turns with inserts that never ran, so that a retry is what some need and what would double others; while the server
remembers the token, and when it has long forgotten it; with the recorder alive, and killed while the answer was out;
and where an insert that everybody took for lost runs after all. `RECORDER_TEST_LOST_ANSWERS` says how many.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import clickhouse_connect
import pytest
from harness.backends import Backend
from harness.dev_server import DevServerProcess, Fault
from harness.faulty_sink import LoseAnswer
from harness.log_kills import Chain, Nursery
from harness.recorders import faulty, order, rows, settings_for, wait_until
from harness.tcp_proxy import TcpProxy

from recorder import Recorder, Settings

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

LOST = int(os.environ.get("RECORDER_TEST_LOST_ANSWERS", "1000"))
BATCH_ROWS = 10
WINDOW = "ALTER TABLE {} MODIFY SETTING non_replicated_deduplication_window = {}"

pytestmark = [pytest.mark.slow, pytest.mark.torture, pytest.mark.timeout(300 + LOST)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevServerProcess]:
    with DevServerProcess(tmp_path_factory.mktemp("server") / "db") as server:
        yield server


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    with Nursery(tmp_path_factory.mktemp("nursery")) as nursery:
        yield nursery


@pytest.fixture
def asking(server: DevServerProcess) -> Iterator[Client]:
    client = clickhouse_connect.get_client(dsn=server.url, autogenerate_session_id=False)
    yield client
    client.close()
    server.disarm()


def quick(target: str, database: str, data_dir: pathlib.Path, **changes: Any) -> Settings:
    return Settings(
        target=target, database=database, data_dir=data_dir, migrate_on_start=True, wal_group_ms=1,
        retry_initial_s=0.002, retry_max_s=0.01, hold_probe_s=0.05, insert_budget_per_s=100_000,
        defaults={"linger_ms": 1, "linger_max_ms": 1, "batch_rows": BATCH_ROWS},
        tables={"metrics_timeseries": {"enabled": False}}, **changes,
    )  # fmt: skip


def fill(n: int) -> dict[str, Any]:
    return {"fill_id": f"c-{n}", "symbol": "B", "side": "buy", "fill_qty": 1, "fill_price": 1}


def stored(client: Client, database: str, table: str, column: str) -> list[str]:
    """The rows that a table has, by a name of theirs; no identity is there twice."""
    found = client.query(f"SELECT {column}, _log, _seq FROM {database}.{table}").result_rows
    assert len({(log, seq) for _, log, seq in found}) == len(found), f"{table}: an identity twice"
    return sorted(name for name, _, _ in found)


@pytest.mark.parametrize("window", ["remembered", "forgotten"])
def test_answers_that_are_lost_double_and_lose_nothing(
    server: DevServerProcess, asking: Client, tmp_path: pathlib.Path, window: str
) -> None:
    """Two recorders side by side, every answer of the server lost, some inserts never run: each row is there once.

    With a window of one, what the other recorder inserts makes the server forget a token before its batch is taken up.
    Nothing below the recorder sends anything by itself: the server sees as many inserts as were asked for.
    """
    database = f"lost_{window}"
    tables = {"orders": (order, "client_order_id"), "fills": (fill, "fill_id")}
    sinks = [faulty(quick(server.url, database, tmp_path / str(number))) for number in range(2)]
    with contextlib.ExitStack() as stack:
        recorders = [
            stack.enter_context(Recorder(quick(server.url, database, tmp_path / str(number)), sink=sink))
            for number, sink in enumerate(sinks)
        ]
        if window == "forgotten":
            for table in tables:
                asking.command(WINDOW.format(f"{database}.{table}", 1))
        for recorder in recorders:
            recorder.flush(60)
        before, sent = server.told(), sum(len(sink.attempts) for sink in sinks)
        server.arm(
            Fault("before", "status", status=503, every=8),
            Fault("after", "close", every=3),
            Fault("after", "status", status=502, every=3),
            Fault("after", "reset"),
        )
        each = -(-LOST // 10) * BATCH_ROWS  # two fifths of all here: of two recorders and two tables

        def produce(number: int) -> None:
            for n in range(each):
                for table, (row, _) in tables.items():
                    assert recorders[number].record(table, row(2 * n + number))
                if (n + 1) % BATCH_ROWS == 0:
                    recorders[number].flush(60)

        with ThreadPoolExecutor() as pool:
            list(pool.map(produce, range(2)))
        for recorder in recorders:
            for name, balance in recorder.balance().items():
                assert balance.exact, (name, balance)
                assert balance.pending == balance.shed == balance.duplicates_skipped == 0, (name, balance)
            assert all(recorder.balance()[table].inserted == each for table in tables)
        told = server.told()
        server.disarm()
        attempts = sum(len(sink.attempts) for sink in sinks) - sent
    lost = told.ran - before.ran
    print(
        f"{window}: {lost} answers lost, {told.insert_faults - before.insert_faults - lost} inserts not run"
    )
    assert lost >= 2 * LOST // 5
    assert told.insert_faults - before.insert_faults == told.inserts - before.inserts, (
        "an answer was not lost"
    )
    assert told.inserts - before.inserts == attempts, "something was sent that nobody asked for"
    for table, (_, column) in tables.items():
        assert stored(asking, database, table, column) == sorted(f"c-{n}" for n in range(2 * each)), table


def test_answers_of_a_sink_that_are_lost_double_and_lose_nothing(
    backend: Backend, database: str, tmp_path: pathlib.Path
) -> None:
    """On any database: committed, and told as an error."""
    count = LOST // 10
    settings = settings_for(
        backend, database, tmp_path, retry_initial_s=0.002, retry_max_s=0.01, insert_budget_per_s=100_000,
        defaults={"linger_ms": 1, "linger_max_ms": 1, "batch_rows": BATCH_ROWS},
    )  # fmt: skip
    sink = faulty(settings)
    for table in ("orders", "fills"):
        sink.always(table, LoseAnswer())
    with Recorder(settings, sink=sink) as recorder:
        for n in range(count // 2 * BATCH_ROWS):
            recorder.record("orders", order(n))
            recorder.record("fills", fill(n))
            if (n + 1) % BATCH_ROWS == 0:
                recorder.flush(60)
        for table, column in (("orders", "client_order_id"), ("fills", "fill_id")):
            sql = f"SELECT count(), uniqExact({column}), uniqExact(_log, _seq) FROM {table}"
            assert rows(recorder, sql) == [(count // 2 * BATCH_ROWS,) * 3]
            assert recorder.balance()[table].inserted == count // 2 * BATCH_ROWS
    assert len(sink.attempts_of("orders")) + len(sink.attempts_of("fills")) >= count // 2 * 2


def test_killed_while_the_answer_is_out_it_doubles_and_loses_nothing(
    server: DevServerProcess, nursery: Nursery, asking: Client, tmp_path: pathlib.Path
) -> None:
    """The insert is in, its recorder dies before it hears so; the next one finds the seal and asks, also when others
    have made the server forget the token."""
    seed = random.SystemRandom().randrange(2**32)
    rng = random.Random(seed)
    print("seed", seed)
    chain = Chain(nursery, tmp_path / "data", target=server.url, database="killed")
    chain.whole()
    stranger = 10**12
    for table in ("orders", "fills"):
        asking.command(WINDOW.format(f"killed.{table}", 2))
    for _ in range(max(2, LOST // 80)):
        table = rng.choice(["orders", "fills"])
        server.arm(Fault("after", "hang", table=table, count=1))
        chain.begin(kill_s=60)
        server.wait_until(hanging=1)
        chain.killed_now()
        server.disarm()
        if rng.random() < 0.5:
            column = "client_order_id" if table == "orders" else "fill_id"
            for _ in range(3):
                stranger += 1
                asking.command(
                    f"INSERT INTO killed.{table} (ts_local, {column}, _log, _seq) "
                    f"VALUES (now64(9), 's-{stranger}', 1, {stranger})"
                )
    chain.whole()


def test_an_insert_that_runs_late_after_all_doubles_nothing(
    server: DevServerProcess, asking: Client, tmp_path: pathlib.Path
) -> None:
    """The connection breaks while a request waits at the server, the table has no row of it, the batch is sent again;
    then the first one runs. That is what tokens are for."""
    rounds = max(2, LOST // 50)
    with TcpProxy(("127.0.0.1", server.port)) as proxy:
        url = f"http://127.0.0.1:{proxy.port}"
        with Recorder(quick(url, "late", tmp_path)) as recorder:
            recorder.flush(60)
            for number in range(rounds):
                ran = server.told().ran
                server.arm(Fault("before", "hang", table="orders", count=1))
                for n in range(BATCH_ROWS):
                    recorder.record("orders", order(number * BATCH_ROWS + n))
                server.wait_until(hanging=1)
                proxy.half_open("client")
                inserted = (number + 1) * BATCH_ROWS
                wait_until(lambda inserted=inserted: recorder.balance()["orders"].inserted == inserted)
                assert server.told().hanging == 1
                ran = server.told().ran
                server.disarm()
                server.wait_until(ran=ran + 1)
    expected = sorted(f"c-{n}" for n in range(rounds * BATCH_ROWS))
    assert stored(asking, "late", "orders", "client_order_id") == expected


def test_an_insert_of_a_killed_recorder_that_runs_late_doubles_nothing(
    server: DevServerProcess, nursery: Nursery, asking: Client, tmp_path: pathlib.Path
) -> None:
    """Its request waits at the server when it dies, and its successor sends the same rows under the same token, since
    the log has both; then the first one runs. That is what seals are for."""
    chain = Chain(nursery, tmp_path / "data", target=server.url, database="sealed")
    chain.whole()
    for number in range(max(2, LOST // 250)):
        with TcpProxy(("127.0.0.1", server.port)) as proxy:
            server.arm(Fault("before", "hang", table=("orders", "fills")[number % 2], count=1))
            chain.target = f"http://127.0.0.1:{proxy.port}"
            chain.begin(kill_s=60)
            server.wait_until(hanging=1)
            proxy.black_hole()  # nobody tells the server that its client has died
            chain.killed_now()
            chain.target = server.url
            chain.whole()
            told = server.told()
            assert told.hanging == 1
            server.disarm()
            server.wait_until(ran=told.ran + 1)
    chain.whole()


def test_what_the_client_repeats_by_itself_is_in_once(server: DevServerProcess, asking: Client) -> None:
    """clickhouse-connect sends an insert again when its connection is reset, and tells nobody. With a token that is
    nothing; without one it doubles, which shows that it did."""
    for table, window in (("bare", 0), ("tokened", 100)):
        asking.command(
            f"CREATE TABLE {table} (n UInt64) ENGINE = MergeTree ORDER BY n "
            f"SETTINGS non_replicated_deduplication_window = {window}"
        )
    asking.insert("bare", [[0]], column_names=["n"])  # over a connection that was used before
    server.arm(Fault("after", "reset", table="bare", count=1))
    asking.insert("bare", [[1]], column_names=["n"])
    assert asking.query("SELECT n FROM bare ORDER BY n").result_columns == [[0, 1, 1]]
    repeats = max(2, LOST // 20)
    before = server.told()
    for n in range(repeats):
        server.arm(Fault("after", "reset", table="tokened", count=1))
        asking.insert("tokened", [[n]], column_names=["n"], settings={"insert_deduplication_token": f"t{n}"})
    assert server.told().inserts - before.inserts == 2 * repeats
    assert asking.query("SELECT n FROM tokened ORDER BY n").result_columns == [list(range(repeats))]
