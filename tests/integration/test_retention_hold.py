"""Legal holds on real tables: what is held stays, by TTL and by plan, through migrations, races and kills."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pytest
from harness.backends import Backend
from harness.killing import Killable
from hypothesis import given
from hypothesis import strategies as st

from recorder.cli.errors import Failure
from recorder.retaining.policies import must_take_changes
from recorder.schema_start import SchemaStart
from recorder.settings import Settings
from retention.errors import HoldsLost, PolicyError
from retention.live_holds import LIFT, HoldRow, append, held_tables, holds_of, in_force, read_holds
from retention.policy import DAY_NS
from schemas.core.tables import PACK
from schemas.executor import ClientExecutor
from schemas.live import read_tables
from schemas.manager import Manager

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

OLD_NS = 1_723_075_200_000_000_000  # 2024-08-08


def _manager(client: Client, database: str, **options: Any) -> Manager:
    executor = ClientExecutor(client)

    def held(tables: Collection[str]) -> Collection[str]:
        return held_tables(executor, database, tables)

    return Manager(executor, [PACK], database, held=held, **options)


def _ttl(client: Client, database: str, table: str) -> str:
    return read_tables(ClientExecutor(client), database)[table].ttl


def _hold(client: Client, database: str, *tables: str, name: str = "case") -> None:
    append(
        ClientExecutor(client), database, HoldRow(name=name, tables=tables, reason="why", person="me@here")
    )


def _lift(client: Client, database: str, name: str = "case") -> None:
    append(ClientExecutor(client), database, HoldRow(name=name, event=LIFT))


# -- rows --


def _count(client: Client, database: str, table: str) -> int:
    client.command(f"OPTIMIZE TABLE {database}.{table} FINAL")
    return int(client.query(f"SELECT count() FROM {database}.{table}").result_rows[0][0])


def _until_gone(client: Client, database: str, table: str) -> None:
    until_s = time.monotonic() + 60
    while _count(client, database, table):
        assert time.monotonic() < until_s, f"{table} still has rows that are long expired"
        time.sleep(0.05)


def test_expired_rows_go_without_a_hold_and_stay_with_one(client: Client, database: str) -> None:
    """ClickHouse deletes what has expired, but not in a held table; lifted and migrated, it does there too."""
    manager = _manager(client, database)
    manager.up()
    for table, key in (("system_events", "kind"), ("metrics_timeseries", "name")):
        client.command(f"SYSTEM STOP MERGES {database}.{table}")
        client.command(
            f"INSERT INTO {database}.{table} (ts_local, {key}) SELECT fromUnixTimestamp64Nano({OLD_NS}, 'UTC'), 'x'"
        )
    _hold(client, database, "system_events")
    taken = manager.take_held_ttl()
    assert [step.label for step in taken] == ["policy of system_events"]
    for table in ("system_events", "metrics_timeseries"):
        client.command(f"SYSTEM START MERGES {database}.{table}")
    _until_gone(client, database, "metrics_timeseries")
    assert _count(client, database, "system_events") == 1
    _lift(client, database)
    assert _count(client, database, "system_events") == 1, "lifting by itself deletes nothing"
    manager.up()
    _until_gone(client, database, "system_events")


# -- migrations --


def test_no_migration_gives_a_held_table_its_ttl_back(client: Client, database: str) -> None:
    """For `up`, `plan` and `check` a held table has no TTL, until it is lifted; lifting another name lifts nothing."""
    manager = _manager(client, database)
    manager.up()
    before = _ttl(client, database, "orders")
    assert before
    _hold(client, database, "fills", "orders")
    assert [difference.table for difference in manager.check()] == ["orders", "fills"]
    manager.take_held_ttl()
    _lift(client, database, name="other")
    assert (manager.plan(), manager.up(), manager.check()) == ([], [], [])
    assert (_ttl(client, database, "orders"), _ttl(client, database, "fills")) == ("", "")
    assert _ttl(client, database, "positions_intraday")
    _hold(client, database, "orders", name="second")
    _lift(client, database)
    assert [step.label for step in manager.up()] == ["policy of fills"]
    _lift(client, database, name="second")
    assert [step.label for step in manager.up()] == ["policy of orders"]
    assert _ttl(client, database, "orders") == before


def test_taking_a_ttl_changes_nothing_else(client: Client, database: str) -> None:
    """Neither what else differs in a held table, nor a table that is not held."""
    manager = _manager(client, database)
    manager.up()
    client.command(f"ALTER TABLE {database}.orders MODIFY SETTING fsync_after_insert = 0")
    client.command(f"ALTER TABLE {database}.fills MODIFY TTL toDateTime(ts_local) + toIntervalDay(9999)")
    _hold(client, database, "orders")
    manager.take_held_ttl()
    live = read_tables(ClientExecutor(client), database)
    assert (live["orders"].ttl, live["orders"].settings["fsync_after_insert"]) == ("", "0")
    assert live["fills"].ttl == "toDateTime(ts_local) + toIntervalDay(9999)"


def test_a_table_that_is_made_while_held_is_made_without_ttl(client: Client, database: str) -> None:
    """A hold of every table holds those to come."""
    plan = Manager(ClientExecutor(client), [PACK], database, held=lambda tables: tables).plan()
    made = [step.sql for step in plan if "CREATE TABLE" in step.sql]
    assert made
    assert not [sql for sql in made if "TTL toDateTime" in sql]


class Pausing(ClientExecutor):
    """Before a TTL is set it lets a hold be made, and waits until that has come as far as it can."""

    def __init__(self, client: Client, hold: threading.Thread, far: threading.Event):
        super().__init__(client)
        self._hold = hold
        self._far = far

    def command(self, sql: str) -> object:
        """Run it."""
        if "MODIFY TTL" in sql and self._hold.ident is None:
            self._hold.start()
            assert self._far.wait(60)
        return super().command(sql)


def test_a_migration_that_runs_meanwhile_does_not_undo_a_hold(
    client: Client, backend: Backend, database: str
) -> None:
    """A manager that looked before the hold was written sets the TTL; the hold takes it away behind it."""
    _manager(client, database).up()
    far = threading.Event()
    second = backend.open_client()

    def hold() -> None:
        _hold(second, database, "orders")
        _manager(second, database, on_wait=lambda _: far.set()).take_held_ttl()
        far.set()

    holding = threading.Thread(target=hold)
    executor = Pausing(client, holding, far)
    slow = Manager(
        executor,
        [PACK],
        database,
        keep_days={"orders": 9},
        held=lambda tables: held_tables(executor, database, tables),
    )
    assert [step.label for step in slow.up()] == ["policy of orders"]
    holding.join(60)
    second.close()
    assert not holding.is_alive()
    assert _ttl(client, database, "orders") == ""


# -- the table of holds --


def test_a_table_of_holds_that_is_gone_is_no_absence_of_holds(client: Client, database: str) -> None:
    """A database that never kept holds has none; one that lost them is migrated no more until they are back."""
    executor = ClientExecutor(client)
    assert held_tables(executor, database, ["orders"]) == frozenset()
    manager = _manager(client, database)
    manager.up()
    client.command(f"DROP TABLE {database}.retention_holds SYNC")
    for look in (manager.plan, manager.up, manager.check, lambda: read_holds(executor, database)):
        with pytest.raises(HoldsLost, match="was made and is gone"):
            look()


async def test_recording_goes_on_without_the_table_of_holds(
    client: Client, backend: Backend, database: str, tmp_path: pathlib.Path
) -> None:
    """A recorder whose database lost its holds starts: it migrates nothing, gives no TTL, and its tables are fit."""
    _manager(client, database).up()
    client.command(f"DROP TABLE {database}.retention_holds SYNC")
    client.command(f"ALTER TABLE {database}.orders REMOVE TTL")
    sink = backend.sink(database)
    await sink.start()
    try:
        settings = Settings(data_dir=tmp_path, database=database, migrate_on_start=True)
        start = SchemaStart(sink, settings, [PACK])
        await start.run()
        assert set((await start.unfit(PACK.tables)).values()) == {None}
    finally:
        await sink.close()
    assert _ttl(client, database, "orders") == ""


def test_what_is_written_is_what_is_read(client: Client, database: str) -> None:
    """Names, times to the nanosecond, reason and person; database user and time are the server's."""
    _manager(client, database).up()
    executor = ClientExecutor(client)
    row = HoldRow(
        name="it's a \\ case",
        tables=("fills", "orders"),
        since_ns=-DAY_NS,
        until_ns=OLD_NS + 1,
        reason="letter; of 'May' -- {x}",
        person="me@here",
    )
    append(executor, database, row)
    (read,) = read_holds(executor, database)
    assert dataclasses.replace(read, ts_ns=0, db_user="") == row
    assert abs(read.ts_ns - time.time_ns()) < DAY_NS
    assert read.db_user


def test_the_later_word_counts_however_the_clock_is_set(client: Client, database: str) -> None:
    """A server's clock that was set back neither keeps a lift from lifting nor a hold from holding."""
    _manager(client, database).up()
    executor = ClientExecutor(client)
    client.command(
        f"INSERT INTO {database}.retention_holds (ts, name, event) SELECT now64(9) + INTERVAL 9 YEAR, 'case', 'hold'"
    )
    assert [row.name for row in in_force(read_holds(executor, database))] == ["case"]
    _lift(client, database)
    assert in_force(read_holds(executor, database)) == []
    _hold(client, database, "orders")
    assert [row.tables for row in in_force(read_holds(executor, database))] == [("orders",)]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.booleans(), st.integers(0, 3)), max_size=12))
def test_what_is_in_force_is_what_no_later_row_lifts(events: Sequence[tuple[str, bool, int]]) -> None:
    """Of each name all holds since its newest lift, in whatever order rows are read; at one moment the hold counts."""
    rows = [HoldRow(name=name, event="hold" if holds else LIFT, ts_ns=at) for name, holds, at in events]
    expected = [
        row
        for row in rows
        if row.event == "hold"
        and not any(
            other.event == LIFT and other.name == row.name and other.ts_ns > row.ts_ns for other in rows
        )
    ]
    assert sorted(map(repr, in_force(rows))) == sorted(map(repr, expected))
    assert len(holds_of(rows)) == len(expected)


# -- the commands --


@dataclasses.dataclass(frozen=True)
class Made(Killable):
    """A data folder, and a database with rows of yesterday."""

    today_ns: int = dataclasses.field(default_factory=lambda: time.time_ns() // DAY_NS * DAY_NS)

    def json(self, *arguments: str) -> Any:
        return json.loads(self.done(*arguments, "--json"))

    def kinds(self) -> list[str]:
        """What is due in half a year for rows of yesterday."""
        at_ns = self.today_ns + 180 * DAY_NS
        answer = self.json("retention", "plan", "market_data", "--at", str(at_ns))
        return [action["kind"] for action in answer["actions"]]


@pytest.fixture(scope="module")
def made(backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    data_dir = tmp_path_factory.mktemp("made")
    with backend.place(data_dir) as place:
        made = Made(data_dir, place)
        made.done("migrate", "up")
        made.ingested("market_data", {"ts_local": made.today_ns - DAY_NS, "symbol": "BTCUSDT"})
        yield made


def test_a_hold_that_was_killed_goes_on(made: Made) -> None:
    """Killed between its steps, the same command completes it, with one row; the plan holds until it is lifted."""
    words = (
        "retention",
        "hold",
        "case",
        "--table",
        "market_data",
        "--until",
        "2100-01-01",
        "--reason",
        "why",
    )
    made.killed(*words, step="after hold")
    assert made.kinds() == ["drop_ttl", "held"]
    made.killed(*words, step="after TTL of a table")
    told = made.json(*words)
    assert (told["was_in_force"], told["held_tables"], told["ttl_taken"]) == (True, ["market_data"], [])
    assert made.json("migrate", "up") == {"applied": []}
    (row,) = made.json("retention", "holds")
    assert (row["name"], row["tables"], row["since_ns"], row["reason"]) == (
        "case",
        ["market_data"],
        None,
        "why",
    )
    made.json("retention", "lift", "case", "--reason", "over")
    assert made.kinds() == ["modify_ttl", "drop"]
    everything = made.json("retention", "holds", "--all")
    assert [(row["event"], row["reason"]) for row in everything] == [("hold", "why"), ("lift", "over")]


def test_what_would_hold_nothing_or_something_else_is_refused(made: Made) -> None:
    """A table that is not there, a name that holds something else, a time that is empty, a name nobody gave."""
    assert made.run("retention", "hold", "two", "--table", "orders").returncode == 0
    refused: Mapping[tuple[str, ...], str] = {
        ("hold", "one", "--table", "market_dat"): "there are account_state, book_deltas",
        ("hold", "two", "--table", "fills"): "two holds something else already: orders",
        ("hold", "one", "--since", "2024-08-08", "--until", "2024-08-08"): "is empty",
        ("lift", "one"): "no hold is called 'one'; in force: two",
    }
    for words, expected in refused.items():
        done = made.run("retention", *words)
        assert (done.returncode > 0, done.stdout) == (True, ""), words
        assert expected in done.stderr
    assert [row["name"] for row in made.json("retention", "holds")] == ["two"]


def test_a_server_that_only_answers_is_refused_at_once(
    client: Client, database: str, tmp_path: pathlib.Path
) -> None:
    """As the one in a recorder: the error says so, before anything is begun, and how to go on."""

    class ReadOnly(ClientExecutor):
        def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Sequence[Sequence[Any]]:
            return super().query(f"{sql} SETTINGS readonly = 1", parameters)

    settings = Settings(data_dir=tmp_path, database=database)
    must_take_changes(ClientExecutor(client), settings)
    with pytest.raises(Failure, match="only answers questions"):
        must_take_changes(ReadOnly(client), settings)


def test_an_empty_time_holds_nothing() -> None:
    """It is refused where it is written, too."""
    with pytest.raises(PolicyError, match="empty"):
        HoldRow(name="x", since_ns=5, until_ns=5).holds()
