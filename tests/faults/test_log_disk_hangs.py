"""The disk of the log hangs for a while: no call on it fails, and none ends. A real disk, frozen.

Nobody who records waits for it; what is beyond the bounds of memory is shed and counted; it is told; it all goes on by
itself when the disk does, each row once; and a recorder that is told to stop meanwhile stops in its time.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
import signal
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest
from harness.hanging_disk import HangingDisk
from harness.ingest_files import COMMAND, child_environment
from harness.recorders import WAIT_S, order, rows, settings_for, wait_until
from harness.running import RunningRecorder

from recorder import NotDurable, Publisher, Recorder, Settings
from recorder.errors import LogInUse

pytestmark = [pytest.mark.root, pytest.mark.slow]

SHUTDOWN_S = 2.0
GRACE_S = 2.0
"""What `close` may take beside its time (docs/delivery.md)."""
BUSY_S = 3.0
"""What a machine that others use too may take more."""
LONGEST_CALL_S = 1.0
"""Of `record`: what such a machine may take, and far less than the disk hangs."""
NUMBERS = "SELECT toUInt32(substring(client_order_id, 3)) AS n FROM orders ORDER BY n"


@pytest.fixture
def disk(tmp_path: pathlib.Path) -> Iterator[HangingDisk]:
    """That of the logs alone: the database is on another."""
    with HangingDisk(tmp_path / "data" / "wal", size_mib=128) as disk:
        yield disk


@pytest.fixture
def settings(disk: HangingDisk, chdb_path: pathlib.Path, database: str, tmp_path: pathlib.Path) -> Settings:
    small = {"queue_rows": 500, "batch_rows": 200, "linger_ms": 5, "linger_max_ms": 20}
    return settings_for(
        chdb_path, database, tmp_path / "data", shutdown_timeout_s=SHUTDOWN_S, alarm_clear_s=0.1,
        wal_min_minutes=0, tables={"orders": small},
    )  # fmt: skip


def put(recorder: Recorder, first: int, stop: int) -> list[int]:
    """Record these orders, at some thousands a second; which of them were accepted. No call takes long."""
    accepted = []
    for n in range(first, stop):
        began_s = time.monotonic()
        if recorder.record("orders", order(n)):
            accepted.append(n)
        assert time.monotonic() - began_s < LONGEST_CALL_S
        if n % 10 == 0:
            time.sleep(0.002)
    return accepted


def hang_alarm(recorder: Recorder) -> str:
    """Why the alarm of the logs' disk stands; empty while it does not."""
    return "".join(one["why"] for one in recorder.status()["alarms"] if one["alarm"] == "RecorderWalDisk")


def stored(recorder: Recorder) -> list[int]:
    return [int(n) for (n,) in rows(recorder, NUMBERS)]


def test_while_it_hangs_nobody_waits_and_then_all_goes_on(
    disk: HangingDisk, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are taken until memory's bound, and are shed and counted beyond it. The alarm and the readiness say what is
    wrong within seconds. Afterwards each row that was taken is there, once, without anybody doing anything.
    """
    monkeypatch.setattr("recorder.log_setup.LOG_PENDING_BYTES", 500_000)
    with Recorder(settings) as recorder:
        accepted = put(recorder, 0, 500)
        recorder.sync(WAIT_S)
        offered = 6_000
        with disk.hanging():
            accepted += put(recorder, 500, offered)
            with pytest.raises(NotDurable):
                recorder.sync(0.1)
            shed = offered - len(accepted)
            assert 0 < shed < offered - 500
            wait_until(lambda: recorder.balance()["orders"].shed == shed, "what was shed is counted")
            assert recorder.balance()["orders"].exact
            wait_until(lambda: "takes nothing" in hang_alarm(recorder), "the alarm")
            assert any("orders" in why and "takes nothing" in why for why in recorder.unready())
            last = recorder.balance()["orders"]
        assert last.pending > 0
        wait_until(lambda: recorder.balance()["orders"].pending == 0, "what memory held")
        wait_until(lambda: not hang_alarm(recorder) and not recorder.unready(), "the end of the alarm")
        accepted += put(recorder, offered, offered + 100)
        recorder.sync(WAIT_S)
        recorder.flush(WAIT_S)
        balance = recorder.balance()["orders"]
        assert (balance.received, balance.inserted, balance.shed) == (offered + 100, len(accepted), shed)
        assert stored(recorder) == accepted
        told = rows(recorder, "SELECT sum(rows) FROM recorder_gaps WHERE table_name = 'orders'")
        assert told == [(shed,)]


def test_closed_while_it_hangs_it_ends_in_time_and_the_next_run_has_what_was_durable(
    disk: HangingDisk, settings: Settings
) -> None:
    """What memory held is given up and counted. Its folder is free when the disk is back: no call that hung may change
    it under somebody else.
    """
    recorder = Recorder(settings).start()
    durable = put(recorder, 0, 500)
    recorder.sync(WAIT_S)
    with disk.hanging():
        accepted = durable + put(recorder, 500, 1_500)
        closing = threading.Thread(target=recorder.close)
        closing.start()
        closing.join(SHUTDOWN_S + GRACE_S + BUSY_S)
        assert not closing.is_alive()
        balance = recorder.balance()["orders"]
        assert balance.exact
        assert balance.received == 1_500
        assert balance.shed > 0
    with contextlib.closing(started_when_free(settings)) as again:
        wait_until(lambda: len(stored(again)) >= len(durable))
        again.flush(WAIT_S)
        wait_until(lambda: again.balance()["orders"].pending == 0)
        assert again.balance()["orders"].exact
        found = stored(again)
    assert found == sorted(set(found))
    assert set(durable) <= set(found) <= set(accepted)


def started_when_free(settings: Settings) -> Recorder:
    """A recorder on these settings, once the calls of the one before have come back."""
    deadline_s = time.monotonic() + WAIT_S
    while time.monotonic() < deadline_s:
        with contextlib.suppress(LogInUse):
            return Recorder(settings).start()
        time.sleep(0.05)
    raise AssertionError("the folder did not become free")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_process_that_is_ended_while_it_hangs_loses_nothing_that_was_published(
    disk: HangingDisk, tmp_path: pathlib.Path, number: signal.Signals
) -> None:
    """Told to stop, it says that it has within its time. The system holds what is left of it, as of any process that is
    in a call of that disk, until the disk is back; then it is gone, and the next run has every row, once.
    """
    told = {"RECORDER_SHUTDOWN_TIMEOUT_S": str(SHUTDOWN_S)}
    with RunningRecorder(tmp_path, **told) as recorder:
        recorder.ready()
        with Publisher(recorder.bus_url, name="p") as publisher:
            for n in range(500):
                assert publisher.publish("orders", order(n))
            assert publisher.flush(WAIT_S)
            with disk.hanging():
                for n in range(500, 1_500):
                    assert publisher.publish("orders", order(n))
                wait_until(lambda: recorder.rows("orders", "pending") > 0, "rows that wait for the disk")
                began_s = time.monotonic()
                recorder.send(number)
                if number == signal.SIGTERM:
                    assert recorder.wait_event("stopped")["rows_lost"] == 0
                    assert time.monotonic() - began_s < SHUTDOWN_S + GRACE_S + BUSY_S
                    assert any("hangs" in line["event"] for line in recorder.events())
            assert recorder.wait() == (0 if number == signal.SIGTERM else -signal.SIGKILL)
            recorder.start().ready(2)
            assert publisher.flush(WAIT_S)
        wait_until(lambda: recorder.rows("orders", "pending") == 0)
        assert recorder.stop() == 0
    query = [*COMMAND, "--json", "--data-dir", tmp_path / "data", "query", NUMBERS]
    answer = subprocess.run(query, capture_output=True, text=True, check=True, env=child_environment())
    assert [row["n"] for row in json.loads(answer.stdout)] == list(range(1_500))
