"""A dev server under way: many at once, large answers, statements that are ended, clients that go, kills."""

from __future__ import annotations

import concurrent.futures
import json
import pathlib
import signal
import socket
import threading
import time
import urllib.parse

import psutil
import pytest
import requests
from harness.dev_server import DevServerProcess, Fault
from harness.dev_server_command import Started, end, launch, module_server

SLOW = "SELECT sleepEachRow(0.05) FROM numbers(2000) SETTINGS max_block_size = 1"
STEP_S = 30.0

server = module_server


def count_of(comment: str) -> str:
    return f"SELECT count() FROM system.processes WHERE Settings['log_comment'] = '{comment}'"


def open_request(server: Started, sql: str, **parameters: str) -> socket.socket:
    """A connection with a request on its way, whose answer nobody reads."""
    connection = socket.create_connection(("127.0.0.1", urllib.parse.urlsplit(server.url).port or 0), 10)
    head = f"POST /?{urllib.parse.urlencode(parameters)} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    connection.sendall(f"{head}Content-Length: {len(sql)}\r\n\r\n{sql}".encode())
    return connection


def test_statements_run_side_by_side(server: Started) -> None:
    """Sixty run at once, each with an answer of its own, while another question is answered."""
    with concurrent.futures.ThreadPoolExecutor(60) as pool:
        sql = "SELECT {n}, sum(sleepEachRow(0.1)) FROM numbers(30) SETTINGS max_block_size = 1, log_comment = 'sixty'"
        answers = [pool.submit(server.text, sql.format(n=n)) for n in range(60)]
        server.wait_for(count_of("sixty"), "60\n")
        assert server.text("SELECT 1") == "1\n"
        assert [answer.result(STEP_S) for answer in answers] == [f"{n}\t0\n" for n in range(60)]


def test_inserts_and_selects_from_many_clients(server: Started) -> None:
    """Each row once, whoever reads meanwhile."""
    server.text("CREATE TABLE many (w UInt8, n UInt32) ENGINE = MergeTree ORDER BY n")

    def write(worker: int) -> None:
        with requests.Session() as session:
            for batch in range(20):
                rows = "".join(f"{worker}\t{batch * 10 + n}\n" for n in range(10))
                answer = session.post(
                    server.url, params={"query": "INSERT INTO many FORMAT TSV"}, data=rows, timeout=60
                )
                assert answer.status_code == 200, answer.text
                assert (
                    session.post(server.url, data="SELECT count() FROM many", timeout=60).status_code == 200
                )

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    assert server.text("SELECT count(), uniqExact(w, n), max(n) FROM many") == "1600\t1600\t199\n"
    server.text("DROP TABLE many SYNC")


def used_bytes(server: Started) -> int:
    """Memory of the server that no file backs."""
    used = psutil.Process(int(str(server.ready["pid"]))).memory_info()
    return int(used.rss - used.shared)


def test_a_large_answer_needs_no_memory(server: Started) -> None:
    """Gigabytes at the reader's pace: what the first tenth needs is enough for the rest."""
    small_blocks = {"max_block_size": "8192", "max_threads": "2"}
    answer = requests.post(
        server.url,
        params=small_blocks,
        data="SELECT number, repeat('x', 500) FROM numbers(5000000) FORMAT RowBinary",
        headers={"Accept-Encoding": "identity"},
        stream=True,
        timeout=60,
    )
    got, begun, most = 0, 0, 0
    for number, piece in enumerate(answer.iter_content(4 << 20)):
        got += len(piece)
        if number == 20:
            time.sleep(0.5)  # a reader that pauses: the engine waits, nothing piles up
        if number % 20 == 0:
            most = max(most, used_bytes(server))
            begun = most if got < 250 << 20 else begun
    assert got == 5_000_000 * (8 + 2 + 500)
    assert most - begun < 100 << 20, f"grew by {(most - begun) >> 20} MiB"


def test_large_bodies_and_whole_answers_need_no_memory(server: Started) -> None:
    """They lie in a file without a name; nothing is left of it, in memory or on disk."""
    server.text("CREATE TABLE big (s String) ENGINE = Null")
    small_blocks = {"max_insert_block_size": "8192", "min_insert_block_size_rows": "8192"}

    def send_and_ask(rows: int) -> None:
        sent = requests.post(
            server.url,
            params={
                "query": "INSERT INTO big FORMAT TSV",
                "min_insert_block_size_bytes": "1048576",
                **small_blocks,
            },
            data=(b"x" * 999_999 + b"\n" for _ in range(rows)),
            timeout=120,
        )
        assert sent.status_code == 200, sent.text
        sql = f"SELECT repeat('x', 999999) FROM numbers({rows}) SETTINGS max_block_size = 8"
        assert len(server.ask(sql, wait_end_of_query=1).content) == rows * 1_000_000

    send_and_ask(30)
    before = used_bytes(server)
    send_and_ask(400)
    assert used_bytes(server) - before < 200 << 20, f"grew by {(used_bytes(server) - before) >> 20} MiB"
    folder = pathlib.Path(str(server.ready["path"]) + ".tmp")
    assert not folder.exists() or list(folder.iterdir()) == []
    server.text("DROP TABLE big SYNC")


@pytest.mark.parametrize("setting", ["1", "0"])
def test_a_stream_ends_with_its_reader(server: Started, setting: str) -> None:
    """At once by the setting, else at the next piece that nobody takes."""
    comment = f"reader {setting}"
    answer = requests.post(
        server.url,
        params={"log_comment": comment, "cancel_http_readonly_queries_on_client_close": setting},
        data="SELECT number FROM system.numbers",
        stream=True,
        timeout=60,
    )
    pieces = answer.iter_content(1_000)  # kept: its end would end the connection
    next(pieces)
    assert server.text(count_of(comment)) == "1\n"
    answer.close()
    server.wait_for(count_of(comment), "0\n", timeout_s=STEP_S)


def test_a_statement_without_output_ends_with_its_client_where_the_setting_says_so(server: Started) -> None:
    with open_request(server, SLOW, log_comment="going", cancel_http_readonly_queries_on_client_close="1"):
        server.wait_for(count_of("going"), "1\n")
    server.wait_for(count_of("going"), "0\n", timeout_s=STEP_S)


def test_an_insert_goes_on_when_its_client_has_gone(server: Started) -> None:
    """ClickHouse answers nobody and keeps the rows; `readonly` statements alone are cancelled."""
    server.text("CREATE TABLE kept (n UInt32) ENGINE = MergeTree ORDER BY n")
    sql = (
        "INSERT INTO kept SELECT number + 0 * sleepEachRow(0.02) FROM numbers(50) SETTINGS max_block_size = 1"
    )
    with open_request(server, sql, log_comment="kept", cancel_http_readonly_queries_on_client_close="1"):
        server.wait_for(count_of("kept"), "1\n")
    server.wait_for("SELECT count() FROM kept", "50\n", timeout_s=STEP_S)
    server.text("DROP TABLE kept SYNC")


@pytest.mark.parametrize("by", ["query_id = 'the-id'", "Settings['log_comment'] = 'to kill'"])
@pytest.mark.parametrize(
    "sql", [SLOW, "INSERT INTO killed SELECT number + sleepEachRow(0.05) FROM numbers(2000)"]
)
def test_another_request_kills_a_statement(server: Started, by: str, sql: str) -> None:
    """By its query id or its comment; its own request answers 394, and a killed insert leaves nothing."""
    server.text("CREATE TABLE IF NOT EXISTS killed (n UInt32) ENGINE = MergeTree ORDER BY n")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(server.ask, sql, query_id="the-id", log_comment="to kill", max_block_size=1)
        server.wait_for(f"SELECT count() FROM system.processes WHERE {by}", "1\n")
        same = server.ask("SELECT 1", query_id="the-id")
        assert same.headers["X-ClickHouse-Exception-Code"] == "216"
        assert "finished" in server.text(f"KILL QUERY WHERE {by} SYNC")
        answer = running.result(STEP_S)
    assert answer.headers["X-ClickHouse-Exception-Code"] == "394"
    assert server.text("SELECT count() FROM killed") == "0\n"
    assert server.text(f"SELECT count() FROM system.processes WHERE {by}") == "0\n"
    server.text("DROP TABLE killed SYNC")


def test_a_time_limit_in_the_url_cuts_an_insert(server: Started) -> None:
    server.text("CREATE TABLE late (n UInt32) ENGINE = MergeTree ORDER BY n")
    sql = "INSERT INTO late SELECT number + sleepEachRow(0.05) FROM numbers(2000)"
    answer = server.ask(sql, max_execution_time=1, max_block_size=1)
    assert (answer.status_code, answer.headers["X-ClickHouse-Exception-Code"]) == (408, "159")
    assert server.text("SELECT count() FROM late") == "0\n"
    server.text("DROP TABLE late SYNC")


def test_the_same_token_inserts_once(server: Started) -> None:
    """As a setting in the URL, with Arrow or text."""
    server.text(
        "CREATE TABLE once (n UInt32) ENGINE = MergeTree ORDER BY n SETTINGS non_replicated_deduplication_window = 100"
    )
    for token in ("a", "a", "b", "a"):
        answer = server.ask("1\n2\n", query="INSERT INTO once FORMAT TSV", insert_deduplication_token=token)
        assert answer.status_code == 200
    assert server.text("SELECT count() FROM once") == "4\n"
    server.text("DROP TABLE once SYNC")


def test_more_statements_than_may_run_are_refused_and_looked_after(tmp_path: pathlib.Path) -> None:
    """ClickHouse's 202; what looks at the others and ends them runs all the same."""
    with DevServerProcess(tmp_path / "server", options={"max_concurrent": 2}) as process:
        url = process.url
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            running = [
                pool.submit(requests.post, url, params={"log_comment": "full"}, data=SLOW, timeout=60)
                for _ in range(2)
            ]
            deadline_s = time.monotonic() + STEP_S
            while requests.post(url, data=count_of("full"), timeout=10).text != "2\n":
                assert time.monotonic() < deadline_s
                time.sleep(0.02)
            refused = requests.post(url, data="SELECT 1", timeout=10)
            assert (refused.status_code, refused.headers["X-ClickHouse-Exception-Code"]) == (500, "202")
            requests.post(url, data="KILL QUERY WHERE Settings['log_comment'] = 'full' SYNC", timeout=60)
            assert [answer.result(STEP_S).status_code for answer in running] == [500, 500]
        assert requests.post(url, data="SELECT 1", timeout=10).text == "1\n"


def test_a_kill_and_a_restart_at_once(tmp_path: pathlib.Path) -> None:
    """SIGKILL under load; the same port and folder answer at once, with all that was confirmed."""
    with DevServerProcess(tmp_path / "server") as process:
        url = process.url
        requests.post(url, data="CREATE TABLE t (n UInt32) ENGINE = MergeTree ORDER BY n", timeout=30)
        confirmed = 0
        for _ in range(3):
            reader = threading.Thread(target=quietly, args=[url, "SELECT number FROM system.numbers"])
            reader.start()
            for _ in range(5):
                answer = requests.post(url, data=f"INSERT INTO t VALUES ({confirmed})", timeout=30)
                confirmed += answer.status_code == 200
            process.kill()
            process.start()
            reader.join(STEP_S)
            assert requests.post(url, data="SELECT count() FROM t", timeout=30).text == f"{confirmed}\n"
        assert confirmed == 15


def quietly(url: str, sql: str) -> None:
    """Read an answer until something ends it."""
    try:
        for _ in requests.post(url, data=sql, stream=True, timeout=30).iter_content(1 << 20):
            pass
    except requests.RequestException:
        pass


@pytest.mark.parametrize("what", ["reset", "close"])
@pytest.mark.parametrize("where", ["before", "middle", "after"])
def test_a_test_takes_hold_of_a_statement(tmp_path: pathlib.Path, where: str, what: str) -> None:
    """A cut before or in the middle of an insert leaves nothing, one after it leaves the rows."""
    with DevServerProcess(tmp_path / "server") as process:
        requests.post(process.url, data="CREATE TABLE t (n UInt32) ENGINE = MergeTree ORDER BY n", timeout=30)
        process.arm(Fault(where, what, table="t", count=1))  # type: ignore[arg-type]
        with pytest.raises(requests.ConnectionError):
            requests.post(
                process.url, params={"query": "INSERT INTO t FORMAT TSV"}, data="1\n2\n", timeout=30
            )
        assert process.told().faults == 1
        stored = requests.post(process.url, data="SELECT count() FROM t", timeout=30).text
        assert stored == ("2\n" if where == "after" else "0\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_ends_in_order_with_statements_under_way(
    tmp_path: pathlib.Path, number: signal.Signals
) -> None:
    """Exit code 0, within seconds, and the folder opens again."""
    for _ in range(2):
        process, log = launch(tmp_path)
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        reader = threading.Thread(target=quietly, args=[url, SLOW])
        reader.start()
        stream = threading.Thread(target=quietly, args=[url, "SELECT number FROM system.numbers"])
        stream.start()
        deadline_s = time.monotonic() + STEP_S
        while requests.post(url, data="SELECT count() FROM system.processes", timeout=10).text != "3\n":
            assert time.monotonic() < deadline_s
            time.sleep(0.02)
        process.send_signal(number)
        assert process.wait(20) == 0, log.read_text()
        reader.join(STEP_S)
        stream.join(STEP_S)
        assert log.read_text() == ""
        end(process)
