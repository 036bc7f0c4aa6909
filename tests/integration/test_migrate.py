"""Laws of the schema manager, on a real ClickHouse."""

from __future__ import annotations

import pathlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from harness.backends import Backend

from schemas.columns import Name, TimeNs, UInt32
from schemas.core.tables import PACK
from schemas.errors import ChecksumChanged, HistoryGap, LockLost, LockTimeout, MigrationFailed
from schemas.executor import ClientExecutor
from schemas.history import History, bootstrap_statements
from schemas.live import read_tables
from schemas.lock import MigrationLock
from schemas.manager import Manager, PlannedStatement
from schemas.pack import Pack
from schemas.policy import Durability, Overflow, Partition, TablePolicy
from schemas.process import identity, is_dead
from schemas.table import Row, Table, table

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client


@pytest.fixture(scope="module")
def second(backend: Backend) -> Iterator[Client]:
    """Another client of the same database."""
    client = backend.open_client()
    yield client
    client.close()


@pytest.fixture(scope="module")
def core(backend: Backend) -> Iterator[str]:
    """A database with the core pack, for tests that only read it."""
    with backend.fresh_database() as database:
        Manager(ClientExecutor(backend.client), [PACK], database).up()
        yield database


class Thing(Row, kw_only=True):
    """A thing."""

    ts_local: TimeNs = 0
    """When."""
    run_id: Name = ""
    """Run."""
    count: UInt32
    """How many."""


def _things(*, keep_days: int | None = 90, name: str = "things") -> Table:
    return table(
        name,
        Thing,
        TablePolicy(
            durability=Durability.WAL,
            overflow=Overflow.SPILL,
            partition=Partition.DAY,
            order_by=("ts_local",),
            keep_days=keep_days,
        ),
    )


CREATE = """
CREATE TABLE IF NOT EXISTS {{db}}.things {{on_cluster}}
(ts_local DateTime64(9, 'UTC'), run_id LowCardinality(String), count UInt32, _log UInt64, _seq UInt64)
ENGINE = {{engine}} PARTITION BY {{partition}} ORDER BY ts_local {{ttl}} SETTINGS {{settings}};
"""


def _pack(folder: pathlib.Path, *texts: str, keep_days: int | None = 90) -> Pack:
    """A pack of these migrations, over whatever the folder held."""
    for old in folder.glob("*.sql"):
        old.unlink()
    for number, text in enumerate(texts, start=1):
        (folder / f"{number:04}_step.sql").write_text(text)
    return Pack("mine", folder, (_things(keep_days=keep_days),))


def _manager(client: Client, pack: Pack, database: str, **options: object) -> Manager:
    return Manager(ClientExecutor(client), [pack], database, **options)  # type: ignore[arg-type]


# --- the core pack ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("core_table", PACK.tables, ids=lambda core_table: core_table.name)
def test_live_columns_are_those_of_the_row_class(client: Client, core: str, core_table: Table) -> None:
    """After all migrations, system.columns has the row class's columns: names, exact types and order."""
    live = read_tables(ClientExecutor(client), core)[core_table.name]
    assert [(column.name, column.type) for column in live.columns] == [
        (column.name, column.clickhouse_type) for column in core_table.all_columns
    ]


@pytest.mark.parametrize("core_table", PACK.tables, ids=lambda core_table: core_table.name)
def test_live_policies_are_those_of_the_table(client: Client, core: str, core_table: Table) -> None:
    """Engine, partition, order, retention, and the settings that keep acknowledged rows through a power cut."""
    live = read_tables(ClientExecutor(client), core)[core_table.name]
    assert live.engine == "MergeTree"
    assert (
        live.partition_key
        == ("toYYYYMMDD" if core_table.policy.partition == "day" else "toYYYYMM") + "(ts_local)"
    )
    assert live.sorting_key == ", ".join(core_table.policy.order_by)
    days = core_table.policy.keep_days
    assert live.ttl == (f"toDateTime(ts_local) + toIntervalDay({days})" if days else "")
    assert live.settings["ttl_only_drop_parts"] == "1"
    assert live.settings["non_replicated_deduplication_window"] == "100000"
    fsync = [
        "fsync_after_insert", "fsync_part_directory", "min_rows_to_fsync_after_merge",
        "min_compressed_bytes_to_fsync_after_merge",
    ]  # fmt: skip
    expected = ["1"] * 4 if core_table.policy.durability == "wal" else [None] * 4
    assert [live.settings.get(name) for name in fsync] == expected


def test_venue_time_is_indexed_and_sequences_are_delta_coded(client: Client, core: str) -> None:
    """market_data has a minmax index on ts_exchange; every _seq is DoubleDelta, then ZSTD."""
    index = client.query(
        "SELECT type, expr FROM system.data_skipping_indices WHERE database = {db:String} AND table = 'market_data'",
        {"db": core},
    ).result_rows
    assert ("minmax", "ts_exchange") in [tuple(row) for row in index]
    codecs = client.query(
        "SELECT DISTINCT compression_codec FROM system.columns "
        "WHERE database = {db:String} AND name = '_seq' AND compression_codec != ''",
        {"db": core},
    ).result_rows
    assert [row[0] for row in codecs] == ["CODEC(DoubleDelta, ZSTD(1))"]


def test_a_fresh_core_database_has_no_differences_and_nothing_pending(client: Client, core: str) -> None:
    """What `up` made is what `check` wants, and a second `up` runs nothing."""
    manager = Manager(ClientExecutor(client), [PACK], core)
    assert manager.check() == []
    assert manager.plan() == []
    assert manager.up() == []
    assert [status.state for status in manager.status()[0].migrations] == ["applied"] * len(PACK.migrations)


def test_every_core_statement_may_run_twice(client: Client, database: str) -> None:
    """A crash between running a statement and recording it costs nothing: all of them run again without harm."""
    manager = Manager(ClientExecutor(client), [PACK], database)
    first = manager.up()
    client.command(f"TRUNCATE TABLE {database}.recorder_migrations")
    assert [step.sql for step in manager.up()] == [step.sql for step in first]
    assert manager.check() == []


# --- applying --------------------------------------------------------------------------------------------------


def test_plan_says_what_up_does_and_changes_nothing(
    client: Client, database: str, tmp_path: pathlib.Path
) -> None:
    """The plan's statements are those that `up` returns, behind the manager's own tables."""
    manager = _manager(client, _pack(tmp_path, CREATE, "SELECT 1; SELECT ';'"), database)
    planned = manager.plan()
    assert int(client.command(f"SELECT count() FROM system.tables WHERE database = '{database}'")) == 0
    seen: list[str] = []
    applied = manager.up(on_progress=lambda step: seen.append(step.sql))
    own = bootstrap_statements(database, "")
    assert [step.sql for step in planned] == [*own, *(step.sql for step in applied)]
    assert seen == [step.sql for step in applied]
    assert len(applied) == 3


def test_up_makes_the_database(backend: Backend, tmp_path: pathlib.Path) -> None:
    """A database that is not there yet is made."""
    with backend.fresh_database(create=False) as name:
        _manager(backend.client, _pack(tmp_path, CREATE), name).up()
        assert _manager(backend.client, _pack(tmp_path, CREATE), name).check() == []


def test_a_statement_that_fails_is_where_the_next_up_goes_on(
    client: Client, database: str, tmp_path: pathlib.Path
) -> None:
    """What was applied is recorded and not run again; what failed may be mended, also in the file."""
    broken = _manager(client, _pack(tmp_path, CREATE, "SELECT 1; SELECT nonesuch; SELECT 3"), database)
    says = r"mine/0002_step: statement 2 of 3 \(line 1\) failed: .*nonesuch"
    with pytest.raises(MigrationFailed, match=says) as raised:
        broken.up()
    assert (raised.value.number, raised.value.statement) == (2, 2)
    status = broken.status()[0]
    assert [(m.state, m.done, m.total) for m in status.migrations] == [("applied", 1, 1), ("partial", 1, 3)]
    assert "nonesuch" in status.migrations[1].error
    assert status.pending == 1
    assert [step.statement for step in broken.plan()] == [2, 3]

    mended = _manager(client, _pack(tmp_path, CREATE, "SELECT 1; SELECT 2; SELECT 3"), database)
    assert [step.sql for step in mended.up()] == ["SELECT 2", "SELECT 3"]
    assert [m.state for m in mended.status()[0].migrations] == ["applied", "applied"]
    assert mended.up() == []


def test_what_was_run_of_a_failed_migration_may_not_change(
    client: Client, database: str, tmp_path: pathlib.Path
) -> None:
    """Mending the failed statement is allowed, changing one that was run is not."""
    with pytest.raises(MigrationFailed):
        _manager(client, _pack(tmp_path, "SELECT 1; SELECT nonesuch"), database).up()
    with pytest.raises(ChecksumChanged, match="mine/0001_step"):
        _manager(client, _pack(tmp_path, "SELECT 11; SELECT 2"), database).up()


def test_an_applied_migration_whose_text_changed_stops_everything(
    client: Client, database: str, tmp_path: pathlib.Path
) -> None:
    """A changed checksum names the migration, both checksums and the remedy; nothing is run."""
    _manager(client, _pack(tmp_path, CREATE), database).up()
    changed = _manager(client, _pack(tmp_path, CREATE + "-- a word more", "SELECT 1"), database)
    with pytest.raises(
        ChecksumChanged, match=r"mine/0001_step: its text has changed .* write the change as a new"
    ):
        changed.up()
    assert [m.state for m in changed.status()[0].migrations] == ["changed", "pending"]


def test_a_gap_in_the_databases_history_stops_everything(
    client: Client, database: str, tmp_path: pathlib.Path
) -> None:
    """A database that has number 2 and not 1 is not one to write to."""
    manager = _manager(client, _pack(tmp_path, CREATE, "SELECT 1"), database)
    manager.up()
    client.command(
        f"ALTER TABLE {database}.recorder_migrations DELETE WHERE number = 1 SETTINGS mutations_sync = 2"
    )
    with pytest.raises(HistoryGap, match="has migration 0002 but not 0001"):
        manager.up()


def test_an_older_recorder_beside_a_newer_one_has_nothing_to_do(
    client: Client, database: str, tmp_path: pathlib.Path
) -> None:
    """Migrations that only the database knows are told as ahead and disturb nothing."""
    _manager(client, _pack(tmp_path, CREATE, "SELECT 1"), database).up()
    older = _manager(client, _pack(tmp_path, CREATE), database)
    assert older.up() == []
    assert [m.state for m in older.status()[0].migrations] == ["applied", "ahead"]


# --- two at once -----------------------------------------------------------------------------------------------


def test_two_at_once_apply_each_statement_once(
    client: Client, second: Client, database: str, tmp_path: pathlib.Path
) -> None:
    """Of two managers on two clients, at most one works at a time, and together they run each statement once."""
    pack = _pack(tmp_path, CREATE, *["SELECT sleep(0.02); SELECT 2"] * 3)
    applied: list[list[str]] = []
    barrier = threading.Barrier(2)

    def run(client: Client) -> None:
        manager = _manager(client, pack, database)
        barrier.wait()
        applied.append([step.sql for step in manager.up()])

    threads = [threading.Thread(target=run, args=(client,)) for client in (client, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(len(steps) for steps in applied) == [0, 7]
    done = client.query(
        f"SELECT number, statement, count() FROM {database}.recorder_migrations GROUP BY ALL HAVING count() != 1"
    ).result_rows
    assert done == []


def _lock(client: Client, database: str, owner: str, lease_s: int = 60) -> MigrationLock:
    return MigrationLock(ClientExecutor(client), database, owner=owner, lease_s=lease_s)


def test_one_holds_the_lock_and_the_other_is_told_who(client: Client, second: Client, database: str) -> None:
    """While one holds it, the other waits and then says who does; once released it has it at once."""
    with _lock(client, database, "host-a:1").held(timeout_s=1):
        other = _lock(second, database, "host-b:2")
        with pytest.raises(LockTimeout, match="host-a:1, renewed"), other.held(timeout_s=0.2):
            pass
    with _lock(second, database, "host-b:2").held(timeout_s=0):
        pass


def test_the_lock_is_one_in_the_database_default_too(client: Client, second: Client) -> None:
    """That of an embedded engine knows no times of its tables: whoever holds the lock there says it in the lock."""

    def lock(asked: Client, owner: str) -> MigrationLock:
        return MigrationLock(ClientExecutor(asked), "default", owner=owner, table="recorder_lock_of_test")

    try:
        with lock(client, "host-a:1").held(timeout_s=1) as lease:
            with pytest.raises(LockTimeout, match="host-a:1"), lock(second, "host-b:2").held(timeout_s=0):
                raise AssertionError("two hold the lock")
            lease.renew()
    finally:
        for state in lock(client, "x").states():
            client.command(f"DROP TABLE default.recorder_lock_of_test_{state.generation:06} SYNC")


def test_the_lock_excludes_many_contenders(client: Client, second: Client, database: str) -> None:
    """However many contend, never are two inside, and the highest generation only ever grows."""
    inside: list[int] = []
    worst: list[int] = []
    generations: list[int] = []

    def run(client: Client, name: str) -> None:
        for _ in range(4):
            with _lock(client, database, name).held(timeout_s=60) as lease:
                inside.append(1)
                worst.append(len(inside))
                generations.append(lease.generation)
                time.sleep(0.005)
                inside.pop()

    threads = [
        threading.Thread(target=run, args=(client, f"c{i}")) for i, client in enumerate([client, second] * 2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert worst == [1] * 16
    assert generations == sorted(set(generations))


def test_what_was_run_is_recorded_whatever_ends_it(
    client: Client, database: str, tmp_path: pathlib.Path
) -> None:
    """Also in the middle of those that create, which are recorded together."""
    views = [f"CREATE VIEW IF NOT EXISTS {{{{db}}}}.v{n} AS SELECT {n}" for n in range(3)]
    pack = _pack(tmp_path, "; ".join(views))

    def interrupted(step: PlannedStatement) -> None:
        if step.statement == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _manager(client, pack, database).up(interrupted)
    assert [step.statement for step in _manager(client, pack, database).up()] == [3]


class Deaf(ClientExecutor):
    """Its database goes away at the record of a statement, as a kill in between would have it."""

    def __init__(self, client: Client, record: int):
        super().__init__(client)
        self._left = record

    def command(self, sql: str) -> None:
        if "INSERT INTO" in sql and "recorder_migrations" in sql:
            self._left -= 1
            if self._left <= 0:
                raise ConnectionError("gone")
        super().command(sql)


@pytest.mark.parametrize("record", [1, 2, 3, 4, 5])
def test_a_statement_is_run_again_by_itself_and_none_before_it(
    client: Client, database: str, tmp_path: pathlib.Path, record: int
) -> None:
    """Whichever record is lost. Each of these may be run twice, the third of them though it has nothing to remove then,
    and all of them together may not: the second time the new column would be made of itself.
    """
    _manager(client, _pack(tmp_path, CREATE), database).up()
    client.command(
        f"INSERT INTO {database}.things (ts_local, run_id, count, _log, _seq) VALUES (now64(9), 'r', 7, 1, 1)"
    )
    rebuild = """
        ALTER TABLE {{db}}.things ADD COLUMN IF NOT EXISTS count_new UInt32 DEFAULT count * 100;
        ALTER TABLE {{db}}.things MATERIALIZE COLUMN count_new SETTINGS mutations_sync = 2;
        ALTER TABLE {{db}}.things MODIFY COLUMN count_new REMOVE DEFAULT;
        ALTER TABLE {{db}}.things DROP COLUMN IF EXISTS count;
        ALTER TABLE {{db}}.things RENAME COLUMN IF EXISTS count_new TO count"""
    pack = _pack(tmp_path, CREATE, rebuild)
    with pytest.raises(ConnectionError):
        Manager(Deaf(client, record), [pack], database).up()
    assert [step.statement for step in _manager(client, pack, database).up()] == list(range(record, 6))
    assert client.query(f"SELECT count FROM {database}.things").result_rows == [(700,)]


def test_a_crashed_holder_keeps_the_lock_for_its_lease_and_no_longer(
    client: Client, second: Client, database: str, tmp_path: pathlib.Path
) -> None:
    """Whoever never releases is succeeded; should it wake, it hears that it lost the lock and runs nothing more."""
    holder = _lock(client, database, "crashed:1", lease_s=1).held(timeout_s=1)
    crashed = holder.__enter__()
    assert not _lock(second, database, "x").states()[-1].free
    manager = _manager(second, _pack(tmp_path, CREATE), database, lock_timeout_s=30)
    assert len(manager.up()) == 1
    with pytest.raises(LockLost, match="was taken over by generation 2"):
        crashed.renew()
    del holder  # until here: a forgotten context would give the lock back


def test_a_holder_that_was_killed_is_succeeded_at_once(
    client: Client, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the holder was a process of this machine that is gone, nobody waits for its lease."""
    printed = subprocess.run(
        [sys.executable, "-c", "from schemas.process import identity; print(identity())"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    if not printed:
        pytest.skip("processes can be told apart on Linux only")
    with monkeypatch.context() as patched:
        patched.setattr("schemas.lock.identity", lambda: printed)
        holder = _lock(client, database, "killed:1", lease_s=3600).held(timeout_s=1)
        holder.__enter__()
    state = _lock(client, database, "x").states()[-1]
    assert (state.free, state.dead) == (False, True)
    with _lock(client, database, "next:2").held(timeout_s=0) as lease:
        assert lease.generation == 2
    del holder  # until here: a forgotten context would give the lock back


def test_a_living_process_is_never_taken_for_dead() -> None:
    """This process lives; one of another machine, or one that cannot be known, is not judged."""
    assert not is_dead(identity())
    assert not is_dead("")
    assert not is_dead("another-boot:pid:[1]|1|1")


def test_of_many_successors_of_a_crashed_holder_one_takes_over_at_a_time(
    client: Client, second: Client, database: str
) -> None:
    """Several that see the same dead holder at the same moment still go in one by one."""
    holder = _lock(client, database, "crashed:1", lease_s=1).held(timeout_s=1)
    holder.__enter__()
    deadline = time.monotonic() + 30
    while (
        not (state := _lock(client, database, "x").states()[-1]).is_takeable and time.monotonic() < deadline
    ):
        time.sleep(0.05)
    assert state.is_takeable
    assert not state.free
    inside: list[str] = []
    overlaps: list[str] = []
    barrier = threading.Barrier(4)

    def run(client: Client, name: str) -> None:
        barrier.wait()
        with _lock(client, database, name).held(timeout_s=60) as lease:
            inside.append(name)
            lease.renew()
            overlaps.extend(inside[1:])
            time.sleep(0.02)
            inside.remove(name)

    threads = [threading.Thread(target=run, args=(c, f"s{i}")) for i, c in enumerate([client, second] * 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    del holder  # until here: a forgotten context would give the lock back
    assert overlaps == []
    assert len(_lock(client, database, "x").states()) == 1


def test_a_failing_migration_gives_the_lock_back(
    client: Client, database: str, tmp_path: pathlib.Path
) -> None:
    """After a failure the next one need not wait for the lease."""
    with pytest.raises(MigrationFailed):
        _manager(client, _pack(tmp_path, "SELECT nonesuch"), database).up()
    assert len(_manager(client, _pack(tmp_path, "SELECT 1"), database, lock_timeout_s=0.0).up()) == 1


# --- retention -------------------------------------------------------------------------------------------------


def test_a_ttl_switched_off_stays_off(client: Client, database: str, tmp_path: pathlib.Path) -> None:
    """A database made without TTL remembers it: later `up`s and `check`s that know nothing of it leave it so."""
    pack = _pack(tmp_path, CREATE)
    _manager(client, pack, database, ttl=False).up()
    later = _manager(client, pack, database)
    assert not later.ttl_enabled()
    assert later.up() == []
    assert later.check() == []
    assert read_tables(ClientExecutor(client), database)["things"].ttl == ""
    later.set_ttl(True)
    assert [step.sql for step in later.up()] == [
        f"ALTER TABLE {database}.things MODIFY TTL toDateTime(ts_local) + toIntervalDay(90)"
    ]
    assert later.check() == []


def test_changed_retention_is_planned_and_applied(
    client: Client, database: str, tmp_path: pathlib.Path
) -> None:
    """keep_days from the settings, from the policy, and for ever: each becomes one ALTER, then nothing more."""
    pack = _pack(tmp_path, CREATE)
    _manager(client, pack, database).up()
    for keep_days, change in (
        ({"things": 30}, "MODIFY TTL toDateTime(ts_local) + toIntervalDay(30)"),
        ({"things": None}, "REMOVE TTL"),
        ({}, "MODIFY TTL toDateTime(ts_local) + toIntervalDay(90)"),
    ):
        manager = _manager(client, pack, database, keep_days=keep_days)
        assert [d.kind for d in manager.check()] == ["ttl"]
        assert [step.sql for step in manager.plan()] == [f"ALTER TABLE {database}.things {change}"]
        manager.up()
        assert manager.check() == []
        assert manager.plan() == []


# --- check -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("drift", "kind", "what"),
    [
        ("ALTER TABLE {db}.things DROP COLUMN count", "missing_column", "count"),
        ("ALTER TABLE {db}.things MODIFY COLUMN count UInt64", "column_type", "count"),
        ("ALTER TABLE {db}.things ADD COLUMN more Int32", "extra_column", "more"),
        ("ALTER TABLE {db}.things MODIFY TTL toDateTime(ts_local) + toIntervalDay(1)", "ttl", "TTL"),
        ("ALTER TABLE {db}.things REMOVE TTL", "ttl", "TTL"),
        (
            "ALTER TABLE {db}.things MODIFY SETTING non_replicated_deduplication_window = 0",
            "setting", "non_replicated_deduplication_window",
        ),
        ("ALTER TABLE {db}.things RESET SETTING fsync_after_insert", "setting", "fsync_after_insert"),
        (
            "CREATE MATERIALIZED VIEW {db}.mv ENGINE = MergeTree ORDER BY n AS SELECT count AS n FROM {db}.things",
            "materialized_view", "mv",
        ),
        ("DROP TABLE {db}.things SYNC", "missing_table", "things"),
    ],
)  # fmt: skip
def test_each_drift_is_found(
    client: Client, database: str, tmp_path: pathlib.Path, drift: str, kind: str, what: str
) -> None:
    """One change behind the recorder's back is one difference, of its kind, with a remedy."""
    manager = _manager(client, _pack(tmp_path, CREATE), database)
    manager.up()
    client.command(drift.format(db=database))
    (found,) = manager.check()
    assert (found.table, found.kind, found.what) == ("things", kind, what)
    assert found.expected != found.observed
    assert found.remedy


@pytest.mark.parametrize(
    ("wanted", "live", "kind"),
    [
        ("{{partition}}", "toYYYYMM(ts_local)", "partition_key"),
        ("ORDER BY ts_local", "ORDER BY (count, ts_local)", "sorting_key"),
        ("{{engine}}", "ReplacingMergeTree", "engine"),
    ],
)
def test_a_table_built_otherwise_is_found(
    client: Client, database: str, tmp_path: pathlib.Path, wanted: str, live: str, kind: str
) -> None:
    """Partition key, sorting key and engine cannot be altered; a table made by hand with others is told."""
    manager = _manager(client, _pack(tmp_path, CREATE.replace(wanted, live)), database)
    manager.up()
    assert [found.kind for found in manager.check()] == [kind]


def test_settings_that_drifted_are_mended_by_up(
    client: Client, database: str, tmp_path: pathlib.Path
) -> None:
    """A deduplication window set to 0 is found by check and set again by up."""
    manager = _manager(client, _pack(tmp_path, CREATE), database)
    manager.up()
    client.command(f"ALTER TABLE {database}.things MODIFY SETTING non_replicated_deduplication_window = 0")
    assert len(manager.up()) == 1
    assert manager.check() == []


def test_what_does_no_harm_is_no_difference(client: Client, database: str, tmp_path: pathlib.Path) -> None:
    """Extra columns with a default, plain views and refreshable views leave inserts alone."""
    manager = _manager(client, _pack(tmp_path, CREATE), database)
    manager.up()
    client.command(
        f"ALTER TABLE {database}.things ADD COLUMN a Int32 DEFAULT 7, ADD COLUMN b Nullable(Int32)"
    )
    client.command(f"CREATE VIEW {database}.v AS SELECT * FROM {database}.things")
    client.command(
        f"CREATE MATERIALIZED VIEW {database}.r REFRESH EVERY 1 YEAR ENGINE = MergeTree ORDER BY n "
        f"AS SELECT count AS n FROM {database}.things"
    )
    assert manager.check() == []


def test_history_survives_texts_with_quotes(client: Client, database: str, tmp_path: pathlib.Path) -> None:
    """An error with quotes and backslashes is kept as it was."""
    manager = _manager(client, _pack(tmp_path, r"SELECT throwIf(1, 'it\'s a \\ ; ''thing''')"), database)
    with pytest.raises(MigrationFailed, match="it's a"):
        manager.up()
    assert "it's a \\ ; 'thing'" in History(ClientExecutor(client), database).read()["mine", 1].error
