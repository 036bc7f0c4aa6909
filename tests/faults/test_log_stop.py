"""Stopped under full load, with the database up, down or hanging: it ends in its time, and the next run has the rest.

What was durable is in the database once after the next run, whatever became of it in the first; what was not is in the
count.
"""

from __future__ import annotations

import contextlib
import pathlib
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any, Self

import clickhouse_connect
import pytest
from harness.backends import Place
from harness.dev_server import DevServerProcess, Fault
from harness.faulty_sink import Fail, Hang
from harness.recorders import WAIT_S, faulty, order, rows, settings_for, wait_until
from harness.running import RunningRecorder

from recorder import NotDurable, Publisher, Recorder, RecorderClosed, Settings
from recorder.sink.errors import SinkUnavailable

STEP_S = 0.005
ROWS_A_STEP = 50
"""10,000 rows a second, as far as the machine is free."""
SHUTDOWN_S = 2.0
GRACE_S = 2.0
"""What `close` may take beside its time (docs/delivery.md)."""
BUSY_S = 3.0
"""What a machine that others use too may take more."""
ROWS_A_MESSAGE = 10
UNDER_WAY = 5_000


class Producer:
    """Offers numbered rows from a thread until it is stopped or refused for good."""

    def __init__(self) -> None:
        self.offered = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="producer")

    def offer(self, first: int) -> None:
        """Some rows from this number on."""
        raise NotImplementedError

    def _run(self) -> None:
        with contextlib.suppress(RecorderClosed):
            while not self._over.wait(STEP_S):
                self.offer(self.offered)

    def stop(self) -> None:
        """Offer no more. Idempotent."""
        self._over.set()
        self._thread.join()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class InProcess(Producer):
    """By `record`. `accepted` are the numbers that it took."""

    def __init__(self, recorder: Recorder):
        super().__init__()
        self.accepted: list[int] = []
        self._recorder = recorder

    def offer(self, first: int) -> None:
        for n in range(first, first + ROWS_A_STEP):
            if self._recorder.record("orders", order(n)):
                self.accepted.append(n)
            self.offered = n + 1


class OverTheBus(Producer):
    """By `publish`, in messages of ten rows, each of which it must take."""

    def __init__(self, publisher: Publisher):
        super().__init__()
        self._publisher = publisher

    def offer(self, first: int) -> None:
        for n in range(first, first + ROWS_A_STEP, ROWS_A_MESSAGE):
            message = [order(one) for one in range(n, n + ROWS_A_MESSAGE)]
            if not self._publisher.publish("orders", message):
                return
            self.offered = n + ROWS_A_MESSAGE


NUMBERS = "SELECT toUInt32(substring(client_order_id, 3)) AS n FROM orders ORDER BY n"


@pytest.fixture
def settings(chdb_path: pathlib.Path, database: str, tmp_path: pathlib.Path) -> Settings:
    return settings_for(
        chdb_path, database, tmp_path, shutdown_timeout_s=SHUTDOWN_S, insert_timeout_s=3_600.0
    )


@pytest.mark.parametrize(
    "fault", [None, Fail(SinkUnavailable("refused")), Hang(3_600)], ids=["up", "down", "hanging"]
)
def test_closed_under_load_it_ends_in_time_and_the_next_run_has_what_was_durable(
    settings: Settings, fault: Any
) -> None:
    """Of all rows that were accepted each is in the table once, after the next run, or was counted as shed."""
    sink = faulty(settings)
    recorder = Recorder(settings, sink=sink).start()
    with InProcess(recorder) as producer:
        wait_until(lambda: recorder.balance()["orders"].inserted > 0, "rows flow")
        sink.always("orders", fault)
        so_far = producer.offered
        wait_until(lambda: producer.offered > so_far + UNDER_WAY, "load")
        durable = len(producer.accepted)
        with contextlib.suppress(NotDurable):
            recorder.sync(0.001)  # in a hurry, as a caller in the middle of something
            raise AssertionError("nothing was under way")
        recorder.sync(WAIT_S)
        began_s = time.monotonic()
        recorder.close()
        took_s = time.monotonic() - began_s
    assert took_s < SHUTDOWN_S + GRACE_S + BUSY_S
    balance = recorder.balance()["orders"]
    assert balance.exact
    assert balance.pending > 0 or fault is None, balance
    refused = producer.offered - len(producer.accepted)
    print(f"closed in {took_s:.2f} s: {balance}, {refused} refused")
    with Recorder(settings) as recorder:
        wait_until(
            lambda: recorder.balance()["orders"].received == balance.pending, "what the first run left"
        )
        wait_until(lambda: recorder.balance()["orders"].pending == 0, "all of it")
        found = [int(n) for (n,) in rows(recorder, NUMBERS)]
    assert len(found) == len(set(found))
    assert set(found) <= set(producer.accepted)
    assert set(producer.accepted[:durable]) <= set(found)
    assert len(found) == balance.received - balance.shed
    assert balance.shed >= refused


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevServerProcess]:
    with DevServerProcess(tmp_path_factory.mktemp("server") / "db") as server:
        yield server


@contextlib.contextmanager
def in_state(server: DevServerProcess, kind: str) -> Iterator[None]:
    """The server while the recorder stops."""
    if kind == "down":
        server.kill()
    elif kind != "up":
        server.arm(Fault("before", "hang", table="orders"))
    yield
    if kind == "down":
        server.start()
    server.disarm()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["up", "down", "hanging", "hanging, and told twice"])
def test_sigterm_under_load_loses_no_row_that_was_acknowledged(
    server: DevServerProcess, tmp_path: pathlib.Path, kind: str
) -> None:
    """The publisher that has them no more is gone: all are in from the log, once. A second signal hurries."""
    twice = kind.endswith("twice")
    database = "t_" + kind.replace(", ", "_").replace(" ", "_")
    place = Place(server.url, database)
    told = {"RECORDER_SHUTDOWN_TIMEOUT_S": "600" if twice else str(SHUTDOWN_S)}
    with RunningRecorder(tmp_path, **place.variables, **told) as recorder:
        recorder.ready()
        with Publisher(recorder.bus_url, close_timeout_s=0.0, outlive_s=0.0) as publisher:
            with OverTheBus(publisher) as producer:
                wait_until(lambda: recorder.rows("orders") > 0, "rows flow")
                with in_state(server, kind):
                    acked = publisher.stats().acked
                    wait_until(
                        lambda: (publisher.stats().acked - acked) * ROWS_A_MESSAGE > UNDER_WAY,
                        "rows acknowledged meanwhile",
                    )
                    began_s = time.monotonic()
                    recorder.send(signal.SIGTERM)
                    if twice:
                        recorder.wait_event("flushing")
                        recorder.send(signal.SIGTERM)
                    code = recorder.wait()
                    took_s = time.monotonic() - began_s
            durable = publisher.stats().acked * ROWS_A_MESSAGE
        assert code == (143 if twice else 0)
        assert took_s < SHUTDOWN_S + GRACE_S + BUSY_S
        stopped = recorder.events("stopped")[-1]
        assert stopped["rows_lost"] == 0
        print(f"{kind}: ended in {took_s:.2f} s, {durable} of {producer.offered} rows durable")
        recorder.start().ready(2)
        client = clickhouse_connect.get_client(dsn=server.url, database=database)
        with contextlib.closing(client):
            wait_until(lambda: client.command("SELECT count() FROM orders") >= durable, "what was durable")
            wait_until(lambda: recorder.rows("orders", "pending") == 0, "all of it")
            assert recorder.stop() == 0
            found = [int(n) for n in client.query(NUMBERS).result_columns[0]]
            client.command(f"DROP DATABASE {database} SYNC")
    assert len(found) == len(set(found))
    assert found[:durable] == list(range(durable))
    assert len(found) <= producer.offered
