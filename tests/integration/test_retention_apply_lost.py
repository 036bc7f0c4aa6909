"""A run of `recorder retention apply` whose lock another one takes over in the middle tells what it has done."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result
from harness.backends import Backend

from recorder.cli import main
from recorder.retaining.alone import LOCK_TABLE
from retention.runner import Outcome, Runner, Subject
from schemas import lease_keeper
from schemas.core.tables import PACK
from schemas.executor import ClientExecutor
from schemas.lock import LEASE_S, MigrationLock
from schemas.manager import Manager

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

TABLES = ("system_events", "orders", "fills")
APPLY = ("retention", "apply", *TABLES, "--yes")


@pytest.fixture
def lost(
    backend: Backend, client: Client, database: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database in which the TTL of each table is to be changed; behind the first change another run takes over."""
    if backend.embedded:
        pytest.skip("an embedded database has one process")
    Manager(ClientExecutor(client), [PACK], database, ttl=True).up()
    monkeypatch.setenv("RECORDER_TARGET", backend.target)
    monkeypatch.setenv("RECORDER_DATABASE", database)
    monkeypatch.setenv("RECORDER_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("RECORDER_DEFAULTS__KEEP_DAYS", "5000")
    lock = MigrationLock(ClientExecutor(client), database, owner="other", table=LOCK_TABLE)
    really, clock = Runner.run, lease_keeper.awake_s

    def run(self: Runner, subject: Subject) -> Iterator[Outcome]:
        for outcome in really(self, subject):
            if subject.policy.table == "orders":
                assert lock._take(2)
                monkeypatch.setattr(lease_keeper, "awake_s", lambda: clock() + LEASE_S + 1)
            yield outcome

    monkeypatch.setattr(Runner, "run", run)


def _run(*words: str) -> Result:
    return CliRunner().invoke(main, words)


def test_for_programs_there_are_the_outcomes_and_the_tables_that_are_left(lost: None) -> None:
    """Standard output is whole JSON; the reason is on standard error, and the exit code says that it failed."""
    done = _run(*APPLY, "--json")
    assert done.exit_code == 1
    told = json.loads(done.stdout)
    assert [(one["table"], one["kind"], one["state"]) for one in told["outcomes"]] == [
        ("orders", "modify_ttl", "done")
    ]
    assert told["tables_left"] == ["orders", "fills", "system_events"]
    assert "took over" in json.loads(done.stderr.splitlines()[-1])["error"]


def test_for_people_too(lost: None) -> None:
    """What was done is on standard output, what is left and why on standard error."""
    done = _run(*APPLY)
    assert done.exit_code == 1
    assert done.stdout.startswith("done: orders: modify ttl")
    said = " ".join(done.stderr.split())
    assert "the run ends before it is done with orders, fills, system_events" in said
    assert "took over" in said
