"""The demonstration and the simulate command, as a person runs them: a process of their own, a database that stays."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from harness.backends import Backend, Place


@dataclass(frozen=True)
class Demo:
    """What it told, and where it recorded."""

    folder: pathlib.Path
    place: Place
    report: dict[str, Any]


def recorder(
    *args: str, place: Place | None = None, timeout_s: float = 120
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from recorder.cli import main; main()", *args]
    variables = os.environ | (place.variables if place else {})
    return subprocess.run(
        command, capture_output=True, text=True, timeout=timeout_s, check=False, env=variables
    )


@pytest.fixture(scope="module")
def demo(backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    folder = tmp_path_factory.mktemp("demo") / "data"
    with backend.place(folder) as place:
        done = recorder("--data-dir", str(folder), "demo", "--minutes", "0.5", "--json", place=place)
        assert done.returncode == 0, done.stderr
        yield Demo(folder, place, json.loads(done.stdout))


def test_the_demo_accounts_for_every_row(demo: Demo) -> None:
    """Nothing is shed, dead or pending, and each table has at least the rows the simulator says it made."""
    report = demo.report
    assert report["balance_exact"] is True
    truth = report["simulation"]["truth"]
    for table in report["tables"]:
        balance = table["balance"]
        assert balance["inserted"] == balance["received"]
        assert balance["received"] >= truth["rows"].get(table["table"], 0)
    assert truth["rows"]["fills"] > 0


def test_the_demo_answers_what_the_simulator_knows(demo: Demo) -> None:
    """The life of an order has its steps in time order, and a strategy's fills sum to the truth's last digit."""
    report = demo.report
    life, traded, around = report["answers"]
    assert life["agrees"] is True
    assert traded["agrees"] is True
    steps = [row[0] for row in life["rows"]]
    assert steps[:3] == ["quote", "intent", "risk: allow"]
    assert "order: Filled" in steps
    times = [row[1] for row in life["rows"]]
    assert times == sorted(times)
    away = [row[0] for row in around["rows"]]
    assert away == sorted(away)
    assert away[0] <= 0 < away[-1]


def test_the_database_stays_and_a_second_session_adds_to_it(demo: Demo) -> None:
    """`recorder simulate` records into the same database; its counts are those of its own session."""
    done = recorder(
        "--data-dir",
        str(demo.folder),
        "simulate",
        "--rows",
        "2000",
        "--seed",
        "9",
        "--json",
        place=demo.place,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["complete"] is True
    for table, rows in result["truth"]["rows"].items():
        assert result["balance"][table]["inserted"] >= rows


@pytest.mark.parametrize(
    "args", [("--rate", "fast"), ("--rate", "5k", "--burst", "9k:1"), ("--symbols", "A,A")]
)
def test_wrong_use_of_simulate_is_said_in_one_line(tmp_path: pathlib.Path, args: tuple[str, ...]) -> None:
    """Exit code 2, one line, and no database."""
    done = recorder("--data-dir", str(tmp_path / "data"), "simulate", *args)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "data").exists()
