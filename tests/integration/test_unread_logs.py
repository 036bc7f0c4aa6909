"""A run that does not read a log on which an earlier one left rows: it says so, and leaves them where they are."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from harness.backends import Backend
from harness.recorders import WAIT_S, in_trouble, order, settings_for, wait_until
from harness.wal_making import make_segment

from recorder import Recorder, Settings
from recorder.cli import main
from recorder.sink.errors import SinkUnavailable

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

AWAY = SinkUnavailable("connection refused")
ROWS = 70


@pytest.fixture
def settings(engine: Client, backend: Backend, database: str, tmp_path: pathlib.Path) -> Settings:
    return settings_for(backend, database, tmp_path, shutdown_timeout_s=2)


def leave(settings: Settings) -> None:
    with in_trouble(settings, "orders", AWAY) as (recorder, _):
        for n in range(ROWS):
            recorder.record("orders", order(n))
        recorder.sync(WAIT_S)


def test_rows_on_a_log_are_told_by_a_run_without_one(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """One line and the status say which tables, how many rows and what to do; that run sends none of them and counts
    none, and the next one with a log has them all."""
    leave(settings)
    without = settings.model_copy(update={"wal": False, "health_addr": "127.0.0.1:0"})
    with Recorder(without) as recorder:
        wait_until(lambda: bool(recorder.status()["unread_logs"]), "the look at the logs")
        found = recorder.status()["unread_logs"]
        assert list(found) == ["orders"]
        assert (found["orders"]["rows"], found["orders"]["bytes"] > 0) == (ROWS, True)
        shown = CliRunner().invoke(main, ["status", "--url", recorder.status()["health"]])
        assert f"orders has {ROWS} rows on its log that this run does not read" in " ".join(
            shown.output.split()
        )
        recorder.record("orders", order(1_000))
        recorder.flush(WAIT_S)
        assert recorder.balance()["orders"].received == 1
    told = [r.message for r in caplog.records if "stay on logs that this run does not read" in r.message]
    assert len(told) == 1
    assert '"recorder replay"' in told[0]
    with Recorder(settings) as recorder:
        wait_until(lambda: recorder.balance()["orders"].inserted == ROWS)
        assert recorder.status()["unread_logs"] == {}


def test_the_log_of_no_table_is_told_too(settings: Settings) -> None:
    """Also by a run with a log: nobody would ever read that one. What it reads itself it does not speak of."""
    leave(settings)
    make_segment(settings.data_dir / "wal" / "quits", 1, [10], name="quits")
    with Recorder(settings) as recorder:
        wait_until(lambda: bool(recorder.status()["unread_logs"]))
        found = recorder.status()["unread_logs"]
        assert list(found) == ["quits"]
        assert found["quits"]["rows"] == 10
        assert "no loaded pack has the table" in found["quits"]["remedy"]
