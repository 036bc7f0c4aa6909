"""A server behind a bad network: what was sent once is there once, and every call ends in time."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import time
from collections.abc import AsyncIterator, Iterator
from typing import Literal

import pytest
import trustme
from harness.dev_server import DevServerProcess, Fault
from harness.http_sinks import brought_in, count, looked_up, opened
from harness.relay import relay
from harness.sink_tables import create, plain
from harness.tcp_proxy import TcpProxy

from recorder.sink.errors import (
    HoldError,
    InsertStillRunning,
    InsertTimeout,
    Retryable,
    SinkError,
    SinkUnavailable,
)
from recorder.sink.http import HttpSink
from recorder.sink.http_access import Access, Tls


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevServerProcess]:
    with DevServerProcess(tmp_path_factory.mktemp("server") / "db") as process:
        yield process


@pytest.fixture
async def sink(server: DevServerProcess) -> AsyncIterator[HttpSink]:
    """On the module's server, with a fresh table `t`."""
    async with opened(server.url) as sink:
        await sink.command("DROP TABLE IF EXISTS t SYNC")
        await sink.command(create("t"))
        yield sink
        server.disarm()


# -- what nobody repeats ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["reset", "close"])
async def test_an_insert_whose_answer_is_lost_is_sent_once(
    server: DevServerProcess, sink: HttpSink, what: Literal["reset", "close"]
) -> None:
    """Committed, and the connection cut: nothing below the sink sends it again, and the look-up knows."""
    batch = plain("t", 100)
    await sink.insert(plain("t", 1, log=1), timeout_s=10)  # a connection that was used before, as most are
    before = server.told().inserts
    server.arm(Fault("after", what, count=1))
    with pytest.raises(SinkUnavailable, match="cut before the answer"):
        await sink.insert(batch, timeout_s=10)
    assert server.told().inserts == before + 1
    assert await looked_up(sink, batch) == set(batch.identities())
    assert await count(sink) == 101


async def test_after_an_error_of_tls_an_insert_is_sent_once(tmp_path: pathlib.Path) -> None:
    """What TLS cannot read, urllib3 takes for no answer and would ask for again, inserts too."""
    authority = trustme.CA()
    leaf = authority.issue_cert("127.0.0.1")
    leaf.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "server.pem"))
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    options = {"tls_cert": str(tmp_path / "server.pem")}
    access = Access("https", tls=Tls(ca=tmp_path / "ca.pem"))
    with (
        DevServerProcess(tmp_path / "db", scheme="https", options=options) as server,
        relay(server.port) as (port, garble),
    ):
        async with opened(f"https://127.0.0.1:{port}", access=access) as sink:
            await sink.command(create("t"))
            await sink.insert(plain("t", 1, log=1), timeout_s=10)
            batch = plain("t", 100)
            before = server.told().inserts
            server.arm(Fault("after", "hang", count=1))
            insert = asyncio.create_task(sink.insert(batch, timeout_s=10))
            await asyncio.to_thread(server.wait_until, hanging=1)
            garble.set()
            server.release()
            with pytest.raises(SinkUnavailable, match="TLS"):
                await insert
            assert not garble.is_set()
            assert await looked_up(sink, batch) == set(batch.identities())
            assert server.told().inserts == before + 1
            assert await count(sink) == 101


@pytest.mark.parametrize("status", [500, 502, 503, 504])
@pytest.mark.parametrize("where", ["before", "after"])
async def test_a_status_of_a_proxy_is_doubt(
    server: DevServerProcess, sink: HttpSink, status: int, where: Literal["before", "after"]
) -> None:
    """5xx without a code says nothing of the rows: sent once, looked up, and there once in the end."""
    batch = plain("t", 50)
    before = server.told().inserts
    server.arm(Fault(where, "status", status=status, count=1))
    with pytest.raises(SinkUnavailable, match=f"HTTP status {status}"):
        await sink.insert(batch, timeout_s=10)
    assert server.told().inserts == before + 1
    assert await looked_up(sink, batch) == (set(batch.identities()) if where == "after" else set())
    await brought_in(sink, batch)
    assert await count(sink) == 50


@pytest.mark.parametrize("where", ["before", "middle", "after"])
@pytest.mark.parametrize("what", ["reset", "close"])
async def test_wherever_it_breaks_rows_are_there_once(
    server: DevServerProcess,
    sink: HttpSink,
    where: Literal["before", "middle", "after"],
    what: Literal["reset", "close"],
) -> None:
    """A connection that breaks at any point costs a look-up, never a row."""
    batch = plain("t", 20_000, days=3)
    server.arm(Fault(where, what, count=2))
    await brought_in(sink, batch)
    assert len(await looked_up(sink, batch)) == 20_000
    assert await count(sink) == 20_000


async def test_an_answer_that_is_not_clickhouses_is_no_yes(server: DevServerProcess, sink: HttpSink) -> None:
    """A proxy's friendly 200 does not make rows confirmed."""
    server.arm(Fault("before", "status", status=200, text="<html>welcome</html>", count=1))
    batch = plain("t", 10)
    with contextlib.suppress(Retryable):
        await sink.insert(batch, timeout_s=10)
        # The dev server says who it is in this answer too; the rows must then be absent from the look-up alone.
        assert await looked_up(sink, batch) == set()
    await brought_in(sink, batch)


# -- what hangs ---------------------------------------------------------------------------------------------------


async def test_a_request_that_the_server_takes_up_late_is_stopped_by_its_token(
    server: DevServerProcess, sink: HttpSink
) -> None:
    """It lay in the server when it was asked for and was not running yet: sent again, the later one adds nothing."""
    batch = plain("t", 100)
    server.arm(Fault("before", "hang", count=1))
    with pytest.raises(InsertStillRunning):
        await sink.insert(batch, timeout_s=0.5)
    server.disarm()
    await brought_in(sink, batch)
    server.wait_until(ran=2)
    assert await count(sink) == 100


async def test_a_server_that_stands_still_bars_the_batch_until_it_goes_on(tmp_path: pathlib.Path) -> None:
    """Stopped in the middle: insert and look-up end in time and say that it may still run; afterwards all is once."""
    with DevServerProcess(tmp_path / "db") as server:
        async with opened(server.url) as sink:
            await sink.command(create("t"))
            await sink.insert(plain("t", 1, log=1), timeout_s=10)
            batch = plain("t", 100)
            with server.stopped():
                for call in (lambda: sink.insert(batch, timeout_s=1), lambda: sink.look_up(batch)):
                    began_s = time.monotonic()
                    with pytest.raises(InsertStillRunning):
                        await call()
                    assert time.monotonic() - began_s < 10
                with pytest.raises(SinkUnavailable):
                    await sink.query("SELECT 1")
            await brought_in(sink, batch)
            assert await count(sink) == 101


async def test_a_black_hole_is_given_up_in_time(server: DevServerProcess) -> None:
    """A network that swallows everything: each call ends at its limit, and what follows goes through."""
    with TcpProxy(("127.0.0.1", server.port)) as proxy:
        async with opened(f"http://127.0.0.1:{proxy.port}", query_timeout_s=1.0) as sink:
            await sink.command("DROP TABLE IF EXISTS t SYNC")
            await sink.command(create("t"))
            batch = plain("t", 10)
            proxy.black_hole()
            began_s = time.monotonic()
            with pytest.raises(Retryable):
                await sink.insert(batch, timeout_s=0.5)
            with pytest.raises(SinkUnavailable):
                await sink.query("SELECT 1")
            assert time.monotonic() - began_s < 15
            proxy.cut()
            proxy.pass_on()
            await brought_in(sink, batch)
            assert await count(sink) == 10


async def test_a_slow_line_is_no_error(server: DevServerProcess) -> None:
    """A batch that takes longer to send than a connection may take to be made arrives."""
    with TcpProxy(("127.0.0.1", server.port)) as proxy:
        access = Access("http", compression="none", connect_timeout_s=1.0)
        async with opened(f"http://127.0.0.1:{proxy.port}", access=access) as sink:
            await sink.command("DROP TABLE IF EXISTS t SYNC")
            await sink.command(create("t"))
            await sink.insert(plain("t", 1, log=1), timeout_s=10)
            proxy.throttle(500_000)
            await sink.insert(plain("t", 40_000), timeout_s=20)  # 1.3 MB
            assert await count(sink) == 40_001


# -- what ends ----------------------------------------------------------------------------------------------------


async def test_a_killed_server_is_another_start_and_rows_are_there_once(tmp_path: pathlib.Path) -> None:
    """Killed in an insert, down, up again: errors that pass, a start that is told, every row once."""
    with DevServerProcess(tmp_path / "db") as server:
        async with opened(server.url) as sink:
            await sink.command(create("t"))
            first = await sink.server()
            batch = plain("t", 5_000, days=2)
            server.arm(Fault("before", "kill", count=1))
            with pytest.raises(SinkUnavailable):
                await sink.insert(batch, timeout_s=10)
            server.wait_gone()
            with pytest.raises(InsertStillRunning, match="connection refused"):
                await sink.look_up(batch)  # it may have committed, and nobody can say
            with pytest.raises(SinkUnavailable, match="connection refused"):
                await sink.insert(plain("t", 1, log=2), timeout_s=10)  # never sent
            await asyncio.sleep(max(0.0, 4 - (time.time() - first.started_at_s)))
            server.restart()
            await brought_in(sink, batch)
            second = await sink.server()
            assert (second.uuid, second.version) == (first.uuid, first.version)
            assert second.started_at_s > first.started_at_s
            assert await count(sink) == 5_000


async def test_what_was_never_sent_is_looked_up_without_doubt(server: DevServerProcess) -> None:
    """A connection that was refused carried nothing: the look-up asks the table alone."""
    with TcpProxy(("127.0.0.1", server.port)) as proxy:
        async with opened(f"http://127.0.0.1:{proxy.port}") as sink:
            await sink.command("DROP TABLE IF EXISTS t SYNC")
            await sink.command(create("t"))
            batch = plain("t", 10)
            proxy.refuse()
            proxy.cut()
            with pytest.raises(SinkUnavailable, match="connection refused"):
                await sink.insert(batch, timeout_s=5)
            with pytest.raises(SinkUnavailable, match="connection refused") as caught:
                await sink.look_up(batch)
            assert not isinstance(caught.value, InsertStillRunning)
            proxy.pass_on()
            assert await sink.look_up(batch) == set()


# -- logins, rights, versions ---------------------------------------------------------------------------------------


async def test_missing_grants_hold(server: DevServerProcess, sink: HttpSink) -> None:
    """No right to insert is for a person to mend: held, with what to do, and nothing is in."""
    said = "Code: 497. DB::Exception: writer: Not enough privileges. To execute this query, it's necessary to have the "
    server.arm(
        Fault("before", "status", status=403, code=497, text=said + "grant INSERT ON d.t. (ACCESS_DENIED)")
    )
    batch = plain("t", 10)
    with pytest.raises(HoldError, match="lacks a right; let an administrator run GRANT") as caught:
        await sink.insert(batch, timeout_s=10)
    assert caught.value.code == 497
    assert "INSERT ON d.t" in str(caught.value)
    server.disarm()
    assert await sink.look_up(batch) == set()


async def test_a_password_that_changes_is_taken_from_its_file(tmp_path: pathlib.Path) -> None:
    """Refused with one line while it is wrong, and taken up by the same sink when the file has the right one."""
    file = tmp_path / "password"
    file.write_text("first-secret\n")
    server = DevServerProcess(tmp_path / "db", options={"password": "first-secret"})
    access = Access("http", "default", password_file=file)
    with server:
        async with opened(server.url, access=access) as sink:
            await sink.command(create("t"))
            server._options["password"] = "second-secret"
            server.restart()
            with pytest.raises(
                HoldError, match="refuses the login of user default: wrong password"
            ) as caught:
                await sink.insert(plain("t"), timeout_s=10)
            assert caught.value.code == 516
            assert "secret" not in str(caught.value)
            file.write_text("second-secret\n")
            await sink.insert(plain("t"), timeout_s=10)
            assert await count(sink) == 10


async def test_a_server_that_is_too_old_is_refused(server: DevServerProcess) -> None:
    """Its version is asked first, and the line says what is needed."""
    server.arm(Fault("before", "status", status=200, text="22.3.20.29\tUTC\n", statements="all", count=1))
    async with opened(server.url, start=False) as sink:
        with pytest.raises(
            SinkUnavailable, match=r"ClickHouse 22\.3\.20\.29 is too old, the recorder needs 24\.8"
        ):
            await sink.start()
    server.disarm()


async def test_a_database_that_is_not_there(server: DevServerProcess) -> None:
    """Without the right to make it its absence is said at the start; with it, it is made."""
    async with opened(server.url, start=False, database="absent") as sink:
        with pytest.raises(
            SinkUnavailable, match='has no database absent; run "recorder migrate up"'
        ) as caught:
            await sink.start()
        assert caught.value.code == 81
    async with opened(server.url, database="made_here", create_database=True) as sink:
        assert await sink.query("SELECT currentDatabase()") == [("made_here",)]
        await sink.command("DROP DATABASE made_here SYNC")


async def test_a_timeout_of_the_server_is_a_timeout(server: DevServerProcess, sink: HttpSink) -> None:
    """`max_execution_time` travels with the insert: the server cuts it also where nobody kills it."""
    await sink.command("DROP TABLE IF EXISTS slow SYNC")
    await sink.command(
        create("slow", extra=", z UInt8 MATERIALIZED sleep(2), y UInt8 MATERIALIZED sleep(1.9)")
    )
    batch = plain("slow", 1)
    with pytest.raises(InsertTimeout):
        await sink.insert(batch, timeout_s=1)
    assert await looked_up(sink, batch) == set()


async def test_errors_of_calls_are_sink_errors(server: DevServerProcess) -> None:
    """Nothing of the driver's own escapes when the server goes away under any call."""
    with TcpProxy(("127.0.0.1", server.port)) as proxy:
        async with opened(f"http://127.0.0.1:{proxy.port}") as sink:
            proxy.refuse()
            proxy.cut()
            for call in (
                sink.server(),
                sink.query("SELECT 1"),
                sink.query_arrow("SELECT 1"),
                sink.command("SELECT 1"),
                sink.insert(plain("t"), timeout_s=2),
                sink.look_up(plain("t")),
            ):
                with pytest.raises(SinkError):
                    await call
