"""What `recorder bars` says to people, and how it ends."""

from __future__ import annotations

import pathlib

import pytest
from harness.backends import Place
from harness.exporting import Exporting
from harness.ingest_files import capture_lines, write_lines


@pytest.fixture
def made(embedded: None, place: Place, tmp_path: pathlib.Path) -> Exporting:
    return Exporting(tmp_path, place)


def told(made: Exporting, *arguments: str, code: int = 0) -> tuple[list[str], list[str]]:
    """The lines of the answer, and those beside it."""
    done = made.run("bars", *arguments)
    assert done.returncode == code, done.stderr.decode()
    return done.stdout.decode().splitlines(), done.stderr.decode().splitlines()


def test_what_is_built_is_told_and_verified(made: Exporting) -> None:
    """New hours, then late ones; verify ends with 1 when rows came that bars do not have."""
    lines = capture_lines(400, step_ns=10**9)
    for name, part, built in (
        ("a", lines[:200], "1 hour built of 200 rows (1 new, 0 again), 0 up to date"),
        ("b", lines[200:], "2 hours built of 400 rows (1 new, 1 again), 0 up to date"),
    ):
        assert made.run("ingest", write_lines(made.folder / name, part)).returncode == 0
        if name == "b":
            answer, beside = told(made, "verify", "-t", "market_bars_1s", code=1)
            assert answer == ["market_bars_1s: 0 hours of 0 rows compared, 2 faults"]
            assert [line.partition("; ")[0].rpartition(": ")[2] for line in beside] == [
                "rows came since its bars were built",
                "no bars are built",
                "2 faults in bars of 1 table",
            ]
        assert told(made, "build")[0] == [f"market_bars_1s: {built}", f"market_bars_1m: {built}"]
    assert told(made, "verify")[0][1] == "market_bars_1m: 2 hours of 400 rows compared, 0 faults"


def test_what_cannot_be_asked_for_is_told_with_a_remedy(made: Exporting) -> None:
    """No database, no tables, and a time that is empty."""
    _, beside = told(made, "build", code=1)
    assert "there is no database at" in beside[-1]
    _, beside = told(made, "verify", "--since", "2024-08-09", "--until", "2024-08-08", code=2)
    assert beside == ["error: --until is not after --since; no hour can be between them"]
