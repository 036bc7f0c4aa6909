"""ClickHouse is gone for long while 10,000 critical rows a second arrive over a bus; then it is back.

A publishing process, `recorder run` and a server, each a process of its own; pauses between attempts are those that one
has by default. Memory of the recorder stays within what its settings add up to, however long it lasts; nothing is shed,
and all rows are in once afterwards. What waited on the log comes in its order, and new rows beside it: the first within
a second of the server's first answer, and what a few inserts take; the others not much later than before the outage.

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
NOTICED_S = 1.0
INSERTS = 5
"""Before the first new row go the batch that was under way, with two look-ups, and the one behind it; while the backlog
drains, one of its batches, four times as large. Each takes about as long as the newest row is old before the outage."""
USUAL_LOOKS = 8
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
    """How many rows of `orders` the recorder had received at a moment."""

    at_s: float
    received: int


@dataclass(frozen=True)
class There:
    """What the table has at a moment: how many rows of the outage, their first and last number, and the highest of all
    rows. A row's number is how many the recorder received before it."""

    rows: int
    first: int
    last: int
    newest: int


def told(recorder: RecorderProcess) -> Told:
    received = recorder.status()["balance"]["orders"]["received"]
    return Told(time.monotonic(), received)


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


class Ages:
    """How old the newest row in the table is, look by look."""

    def __init__(self, recorder: RecorderProcess, road: Road):
        self.ages_s: list[float] = []
        self.seen = [told(recorder)]
        self._recorder = recorder
        self._road = road

    def look(self, outage: range) -> There:
        """Look at the table; ages are of rows that were received since the first look."""
        found = there(self._road, outage)
        now_s = time.monotonic()
        if found.newest >= self.seen[0].received:
            # It was received after the last moment at which the recorder had none of its number.
            self.ages_s.append(now_s - max(one.at_s for one in self.seen if one.received <= found.newest))
        self.seen.append(told(self._recorder))
        return found


def usual_age_s(recorder: RecorderProcess, road: Road) -> float:
    """How old the newest row is while nothing is wrong, in the middle."""
    ages = Ages(recorder, road)
    while len(ages.ages_s) < USUAL_LOOKS:
        ages.look(range(0))
        time.sleep(LOOK_S)
    return statistics.median(ages.ages_s)


def drain(recorder: RecorderProcess, road: Road, outage: range) -> Drained:
    """Look until all rows of the outage are there, and new ones. Those of the outage come in their order."""
    ages = Ages(recorder, road)
    back = ages.seen[0]
    first_new_s = None
    while True:
        found = ages.look(outage)
        took_s = time.monotonic() - back.at_s
        if found.rows:
            assert (found.first, found.rows) == (outage.start, found.last - found.first + 1), found
        if ages.ages_s:
            first_new_s = first_new_s or took_s
            if found.rows == len(outage):
                return Drained(first_new_s, took_s, ages.ages_s)
        assert took_s < 120 + 5 * OUTAGE_S, found
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
        usual_s = usual_age_s(recorder, road)
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
        f"{max(drained.ages_s):.2f} s at most ({usual_s:.2f} s before); {most_more_bytes >> 20} MiB more memory"
    )
    assert len(outage) > LEAST_ROWS_PER_S * OUTAGE_S
    assert most_more_bytes < MOST_MORE_BYTES
    assert drained.first_new_s < NOTICED_S + INSERTS * usual_s
    assert age_s < NOTICED_S + INSERTS * usual_s
