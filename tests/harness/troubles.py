"""Kinds of trouble between a recorder and its server, each with a beginning and an end.

with TROUBLES["resets after an insert"](road):
    ...
"""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import clickhouse_connect

from .dev_server import DevServerProcess, Fault
from .tcp_proxy import TcpProxy

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client


@dataclass
class Road:
    """A server, and a network on the way to it."""

    server: DevServerProcess
    proxy: TcpProxy
    client: Client
    database: str


@contextlib.contextmanager
def road_to(server: DevServerProcess) -> Iterator[Road]:
    """A fresh database on the server, which is started if it is down, and a proxy in front of it."""
    if not server.alive:
        server.start()
    server.disarm()
    database = f"t_{uuid.uuid4().hex[:12]}"
    client = clickhouse_connect.get_client(dsn=server.url, autogenerate_session_id=False)
    try:
        client.command(f"CREATE DATABASE {database}")
        with TcpProxy(("127.0.0.1", server.port)) as proxy:
            yield Road(server, proxy, client, database)
        client.command(f"DROP DATABASE {database}")
    finally:
        client.close()


Trouble = Callable[[Road], AbstractContextManager[None]]


def armed(*faults: Fault) -> Trouble:
    """The server does these faults for as long as the trouble lasts, of which one at least hits an insert."""

    @contextlib.contextmanager
    def trouble(road: Road) -> Iterator[None]:
        before = road.server.told().insert_faults
        road.server.arm(*faults)
        try:
            yield
            assert road.server.told().insert_faults > before, "the trouble hit no insert"
        finally:
            road.server.disarm()

    return trouble


@contextlib.contextmanager
def gone(road: Road) -> Iterator[None]:
    """The server is killed, and comes back."""
    road.server.kill()
    try:
        yield
    finally:
        road.server.start()


@contextlib.contextmanager
def closed(road: Road) -> Iterator[None]:
    """The server ends in order, and comes back."""
    road.server.close()
    try:
        yield
    finally:
        road.server.start()


@contextlib.contextmanager
def stopped(road: Road) -> Iterator[None]:
    """The server's process is stopped: its sockets are open and nothing answers."""
    with road.server.stopped():
        yield


def on_the_way(begin: Callable[[TcpProxy], object]) -> Trouble:
    """The network does this until the trouble passes."""

    @contextlib.contextmanager
    def trouble(road: Road) -> Iterator[None]:
        begin(road.proxy)
        try:
            yield
        finally:
            road.proxy.pass_on()

    return trouble


def again_and_again(cut: Callable[[TcpProxy], int | None]) -> Trouble:
    """The network does this every few milliseconds, and hits a connection at least once."""

    @contextlib.contextmanager
    def trouble(road: Road) -> Iterator[None]:
        over = threading.Event()
        before, hits = road.proxy.cuts, 0

        def repeat() -> None:
            nonlocal hits
            while not over.wait(0.02):
                hits += cut(road.proxy) or 0

        thread = threading.Thread(target=repeat)
        thread.start()
        try:
            yield
            assert hits or road.proxy.cuts > before, "the trouble hit no connection"
        finally:
            over.set()
            thread.join()
            road.proxy.pass_on()

    return trouble


TROUBLES: Mapping[str, Trouble] = {
    "500 to everything": armed(Fault("before", "status", status=500, statements="all")),
    "503 to everything": armed(Fault("before", "status", status=503, statements="all")),
    "503 to inserts": armed(Fault("before", "status", status=503, table="orders")),
    "503 after an insert": armed(Fault("after", "status", status=503, table="orders")),
    "hangs before an insert": armed(Fault("before", "hang", table="orders")),
    "hangs in the middle of an insert": armed(Fault("middle", "hang", table="orders")),
    "hangs after an insert": armed(Fault("after", "hang", table="orders")),
    "hangs at everything": armed(Fault("before", "hang", statements="all")),
    "resets before an insert": armed(Fault("before", "reset", table="orders")),
    "resets in the middle of an insert": armed(Fault("middle", "reset", table="orders")),
    "resets after an insert": armed(Fault("after", "reset", table="orders")),
    "closes before an insert": armed(Fault("before", "close", table="orders")),
    "closes in the middle of an insert": armed(Fault("middle", "close", table="orders")),
    "closes after an insert": armed(Fault("after", "close", table="orders")),
    "is killed": gone,
    "is closed": closed,
    "is stopped": stopped,
    "refuses connections": on_the_way(lambda proxy: (proxy.refuse(), proxy.cut())),
    "is a black hole": on_the_way(TcpProxy.black_hole),
    "is slow": on_the_way(lambda proxy: proxy.throttle(20_000)),
    "is far away": on_the_way(lambda proxy: proxy.delay(0.4)),
    "loses connections without a word": again_and_again(lambda proxy: proxy.half_open("server")),
    "cuts requests": again_and_again(lambda proxy: proxy.cut_after(5_000, "to_server")),
    "cuts answers": again_and_again(lambda proxy: proxy.cut_after(30, "to_client")),
    "cuts connections": again_and_again(TcpProxy.cut),
}
