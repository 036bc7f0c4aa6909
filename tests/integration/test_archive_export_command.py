"""`archive create --export` and `retention apply` where the database is to write: commands, as a person runs them."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from retention.archive import FolderStore, check, places

if TYPE_CHECKING:
    from harness.backends import Place as Database

TESTS = pathlib.Path(__file__).parents[1]
FIRST_NS = 1_723_075_200_000_000_000  # 2024-08-08


class Desk:
    """A data folder and a database with rows of a day long past."""

    def __init__(self, place: Database, data: pathlib.Path):
        self._place, self._data = place, data
        self.told = ""
        lines = [
            json.dumps({"ts_local": FIRST_NS + number, "symbol": f"S{number % 3}"}) for number in range(30)
        ]
        (data / "rows.ndjson").write_text("\n".join(lines))
        self.run("ingest", "--table", "market_data", str(data / "rows.ndjson"))

    def run(self, *arguments: str, **variables: str) -> Any:
        """What a command answers in JSON; what it says beside that is `told`. Retention takes
        partitions for settled at once."""
        child = ["harness.killed_recorder", "never", "1"] if arguments[0] == "retention" else ["recorder"]
        ended = subprocess.run(
            [sys.executable, "-m", *child, "--data-dir", str(self._data), *arguments, "--json"],
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
            cwd=TESTS,
            env={
                **os.environ,
                "RECORDER_TABLES__MARKET_DATA__ARCHIVE_AFTER_DAYS": "5",
                "RECORDER_LOG_LEVEL": "error",
                "PYTHONPATH": os.pathsep.join(sys.path),
                **self._place.variables,
                **variables,
            },
        )
        assert ended.returncode == 0, ended.stderr + ended.stdout
        self.told = ended.stderr
        return json.loads(ended.stdout or "null")

    def files(self) -> list[str]:
        """Who wrote each file of rows."""
        return [
            str(pq.read_metadata(path).created_by).partition(" ")[0]
            for path in sorted((self._data / "archive").rglob("*.parquet"))
        ]


def test_the_option_and_the_setting_say_who_writes(place: Database, tmp_path: pathlib.Path) -> None:
    """A folder is left to the recorder unless the command or the setting says otherwise; either way all is true.

    Retention has a server write, and an embedded engine never: in a recorder's process nobody could end it.
    """
    desk = Desk(place, tmp_path)
    create = ("archive", "create", "market_data", "2024-08-08")
    assert desk.run(*create, "--to", str(tmp_path / "archive" / "a"))["rows"] == 30
    assert desk.run(*create, "--to", str(tmp_path / "archive" / "b"), "--export", "server")["rows"] == 30
    assert "written by the recorder" not in desk.told
    assert desk.files() == ["parquet-cpp-arrow", "ClickHouse"]
    done = desk.run(
        "retention",
        "apply",
        "market_data",
        "--yes",
        RECORDER_ARCHIVE=str(tmp_path / "archive" / "c"),
        RECORDER_ARCHIVE_EXPORT="server",
    )
    assert ("archive", "done") in [(one["kind"], one["state"]) for one in done["outcomes"]]
    embedded = place.target.startswith("chdb:")
    assert desk.files()[2:] == ["parquet-cpp-arrow" if embedded else "ClickHouse"]
    for name in "abc":
        store = FolderStore(tmp_path / "archive" / name)
        assert [check(store, one).faults for one in places(store)] == [()]
