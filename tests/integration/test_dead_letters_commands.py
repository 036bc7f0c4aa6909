"""Laws of `recorder dead-letters ls | show | retry`, each in a process of its own: answers, refusals, exit codes."""

from __future__ import annotations

import json
import pathlib
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from harness.backends import Backend
from harness.dev_server import DevServerProcess
from harness.ingest_files import COMMAND, child_environment, run_command, write_rows

from recorder.dead_letters.one_at_a_time import LOCK_TABLE
from schemas.executor import ClientExecutor
from schemas.lock import MigrationLock

ROWS = 4
LENIENT = {"RECORDER_DEFAULTS__UNKNOWN_FIELDS": "ignore"}


@dataclass(frozen=True)
class Made:
    """A database with dead letters: `ROWS` of a field that is not known, one of a word, one line of no table."""

    folder: pathlib.Path
    environment: dict[str, str]
    database: str

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """`recorder dead-letters` with these arguments."""
        return run_command("dead-letters", *arguments, cwd=self.folder, **self.environment, **variables)

    def json(self, *arguments: str, code: int = 0, **variables: str) -> Any:
        """Its answer; the exit code is this one."""
        done = self.run(*arguments, "--json", **variables)
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def made(backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    folder = tmp_path_factory.mktemp("made")
    order = {"ts_local": time.time_ns(), "symbol": "B", "status": "Open"}
    rows = [{"table": "orders", "client_order_id": f"c-{n}", "odd": 1, **order} for n in range(ROWS)]
    rows += [
        {"table": "orders", "client_order_id": "c-9", **order, "status": "Odd"},
        {"table": "nowhere", "a": 1},
    ]
    write_rows(folder / "rows.ndjson", rows)
    with backend.place(folder) as place:
        environment = place.variables | {"RECORDER_DATA_DIR": str(folder / "data")}
        run_command("ingest", "rows.ndjson", cwd=folder, **environment)
        yield Made(folder, environment, place.database)


def test_what_is_open_is_listed_and_counted(made: Made) -> None:
    """`ls` newest first with a name for each; `--summary` by table and reason; filters and `--limit` hold."""
    letters = made.json("ls")
    assert [letter["open"] for letter in letters] == [True] * (ROWS + 2)
    assert len({letter["id"] for letter in letters}) == ROWS + 2
    times = [letter["ts_local"] for letter in letters]
    assert times == sorted(times, reverse=True)
    groups = {
        (group["table"], group["reason"]): (group["letters"], group["open"])
        for group in made.json("ls", "--summary")
    }
    assert groups == {
        ("orders", "unknown_field"): (ROWS, ROWS), ("orders", "unknown_choice"): (1, 1), ("", "unknown_table"): (1, 1)
    }  # fmt: skip
    assert [letter["reason"] for letter in made.json("ls", "--table", "")] == ["unknown_table"]
    assert made.json("ls", "--since", "2100-01-01") == []
    cut = made.run("ls", "--limit", "2", "--reason", "unknown_field")
    assert cut.stdout.count("unknown_field") == 2
    assert "more" in cut.stderr
    assert "no open dead letters" in made.run("ls", "--origin", "elsewhere").stderr


def test_one_is_shown_with_its_bytes_and_what_a_retry_would_do(made: Made) -> None:
    """As JSON with indents, raw byte for byte, and the dry run by the settings of now."""
    name = made.json("ls", "--reason", "unknown_table")[0]["id"]
    told = made.run("show", name)
    assert told.returncode == 0, told.stderr
    for part in ("unknown_table", "rows.ndjson, line 6", '  "a": 1', "still wrong, unknown_table"):
        assert part in told.stdout
    assert made.run("show", "--raw", name).stdout == '{"table": "nowhere", "a": 1}'
    name = made.json("ls", "--reason", "unknown_field")[0]["id"]
    assert "unknown_field" in made.run("show", name).stdout
    shown = made.json("show", name, **LENIENT)
    assert shown["retry"]["state"] == "ready"
    assert [(row["table"], row["seq"]) for row in shown["retry"]["would_insert"]] == [
        ("orders", shown["source_seq"])
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["show", "0-1"], 1, "there is no dead letter 0-1"),
        (["show", "x"], 2, "names no dead letter"),
        (["retry", "--yes", "0-1"], 1, "there is no dead letter"),
        (["ls", "--since", "yesterday"], 2, "is no time"),
        (["ls", "--limit", "0"], 2, "--limit"),
        (["retry", "--wait", "nan"], 2, "is no number"),
        (["lss"], 2, 'did you mean "ls"'),
    ],
    ids=["no-such", "no-name", "retry-no-such", "no-time", "no-limit", "no-number", "no-command"],
)  # fmt: skip
def test_wrong_use_is_one_line(made: Made, arguments: list[str], code: int, said: str) -> None:
    """And nothing is retried."""
    done = made.run(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_database_that_is_not_there_is_not_made(tmp_path: pathlib.Path) -> None:
    """`ls` and `retry` of an embedded database that is not there."""
    for arguments in (["ls"], ["retry", "--yes"]):
        done = run_command("--data-dir", "none", "dead-letters", *arguments, cwd=tmp_path)
        assert (done.returncode, "there is no database" in done.stderr) == (1, True), done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_target_that_only_reads_says_so(tmp_path: pathlib.Path) -> None:
    """As beside a running recorder (`--serve`): `retry` names the remedy, before it looks at anything."""
    with DevServerProcess(tmp_path / "db", options={"read_only": True}) as server:
        done = run_command("--target", server.url, "dead-letters", "retry", "--yes", cwd=tmp_path)
    assert done.returncode == 1
    assert "the target only reads" in done.stderr


def test_nothing_is_done_unasked(made: Made) -> None:
    """Without a terminal and without `--yes` it says what it would do, exit code 2; `--dry-run` is an answer."""
    refused = made.run("retry", "--reason", "unknown_field", **LENIENT)
    assert refused.returncode == 2
    assert f"orders: {ROWS} rows would be inserted" in refused.stderr
    assert "--yes" in refused.stderr
    plan = made.json("retry", "--dry-run", **LENIENT)
    assert plan["would_insert"] == {"orders": ROWS}
    assert sorted(fault["reason"] for fault in plan["faults"]) == ["unknown_choice", "unknown_table"]
    assert len(made.json("ls")) == ROWS + 2


def test_ctrl_c_ends_it_with_130(made: Made, backend: Backend) -> None:
    """Also while it waits for another retry; nothing was inserted and nothing is left running."""
    if backend.embedded:
        pytest.skip("an embedded database is one process's, and has no lock to wait for")
    lock = MigrationLock(ClientExecutor(backend.client), made.database, owner="somebody:1", table=LOCK_TABLE)
    with lock.held(timeout_s=5):
        process = subprocess.Popen(
            [*COMMAND, "dead-letters", "retry", "--yes", "--wait", "60"], cwd=made.folder, text=True,
            env=child_environment(**made.environment, **LENIENT), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert process.stderr is not None
        assert "somebody:1" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=30)
    assert process.returncode == 130, error
    assert "stopped" in error


def test_what_can_go_in_goes_in_and_the_rest_is_told(made: Made) -> None:
    """Last in this module: exit code 1 while something is still wrong, and what is in is closed."""
    told = made.json("retry", "--yes", code=1, **LENIENT)
    assert (told["inserted"], told["done"], told["open"]) == ({"orders": ROWS}, ROWS, 2)
    assert {fault["reason"] for fault in told["faults"]} == {"unknown_choice", "unknown_table"}
    states = {(letter["reason"], letter["open"]) for letter in made.json("ls", "--all")}
    assert states == {("unknown_field", False), ("unknown_choice", True), ("unknown_table", True)}
    assert made.json("retry", "--yes", "--reason", "unknown_field", **LENIENT)["closed"] == ROWS
    closed = {group["reason"]: group["open"] for group in made.json("ls", "--summary", "--all")}
    assert closed == {"unknown_field": 0, "unknown_choice": 1, "unknown_table": 1}
