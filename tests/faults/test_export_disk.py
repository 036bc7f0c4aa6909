"""`recorder export` where the disk is full or may not be written: an error that says so, and nothing left behind."""

from __future__ import annotations

import pathlib
import subprocess

import pytest
from harness.backends import Place
from harness.exporting import Exporting

pytestmark = pytest.mark.root

LONG = "SELECT number, toString(cityHash64(number)) || toString(number) AS text FROM numbers(1000000000)"


@pytest.fixture
def made(embedded: None, place: Place, tmp_path: pathlib.Path) -> Exporting:
    made = Exporting(tmp_path, place)
    assert made.run("migrate", "up").returncode == 0
    return made


def test_a_full_disk(made: Exporting, mount: pathlib.Path) -> None:
    """The file is removed and its room free again; one that was to be replaced is still there."""
    old = mount / "x"
    for form in ("parquet", "csv"):
        old.write_bytes(b"old")
        line = made.refused(form, LONG, "--out", old, "--force")
        assert f"{old}: No space left on device; free some room" in line
        assert [one.name for one in mount.iterdir()] == ["x"]
        assert old.read_bytes() == b"old"


def test_a_folder_that_may_not_be_written(made: Exporting, mount: pathlib.Path) -> None:
    """It is said before the database is asked for anything."""
    subprocess.run(["mount", "-o", "remount,ro", mount], check=True)
    line = made.refused("csv", LONG, "--out", mount / "x.csv")
    assert f"{mount / 'x.csv'}: Read-only file system; name a place" in line


def test_standard_output_that_is_full(made: Exporting) -> None:
    """What is redirected to a full disk is told as standard output."""
    with (
        open("/dev/full", "wb") as full,
        made.start("export", "csv", LONG, "--out", "-", stdout=full) as process,
    ):
        _, errors = process.communicate(timeout=100)
    assert process.returncode == 1
    assert errors.decode().splitlines() == ["error: standard output: No space left on device"]
