"""Small parts of the service: what changes live, and what the supervisor is told."""

from __future__ import annotations

import os
import pathlib
import socket

import pytest

from recorder.service import reload
from recorder.service.notify import notify, watchdog_s
from recorder.service.reload import changes, is_live
from recorder.settings import Settings, TableSettings


def test_live_changes_and_those_that_need_a_restart_are_told_apart() -> None:
    """Against what is in force, and against what was started with."""
    started = Settings(log_level="info", tables={"orders": {"linger_ms": 5}})
    now = Settings(log_level="debug", tables={"orders": {"linger_ms": 5}})
    new = Settings(
        log_level="debug", shutdown_timeout_s=9, tables={"orders": {"linger_ms": 7, "durability": "spill"}}
    )
    found = changes(started, now, new)
    assert found.live == {"tables.orders.linger_ms": (5, 7)}
    assert found.restart == ["shutdown_timeout_s", "tables.orders.durability"]
    assert changes(started, now, now) == ({}, [])


def test_live_keys_of_tables_are_settings_of_tables() -> None:
    """A key that was renamed must not be forgotten here."""
    assert set(TableSettings.model_fields) >= reload.LIVE_OF_TABLES
    assert set(Settings.model_fields) >= reload.LIVE
    assert is_live("defaults.queue_rows")
    assert not is_live("tables.orders.keep_days")
    assert not is_live("target")


@pytest.mark.parametrize("abstract", [False, True])
def test_the_supervisor_is_told(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, abstract: bool
) -> None:
    """One datagram, a line a fact; a socket that is gone harms nobody."""
    name = f"@recorder-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(name.replace("@", "\0", 1) if abstract else name)
        supervisor.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        notify(READY="1", STATUS="two\nlines")
        assert supervisor.recv(1_000) == b"READY=1\nSTATUS=two lines"
    notify(STOPPING="1")
    monkeypatch.delenv("NOTIFY_SOCKET")
    notify(STOPPING="1")


@pytest.mark.parametrize(
    ("usec", "pid", "seconds"),
    [
        ("10000000", None, 5.0),
        ("10000000", "1", None),
        ("", None, None),
        ("0", None, None),
        ("x", None, None),
    ],
)
def test_the_watchdog_is_fed_twice_in_its_time(
    monkeypatch: pytest.MonkeyPatch, usec: str, pid: str | None, seconds: float | None
) -> None:
    """If it is meant for this process."""
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    monkeypatch.setenv("WATCHDOG_PID", pid or str(os.getpid()))
    assert watchdog_s() == seconds
