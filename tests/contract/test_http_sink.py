"""The contract of sinks as a server in production is reached: TLS, a login, another compression, two addresses."""

from __future__ import annotations

import pathlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import pytest
import trustme
from clickhouse_connect import get_client
from harness.dev_server import DevServerProcess
from harness.tcp_proxy import TcpProxy
from sink_contract import SinkContract

from recorder.sink.http import HttpSink
from recorder.sink.http_access import Access, Tls
from recorder.target import parse_target

PASSWORD = "of-the-server"


@dataclass(frozen=True)
class Served:
    """A server, the other address it is reached at, and the authority that signed its certificate."""

    process: DevServerProcess
    proxy: TcpProxy
    ca: pathlib.Path


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    authority = trustme.CA()
    leaf = authority.issue_cert("clickhouse.example")
    leaf.cert_chain_pems[0].write_to_path(str(folder / "server.pem"))
    leaf.private_key_pem.write_to_path(str(folder / "server.key"))
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    options = {
        "password": PASSWORD,
        "tls_cert": str(folder / "server.pem"),
        "tls_key": str(folder / "server.key"),
    }
    with (
        DevServerProcess(folder / "db", scheme="https", options=options) as process,
        TcpProxy(("127.0.0.1", process.port)) as proxy,
    ):
        yield Served(process, proxy, folder / "ca.pem")


@pytest.fixture
async def sink(served: Served, request: pytest.FixtureRequest) -> AsyncIterator[HttpSink]:
    name = f"t_{abs(hash(request.node.name)) % 10**9}"
    target = parse_target(
        f"https://default:{PASSWORD}@127.0.0.1:{served.proxy.port},127.0.0.1:{served.process.port}/{name}"
    )
    access = Access(
        "https",
        target.user,
        target.password,
        tls=Tls(ca=served.ca, server_name="clickhouse.example"),
        compression="zstd",
    )
    sink = HttpSink(target, name, access=access, create_database=True, kill_wait_s=2)
    await sink.start()
    yield sink
    await sink.command(f"DROP DATABASE {name} SYNC")
    await sink.close()


class TestHttpSink(SinkContract):
    """The laws, here."""


def test_it_was_tls(served: Served) -> None:
    """The port of these tests speaks nothing else, and lets nobody in without the password."""
    with pytest.raises(Exception, match=r"HTTP|reset|aborted"):
        get_client(host="127.0.0.1", port=served.process.port)
    with pytest.raises(Exception, match="516"):
        get_client(
            host="127.0.0.1",
            port=served.process.port,
            secure=True,
            ca_cert=str(served.ca),
            server_host_name="clickhouse.example",
            password="wrong",
        )
