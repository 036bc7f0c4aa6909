"""Tiny runs of each benchmark: the output is well-formed, and every count in it agrees. Speed is not looked at.

Each runs in a process of its own, because a process has one engine path.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import socket
import subprocess
import sys
from typing import Any

import pytest
from harness.dev_server_command import dev_server

from benchmarks.faulty_server import TROUBLES
from benchmarks.isolation import WORKQUEUES, others_on, threads_of_others

RUN = """
import importlib, sys
from click.testing import CliRunner
command = importlib.import_module("benchmarks." + sys.argv[1]).command
result = CliRunner().invoke(command, sys.argv[2:], catch_exceptions=False)
sys.stdout.write(result.stdout)
sys.stderr.write(result.stderr)
sys.exit(result.exit_code)
"""


def run(benchmark: str, *options: str) -> subprocess.CompletedProcess[str]:
    """One benchmark's command, in a child process."""
    return subprocess.run(
        [sys.executable, "-c", RUN, benchmark, *options],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def answer(benchmark: str, *options: str) -> dict[str, Any]:
    """What it says in JSON; it must have ended well."""
    done = run(benchmark, *options, "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["machine"]["cores"] >= 1
    assert found["machine"]["engine"]
    for target in found["targets"]:
        assert set(target) == {"name", "value", "target", "met"}
    assert found["met"] == all(target["met"] for target in found["targets"])
    return found


def counts_agree(found: dict[str, Any]) -> None:
    [target] = [target for target in found["targets"] if target["name"].startswith("counts agree")]
    assert target["met"], target["value"]


def test_load_accounts_for_every_row() -> None:
    """All rows of both phases are received, balanced, and counted in the database."""
    found = answer(
        "load", "--rate", "4000", "--seconds", "0.5", "--burst-rate", "8000", "--burst-seconds", "0.25"
    )
    counts_agree(found)
    assert found["benchmark"] == "load"
    phases = found["phases"]
    assert sum(phase["offered_rows"] for phase in phases.values()) == 4_000
    tables = found["tables"]
    assert sum(table["offered_rows"] for table in tables.values()) == 4_000
    assert all(table["exact"] for table in tables.values())
    lag_rows = sum(phase["lag"]["count"] for phase in phases.values())
    # Rows that the recorder wrote of itself before the first phase were inserted then.
    assert 4_000 <= lag_rows <= sum(table["inserted"] for table in tables.values())


@pytest.mark.long
def test_load_takes_the_tables_it_is_told() -> None:
    """Other tables are offered nothing."""
    found = answer(
        "load", "--rate", "2000", "--seconds", "0.3", "--burst-seconds", "0", "--tables", "fills,orders"
    )
    counts_agree(found)
    offered = {name for name, table in found["tables"].items() if table["offered_rows"]}
    assert offered == {"fills", "orders"}
    assert list(found["phases"]) == ["steady"]


@pytest.mark.long
def test_ingest_measures_every_side_in_every_round() -> None:
    """Each side's table had every row, or the command would have failed."""
    found = answer("ingest", "--rows", "2500", "--batch-rows", "1000", "--rounds", "2")
    table = found["tables"]["bench_ticks"]
    assert set(table["rows_per_s"]) == {
        "limit, by the sink",
        "limit, by the driver",
        "tight loop, rows",
        "tight loop, columns",
        "recorder",
    }
    for rate in (*table["rows_per_s"].values(), table["recorder_to_limit"], table["recorder_to_tight_loop"]):
        assert rate["rounds"] == 2
        assert 0 < rate["least"] <= rate["median"] <= rate["greatest"]


@pytest.mark.long
def test_ingest_measures_a_server(tmp_path: pathlib.Path) -> None:
    """The same sides over HTTP; the machine's line says where, without a password, and nothing is left there."""
    with dev_server(tmp_path, "--password-env", "P", env={"P": "s3cret"}) as server:
        target = server.url.replace("://", "://default:s3cret@")
        found = answer(
            "ingest", "--rows", "2500", "--batch-rows", "1000", "--rounds", "1", "--target", target
        )
        assert "bench" not in server.text("SHOW DATABASES", user="default", password="s3cret")
    assert found["machine"]["server"] == server.url.replace("://", "://default:***@")
    assert "over HTTP" in found["conditions"]
    rates = found["tables"]["bench_ticks"]["rows_per_s"]
    assert len(rates) == 5
    assert all(rate["least"] > 0 for rate in rates.values())


def test_ingest_says_what_keeps_it_from_a_server(tmp_path: pathlib.Path) -> None:
    """Nobody there: one line, as of every command; no side runs."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    done = subprocess.run(
        [sys.executable, "-m", "recorder", "bench", "ingest", "--rows", "10", "--target", f"http://127.0.0.1:{port}"],
        capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert f"http://127.0.0.1:{port}: connection refused" in line


@pytest.mark.long
def test_hotpath_measures_three_sides() -> None:
    """Quantiles are in order on every side."""
    found = answer("hotpath", "--rate", "2000", "--seconds", "0.2", "--rounds", "1")
    assert len(found["sides"]) == 3
    for side in found["sides"].values():
        for what in ("costs_s", "lateness_s"):
            medians = [side[what][name]["median"] for name in ("p50", "p99", "p999", "max")]
            assert medians == sorted(medians)


@pytest.mark.long
def test_an_engine_that_hangs_loses_no_count() -> None:
    """After the hang every row is in the database once, or told in a gap row."""
    found = answer("hotpath", "--engine-hangs", "--hang-seconds", "3", "--seconds", "0.4", "--rate", "2000")
    counts_agree(found)
    assert found["problems"] == []
    assert all(table["exact"] for table in found["tables"].values())
    assert found["calls_s"]["hanging"]["p50"] > 0


@pytest.mark.long
def test_archive_takes_the_same_rows_out_on_every_side() -> None:
    """Of both partitions; each side has all rows of it, or the command would have failed."""
    found = answer("archive", "--rows", "8000", "--rounds", "1")
    assert set(found["sides"]) == {"archive", "outfile", "outfile sorted", "outfile alike"}
    assert [one["rows"] for rounds in found["sides"].values() for one in rounds] == [8_000] * 4
    assert [one["rows"] for one in found["smaller"]] == [2_000]
    assert found["ratio"]["median"] > 0


@pytest.mark.parametrize("benchmark", ["load", "ingest", "hotpath", "archive"])
def test_help_has_an_example(benchmark: str) -> None:
    """Somebody who asks for help sees a line to copy."""
    done = run(benchmark, "--help")
    assert done.returncode == 0
    assert f"recorder bench {benchmark}" in done.stdout


@pytest.mark.long
def test_people_get_tables_of_at_most_a_hundred_columns() -> None:
    """The text fits a terminal, names the machine, and says what the targets are."""
    done = run("load", "--rate", "2000", "--seconds", "0.3", "--burst-seconds", "0")
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 100
    for word in ("recorder bench load", "cores", "Python", "lag p99", "Targets", "market_data"):
        assert word in done.stdout


def test_a_table_without_rows_is_wrong_use() -> None:
    """The message names the tables there are."""
    done = run("load", "--tables", "nonsense")
    assert done.returncode == 2
    assert "market_data" in done.stderr


def test_hotpath_measures_a_publisher_and_accounts_for_every_message() -> None:
    """Both sides ran; every message that was offered was taken or shed, and what was taken is acknowledged."""
    options = ("--publisher", "--drain", "--seconds", "0.3", "--rounds", "2", "--rate", "5000")
    found = answer("hotpath", *options)
    assert set(found["sides"]) == {"without", "with"}
    assert found["problems"] == []
    assert [one["accepted"] for one in found["publishers"]] == [found["offered_messages"]] * 2
    assert "publish" in run("hotpath", "--publisher", "--engine-hangs").stderr
    assert "producer's core" in run("hotpath", "--publisher", "--no-pin", "--isolate").stderr


@pytest.mark.root
@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0 or len(os.sched_getaffinity(0)) < 2,
    reason="moves the kernel's threads: Linux, root and two cores",
)
def test_who_is_moved_off_a_core_is_put_back() -> None:
    """Others' threads and the kernel's run elsewhere meanwhile, those that may; afterwards all may where they might."""
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)

    def allowed() -> dict[int, set[int]]:
        found = {}
        for thread in threads_of_others():
            with contextlib.suppress(OSError):  # it has ended
                found[thread] = os.sched_getaffinity(thread)
        return found

    try:
        own = os.sched_getaffinity(0)
        queues = (WORKQUEUES / "cpumask").read_text()
        before = allowed()
        rest = own - {max(own)}
        with others_on(rest):
            assert os.sched_getaffinity(other.pid) == rest
            assert os.sched_getaffinity(0) == own
            assert (WORKQUEUES / "cpumask").read_text() != queues
        assert (WORKQUEUES / "cpumask").read_text() == queues
        after = allowed()
        there = before.keys() & after.keys()
        assert other.pid in there
        assert {one: after[one] for one in there} == {one: before[one] for one in there}
    finally:
        other.communicate()


@pytest.mark.long
@pytest.mark.slow
def test_hotpath_accounts_for_every_row_while_the_server_fails() -> None:
    """Calls are told for each trouble; afterwards each row that was taken is in once, or in a gap row."""
    found = answer("hotpath", "--publisher", "--faults", "--seconds", "4", "--rate", "3000")
    assert set(found["calls_s"]) == {"before", *TROUBLES, "after"}
    assert found["problems"] == []
    assert "--publisher" in run("hotpath", "--faults").stderr


def test_the_service_gets_every_row_in_once() -> None:
    """Publisher, recorder and server as processes: what was published is there, and in the answer."""
    found = answer("service", "--seconds", "1", "--rate", "2000")
    counts_agree(found)
    tables = found["tables"]
    assert sum(table["offered_rows"] for table in tables.values()) == 2_000
    assert all(table["stored_rows"] >= table["offered_rows"] for table in tables.values())
    assert set(found["cpu_s"]) == {"publisher", "sender", "recorder", "server"}
    assert found["acked_s"]["p99"] > 0
