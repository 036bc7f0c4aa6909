"""The contract of sinks on a server behind HTTP: `recorder devserver` in another process."""

from __future__ import annotations

import pathlib
import uuid
from collections.abc import AsyncIterator, Iterator

import clickhouse_connect
import pytest
from harness.dev_server import DevServerProcess
from sink_contract import SinkContract

from recorder.sink.http import HttpSink
from recorder.target import parse_target


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevServerProcess]:
    """One server for the tests of this module, on a folder of its own."""
    with DevServerProcess(tmp_path_factory.mktemp("server") / "db") as process:
        yield process


@pytest.fixture
def on_server(server: DevServerProcess) -> Iterator[str]:
    """The name of a fresh database there."""
    client = clickhouse_connect.get_client(dsn=server.url, autogenerate_session_id=False)
    name = f"t_{uuid.uuid4().hex[:12]}"
    client.command(f"CREATE DATABASE {name}")
    yield name
    client.command(f"DROP DATABASE IF EXISTS {name} SYNC")
    client.close()


@pytest.fixture
async def sink(server: DevServerProcess, on_server: str) -> AsyncIterator[HttpSink]:
    sink = HttpSink(parse_target(server.url), on_server, kill_wait_s=2)
    await sink.start()
    yield sink
    await sink.close()


class TestHttpSink(SinkContract):
    """The laws, here."""
