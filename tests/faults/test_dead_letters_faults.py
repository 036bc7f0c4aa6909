"""Retries of dead letters that go wrong: kills, lost answers, refusals, a database that is away, two at once."""

from __future__ import annotations

import json
import pathlib
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from harness.backends import Backend, Place
from harness.dead_lettered import Desk, recorded
from harness.faulty_sink import OTHER_LOG, Fail, FaultySink, LoseAnswer, SpendToken
from harness.ingest_files import COMMAND, child_environment, run_command, write_rows
from harness.recorders import faulty, order, settings_for

from recorder import Settings
from recorder.dead_letters.one_at_a_time import LOCK_TABLE
from recorder.dead_letters.store import READ_LETTERS, Filter
from recorder.sink.errors import DataError, HoldError, Retryable
from schemas.executor import ClientExecutor
from schemas.lock import MigrationLock

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

TESTS = pathlib.Path(__file__).parents[1]
LENIENT = {"RECORDER_DEFAULTS__UNKNOWN_FIELDS": "ignore"}
COUNT = "SELECT count(), uniqExact(_log, _seq) FROM orders"


@pytest.fixture
def settings(backend: Backend, database: str, tmp_path: pathlib.Path) -> Settings:
    """With three open dead letters of orders, each of a field that is ignored by now, and on days of their own."""
    days = [1_760_000_000_000_000_000 + n * 86_400_000_000_000 for n in range(3)]
    recorded(
        settings_for(backend, database, tmp_path, ttl=False),
        *(("orders", order(n, ts_local=day, odd=1)) for n, day in enumerate(days)),
    )
    defaults = {"linger_ms": 5, "linger_max_ms": 20, "unknown_fields": "ignore"}
    return settings_for(backend, database, tmp_path, ttl=False, defaults=defaults, unknown_retries=1)


def _in(client: Client, database: str) -> tuple[int, int]:
    """Rows and identities, but for the one that took a token away."""
    sql = f"SELECT count(), uniqExact(_log, _seq) FROM {database}.orders WHERE _log != {OTHER_LOG}"
    rows, identities = client.query(sql).result_rows[0]
    return rows, identities


# -- what a server may answer --


@pytest.mark.parametrize(
    "faults",
    [
        pytest.param([LoseAnswer()], id="answer-lost"),
        pytest.param([LoseAnswer(DataError("odd", code=27))], id="in-and-called-bad"),
        pytest.param([Fail(Retryable("busy", code=202)), Fail(Retryable("busy", code=202))], id="busy-twice"),
        pytest.param([SpendToken()], id="token-spent"),
        pytest.param([Fail(DataError("odd", code=27))], id="called-bad-once"),
    ],
)
def test_each_row_is_in_once_whatever_an_insert_answers(
    settings: Settings, client: Client, database: str, faults: list[Any]
) -> None:
    """No error is believed and nothing is sent again before the table was asked; all letters are closed."""
    sink = faulty(settings)
    sink.plan("orders", *faults)
    told = Desk(settings).retry(sink=sink)
    assert (told.inserted, told.outcomes) == ({"orders": 3}, {"done": 3, "closed": 0, "open": 0})
    assert _in(client, database) == (3, 3)
    assert Desk(settings).open() == []


def test_a_row_that_is_refused_again_costs_itself(settings: Settings, client: Client, database: str) -> None:
    """The other rows of its batch go in; it stays the one dead letter that it is, and says why."""
    client.command(f"ALTER TABLE {database}.orders ADD CONSTRAINT odd CHECK client_order_id != 'c-1'")
    before = client.query(f"SELECT count() FROM {database}.dead_letters").result_rows
    told = Desk(settings).retry()
    assert (told.inserted, told.outcomes) == ({"orders": 2}, {"done": 2, "closed": 0, "open": 1})
    assert [fault.reason for _, faults in told.open for fault in faults] == ["refused_469"]
    assert client.query(f"SELECT count() FROM {database}.dead_letters").result_rows == before
    assert [letter.source[1] for letter in Desk(settings).open() if letter.source] == [1]


def test_a_table_that_is_found_held_ends_its_part_of_the_retry(
    settings: Settings, client: Client, database: str
) -> None:
    """A person waits for the command: it says what is held and does not wait for it to be mended."""
    sink = faulty(settings)
    sink.always("orders", Fail(HoldError("no such column", code=16)))
    told = Desk(settings).retry(sink=sink)
    assert (told.inserted, told.outcomes["open"]) == ({}, 3)
    assert {
        (fault.reason, "no such column" in fault.detail) for _, faults in told.open for fault in faults
    } == {("held", True)}
    assert Desk(settings).retry().inserted == {"orders": 3}
    assert _in(client, database) == (3, 3)


def test_rows_that_another_brought_meanwhile_are_counted_as_there(
    settings: Settings, client: Client, database: str
) -> None:
    """Between the first look-up and the worker's own: nothing is inserted, and the letters are closed."""
    sink = _Overtaken(faulty(settings), settings)
    told = Desk(settings).retry(sink=sink)
    assert (told.inserted, told.there, told.outcomes["done"]) == ({}, 3, 3)
    assert _in(client, database) == (3, 3)


class _Overtaken:
    """Before its first look-up another retry does all the work."""

    def __init__(self, inner: FaultySink, settings: Settings):
        self._inner = inner
        self._other: Settings | None = settings

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def look_up(self, batch: Any) -> Any:
        other, self._other = self._other, None
        if other is not None:
            await Desk(other).retry_now(Filter(), None)
        return await self._inner.look_up(batch)


# -- processes --


@pytest.fixture
def refused(place: Place, tmp_path: pathlib.Path) -> dict[str, str]:
    """A database with the dead letters of a file of orders, two portions of them, and one row that went in; the
    environment of commands on it."""
    rows = [
        {"ts_local": time.time_ns(), "client_order_id": f"c-{n}", "symbol": "B", "status": "Open", "odd": 1}
        for n in range(READ_LETTERS + 20)
    ]
    rows.append({name: value for name, value in rows[0].items() if name != "odd"})
    write_rows(tmp_path / "orders.ndjson", rows)
    environment = place.variables | {"RECORDER_DATA_DIR": str(tmp_path / "data")}
    run_command("ingest", "--table", "orders", "orders.ndjson", cwd=tmp_path, **environment)
    return environment


def _asked(folder: pathlib.Path, environment: dict[str, str], sql: str) -> list[Any]:
    done = run_command("query", "--format", "JSONCompactEachRow", sql, cwd=folder, **environment)
    assert done.returncode == 0, done.stderr
    return [int(value) for value in json.loads(done.stdout.splitlines()[0])]


def _retried(folder: pathlib.Path, environment: dict[str, str]) -> dict[str, Any]:
    done = run_command("dead-letters", "retry", "--yes", "--json", cwd=folder, **environment, **LENIENT)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(("step", "nth", "rows_in"), [
    ("before look-up", 1, 0), ("before insert", 2, READ_LETTERS), ("after insert", 1, READ_LETTERS),
])  # fmt: skip
def test_a_retry_that_is_killed_and_run_again_has_each_row_in_once(
    refused: dict[str, str], tmp_path: pathlib.Path, step: str, nth: int, rows_in: int
) -> None:
    """SIGKILL at a step of the first or second portion: what was in is found, the rest goes in, nothing twice."""
    all_rows = READ_LETTERS + 20
    killed = subprocess.run(
        [sys.executable, "-m", "harness.retry_child", step, str(nth)],
        cwd=TESTS, env=child_environment(**refused, **LENIENT), capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    told = _retried(tmp_path, refused)
    assert (told["closed"], told["done"], told["open"]) == (rows_in, all_rows - rows_in, 0)
    assert told["inserted"] == {"orders": all_rows - rows_in}
    assert _asked(tmp_path, refused, COUNT) == [all_rows + 1, all_rows + 1]


def test_two_at_once_have_each_row_in_once(
    refused: dict[str, str], backend: Backend, tmp_path: pathlib.Path
) -> None:
    """On a server the second waits for the first; an embedded database is one process's, and the second says so."""
    processes = [
        subprocess.Popen(
            [*COMMAND, "dead-letters", "retry", "--yes", "--json", "--wait", "60"],
            cwd=tmp_path, env=child_environment(**refused, **LENIENT), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    ended = [(*process.communicate(timeout=120), process.returncode) for process in processes]
    codes = sorted(code for _, _, code in ended)
    assert codes == [0, 0] if not backend.embedded else codes in ([0, 0], [0, 1]), ended
    if codes == [0, 0]:
        inserted = [json.loads(out)["inserted"].get("orders", 0) for out, _, _ in ended]
        assert sum(inserted) == READ_LETTERS + 20
    assert _asked(tmp_path, refused, COUNT) == [READ_LETTERS + 21, READ_LETTERS + 21]


def test_a_retry_waits_for_another_and_says_whose(
    refused: dict[str, str], backend: Backend, place: Place, tmp_path: pathlib.Path
) -> None:
    """While the lock is held nothing is inserted; `--wait` bounds the waiting."""
    if backend.embedded:
        pytest.skip("an embedded database is one process's, and has no lock")
    lock = MigrationLock(ClientExecutor(backend.client), place.database, owner="somebody:1", table=LOCK_TABLE)
    with lock.held(timeout_s=5):
        done = run_command(
            "dead-letters", "retry", "--yes", "--wait", "0.2", cwd=tmp_path, **refused, **LENIENT
        )
        assert (done.returncode, "somebody:1" in done.stderr) == (1, True), done.stderr
        assert _asked(tmp_path, refused, COUNT) == [1, 1]
    assert _retried(tmp_path, refused)["inserted"] == {"orders": READ_LETTERS + 20}
