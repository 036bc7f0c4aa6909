"""Laws of `recorder bench wal`: every side keeps every row, what is counted is so, and who is absent is named."""

from __future__ import annotations

import json
import pathlib
import sqlite3
import subprocess
import sys
from typing import Any

import pytest

from benchmarks.wal import RATE_TARGET, Side, verdicts
from benchmarks.wal_open import read_rows, run_open
from benchmarks.wal_replay import run_replay
from benchmarks.wal_rivals import RIVALS, RivalKind, Sqlite, missing, plain_rows
from benchmarks.wal_sides import GROUP_ROWS, Load, Measured, due_slices, fills, measure_log, measure_rival
from wal.options import LogOptions

SLICE = 100
LOAD = Load(fills(SLICE, 3_000), 0.2, 20_000)


def counts_are_so(measured: Measured, *, tells: bool = True) -> None:
    assert measured.rows > 0
    assert measured.elapsed_s >= LOAD.seconds
    assert measured.disk_bytes > 0
    assert measured.arrow_bytes > 100 * measured.rows
    offered = sum(one.num_rows for _, one in due_slices(LOAD))
    if not tells:
        assert measured.latencies_ns is None
        return
    assert measured.latencies_ns is not None
    assert len(measured.latencies_ns) * SLICE + measured.late_rows == offered
    assert (measured.latencies_ns > 0).all()


def test_the_log_keeps_every_row_and_times_every_slice(tmp_path: pathlib.Path) -> None:
    """What is counted is read back, and each slice of the run at a rate has a latency."""
    measured = measure_log(tmp_path, LOAD, LogOptions())
    counts_are_so(measured)
    assert read_rows(tmp_path / "fast") == measured.rows
    assert measured.latencies_ns is not None
    assert read_rows(tmp_path / "paced") == len(measured.latencies_ns) * SLICE


@pytest.mark.parametrize("kind", RIVALS, ids=lambda kind: kind.name)
def test_a_rival_keeps_every_row_or_is_named(kind: RivalKind, tmp_path: pathlib.Path) -> None:
    """With the same slices; one that is not installed is told, with what installs it."""
    if why := missing(kind):
        assert f"pip install {kind.package}" in why
        return
    counts_are_so(measure_rival(kind, tmp_path, LOAD), tells=kind.tells)


def test_sqlite_has_the_rows_that_were_counted(tmp_path: pathlib.Path) -> None:
    """All of them, in write-ahead mode."""
    measured = measure_rival(Sqlite, tmp_path, LOAD)
    db = sqlite3.connect(tmp_path / "fast" / "rows.db")
    try:
        assert db.execute("SELECT count() FROM rows").fetchone() == (measured.rows,)
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    finally:
        db.close()


def test_all_sides_are_given_the_same_rows() -> None:
    """A group's rows as tuples are those of the slices, in order."""
    rows = [row for one in LOAD.slices for row in plain_rows(one)]
    ((group, nbytes),) = LOAD.groups(plain_rows)
    assert group == rows
    assert nbytes == sum(one.nbytes for one in LOAD.slices)
    many = Load(fills(SLICE, 2 * GROUP_ROWS), 1, 1)
    assert [len(group) for group, _ in many.groups(plain_rows)] == [GROUP_ROWS, GROUP_ROWS]


def test_slices_are_due_at_the_rate() -> None:
    """As many rows as the rate gives, at moments that grow, within the time."""
    due = list(due_slices(LOAD))
    assert sum(one.num_rows for _, one in due) == pytest.approx(LOAD.rate * LOAD.seconds, abs=2 * SLICE)
    moments = [at for at, _ in due]
    assert moments == sorted(moments)
    assert 0 < moments[0] <= moments[-1] <= LOAD.seconds


def test_a_large_log_is_opened_and_read_whole(tmp_path: pathlib.Path) -> None:
    """Its writer was killed, and every row that was on disk is there, each time."""
    folder = tmp_path / "log"
    folder.mkdir()
    found = run_open(folder, 3 * 2**20, LogOptions(), 2)
    assert len(found) == 2
    assert found[0].rows == found[1].rows > 1_000
    assert found[0].disk_bytes > 2**20
    assert all(one.open_s > 0 and one.read_s > 0 for one in found)


def test_a_log_is_replayed_and_every_row_is_in(tmp_path: pathlib.Path) -> None:
    """The rows that are timed are the rows that the table has, each once: the run itself fails otherwise."""
    (found,) = run_replay(tmp_path, 5_000, 1)
    assert found.rows == 5_000
    assert 0 < found.opened_s < found.elapsed_s
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("factor", "met"), [(1.01, True), (0.99, False)], ids=["faster", "slower"])
def test_the_target_is_of_the_log(factor: float, met: bool) -> None:
    """A log below the target misses it, whatever its rivals do."""

    def side(name: str, rows_per_s: float) -> Side:
        measured = Measured(int(rows_per_s), 1.0, 1, 1, 1.0, None, 0, 0.0)
        return Side(name, "", [measured])

    found = verdicts([side("the log", factor * RATE_TARGET), side("SQLite", 9 * RATE_TARGET)], [])
    assert [verdict.met for verdict in found] == [met]


@pytest.mark.long
def test_the_command_answers_in_json() -> None:
    """Well-formed, with every side in every round."""
    run = "from benchmarks.wal import command; command()"
    options = ["--seconds", "0.05", "--rounds", "2", "--open-mib", "1", "--rate", "10000"]
    done = subprocess.run(
        [sys.executable, "-c", run, *options, "--replay-rows", "0", "--json"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["benchmark"] == "wal"
    assert {"the log", "SQLite"} <= set(found["sides"])
    assert len(found["sides"]) + len(found["not_measured"]) == 1 + len(RIVALS)
    for side in found["sides"].values():
        assert side["rows_per_s"]["rounds"] == 2
        assert all(rows > 0 for rows in side["rows"])
    assert {"p50", "p99", "max"} == set(found["sides"]["the log"]["commit_latency_s"])
    assert len(found["opened"]) == 2
