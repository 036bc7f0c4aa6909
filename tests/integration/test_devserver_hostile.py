"""A dev server with clients that are broken, slow, silent or many: it answers the others, and keeps nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import socket
import time
import urllib.parse
from collections.abc import Iterator

import psutil
import pytest
import requests
from harness.dev_server import DevServerProcess
from harness.dev_server_command import Started, dev_server

import recorder.devserver.server as server_module

STEP_S = 30.0
HEAD = b"Host: 127.0.0.1\r\n"
PASSWORD = "hunter-two"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    folder = tmp_path_factory.mktemp("devserver")
    with dev_server(folder) as started:
        yield started


def connect(server: Started) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", urllib.parse.urlsplit(server.url).port or 0), STEP_S)
    connection.settimeout(STEP_S)
    return connection


def first_line(server: Started, request: bytes) -> bytes:
    """The first line of the answer; empty where the connection is closed without one."""
    with connect(server) as connection, connection.makefile("rb") as answer:
        try:
            connection.sendall(request)
            return answer.readline()
        except (ConnectionResetError, BrokenPipeError):  # it did not read all of what it refuses
            return b""


def process(server: Started) -> psutil.Process:
    return psutil.Process(int(str(server.ready["pid"])))


BROKEN = {
    "no chunk size": b"POST / HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\n\r\nZZZ\r\nSELECT 1\r\n0\r\n\r\n",
    "huge chunk size": b"POST / HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nSELECT 1",
    "negative chunk": b"POST / HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\n\r\n-5\r\nSELECT 1\r\n0\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    "negative length": b"POST / HTTP/1.1\r\n%bContent-Length: -5\r\n\r\nSELECT 1",
    "huge length": b"POST / HTTP/1.1\r\n%bContent-Length: 99999999999999999999\r\n\r\nSELECT 1",
    "no number": b"POST / HTTP/1.1\r\n%bContent-Length: abc\r\n\r\nSELECT 1",
    "many headers": b"GET / HTTP/1.1\r\n%b" + b"".join(b"X-%d: y\r\n" % n for n in range(100_000)) + b"\r\n",
    "many trailers": b"POST / HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: y\r\n" * 300_000,
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "of TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "a form without its end": b"POST / HTTP/1.1\r\n%bContent-Type: multipart/form-data; boundary=x\r\n"
    b"Content-Length: 5\r\n\r\nabcde",
    "a form without boundary": b"POST / HTTP/1.1\r\n%bContent-Type: multipart/form-data\r\n"
    b"Content-Length: 5\r\n\r\nabcde",
    "a line break for a header": b"GET /?query_id=a%%0d%%0aX-Y:1&query=SELECT+1 HTTP/1.1\r\n%b\r\n",
    "a query id of no text": b"GET /?query_id=%%ff%%fe&query=SELECT+1 HTTP/1.1\r\n%b\r\n",
    "a setting of no text": b"GET /?max_threads=%%ff%%fe&query=SELECT+1 HTTP/1.1\r\n%b\r\n",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_request_is_the_clients_error(server: Started, name: str) -> None:
    """Answered with 400 and nothing else; the next request is answered."""
    text = BROKEN[name]
    line = first_line(server, text % HEAD if b"%b" in text else text)
    assert line.split(b" ")[1] == b"400", line
    assert server.text("SELECT 1") == "1\n"


@pytest.mark.parametrize(
    "parameters", [{"database": b"\xff\xfe"}, {"session_id": "x", "session_timeout": "9" * 5_000}]
)
def test_what_cannot_be_is_an_error_with_a_code(server: Started, parameters: dict[str, object]) -> None:
    """Not a failure of the server, whatever bytes it is of."""
    answer = requests.post(server.url, params=parameters, data="SELECT 1", timeout=STEP_S)  # type: ignore[arg-type]
    assert int(answer.headers["X-ClickHouse-Exception-Code"]) in (81, 374)


@pytest.mark.parametrize("part", ["url", "header", "chunk extension"])
def test_heads_without_end_are_refused_in_bounded_memory(server: Started, part: str) -> None:
    """Ten megabytes of them end the connection, or are thrown away."""
    before = process(server).memory_info().rss
    begin = {
        "url": b"GET /?query=SELECT+1",
        "header": b"GET / HTTP/1.1\r\n%bX-A: " % HEAD,
        "chunk extension": b"POST / HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\n\r\n8;" % HEAD,
    }[part]
    with connect(server) as connection:
        try:
            connection.sendall(begin)
            for _ in range(10):
                connection.sendall(b"+" * 1_000_000)
        except (ConnectionResetError, BrokenPipeError):
            assert part != "chunk extension"
        assert server.text("SELECT 1") == "1\n"
        assert process(server).memory_info().rss - before < 64 << 20


def test_what_cannot_be_read_is_not_logged(tmp_path: pathlib.Path) -> None:
    """A URL may have a password in it, and a statement secrets: neither is in the log, nor a trace."""
    with dev_server(tmp_path) as server:
        url = "/?user=jo&password=" + PASSWORD
        for request in (
            f"GET {url}&x=\xe9 HTTP/1.1\r\n",
            f"GET {url}&query_id=%0d%0a HTTP/1.1\r\n",
            f"GET {url}\0\r\n",
        ):
            first_line(server, request.encode("latin-1") + HEAD + b"\r\n")
        server.ask(b"SELECT '" + PASSWORD.encode() + b"' \xff\xfe", max_threads=PASSWORD)
        assert server.text("SELECT 1") == "1\n"
        assert server.log.read_text() == ""


def test_a_body_that_stops_coming_is_given_up(server: Started) -> None:
    """After `http_receive_timeout`: an error with ClickHouse's code, then the end of the connection; nothing is in."""
    server.text("CREATE TABLE slow (a Int32) ENGINE = MergeTree ORDER BY a")
    heads = {
        "length": b"Content-Length: 100\r\n\r\n1\n",
        "chunks": b"Transfer-Encoding: chunked\r\n\r\n2\r\n1\n\r\n",
        "form": b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 900\r\n\r\n--x\r\n"
        b'Content-Disposition: form-data; name="query"\r\n\r\nSELECT',
    }
    url = "/?http_receive_timeout=1&query=" + urllib.parse.quote("INSERT INTO slow FORMAT TSV")
    for head in heads.values():
        with connect(server) as connection, connection.makefile("rb") as answer:
            connection.sendall(f"POST {url} HTTP/1.1\r\n".encode() + HEAD + head)
            assert b"X-ClickHouse-Exception-Code: 209" in answer.read()  # to the end
    assert server.text("SELECT count() FROM slow") == "0\n"
    server.text("DROP TABLE slow SYNC")


def test_an_answer_that_nobody_takes_is_given_up(server: Started) -> None:
    """After `http_send_timeout` without a byte taken its statement ends, and its place is free."""
    url = "/?http_send_timeout=1&log_comment=untaken&query=SELECT+number+FROM+system.numbers"
    with connect(server) as connection:
        connection.sendall(f"GET {url} HTTP/1.1\r\n".encode() + HEAD + b"\r\n")
        connection.recv(1)
        server.wait_for(
            "SELECT count() FROM system.processes WHERE Settings['log_comment'] = 'untaken'",
            "0\n",
            timeout_s=STEP_S,
        )


def test_a_slow_reader_gets_all(server: Started) -> None:
    """Who takes a little now and then is not given up, however long it takes."""
    url = "/?http_send_timeout=1&query=SELECT+repeat('x',999)+FROM+numbers(20000)"
    with connect(server) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        connection.sendall(f"GET {url} HTTP/1.1\r\n".encode() + HEAD + b"Connection: close\r\n\r\n")
        got = 0
        begun_s = time.monotonic()
        while piece := connection.recv(1 << 20):
            got += len(piece)
            if time.monotonic() - begun_s < 3:
                time.sleep(0.2)
    assert got > 20_000_000


def test_connections_too_many_are_told_so_and_closed(tmp_path: pathlib.Path) -> None:
    """They cost the others nothing; when some have gone there is room again."""
    with DevServerProcess(tmp_path / "server", options={"max_connections": 8}) as process:
        held = [socket.create_connection(("127.0.0.1", process.port), STEP_S) for _ in range(8)]
        deadline_s = time.monotonic() + STEP_S
        while True:
            answer = requests.post(process.url, data="SELECT 1", timeout=STEP_S)
            if answer.status_code == 503:
                break
            assert time.monotonic() < deadline_s
        assert answer.headers["X-ClickHouse-Exception-Code"] == "202"
        assert "Too many connections. Maximum: 8." in answer.text
        held[0].close()
        while requests.post(process.url, data="SELECT 1", timeout=STEP_S).status_code != 200:
            assert time.monotonic() < deadline_s
        for connection in held:
            connection.close()


def held(server: Started) -> tuple[int, int]:
    """Descriptors and threads of the server's own; those of the engine's pools are of files in /proc, and named."""
    folder = pathlib.Path(f"/proc/{server.ready['pid']}")
    links, threads = [], []
    for descriptor in (folder / "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            links.append(os.readlink(descriptor))
    for thread in (folder / "task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            threads.append((thread / "comm").read_text())
    ours = [link for link in links if link.startswith(("socket:", "pipe:", "/memfd:")) or "(deleted)" in link]
    return len(ours), sum(name.startswith("python") for name in threads)


async def test_connections_that_say_nothing_are_closed(
    chdb_path: pathlib.Path, engine: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those without a whole request since they were opened; one that has asked stays."""
    monkeypatch.setattr(server_module, "FIRST_REQUEST_S", 1.0)
    async with server_module.DevServer(chdb_path, read_only=True) as server:
        port = server.address.port
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        silent[1][1].write(b"GET /ping HTTP/1.1\r\nHost: 127")
        asks, says = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(2):
            says.write(b"GET /ping HTTP/1.1\r\n" + HEAD + b"\r\n")
            answer = await asyncio.wait_for(asks.readuntil(b"Ok.\n"), STEP_S)
            assert answer.startswith(b"HTTP/1.1 200 ")
            for reader, _ in silent:
                assert await asyncio.wait_for(reader.read(), STEP_S) == b""
        for _, writer in [*silent, (asks, says)]:
            writer.close()


def test_nothing_is_left_of_bad_clients(server: Started) -> None:
    """Descriptors and threads are as many as before, after hundreds that broke off at any point."""
    sqls = ["SELECT number FROM system.numbers", "SELECT nope", "INSERT INTO nope FORMAT CSV\n1", "SELECT 1"]

    def some_go(count: int) -> None:
        for number in range(count):
            sql = sqls[number % 4].encode()
            request = b"POST / HTTP/1.1\r\n%bContent-Length: %d\r\n\r\n%b" % (HEAD, len(sql), sql)
            with connect(server) as connection:
                connection.sendall(request[: len(request) * (number % 7 + 1) // 7])

    some_go(28)
    deadline_s = time.monotonic() + STEP_S
    before = (0, 0)
    while before != (before := held(server)):
        assert time.monotonic() < deadline_s
        time.sleep(0.5)
    some_go(280)
    while (now := held(server)) > before:
        assert time.monotonic() < deadline_s, f"{now} after {before}"
        time.sleep(0.05)
    server.wait_for("SELECT count() FROM system.processes", "1\n", timeout_s=STEP_S)
