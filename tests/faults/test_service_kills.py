"""SIGKILL of recorder, server and publisher while rows arrive over the bus: what the publisher took is in once.

What a killed recorder had taken and not acknowledged, the publisher delivers to the next one, which asks the table for
it first, whatever window it has, and whatever became of the publisher's clock meanwhile. `RECORDER_TEST_KILLS` says how
long this goes on (`make torture` runs it long).
"""

from __future__ import annotations

import os
import pathlib
import random
import signal
import time
from typing import Any

import pytest
from harness.dev_server import DevServerProcess, Fault
from harness.producing import difference
from harness.publishing import PublishingProcess
from harness.recorders import wait_until
from harness.troubles import Road, road_to

from benchmarks.service_processes import ProcessFailed, RecorderProcess, recorder_into

ROUNDS = max(1, int(os.environ.get("RECORDER_TEST_KILLS", "50")) // 10)
SETTINGS = {
    "RECORDER_INSERT_TIMEOUT_S": "2",
    "RECORDER_RETRY_INITIAL_S": "0.02",
    "RECORDER_RETRY_MAX_S": "0.2",
    "RECORDER_DEFAULTS__LINGER_MS": "50",
}
WINDOWS = (50, 500, 2_000, 8_192)
CLOCK_JUMP_S = 40 * 86_400
"""To another partition and back."""


def asked(road: Road, sql: str) -> list[Any]:
    """The first column of the answer."""
    columns = road.client.query(sql).result_columns
    return list(columns[0]) if columns else []


def inserted(recorder: RecorderProcess) -> int:
    return int(recorder.status()["balance"]["orders"]["inserted"])


def kill(recorder: RecorderProcess, server: DevServerProcess, rng: random.Random) -> str:
    """Kill the recorder at some moment, the server with it or not; returns when what was killed has gone."""
    moment = rng.choice(("any", "insert hangs", "insert ran", "server too", "server in an insert"))
    process = recorder.recorder.process
    if moment == "any":
        time.sleep(rng.uniform(0, 0.3))
        process.kill()
    elif moment in ("insert hangs", "insert ran"):
        server.arm(Fault("before" if moment == "insert hangs" else "after", "hang", table="orders"))
        server.wait_until(hanging=1)
        process.kill()
        process.wait()
        server.disarm()  # what the killed one had sent may commit now, beside its redelivery
    elif moment == "server too":
        server.kill()
        process.kill()
    else:
        server.arm(Fault(rng.choice(("before", "middle", "after")), "kill", table="orders"))
        server.wait_gone()
        process.kill()
    process.wait()
    return moment


def short_life(
    target: str, folder: pathlib.Path, bus_url: str, server: DevServerProcess, rng: random.Random
) -> str:
    """A recorder from its start to its kill; at which moment that came."""
    moment = ""
    settings = SETTINGS | {"RECORDER_BUS_WINDOW_MESSAGES": str(rng.choice(WINDOWS))}
    try:
        with recorder_into(target, folder, settings, bus_url=bus_url) as recorder:
            wait_until(lambda: inserted(recorder) > 0, "rows in")
            moment = kill(recorder, server, rng)
    except ProcessFailed as ended:
        if not moment or f"ended with -{int(signal.SIGKILL)}" not in str(ended):
            raise
    return moment


@pytest.mark.slow
@pytest.mark.torture
@pytest.mark.timeout(120 + 20 * ROUNDS)
def test_rows_are_in_once_through_sigkills_of_recorder_and_server(tmp_path: pathlib.Path) -> None:
    """However often both are killed: all the publisher took is acknowledged in the end, and in the table once."""
    seed = random.SystemRandom().randrange(2**32)
    rng = random.Random(seed)
    moments: list[str] = []
    bus_url = f"zmq://{tmp_path / 'bus.sock'}"
    with DevServerProcess(tmp_path / "server") as server, road_to(server) as road:
        target = f"{server.url}/{road.database}"
        with PublishingProcess(bus_url, rows_per_s=10_000, clock_jump_s=CLOCK_JUMP_S) as publishing:
            for number in range(ROUNDS):
                if not server.alive:
                    server.start()
                moments.append(short_life(target, tmp_path, bus_url, server, rng))
                if (number + 1) % 10 == 0:
                    print(f"seed {seed}: {number + 1} of {ROUNDS} rounds")
            if not server.alive:
                server.start()
            with recorder_into(target, tmp_path, SETTINGS, bus_url=bus_url):
                published = publishing.finish()
        assert published.acknowledged
        stored = asked(road, f"SELECT toUInt64(client_order_id) AS n FROM {road.database}.orders ORDER BY n")
        wrong = asked(road, published.wrong_rows(f"{road.database}.orders", timed=False))
        days = asked(road, f"SELECT DISTINCT toDate(ts_local) FROM {road.database}.orders")
    accepted = published.accepted()
    assert stored == accepted, f"seed {seed}, killed {moments}: {difference(stored, accepted)}"
    assert wrong == [0]
    assert len(days) >= 3
    print(
        f"seed {seed}: {ROUNDS} rounds, each of {len(stored)} rows in once, {len(published.shed)} messages not taken"
    )


@pytest.mark.slow
def test_what_a_killed_publisher_had_sent_is_in_without_a_hole(tmp_path: pathlib.Path) -> None:
    """Several of one name, two at a time, killed one after the other: of each the first rows are in, once, up to
    where it was killed; all of the one that ends in order."""
    with (
        DevServerProcess(tmp_path / "server") as server,
        road_to(server) as road,
        recorder_into(f"{server.url}/{road.database}", tmp_path, SETTINGS) as recorder,
        PublishingProcess(recorder.bus_url, rows_per_s=5_000, name="maker") as lasting,
    ):
        logs = f"SELECT uniqExact(_log) FROM {road.database}.orders"
        for number in range(3):
            with PublishingProcess(recorder.bus_url, rows_per_s=5_000, name="maker") as publishing:
                wait_until(lambda number=number: asked(road, logs) == [number + 2], "rows of the new one in")
                before = inserted(recorder)
                wait_until(lambda before=before: inserted(recorder) > before + 5_000, "rows of both in")
                publishing.kill()
        published = lasting.finish()
        wait_until(lambda: recorder.status()["balance"]["orders"]["pending"] == 0, "nothing pending")
        of_each = road.client.query(
            "SELECT count() AS rows, uniqExact(n), min(n), max(n) + 1 FROM (SELECT _log, toUInt64(client_order_id) AS n"
            f" FROM {road.database}.orders) GROUP BY _log ORDER BY rows"
        ).result_rows
        wrong = asked(road, published.wrong_rows(f"{road.database}.orders", timed=False))
    assert published.acknowledged
    assert wrong == [0]
    assert len(of_each) == 4
    assert all(rows == different == end and start == 0 for rows, different, start, end in of_each)
    assert of_each[-1][0] == len(published.accepted()) == published.offered
