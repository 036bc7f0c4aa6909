"""ClickHouse is gone for long while 10,000 critical rows a second arrive over a bus; then it is back.

A publishing process, `recorder run` and a server, each a process of its own; pauses between attempts are those that one
has by default. Memory of the recorder stays within what its settings add up to, however long it lasts; nothing is shed,
and all rows are in once afterwards. What waited on the log comes in its order, and new rows beside it: the first within
a second of the server's first answer and the others little later than they ever were, where the machine is free.

`RECORDER_TEST_LONG_OUTAGE_S` says how long it is gone: a minute unless given, ten in `make torture`.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass

import psutil
import pytest
from harness.dev_server import DevServerProcess
from harness.publishing import Published, PublishingProcess
from harness.recorders import wait_until
from harness.troubles import Road, gone, road_to

from benchmarks.service_processes import RecorderProcess, recorder_into

OUTAGE_S = float(os.environ.get("RECORDER_TEST_LONG_OUTAGE_S", "60"))
ROWS_A_MESSAGE = 10
LEAST_ROWS_PER_S = 8_000
"""Of the 10,000 that are offered: the machine may hold the publisher up."""
FIRST_NEW_S, NEW_LAG_S = 3.0, 3.0
"""From the server's answer to the first new row in it, and the middle age of its newest row while the backlog drains: a
second each, and two for a machine that others use too."""
LOOK_S = 0.2
STRADDLE_S = 2.0
"""Rows received so shortly before the return may go in as new ones: their batch was not built yet."""
MIB = 1 << 20
QUEUE_BYTES, BATCH_BYTES, WINDOW_BYTES, LOG_BYTES = 16 * MIB, 4 * MIB, 8 * MIB, 32 * MIB
FORMS = 3
"""A batch is there as it was read, as one record batch, and as the body of its insert."""
ALLOCATORS_BYTES = 40 * MIB
"""What allocators of two languages keep for the next time."""
MOST_MORE_BYTES = QUEUE_BYTES + 3 * FORMS * BATCH_BYTES + WINDOW_BYTES + LOG_BYTES + ALLOCATORS_BYTES
"""What the recorder may take more than before: its queue, three batches, its window of the bus, and what waits for the
log's disk. The rows of a minute's outage alone, in memory, are more."""

SETTINGS = {
    "RECORDER_TABLES__ORDERS__QUEUE_BYTES": str(QUEUE_BYTES),
    "RECORDER_TABLES__ORDERS__BATCH_BYTES": str(BATCH_BYTES),
    "RECORDER_BUS_WINDOW_BYTES": str(WINDOW_BYTES),
}


@pytest.fixture
def road(tmp_path: pathlib.Path) -> Iterator[Road]:
    with DevServerProcess(tmp_path / "server") as server, road_to(server) as road:
        yield road


@dataclass(frozen=True)
class Told:
    """What the recorder says of `orders` at a moment: rows that it had received, and that stood on the log alone."""

    at_s: float
    received: int
    backlog: int


@dataclass(frozen=True)
class There:
    """What the table has at a moment: how many rows of the outage, their first and last number, and the highest of all
    rows. A row's number is how many the recorder received before it."""

    rows: int
    first: int
    last: int
    newest: int


def told(recorder: RecorderProcess) -> Told:
    status = recorder.status()
    log = status["tables"]["orders"]["log"]
    return Told(time.monotonic(), status["balance"]["orders"]["received"], log["backlog_rows"])


def there(road: Road, outage: range) -> There:
    """`_seq` of a bus is the position of a message, whose first is 0, times 4,096, and the row's place in it."""
    number = f"(intDiv(_seq, 4096) * {ROWS_A_MESSAGE} + _seq % 4096)"
    among = f"n >= {outage.start} AND n < {outage.stop}"
    return There(*(int(one) for one in road.client.query(
        f"SELECT countIf({among}), minIf(n, {among}), maxIf(n, {among}), max(n) "
        f"FROM (SELECT {number} AS n FROM {road.database}.orders)"
    ).result_rows[0]))  # fmt: skip


class Memory:
    """The most that a process takes from now on beside what it has."""

    def __init__(self, pid: int):
        self._status = pathlib.Path(f"/proc/{pid}/status")
        self._before = psutil.Process(pid).memory_info().rss
        with contextlib.suppress(
            OSError
        ):  # the kernel keeps the highest since it is told this, or since the start
            pathlib.Path(f"/proc/{pid}/clear_refs").write_text("5")

    def most_more_bytes(self) -> int:
        said = re.search(r"VmHWM:\s*(\d+) kB", self._status.read_text())
        assert said is not None
        return 1024 * int(said[1]) - self._before


@dataclass(frozen=True)
class Drained:
    """How the backlog went: seconds until the first new row was there, and until all was; how old the newest row there
    was at each look meanwhile."""

    first_new_s: float
    seconds: float
    ages_s: list[float]


def drain(recorder: RecorderProcess, road: Road, outage: range) -> Drained:
    """Look until nothing is left of the backlog. Rows of the outage are there in their order at each look."""
    back = told(recorder)
    first_new_s, ages_s, history = None, [], [back]
    until_s = back.at_s + 60 + 5 * OUTAGE_S
    while True:
        found = there(road, outage)
        looked_s = time.monotonic()
        if found.rows:
            assert (found.first, found.rows) == (outage.start, found.last - found.first + 1), found
        if found.newest >= back.received:
            first_new_s = first_new_s or looked_s - back.at_s
            # It was received after the last look at which the recorder had none of its number.
            ages_s.append(looked_s - max(one.at_s for one in history if one.received <= found.newest))
        now = told(recorder)
        history.append(now)
        if found.rows == len(outage) and not now.backlog and first_new_s is not None:
            return Drained(first_new_s, looked_s - back.at_s, ages_s)
        assert looked_s < until_s, (found, now)
        time.sleep(LOOK_S)


def check_once(recorder: RecorderProcess, road: Road, published: Published) -> None:
    """Each row that was published is there once, as it was."""
    assert published.acknowledged
    assert not published.shed
    assert published.rows_per_s > LEAST_ROWS_PER_S
    wait_until(lambda: recorder.status()["balance"]["orders"]["pending"] == 0, "nothing pending")
    balance = recorder.status()["balance"]["orders"]
    # What was under way to the server as it was killed may have been there: then it was found, and is counted once.
    assert (balance["received"], balance["inserted"]) == (published.offered, published.offered), balance
    counts = "count(), uniqExact(client_order_id), uniqExact(_seq), max(toUInt64(client_order_id)) + 1"
    (found,) = road.client.query(f"SELECT {counts} FROM {road.database}.orders").result_rows
    assert tuple(map(int, found)) == (published.offered,) * 4
    assert road.client.query(published.wrong_rows(f"{road.database}.orders")).result_rows == [(0,)]


@pytest.mark.slow
@pytest.mark.torture
@pytest.mark.timeout(300 + 10 * OUTAGE_S)
def test_a_long_outage_costs_no_row_no_memory_and_no_time_afterwards(
    road: Road, tmp_path: pathlib.Path
) -> None:
    """It waits on the log alone, and goes in beside the new rows, which wait for nothing."""
    with (
        recorder_into(f"{road.server.url}/{road.database}", tmp_path, SETTINGS) as recorder,
        PublishingProcess(recorder.bus_url, rows_a_message=ROWS_A_MESSAGE) as publishing,
    ):
        wait_until(lambda: told(recorder).received > 20_000, "rows before the outage")
        memory = Memory(recorder.recorder.process.pid)
        with gone(road):
            first = told(recorder).received
            time.sleep(OUTAGE_S)  # its length, which is no wait for a condition
            outage = range(first, told(recorder).received)
            time.sleep(STRADDLE_S)
        drained = drain(recorder, road, outage)
        published = publishing.finish()
        check_once(recorder, road, published)
        most_more_bytes = memory.most_more_bytes()
    age_s = statistics.median(drained.ages_s)
    print(
        f"{OUTAGE_S:g} s without a server: {len(outage)} rows waited, and were in {drained.seconds:.1f} s after its "
        f"return beside {published.rows_per_s:.0f} new ones a second; the first new one was there after "
        f"{drained.first_new_s:.2f} s, the newest one's age was {age_s:.2f} s in the middle and "
        f"{max(drained.ages_s):.2f} s at most; {most_more_bytes >> 20} MiB more memory"
    )
    assert len(outage) > LEAST_ROWS_PER_S * OUTAGE_S
    assert most_more_bytes < MOST_MORE_BYTES
    assert drained.first_new_s < FIRST_NEW_S
    assert age_s < NEW_LAG_S
