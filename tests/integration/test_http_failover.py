"""Several hosts: which may stand for each other, and that a token never runs twice when one goes away."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import pathlib
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from harness.dev_server import DevServerProcess, Fault
from harness.http_sinks import IN_TIME_S, brought_in, count
from harness.http_sinks import opened as opened_on
from harness.relay import relay
from harness.replicas import Replicas
from harness.sink_tables import create, plain
from harness.tcp_proxy import TcpProxy

from recorder.sink import http, http_client
from recorder.sink.errors import HoldError, InsertStillRunning, Retryable, SinkUnavailable
from recorder.sink.http import HttpSink
from recorder.sink.http_access import Access
from recorder.target import parse_target


def opened(*ports: int, **options: Any) -> contextlib.AbstractAsyncContextManager[HttpSink]:
    """A sink on these hosts, which gives one up soon that does not answer."""
    hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
    return opened_on(f"http://{hosts}", access=Access("http", connect_timeout_s=0.5), **options)


async def another_goes_in(sink: HttpSink) -> None:
    """Some other batch: those that were sent before the host was found to be gone wait for it too."""
    deadline_s = time.monotonic() + IN_TIME_S
    for log in itertools.count(100):
        try:
            await sink.insert(plain("t", 10, log=log), timeout_s=1)
            return
        except Retryable:
            assert time.monotonic() < deadline_s


# -- which hosts may stand for each other ---------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path: pathlib.Path) -> Iterator[DevServerProcess]:
    with DevServerProcess(tmp_path / "one") as process:
        yield process


async def test_two_servers_with_tables_of_their_own_are_refused(
    server: DevServerProcess, tmp_path: pathlib.Path
) -> None:
    """Rows would be spread over both: one line says which table, before anything is sent; at the start where the
    tables are known, else at the first insert."""
    with DevServerProcess(tmp_path / "two") as other:
        for process in (server, other):
            async with opened(process.port) as sink:
                await sink.command(create("t"))
        words = (
            f"127.0.0.1:{server.port} and http://127.0.0.1:{other.port} are two servers, and table t is not"
        )
        async with opened(server.port, other.port, tables=["t"], start=False) as sink:
            with pytest.raises(HoldError, match=words):
                await sink.start()
        async with opened(server.port, other.port) as sink:
            for _ in range(2):
                with pytest.raises(HoldError, match=words):
                    await sink.insert(plain("t"), timeout_s=5)
            assert await count(sink) == 0


async def test_two_servers_that_get_their_tables_later_are_refused(
    server: DevServerProcess, tmp_path: pathlib.Path
) -> None:
    """Nothing differs at the start, when neither has the table; the first insert looks again."""
    with DevServerProcess(tmp_path / "two") as other:
        async with opened(server.port, other.port, tables=["t"]) as sink:
            await sink.command(create("t"))
            for _ in range(2):
                with pytest.raises(HoldError, match="are two servers, and table t is not replicated on"):
                    await sink.insert(plain("t"), timeout_s=5)
            assert await count(sink) == 0


async def test_one_server_under_two_addresses(server: DevServerProcess) -> None:
    """When one address goes away the other is taken; what was under way is asked for there, and is there once."""
    with TcpProxy(("127.0.0.1", server.port)) as first, TcpProxy(("127.0.0.1", server.port)) as second:
        async with opened(first.port, second.port, tables=["t"]) as sink:
            await sink.command(create("t"))
            info = await sink.server()
            await sink.insert(plain("t", 10, log=1), timeout_s=5)
            assert second.passed["to_server"] < 20_000  # compared at the start, and no more
            batch = plain("t", 10, log=2)
            server.arm(Fault("after", "hang", count=1))
            insert = asyncio.create_task(sink.insert(batch, timeout_s=1))
            await asyncio.to_thread(server.wait_until, hanging=1)
            first.black_hole()
            with pytest.raises(Retryable):
                await insert
            server.disarm()
            await brought_in(sink, batch, timeout_s=2)
            await brought_in(sink, plain("t", 10, log=3), timeout_s=2)
            assert await count(sink) == 30
            assert await sink.server() == info  # another address is no other server
            first.cut()


async def test_nobody_answers(server: DevServerProcess) -> None:
    """All hosts are named, each with its reason, in one line; and it goes on when one is back."""
    with TcpProxy(("127.0.0.1", server.port)) as first, TcpProxy(("127.0.0.1", server.port)) as second:
        first.refuse()
        second.refuse()
        async with opened(first.port, second.port, start=False) as sink:
            with pytest.raises(SinkUnavailable, match="none of 2 hosts can be used: ") as caught:
                await sink.start()
            assert str(caught.value).count("connection refused") == 2
            second.pass_on()
            await sink.start()
            assert await sink.query("SELECT 1") == [(1,)]


async def test_one_host_down_at_the_start(server: DevServerProcess, caplog: pytest.LogCaptureFixture) -> None:
    """The other serves, and a warning says so."""
    with TcpProxy(("127.0.0.1", server.port)) as first:
        first.refuse()
        async with opened(first.port, server.port) as sink:
            assert await sink.query("SELECT 1") == [(1,)]
    assert "recording goes on without it" in caplog.text


# -- replicas -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("paths", "words"),
    [
        (["/tables/t", "/tables/u"], "replicated at /tables/t on the one and at /tables/u on the other"),
        (["/tables/t", ""], "is not replicated on http://127.0.0.1"),
    ],
)
async def test_tables_that_are_two_are_refused(tmp_path: pathlib.Path, paths: list[str], words: str) -> None:
    """Replicated, but not one table: refused at the start."""
    with Replicas(tmp_path / "db", paths) as replicas:
        async with opened(replicas.ports[0]) as sink:
            await sink.command(create("t"))
        async with opened(*replicas.ports, tables=["t"], start=False) as sink:
            with pytest.raises(HoldError, match=words):
                await sink.start()


@pytest.fixture
def replicas(tmp_path: pathlib.Path) -> Iterator[Replicas]:
    with Replicas(tmp_path / "db") as both:
        yield both


@pytest.fixture
def ways(replicas: Replicas) -> Iterator[list[TcpProxy]]:
    """A network to each replica."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(TcpProxy(("127.0.0.1", port))) for port in replicas.ports]


@pytest.fixture
async def sink(
    replicas: Replicas, ways: list[TcpProxy], request: pytest.FixtureRequest
) -> AsyncIterator[HttpSink]:
    """On both, with the table; "late": which is made when the sink has started."""
    late = getattr(request, "param", "") == "late"
    async with opened(replicas.ports[0]) as maker:
        if not late:
            await maker.command(create("t"))
        async with opened(*(way.port for way in ways), tables=["t"]) as sink:
            if late:
                await maker.command(create("t"))
            yield sink
    for way in ways:
        way.cut()


@pytest.mark.parametrize("sink", ["early", "late"], indirect=True)
async def test_the_other_replica_takes_over_and_is_synced_before_it_is_asked(
    replicas: Replicas, ways: list[TcpProxy], sink: HttpSink
) -> None:
    """A connection refused carried nothing, so the batch goes to the other at once; a look-up syncs there first."""
    first = await sink.server()
    await sink.insert(plain("t", 10, log=1), timeout_s=5)
    ways[0].refuse()
    ways[0].cut()
    batch = plain("t", 10, log=2)
    await brought_in(sink, batch, timeout_s=2)
    assert await sink.look_up(batch) == set(batch.identities())
    assert (await sink.server()).uuid != first.uuid
    seen = replicas.statements(1)
    assert sum("INSERT INTO" in sql for sql in seen) == 1
    asked = [
        sql.split()[1] for sql in seen if sql.startswith(("SYSTEM SYNC", "SELECT _log"))
    ]  # SYNC of the statement, `_log,` of the question
    assert asked[-2:] == ["SYNC", "_log,"]
    assert not any("KILL" in sql for sql in seen)
    ways[0].pass_on()
    await sink.insert(plain("t", 10, log=3), timeout_s=5)
    assert sum("INSERT INTO" in sql for sql in replicas.statements(1)) == 2  # nothing goes back by itself
    assert await count(sink) == 30


@pytest.mark.parametrize("sink", ["late"], indirect=True)
async def test_a_replica_takes_over_with_a_table_that_no_insert_has_met(
    ways: list[TcpProxy], sink: HttpSink
) -> None:
    """The first went before anything was sent to the table: that it lacked it once is no difference."""
    ways[0].refuse()
    ways[0].cut()
    await brought_in(sink, plain("t", 10), timeout_s=2)
    assert await count(sink) == 10


async def test_an_insert_on_the_host_that_went_away_bars_its_batch_alone(
    replicas: Replicas, ways: list[TcpProxy], sink: HttpSink
) -> None:
    """It may yet commit there: not looked up and not sent to the other, whose other batches go on; until the first
    answers again and says that it runs nothing."""
    replicas.hold(0)
    batch = plain("t", 10, log=1)
    insert = asyncio.create_task(sink.insert(batch, timeout_s=1))
    await asyncio.to_thread(replicas.wait_for_insert, 0)
    ways[0].black_hole()
    with pytest.raises(InsertStillRunning):
        await insert
    await another_goes_in(sink)
    for _ in range(3):
        for call in (sink.look_up(batch), sink.insert(batch, timeout_s=1)):
            with pytest.raises(InsertStillRunning):
                await call
    assert sum("INSERT INTO" in sql for sql in replicas.statements(1)) == 1
    ways[0].cut()
    ways[0].pass_on()
    replicas.let_go(0)
    await brought_in(sink, batch, timeout_s=2)
    assert await sink.look_up(batch) == set(batch.identities())


@pytest.mark.parametrize("sink", ["early", "late"], indirect=True)
async def test_a_host_that_the_keeper_has_lost_is_gone(
    replicas: Replicas, ways: list[TcpProxy], sink: HttpSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the time limit alone nor the lost session alone frees the batch; both do, and the other replica is
    synced before it is asked."""
    replicas.hold(0)
    batch = plain("t", 10, log=1)
    insert = asyncio.create_task(sink.insert(batch, timeout_s=0.5))
    await asyncio.to_thread(replicas.wait_for_insert, 0)
    ways[0].refuse()
    ways[0].half_open("server")
    with pytest.raises(InsertStillRunning):
        await insert
    await another_goes_in(sink)
    deadline_s = time.monotonic() + IN_TIME_S
    while True:  # until our own call to that host has ended, so that the host alone is in doubt
        with pytest.raises(InsertStillRunning) as caught:
            await sink.look_up(batch)
        if "may still be running" in str(caught.value):
            break
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0.05)
    with monkeypatch.context() as patch:
        patch.setattr(http, "GONE_AFTER_S", 0.0)
        with pytest.raises(InsertStillRunning):
            await sink.look_up(batch)  # its time has passed, and it is still in the cluster
    replicas.lose(0)
    with pytest.raises(InsertStillRunning):
        await sink.look_up(batch)  # it has left, and its time has not passed
    monkeypatch.setattr(http, "GONE_AFTER_S", 0.0)
    assert await sink.look_up(batch) == set()
    await sink.insert(batch, timeout_s=5)
    assert await sink.look_up(batch) == set(batch.identities())
    assert replicas.statements(1)[-2].startswith("SYSTEM SYNC REPLICA `default`.`t` LIGHTWEIGHT")


# -- names ----------------------------------------------------------------------------------------------------------


async def test_a_name_that_moves_is_followed(
    server: DevServerProcess, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kept connections to where it led before are left, though that server still answers."""
    resolve, leads_to = socket.getaddrinfo, ["127.0.0.1"]

    def getaddrinfo(host: Any, *arguments: Any, **options: Any) -> Any:
        return resolve(leads_to[0] if host == "localhost" else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(http_client, "RESOLVE_EVERY_S", 0.0)
    with DevServerProcess(tmp_path / "two") as other, relay(other.port, listen=("127.0.0.2", server.port)):
        sink = HttpSink(parse_target(f"http://localhost:{server.port}"), close_wait_s=1)
        await sink.start()
        await sink.command("CREATE TABLE first (a UInt8) ENGINE = Memory")
        assert await sink.query("EXISTS TABLE first") == [(1,)]
        leads_to[0] = "127.0.0.2"
        assert await sink.query("EXISTS TABLE first") == [(0,)]  # the other server has no such table
        await sink.close()


async def test_a_name_service_that_hangs_stops_one_call(
    server: DevServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server is well and its connections are there: only the call that asks where the name leads waits."""
    resolve, asked, answers = socket.getaddrinfo, threading.Semaphore(0), threading.Event()
    hangs = False

    def getaddrinfo(host: Any, *arguments: Any, **options: Any) -> Any:
        if hangs and host == "localhost":
            asked.release()
            answers.wait(IN_TIME_S)
        return resolve("127.0.0.1" if host == "localhost" else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    sink = HttpSink(parse_target(f"http://localhost:{server.port}"), close_wait_s=1)
    try:
        await sink.start()
        await sink.command(create("t"))
        await sink.insert(plain("t", 10, log=1), timeout_s=10)
        monkeypatch.setattr(http_client, "RESOLVE_EVERY_S", 0.0)
        hangs = True
        waiting = asyncio.create_task(sink.query("SELECT 1"))
        assert await asyncio.to_thread(asked.acquire, timeout=IN_TIME_S)
        await sink.insert(plain("t", 10, log=2), timeout_s=10)
        assert await sink.look_up(plain("t", 10, log=1))
        assert not waiting.done()
        answers.set()
        assert await waiting == [(1,)]
        assert await count(sink) == 20
    finally:
        answers.set()
        await sink.close()
