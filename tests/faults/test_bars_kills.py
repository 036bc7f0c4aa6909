"""`recorder bars`: killed anywhere or run twice at once, the next build ends with the bars that the rows make."""

from __future__ import annotations

import json
import pathlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from harness.backends import Backend
from harness.exporting import Exporting
from harness.ingest_files import capture_lines, child_environment, write_lines

TESTS = pathlib.Path(__file__).parents[1]
LINES = 2_400
STEP_NS = 5 * 10**9
HOURS = 5
"""What so many lines with so much time between them touch; bars of a second and of a minute are an insert an hour."""


@pytest.fixture
def made(backend: Backend, tmp_path: pathlib.Path) -> Iterator[Exporting]:
    """A database with some hours of quotes and trades."""
    with backend.place(tmp_path) as place:
        made = Exporting(tmp_path, place)
        file = write_lines(tmp_path / "capture", capture_lines(LINES, step_ns=STEP_NS))
        done = made.run("ingest", file)
        assert done.returncode == 0, done.stderr.decode()
        yield made


def answer(made: Exporting, *arguments: str, code: int = 0) -> Any:
    done = made.run("bars", *arguments, "--json")
    assert done.returncode == code, done.stderr.decode()
    return json.loads(done.stdout)


def killed(made: Exporting, step: str, number: int) -> None:
    child = subprocess.run(
        [sys.executable, "-m", "harness.bars_child", step, str(number)],
        cwd=TESTS, capture_output=True, timeout=60, check=False,
        env=child_environment(**made.place.variables, RECORDER_DATA_DIR=str(made.folder / "data")),
    )  # fmt: skip
    assert child.returncode == -signal.SIGKILL, child.stderr.decode()


def test_a_build_that_is_killed_goes_on(made: Exporting) -> None:
    """SIGKILL before, during and after an insert: what is built is right, the next build does the rest."""
    for step, number in (("before INSERT", 1), ("after INSERT", 2), ("amid INSERT", 1)):
        killed(made, step, number)
    (done, _) = answer(made, "verify", code=1)
    assert all("no bars are built" in fault for fault in done["faults"])
    built = answer(made, "build")
    assert [one["hours_late"] for one in built] == [0, 0]
    assert 0 < built[0]["hours_new"] < HOURS
    assert [(one["hours"], one["rows"], one["faults"]) for one in answer(made, "verify")] == [
        (HOURS, LINES, [])
    ] * 2


def test_two_builds_at_once(made: Exporting) -> None:
    """Both do what is due, or the embedded engine lets one of them in; each bar is there once, and right."""
    builds = [made.start("bars", "build", "--json") for _ in range(2)]
    codes = []
    for build in builds:
        _, said = build.communicate(timeout=60)
        codes.append(build.returncode)
        assert build.returncode == 0 or made.place.target.startswith("chdb"), said.decode()
    assert 0 in codes
    assert [(one["hours"], one["rows"], one["faults"]) for one in answer(made, "verify")] == [
        (HOURS, LINES, [])
    ] * 2
