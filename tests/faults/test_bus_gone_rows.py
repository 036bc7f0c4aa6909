"""A bus delivers again what a recorder had inserted and was killed before it acknowledged; meanwhile those rows were
archived and dropped. They do not come back: the bus is at least once, and the rows are there, in the archive."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from typing import Any

import pytest
from harness.backends import Place
from harness.gone_child import LONG_AGO_NS
from harness.ingest_files import COMMAND, child_environment
from harness.ports import free_port
from harness.recorders import order, wait_until
from harness.running import RunningRecorder

from recorder import Publisher

ROWS, LATE = 60, 15
FOREVER_DEAF = """
from recorder.bus import zeromq
from recorder.cli import main

async def nothing(self, messages):
    pass

zeromq.ZmqSubscription.ack = nothing
main()
"""
"""A recorder that is always a moment before its acknowledgement."""
SETTLED = """
import functools
from retention import runner
from retention.due import Limits
from recorder.cli import main

runner.Limits = functools.partial(Limits, settle_s=-10.0)
main()
"""
"""Partitions count as settled at once."""


def answered(folder: pathlib.Path, settings: dict[str, str], *words: str, code: str = COMMAND[-1]) -> Any:
    """What a command says, of another machine, which sees no log."""
    done = subprocess.run(
        [sys.executable, "-c", code, "--data-dir", str(folder / "elsewhere"), *words, "--json"],
        env=child_environment(**settings), cwd=folder, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout, done.stderr)
    return json.loads(done.stdout)


def retained(folder: pathlib.Path, settings: dict[str, str]) -> list[tuple[str, str]]:
    """What retention did, and how it went."""
    told = answered(folder, settings, "retention", "apply", "orders", "--yes", code=SETTLED)
    return [(one["kind"], one["state"]) for one in told["outcomes"]]


def counted(folder: pathlib.Path, settings: dict[str, str]) -> int:
    """The rows that the table has."""
    (row,) = answered(folder, settings, "query", "SELECT count() AS n FROM orders")
    return int(row["n"])


@pytest.mark.usefixtures("embedded")
@pytest.mark.parametrize("taken_over", [False, True], ids=["restarted", "taken over by another recorder"])
def test_what_is_delivered_again_after_it_was_archived_and_dropped_stays_gone(
    place: Place, tmp_path: pathlib.Path, taken_over: bool
) -> None:
    """Killed before the acknowledgement, its rows archived and dropped, started again: with the log of the killed one,
    or as another recorder, it acknowledges all and inserts none of them. Rows of the same day that nobody has go in,
    and with the next run into an addendum."""
    settings = place.variables | {
        "RECORDER_ARCHIVE": str(tmp_path / "archive"),
        "RECORDER_TABLES__ORDERS__KEEP_DAYS": "30",
        "RECORDER_TABLES__ORDERS__ARCHIVE_AFTER_DAYS": "5",
    }
    (tmp_path / "other").mkdir()
    bus = f"zmq://127.0.0.1:{free_port()}"
    first = RunningRecorder(tmp_path, bus=(bus,), **settings)
    first.command = (sys.executable, "-c", FOREVER_DEAF)
    second = RunningRecorder(tmp_path / "other" if taken_over else tmp_path, bus=(bus,), **settings)
    with Publisher(bus, name="desk") as publisher:
        with first:
            first.ready()
            for n in range(ROWS):
                assert publisher.publish("orders", order(n, ts_local=LONG_AGO_NS + n))
            wait_until(lambda: first.rows("orders") == ROWS, "all rows in")
            first.kill()
        assert publisher.stats().acked == 0
        assert retained(tmp_path, settings) == [("archive", "done"), ("drop", "done")]
        with second:
            second.ready()
            for n in range(LATE):
                assert publisher.publish("orders", order(ROWS + n, ts_local=LONG_AGO_NS + ROWS + n))
            assert publisher.flush(60), "not all was acknowledged"
            wait_until(lambda: second.rows("orders", "pending") == 0, "nothing pending")
            balance = second.status()["balance"]["orders"]
            assert second.stop() == 0
    assert counted(tmp_path, settings) == LATE, balance
    assert retained(tmp_path, settings) == [("archive", "done"), ("drop", "done")]
    receipts = [json.loads(path.read_text()) for path in (tmp_path / "archive").rglob("receipt-*.json")]
    assert sorted(one["rows"] for one in receipts) == [LATE, ROWS]
