"""The dev server under test control does what it is told: each fault as a plain HTTP client sees it."""

from __future__ import annotations

import http.client
import pathlib
import threading
import urllib.parse
from collections.abc import Iterator

import pytest
from harness.dev_server import DevServerProcess, Fault
from harness.dev_server_child import table_of

INSERT = "INSERT INTO t FORMAT CSV"


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevServerProcess]:
    with DevServerProcess(tmp_path_factory.mktemp("server") / "db") as server:
        yield server


@pytest.fixture
def server(started: DevServerProcess) -> DevServerProcess:
    """The module's server, up, with an empty table t and nothing armed."""
    if not started.alive:
        started.start()
    started.disarm()
    for sql in ("CREATE OR REPLACE TABLE t (n Int64) ENGINE = MergeTree ORDER BY n", "SELECT 1"):
        assert ask(started, sql)[0] == 200
    return started


def ask(server: DevServerProcess, sql: str, body: bytes | None = None) -> tuple[int, str]:
    """Status and text of the answer; with a body the statement goes in the URL."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        path = "/" if body is None else "/?" + urllib.parse.urlencode({"query": sql})
        connection.request("POST", path, sql.encode() if body is None else body)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def rows(server: DevServerProcess, table: str = "t") -> int:
    status, text = ask(server, f"SELECT count() FROM {table}")
    assert status == 200, text
    return int(text)


@pytest.mark.parametrize(
    ("sql", "table"),
    [
        ("INSERT INTO t FORMAT Arrow", "t"),
        ("insert into `d`.`t u` (`a`) FORMAT Native", "t u"),
        ("INSERT INTO TABLE d.t VALUES", "t"),
        ("  INSERT INTO `orders` (`a`, `b`) FORMAT ArrowStream", "orders"),
        ("SELECT 1", None),
        ("SELECT 'INSERT INTO t'", None),
    ],
)
def test_says_which_table_an_insert_is_for(sql: str, table: str | None) -> None:
    """Faults are armed by table."""
    assert table_of(sql) == table


@pytest.mark.parametrize(("where", "there"), [("before", 0), ("middle", 0), ("after", 1)])
@pytest.mark.parametrize("what", ["reset", "close", "status"])
def test_a_fault_once_and_then_none(server: DevServerProcess, where: str, what: str, there: int) -> None:
    """Only after the insert ran its row is there; the fault was counted, and the next insert goes through."""
    server.arm(Fault(where, what, status=503, count=1))  # type: ignore[arg-type]
    before = server.told()
    if what == "status":
        status, text = ask(server, INSERT, b"1\n")
        assert (status, "injected 503" in text) == (503, True)
    else:
        expected = ConnectionResetError if what == "reset" else http.client.RemoteDisconnected
        with pytest.raises(expected) as caught:
            ask(server, INSERT, b"1\n")
        assert caught.type is expected
    assert rows(server) == there
    assert server.told().faults == before.faults + 1
    assert ask(server, INSERT, b"2\n")[0] == 200
    assert rows(server) == there + 1


def test_a_status_may_carry_a_code_of_clickhouse(server: DevServerProcess) -> None:
    """As the driver reads it: a missing grant, say."""
    server.arm(Fault("before", "status", status=403, code=497, text="Not enough privileges", count=1))
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request("POST", "/?query=" + urllib.parse.quote(INSERT), b"1\n")
    answer = connection.getresponse()
    assert answer.status == 403
    assert answer.headers["X-ClickHouse-Exception-Code"] == "497"
    assert "Not enough privileges" in answer.read().decode()
    connection.close()


@pytest.mark.parametrize(("where", "there"), [("before", 0), ("middle", 0), ("after", 1)])
def test_a_hang_lasts_until_released(server: DevServerProcess, where: str, there: int) -> None:
    """Meanwhile other statements go on; afterwards the insert goes on too."""
    server.arm(Fault(where, "hang", table="t"))  # type: ignore[arg-type]
    answers: list[tuple[int, str]] = []
    thread = threading.Thread(target=lambda: answers.append(ask(server, INSERT, b"1\n")))
    thread.start()
    server.wait_until(hanging=1)
    assert rows(server) == there
    assert not answers
    server.release()
    thread.join(30)
    assert answers[0][0] == 200
    assert rows(server) == 1


def test_a_hang_of_some_seconds_ends_by_itself(server: DevServerProcess) -> None:
    """Nobody has to release it."""
    server.arm(Fault("before", "hang", seconds=0.05))
    assert ask(server, INSERT, b"1\n")[0] == 200


@pytest.mark.parametrize(("where", "there"), [("before", 0), ("middle", 0), ("after", 1)])
def test_a_kill_and_a_restart_on_the_same_port_and_folder(
    server: DevServerProcess, where: str, there: int
) -> None:
    """The process dies at that point, and what had run is there afterwards."""
    server.arm(Fault(where, "kill"))  # type: ignore[arg-type]
    url = server.url
    with pytest.raises((ConnectionResetError, http.client.RemoteDisconnected)):
        ask(server, INSERT, b"1\n")
    server.wait_gone()
    assert not server.alive
    with pytest.raises(ConnectionRefusedError):
        rows(server)
    server.start()
    assert server.url == url
    assert rows(server) == there


def test_a_kill_while_the_statement_goes_on(server: DevServerProcess) -> None:
    """So many seconds after it was received: it has begun by then, and a short one has run."""
    server.arm(Fault("before", "kill", table="t", seconds=2.0, count=1))
    assert ask(server, INSERT, b"1\n")[0] == 200
    server.arm(Fault("before", "hang"))
    with pytest.raises((ConnectionResetError, http.client.RemoteDisconnected)):
        ask(server, INSERT, b"2\n")
    server.wait_gone()
    server.start()
    assert rows(server) == 1


def test_every_so_many_and_of_one_table_only(server: DevServerProcess) -> None:
    """Every second of the next four inserts into t; others and queries are left alone."""
    assert ask(server, "CREATE OR REPLACE TABLE other (n Int64) ENGINE = MergeTree ORDER BY n")[0] == 200
    server.arm(Fault("before", "status", status=500, table="t", every=2, count=4))
    assert [ask(server, "INSERT INTO other FORMAT CSV", b"1\n")[0] for _ in range(3)] == [200] * 3
    assert [ask(server, INSERT, b"1\n")[0] for _ in range(6)] == [200, 500, 200, 500, 200, 200]
    server.arm(Fault("before", "status", status=500, statements="all"))
    assert ask(server, "SELECT 1")[0] == 500
    server.disarm()
    assert ask(server, "SELECT 1")[0] == 200


def test_inserts_are_counted_as_they_come_and_as_they_have_run(server: DevServerProcess) -> None:
    """What a test waits on."""
    before = server.told()
    server.arm(Fault("before", "status", count=1))
    ask(server, INSERT, b"1\n")
    ask(server, INSERT, b"1\n")
    told = server.told()
    assert (told.inserts - before.inserts, told.ran - before.ran, told.hanging) == (2, 1, 0)
    server.arm(Fault("before", "status", count=2, statements="all"))
    ask(server, "SELECT 1")
    ask(server, INSERT, b"1\n")
    after = server.told()
    assert (after.faults - told.faults, after.insert_faults - told.insert_faults) == (2, 1)


def test_stopped_answers_nothing_and_goes_on(server: DevServerProcess) -> None:
    """SIGSTOP: the connection is accepted by the kernel, and the answer comes after SIGCONT."""
    answers: list[int] = []
    with server.stopped():
        thread = threading.Thread(target=lambda: answers.append(rows(server)))
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
    thread.join(30)
    assert answers == [0]


def test_a_server_whose_test_is_gone_ends(tmp_path: pathlib.Path) -> None:
    """Nothing is left behind: the child ends when its control socket closes."""
    server = DevServerProcess(tmp_path / "db").start()
    process = server._running()
    server._let_go()
    assert process.wait(30) == 0
    server.close()


def test_a_server_that_cannot_start_says_why(tmp_path: pathlib.Path) -> None:
    """The child's own words are in the error."""
    server = DevServerProcess(tmp_path / "db", options={"no_such_option": 1})
    with pytest.raises(AssertionError, match="no_such_option"):
        server.start()
    server.close()
