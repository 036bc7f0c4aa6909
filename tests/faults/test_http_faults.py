"""The recorder on a server behind HTTP that fails, and on a network that does, while 10,000 rows a second arrive.

Each kind of trouble comes while rows flow, is felt, lasts a while and passes. The producer is never told but by what
`record` returns; memory stays in its bounds; afterwards every accepted row is in the table once, and every other one
is counted and told in `recorder_gaps`.
"""

from __future__ import annotations

import contextlib
import pathlib
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import clickhouse_connect
import pytest
from harness.dev_server import DevServerProcess, Fault
from harness.producing import DRAIN_ROWS, OrderLoad, check_accounted
from harness.recorders import wait_until
from harness.tcp_proxy import TcpProxy

from recorder import Recorder, Settings

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

QUEUE_ROWS, BATCH_ROWS = 8_000, 4_000
LASTS_S = 1.5
"""How long each trouble lasts after it was felt: more rows arrive than the queue holds."""


@dataclass
class Road:
    """A server, and a network on the way to it."""

    server: DevServerProcess
    proxy: TcpProxy
    client: Client
    database: str


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevServerProcess]:
    with DevServerProcess(tmp_path_factory.mktemp("server") / "db") as server:
        yield server


@pytest.fixture
def road(server: DevServerProcess) -> Iterator[Road]:
    """A fresh database on the server, and a proxy in front of it."""
    if not server.alive:
        server.start()
    server.disarm()
    database = f"t_{uuid.uuid4().hex[:12]}"
    client = clickhouse_connect.get_client(dsn=server.url, autogenerate_session_id=False)
    client.command(f"CREATE DATABASE {database}")
    with TcpProxy(("127.0.0.1", server.port)) as proxy:
        yield Road(server, proxy, client, database)
    client.command(f"DROP DATABASE {database}")
    client.close()


def settings_for(road: Road, folder: pathlib.Path, **changes: Any) -> Settings:
    quick: dict[str, Any] = {
        "target": f"http://127.0.0.1:{road.proxy.port}", "database": road.database, "data_dir": folder,
        "migrate_on_start": True, "insert_timeout_s": 0.5, "retry_initial_s": 0.05, "retry_max_s": 0.2,
        "hold_probe_s": 0.2, "gap_window_s": 0.1, "defaults": {"linger_ms": 50, "linger_max_ms": 100},
        "tables": {"orders": {"queue_rows": QUEUE_ROWS, "batch_rows": BATCH_ROWS}},
    }  # fmt: skip
    return Settings(**(quick | changes))


Trouble = Callable[[Road], AbstractContextManager[None]]


def armed(*faults: Fault) -> Trouble:
    """The server does these faults for as long as the trouble lasts."""

    @contextlib.contextmanager
    def trouble(road: Road) -> Iterator[None]:
        road.server.arm(*faults)
        try:
            yield
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


def again_and_again(cut: Callable[[TcpProxy], object]) -> Trouble:
    """The network does this every few milliseconds."""

    @contextlib.contextmanager
    def trouble(road: Road) -> Iterator[None]:
        over = threading.Event()

        def repeat() -> None:
            while not over.wait(0.02):
                cut(road.proxy)

        thread = threading.Thread(target=repeat)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            road.proxy.pass_on()

    return trouble


TROUBLES: dict[str, Trouble] = {
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
    "cuts requests": again_and_again(lambda proxy: proxy.cut_after(60_000, "to_server")),
    "cuts answers": again_and_again(lambda proxy: proxy.cut_after(30, "to_client")),
    "cuts connections": again_and_again(TcpProxy.cut),
}


@pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES)
def test_a_server_that_fails_while_rows_arrive_loses_nothing_unsaid(
    road: Road, trouble: Trouble, tmp_path: pathlib.Path
) -> None:
    """`record` never raises, memory stays in bounds, each accepted row is in once, each other one counted and told."""
    with Recorder(settings_for(road, tmp_path)) as recorder, OrderLoad(recorder) as load:

        def state() -> str:
            return str(recorder.status()["tables"]["orders"]["state"])

        def felt() -> bool:
            return state() != "flowing" or recorder.balance()["orders"].shed > 0

        def inserted() -> int:
            return recorder.balance()["orders"].inserted

        wait_until(lambda: inserted() > 1_000, "rows in before the trouble")
        with trouble(road):
            wait_until(felt, "the trouble felt")
            time.sleep(LASTS_S)  # the trouble's length, and no wait for a condition
        before = inserted()
        wait_until(lambda: state() == "flowing" and inserted() > before, "rows in after the trouble")
        check_accounted(load, road.client, road.database)
        # Three batches may be on their way beside the queue; a batch is sealed at the end of a drain.
        assert load.most_pending <= QUEUE_ROWS + 3 * (BATCH_ROWS + DRAIN_ROWS)
