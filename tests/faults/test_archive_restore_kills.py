"""A restore that is killed at every step, and one whose killed insert goes on without it."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from harness.restoring import NAMES, VALUES, opened
from harness.waiting import until

from recorder.cli import archive_restore
from recorder.cli.archive_restore import LOCK_TABLE, alone
from recorder.cli.errors import Failure
from recorder.settings import Settings
from schemas.executor import ClientExecutor

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client
    from harness.backends import Backend, Place

CHILD = pathlib.Path(__file__).parents[1] / "harness" / "restore_child.py"
STEPS = (
    ("before insert", 1),
    ("amid insert", 1),
    ("after insert", 1),
    ("before identities", 1),
    ("before sums", 2),
)
"""The last two are in the look-up of rows that are there, and before the comparison at the end."""
COMPARED = """
    SELECT toUInt32((SELECT count() FROM (SELECT * FROM orders EXCEPT SELECT * FROM again))) AS lost,
        toUInt32((SELECT count() FROM (SELECT * FROM again EXCEPT SELECT * FROM orders))) AS strange,
        toUInt32((SELECT count() - uniqExact(_log, _seq) FROM again)) AS doubled,
        toInt32((SELECT count() FROM orders_with_archive)) - toInt32((SELECT count() FROM orders)) AS seen_twice
"""


def test_killed_at_every_step_it_is_completed_by_the_last_run(place: Place, tmp_path: pathlib.Path) -> None:
    """One run after the other is killed by SIGKILL, each further on; then the table has each row once, to the last bit.

    On a server the insert of a killed run may go on, and the next run waits for it. What is live and archived, the view
    over both has once.
    """
    data = tmp_path / "data"
    environment = {**os.environ, **place.variables, "RECORDER_LOG_LEVEL": "error"}

    def recorder(*arguments: str, step: str = "", nth: int = 1, code: int = 0) -> Any:
        start = [str(CHILD), step, str(nth)] if step else ["-m", "recorder"]
        ended = subprocess.run(
            [sys.executable, *start, "--data-dir", str(data), *arguments, "--json"],
            check=False, capture_output=True, text=True, timeout=60, env=environment,
        )  # fmt: skip
        assert ended.returncode == code, (step, ended.stderr + ended.stdout)
        return json.loads(ended.stdout) if ended.stdout else None

    recorder("simulate", "--minutes", "0.3")
    (there,) = recorder(
        "query", "SELECT _partition_id AS id, toUInt32(count()) AS rows FROM orders GROUP BY id"
    )
    assert there["rows"] > 100
    recorder("archive", "create", "orders", there["id"])
    restore = ("archive", "restore", "orders", there["id"], "--into", "again")
    for step, nth in STEPS:
        recorder(*restore, step=step, nth=nth, code=-9)
    done = recorder(*restore)
    told = (done["rows"], done["inserted"], done["there"], done["others"], done["into"])
    assert told == (there["rows"], 0, there["rows"], 0, "again")
    assert recorder("archive", "attach", "orders")["pieces"] == 1
    (compared,) = recorder("query", COMPARED)
    assert compared == {"lost": 0, "strange": 0, "doubled": 0, "seen_twice": 0}


def test_an_insert_that_outlived_its_run_is_waited_for(
    backend: Backend, client: Client, database: str, tmp_path: pathlib.Path
) -> None:
    """What the server goes on with after a kill counts as there: its rows are looked up when it has ended."""
    if backend.embedded:
        pytest.skip("its inserts end with the process")
    with opened(client, backend.sink(database), database) as db:
        db.make()
        db.fill(0, 100)
        store = db.archive(tmp_path)
        db.drop()
        token = "0123456789abcdef"
        slow = (
            f"INSERT INTO {database}.trades ({NAMES}) SELECT {NAMES} FROM (SELECT {VALUES} FROM numbers(100)) "
            "WHERE sleepEachRow(0.02) = 0"
        )
        other = backend.open_client()
        settings = {"log_comment": token, "insert_deduplication_token": token, "async_insert": 0}
        running = threading.Thread(target=lambda: other.command(slow, settings=settings))
        running.start()
        try:
            runs = f"SELECT count() FROM system.processes WHERE Settings['log_comment'] = '{token}'"
            db.runner.run(until(lambda: db.ask(runs) == 1, "the insert runs"))
            with opened(client, backend.sink(database), database) as later:
                done = later.restore(store)
        finally:
            running.join()
            other.close()
        assert (done.inserted, done.there) == (0, 100)
        assert db.differ(0, 100) == 0


def test_on_a_server_one_restore_works_at_a_time(
    backend: Backend, client: Client, database: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second one is told who is at work; one whose lock was taken over sends no more."""
    if backend.embedded:
        pytest.skip("it has one process")
    monkeypatch.setattr(archive_restore, "LOCK_WAIT_S", 0.0)
    settings = Settings(target=backend.target, database=database, data_dir=tmp_path)
    executor = ClientExecutor(client)
    with alone(settings, executor) as say:
        say()
        with (
            pytest.raises(Failure, match=r"another restore is at work \(.+:\d+:.*run again"),
            alone(settings, executor),
        ):
            pytest.fail("both are inside")
        successor = f"{LOCK_TABLE}_{10:06}"
        client.command(f"CREATE TABLE {database}.{successor} (unused UInt8) ENGINE = Null")
        with pytest.raises(Failure, match="another restore took over"):
            say()
        client.command(f"DROP TABLE {database}.{successor} SYNC")
    with alone(settings, executor):
        pass
