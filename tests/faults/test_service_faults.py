"""The service as it is deployed, through trouble with its server: a publishing process, a recorder, a server.

10,000 rows a second arrive over ZeroMQ all the while, which is checked. The publisher's calls wait for nothing; memory
of both stays in bounds, and so does what the recorder has taken and not inserted; the trouble is seen to hit inserts.
Afterwards the balance is exact, each row that the publisher took is in the table once, as it was published, or was shed
by the recorder, counted and told in `recorder_gaps`; what the publisher did not take it counted and the recorder told.

`RECORDER_TEST_OUTAGE_S` says how long the server is gone while the publisher's buffer overflows (`make torture` runs it
long). What is with a log, and nothing overflows, is in test_outage.py.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from harness.dev_server import DevServerProcess
from harness.producing import difference
from harness.publishing import Published, PublishingProcess
from harness.recorders import wait_until
from harness.troubles import TROUBLES, Road, road_to

from benchmarks.service_processes import RecorderProcess, recorder_into

OUTAGE_S = float(os.environ.get("RECORDER_TEST_OUTAGE_S", "6"))
LASTS_S = 1.5
ROWS_A_MESSAGE = 10
WINDOW_MESSAGES = 2_000
LEAST_ROWS_PER_S = 8_000
"""Of the 10,000 that are offered: the machine may hold the publisher up."""
WAITING_US = 50_000
"""The half of all calls cannot take so long unless they wait for something."""
MOST_MORE_BYTES = 120 << 20
"""What a recorder or a publisher may take more than before the trouble: their queues, windows and buffers, full."""

SETTINGS = {
    "RECORDER_INSERT_TIMEOUT_S": "0.5",
    "RECORDER_RETRY_INITIAL_S": "0.05",
    "RECORDER_RETRY_MAX_S": "0.3",
    "RECORDER_HOLD_PROBE_S": "0.2",
    "RECORDER_GAP_WINDOW_S": "0.2",
    "RECORDER_DEFAULTS__LINGER_MS": "50",
    "RECORDER_BUS_WINDOW_MESSAGES": str(WINDOW_MESSAGES),
}
SMALL_QUEUE = {
    "RECORDER_TABLES__ORDERS__QUEUE_ROWS": "4000",
    "RECORDER_TABLES__ORDERS__BATCH_ROWS": "2000",
    "RECORDER_TABLES__ORDERS__OVERFLOW": "drop_oldest",
    "RECORDER_WAL": "false",
}
"""Less than the window of the bus, of a table whose rows are not waited for: the recorder sheds, not the publisher."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevServerProcess]:
    with DevServerProcess(tmp_path_factory.mktemp("server") / "db") as server:
        yield server


@pytest.fixture
def road(server: DevServerProcess) -> Iterator[Road]:
    with road_to(server) as road:
        yield road


def _highest(pid: int) -> int:
    """The most memory that a process held, in bytes."""
    said = re.search(r"VmHWM:\s*(\d+) kB", pathlib.Path(f"/proc/{pid}/status").read_text())
    assert said is not None
    return 1024 * int(said[1])


class Watch:
    """What a recorder and its publisher hold at most while it lasts: messages, and memory beyond what they had.

    `most_more` is that of each in bytes, once it was checked.
    """

    def __init__(self, recorder: RecorderProcess, publishing: PublishingProcess):
        self.most_pending = self.most_unacknowledged = 0
        self.most_more: list[int] = []
        self._recorder = recorder
        self._pids = recorder.recorder.process.pid, publishing.pid
        self._before = [psutil.Process(pid).memory_info().rss for pid in self._pids]
        for pid in self._pids:
            # The kernel keeps the highest since it is told this; where it may not be told, since the start.
            with contextlib.suppress(OSError):
                pathlib.Path(f"/proc/{pid}/clear_refs").write_text("5")

    def look(self) -> dict[str, Any]:
        """Ask the recorder; what it says of the table."""
        status = self._recorder.status()
        table: dict[str, Any] = status["tables"]["orders"] | {"balance": status["balance"]["orders"]}
        self.most_pending = max(self.most_pending, table["balance"]["pending"])
        bus = status["buses"][self._recorder.bus_url]
        self.most_unacknowledged = max(self.most_unacknowledged, bus["unacknowledged"])
        return table

    def last(self, seconds: float) -> None:
        """The trouble's length, which is no wait for a condition."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.look()
            time.sleep(0.1)

    def check(self) -> None:
        """All of it is within its bounds."""
        self.most_more = [_highest(pid) - had for pid, had in zip(self._pids, self._before, strict=True)]
        assert max(self.most_more) < MOST_MORE_BYTES, self.most_more
        assert self.most_unacknowledged <= WINDOW_MESSAGES


def orders(recorder: RecorderProcess) -> dict[str, Any]:
    """What the recorder says of the table, with its balance."""
    status = recorder.status()
    table: dict[str, Any] = status["tables"]["orders"] | {"balance": status["balance"]["orders"]}
    return table


def check_published(recorder: RecorderProcess, road: Road, published: Published) -> dict[str, int]:
    """Where every row is that was handed to `publish`; the balance of `orders`."""
    assert published.acknowledged
    assert published.rows_per_s > LEAST_ROWS_PER_S
    accepted = published.accepted()
    wait_until(lambda: orders(recorder)["balance"]["pending"] == 0, "nothing pending")
    balances = recorder.status()["balance"]
    for table, balance in balances.items():
        assert balance["received"] == sum(n for name, n in balance.items() if name != "received"), (
            table,
            balance,
        )
    balance: dict[str, int] = balances["orders"]

    def ask(sql: str) -> list[Any]:
        columns = road.client.query(sql).result_columns
        return list(columns[0]) if columns else []

    stored = ask(f"SELECT toUInt64(client_order_id) AS n FROM {road.database}.orders ORDER BY n")
    found = set(stored)
    assert len(found) == len(stored), difference(stored, accepted)
    assert found <= set(accepted), difference(stored, accepted)
    assert len(accepted) - len(stored) == balance["shed"], difference(stored, accepted)
    assert balance["inserted"] == len(stored)
    assert ask(published.wrong_rows(f"{road.database}.orders")) == [0]
    gaps = f"SELECT sum(rows) FROM {road.database}.recorder_gaps WHERE table_name = 'orders'"
    wait_until(lambda: int(ask(gaps)[0] or 0) == balance["shed"], "every shed row told in a gap")
    told = (
        "SELECT sum(toUInt64OrZero(extract(message, '([0-9]+) messages shed'))) "
        f"FROM {road.database}.system_events WHERE kind = 'bus_overflow'"
    )
    wait_until(lambda: int(ask(told)[0] or 0) == len(published.shed), "every message told that was not taken")
    return balance


KINDS = [
    "500 to everything",
    "503 to everything",
    "hangs before an insert",
    "hangs in the middle of an insert",
    "hangs after an insert",
    "resets before an insert",
    "resets in the middle of an insert",
    "resets after an insert",
    "closes in the middle of an insert",
    "closes after an insert",
    "is killed",
    "is stopped",
]


def check_calls(published: Published) -> None:
    """Calls in trouble do not wait for it to pass; how fast they are is for `bench hotpath --publisher --faults`."""
    assert published.calls["trouble"].p50_us < WAITING_US, published.calls


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_trouble_with_the_server_while_rows_arrive_over_the_bus(
    road: Road, kind: str, tmp_path: pathlib.Path
) -> None:
    """The window of the bus is less than the queue: the recorder sheds nothing, and the publisher keeps the rest."""
    with (
        recorder_into(f"{road.server.url}/{road.database}", tmp_path, SETTINGS) as recorder,
        PublishingProcess(recorder.bus_url, rows_a_message=ROWS_A_MESSAGE) as publishing,
    ):
        wait_until(lambda: orders(recorder)["balance"]["inserted"] > 10_000, "rows in before the trouble")
        watch = Watch(recorder, publishing)
        publishing.phase("trouble")
        with TROUBLES[kind](road):
            # A state that is not flowing is that of an attempt at this table that failed: at first, an insert.
            wait_until(lambda: watch.look()["state"] != "flowing", "the trouble felt")
            if kind not in ("is killed", "is stopped"):
                # Each of the statements that repeat an insert, or ask for its rows, waits for a look at least.
                road.server.wait_until(insert_faults=1, faults=1 if "hangs" in kind else 2)
            watch.last(LASTS_S)
        publishing.phase("after")
        before = orders(recorder)["balance"]["inserted"]
        wait_until(lambda: watch.look()["balance"]["inserted"] > before, "rows in after the trouble")
        published = publishing.finish()
        watch.look()
        balance = check_published(recorder, road, published)
        watch.check()
    assert balance["shed"] == 0
    assert not published.shed
    check_calls(published)


@pytest.mark.slow
def test_a_queue_less_than_the_window_sheds_in_the_recorder_and_tells_gaps(
    road: Road, tmp_path: pathlib.Path
) -> None:
    """What the queue cannot take while the server hangs is counted and told, and its messages are done with."""
    with (
        recorder_into(f"{road.server.url}/{road.database}", tmp_path, SETTINGS | SMALL_QUEUE) as recorder,
        PublishingProcess(recorder.bus_url) as publishing,
    ):
        wait_until(lambda: orders(recorder)["balance"]["inserted"] > 10_000, "rows in before the trouble")
        with TROUBLES["hangs before an insert"](road):
            wait_until(lambda: orders(recorder)["balance"]["shed"] > 5_000, "rows shed")
        published = publishing.finish()
        balance = check_published(recorder, road, published)
    assert balance["shed"] > 5_000
    assert not published.shed


def outage(road: Road, kind: str, tmp_path: pathlib.Path, seconds: float, **options: int) -> Published:
    """The server is away for so long while rows arrive at a recorder without a log; what was published."""
    with (
        recorder_into(
            f"{road.server.url}/{road.database}", tmp_path, SETTINGS | {"RECORDER_WAL": "false"}
        ) as recorder,
        PublishingProcess(recorder.bus_url, rows_a_message=ROWS_A_MESSAGE, **options) as publishing,
    ):
        wait_until(lambda: orders(recorder)["balance"]["inserted"] > 10_000, "rows in before the outage")
        watch = Watch(recorder, publishing)
        publishing.phase("trouble")
        with TROUBLES[kind](road):
            watch.last(seconds)
            assert watch.look()["state"] != "flowing"
        publishing.phase("after")
        before = orders(recorder)["balance"]["inserted"]
        wait_until(lambda: watch.look()["balance"]["inserted"] > before, "rows in after the outage")
        published = publishing.finish()
        balance = check_published(recorder, road, published)
        watch.check()
    print(
        f"{kind} for {seconds:g} s: {balance['inserted']} rows in once, {len(published.shed)} messages of "
        f"{published.rows_a_message} rows not taken; calls then {published.calls['trouble']}; "
        f"memory {[more >> 20 for more in watch.most_more]} MiB more"
    )
    assert published.seconds > seconds
    assert balance["shed"] == 0
    check_calls(published)
    return published


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.torture
@pytest.mark.timeout(300 + 10 * OUTAGE_S)
@pytest.mark.parametrize("kind", ["is killed", "is stopped"])
def test_a_long_outage_fills_the_publishers_buffer_and_no_memory(
    road: Road, kind: str, tmp_path: pathlib.Path
) -> None:
    """Without a log: window and buffer full, the publisher sheds what is new, counted and told; what it took is in
    once.
    """
    published = outage(road, kind, tmp_path, OUTAGE_S, buffer_bytes=2 << 20)
    assert published.shed
