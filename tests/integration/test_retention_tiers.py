"""Tiers on real tables: whoever reads the view meets each row once, whatever moves, comes late or stops half-way."""

from __future__ import annotations

import contextlib
import itertools
import json
import pathlib
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from harness.backends import Backend, Place
from harness.killing import Killable
from harness.retention_runs import Doing, Ended, StoppingExecutor

from retention.archive import FolderStore
from retention.due import Kind, Limits
from retention.errors import RetentionError
from retention.live_facts import server_time_ns
from retention.live_holds import HOLD, LIFT, HoldRow, append
from retention.policy import DAY_NS, RetentionPolicy
from retention.runner import Outcome, Runner, State, Subject
from retention.tiers import Moved, move_partition, prepare
from schemas.core.tables import PACK
from schemas.executor import ClientExecutor
from schemas.live import read_tables
from schemas.manager import Manager
from schemas.policy import Durability, Overflow, Partition, TablePolicy

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

FIRST_NS = 1_723_075_200_000_000_000  # 2024-08-08
DAY = "20240808"
KEPT = TablePolicy(
    durability=Durability.MEMORY,
    overflow=Overflow.DROP_OLDEST,
    partition=Partition.DAY,
    order_by=("ts_local",),
)
TTL = "toDateTime(ts_local) + toIntervalDay(20000)"
TIERED = RetentionPolicy(table="things", partition=Partition.DAY, tier_after_days=2)
SETTINGS = {
    "RECORDER_TABLES__MARKET_DATA__TIER_AFTER_DAYS": "5",
    "RECORDER_TABLES__MARKET_DATA__KEEP_DAYS": "20000",
}
MOVE_DONE = (Kind.MOVE, State.DONE)


class Things:
    """A table of things, whose older partitions move."""

    def __init__(self, client: Client, database: str, root: pathlib.Path):
        self.client, self.database, self.root = client, database, root
        self.executor = ClientExecutor(client)
        self._batches = itertools.count()
        client.command(
            f"CREATE TABLE {database}.things (ts_local DateTime64(9, 'UTC') CODEC(DoubleDelta, ZSTD), "
            "text LowCardinality(String) DEFAULT 'none', _log UInt64, _seq UInt64, upper String ALIAS upper(text), "
            "INDEX by_seq _seq TYPE minmax) ENGINE = MergeTree PARTITION BY toYYYYMMDD(ts_local) ORDER BY ts_local "
            "SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 100000"
        )
        client.command(f"SYSTEM STOP MERGES {database}.things")

    def insert(self, *seqs: int, day: int = 0) -> None:
        values = ", ".join(
            f"(fromUnixTimestamp64Nano({FIRST_NS + day * DAY_NS + seq}, 'UTC'), 'thing {seq}', 7, {seq})"
            for seq in seqs
        )
        # Rows that come again come in another batch, or past the window.
        token = next(self._batches)
        self.command(
            "INSERT INTO {db}.things (ts_local, text, _log, _seq) "
            f"SETTINGS insert_deduplication_token = '{token}' VALUES {values}"
        )

    def command(self, sql: str) -> None:
        self.client.command(sql.replace("{db}", self.database))

    def seqs(self, table: str) -> list[int]:
        rows = self.client.query(f"SELECT _seq FROM {self.database}.{table} ORDER BY _seq").result_rows
        return [row[0] for row in rows]

    @property
    def where(self) -> tuple[list[int], list[int], list[int]]:
        """Rows of the live table, of the other one, and of the view."""
        return self.seqs("things"), self.seqs("archived_things"), self.seqs("things_all")

    def move(self, executor: ClientExecutor | None = None) -> Moved:
        return move_partition(executor or self.executor, self.database, "things", DAY, renew=lambda: None)

    def run(
        self,
        policy: RetentionPolicy = TIERED,
        *,
        executor: ClientExecutor | None = None,
        between: Callable[[], object] = lambda: None,
    ) -> list[Outcome]:
        """As the command does: the live table, then the one that its partitions move to."""
        tier = policy.of_tier()
        assert tier is not None
        runner = self.runner(executor=executor, between=between)
        return [outcome for one in (policy, tier) for outcome in runner.run(Subject(one, KEPT))]

    def runner(
        self, *, executor: ClientExecutor | None = None, between: Callable[[], object] = lambda: None
    ) -> Runner:
        return Runner(
            executor or self.executor,
            self.database,
            store=FolderStore(self.root),
            source_of=lambda place, parts: pytest.fail("no archive is asked for"),
            alter_ttl=lambda table: pytest.fail(f"{table} is asked to be altered by its pack"),
            lock=Doing(between),
            recorder_version="0",
            limits=Limits(settle_s=-3_600, merge_parts=1_000),
            now_ns=lambda: server_time_ns(self.executor),
        )


@pytest.fixture
def things(client: Client, database: str, tmp_path: pathlib.Path) -> Things:
    return Things(client, database, tmp_path / "archive")


def _told(outcomes: list[Outcome]) -> list[tuple[Kind, State]]:
    return [(outcome.action.kind, outcome.state) for outcome in outcomes]


def _young(things: Things) -> int:
    """Yesterday, in days after the first."""
    return (server_time_ns(things.executor) - FIRST_NS) // DAY_NS - 1


# -- what moves --


def test_a_partition_moves_and_is_read_with_the_others(things: Things) -> None:
    """All rows of it are in the other table, of the same structure and settings; the view has every row once."""
    things.insert(1, 2)
    things.insert(3)
    things.insert(4, day=1)
    assert things.move() == Moved(3, 0)
    assert things.where == ([4], [1, 2, 3], [1, 2, 3, 4])
    live, tier = (
        read_tables(things.executor, things.database)[name] for name in ("things", "archived_things")
    )
    assert (tier.columns, tier.settings, tier.partition_key) == (
        live.columns,
        live.settings,
        live.partition_key,
    )
    assert things.seqs(
        "(SELECT * FROM {db}.things_all)".replace("{db}", things.database)[0:0] or "things_all"
    )


def test_rows_that_come_late_are_read_and_move_next(things: Things) -> None:
    """A row for a moved partition is in the live table, in the view once, and moves with the next run."""
    things.insert(1)
    things.move()
    things.insert(2)
    assert things.where == ([2], [1], [1, 2])
    assert things.move() == Moved(1, 0)
    assert things.where == ([], [1, 2], [1, 2])


# -- rows in both tables --


def test_a_move_that_was_cut_short_is_shown_once_and_mended(things: Things) -> None:
    """A server killed amid a move has parts in both tables: the view shows each row once, the next run drops those."""
    things.insert(1, 2)
    things.insert(9, day=1)
    things.move()
    things.command("ALTER TABLE {db}.things ATTACH PARTITION ID '20240808' FROM {db}.archived_things")
    things.insert(3)
    assert things.where == ([1, 2, 3, 9], [1, 2], [1, 2, 3, 9])
    assert things.move() == Moved(1, 2)
    assert things.where == ([9], [1, 2, 3], [1, 2, 3, 9])


def test_a_row_that_is_inserted_again_after_it_moved_is_there_once(things: Things) -> None:
    """A recorder that never knew what was in inserts it again: shown once, dropped by the next run."""
    things.insert(1, 2)
    things.move()
    things.insert(1, 2)
    assert things.seqs("things_all") == [1, 2]
    assert things.move() == Moved(0, 2)
    assert things.where == ([], [1, 2], [1, 2])


def test_a_part_of_rows_moved_and_not_moved_is_left(things: Things) -> None:
    """Such a part is neither dropped nor moved: that would lose a row, or double one. The remedy that is told works."""
    things.insert(1)
    things.move()
    things.insert(1, 2)
    with pytest.raises(RetentionError, match="1 of 2 rows") as refused:
        things.move()
    assert things.where == ([1, 2], [1], [1, 2])
    things.command("SYSTEM START MERGES {db}.things")
    things.command(str(refused.value).partition("out: ")[2] + " SETTINGS mutations_sync = 2")
    assert things.move() == Moved(1, 0)
    assert things.where == ([], [1, 2], [1, 2])


def test_whoever_reads_while_partitions_move_meets_each_row_once(things: Things, backend: Backend) -> None:
    """Each answer of the view has every row, and none twice, also where a query begins slowly amid a move."""
    days, rows = 12, 50
    things.command(
        "INSERT INTO {db}.things (ts_local, _log, _seq) SELECT "
        f"fromUnixTimestamp64Nano(toInt64({FIRST_NS} + intDiv(number, {rows}) * {DAY_NS}), 'UTC'), 7, number "
        f"FROM numbers({days * rows})"
    )
    prepare(things.executor, things.database, "things", lambda: None)
    answers: list[tuple[int, ...]] = []
    ended, begun = threading.Event(), threading.Event()

    def read() -> None:
        with contextlib.closing(backend.open_client()) as reader:
            while not ended.is_set():
                found = reader.query(
                    f"SELECT count(), uniqExact(_log, _seq) FROM {things.database}.things_all",
                    settings={"merge_tree_storage_snapshot_sleep_ms": 10},
                )
                answers.append(tuple(found.result_rows[0]))
                begun.set()

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        assert begun.wait(30)
        for day in range(days):
            partition = things.client.query(
                f"SELECT _partition_id FROM {things.database}.things WHERE _seq = {day * rows}"
            ).result_rows[0][0]
            move_partition(things.executor, things.database, "things", partition, renew=lambda: None)
    finally:
        ended.set()
        for reader in readers:
            reader.join()
    assert set(answers) == {(days * rows, days * rows)}
    assert things.seqs("things") == []


# -- stops --


def test_a_run_that_stops_at_any_step_is_completed_by_the_next(things: Things) -> None:
    """Before each statement: each row is read once, from the live table or the view, and the next run moves it."""

    def stops(number: int) -> bool:
        for name in ("things_all", "archived_things"):
            things.command(f"DROP TABLE IF EXISTS {{db}}.{name}")
        things.command("TRUNCATE TABLE {db}.things")
        things.insert(1)
        things.insert(2)
        try:
            things.move(StoppingExecutor(things.client, number))
        except Ended:
            there = things.client.query(f"SHOW TABLES FROM {things.database}").result_rows
            assert things.seqs("things_all" if ("things_all",) in there else "things") == [1, 2]
            things.move()
            assert things.where == ([], [1, 2], [1, 2])
            return True
        assert things.where == ([], [1, 2], [1, 2])
        return False

    assert sum(itertools.takewhile(bool, (stops(number) for number in range(20)))) == 3


# -- the runner --


def test_what_is_due_is_moved_and_then_nothing_is_due(things: Things) -> None:
    """Partitions that are old enough move, younger ones stay, and a second run does nothing."""
    young = _young(things)
    things.insert(1, 2)
    things.insert(3, day=1)
    things.insert(4, day=young)
    assert _told(things.run()) == [MOVE_DONE, MOVE_DONE]
    assert things.where == ([4], [1, 2, 3], [1, 2, 3, 4])
    assert things.run() == []


def test_what_has_expired_goes_from_either_table(things: Things) -> None:
    """keep_days counts where rows moved, too: by the runner's drops."""
    days = _young(things) + 1
    things.insert(1)
    things.insert(2, day=days - 10)
    things.run()
    assert things.where == ([], [1, 2], [1, 2])
    things.insert(3)
    things.insert(4, day=1)
    kept = RetentionPolicy(table="things", partition=Partition.DAY, tier_after_days=2, keep_days=30)
    drop = (Kind.DROP, State.DONE)
    assert _told(things.run(kept)) == [drop, drop, drop]
    assert things.where == ([], [2], [2])


def test_the_other_table_carries_the_ttl_of_the_policy(things: Things) -> None:
    """It is set and taken away with the policy, and not set while a hold concerns the table, written just now even."""
    Manager(things.executor, [PACK], things.database).up()

    def ttl() -> str:
        return read_tables(things.executor, things.database)["archived_things"].ttl

    def with_ttl(ttl: str) -> RetentionPolicy:
        return RetentionPolicy(table="things", partition=Partition.DAY, tier_after_days=2, native_ttl=ttl)

    def alter(change: str) -> None:
        things.command(f"ALTER TABLE {{db}}.things {change} SETTINGS materialize_ttl_after_modify = 0")

    def hold(event: str = HOLD) -> None:
        append(things.executor, things.database, HoldRow(name="case", event=event, tables=("things",)))

    alter(f"MODIFY TTL {TTL}")
    things.insert(1)
    things.run(with_ttl(TTL))
    assert ttl() == TTL
    alter("REMOVE TTL")
    assert _told(things.run(with_ttl(""))) == [(Kind.DROP_TTL, State.DONE)]
    assert ttl() == ""
    alter(f"MODIFY TTL {TTL}")
    assert _told(things.run(with_ttl(TTL), between=hold)) == [(Kind.MODIFY_TTL, State.LEFT)]
    assert ttl() == ""
    alter("REMOVE TTL")
    assert _told(things.run(with_ttl(TTL))) == []
    hold(LIFT)
    alter(f"MODIFY TTL {TTL}")
    assert _told(things.run(with_ttl(TTL))) == [(Kind.MODIFY_TTL, State.DONE)]
    assert things.where == ([], [1], [1])


def test_what_is_held_neither_moves_nor_goes(things: Things) -> None:
    """A hold of the table, even one of right before the move, keeps rows where they are, in both tables."""
    Manager(things.executor, [PACK], things.database).up()
    things.insert(1)
    things.run()
    things.insert(2, day=1)

    def hold() -> None:
        append(things.executor, things.database, HoldRow(name="case", tables=("things",)))

    held = (Kind.HELD, State.LEFT)
    assert _told(things.run(between=hold)) == [(Kind.MOVE, State.LEFT), held]
    kept = RetentionPolicy(table="things", partition=Partition.DAY, tier_after_days=2, keep_days=30)
    assert _told(things.run(kept)) == [held, held]
    assert things.where == ([2], [1], [1, 2])


def test_a_row_that_came_since_the_look_keeps_its_partition(things: Things) -> None:
    """The partition is looked at anew in the next run."""
    things.insert(1)
    runner = things.runner()
    (action,) = runner.plan(Subject(TIERED, KEPT))
    things.insert(2)
    assert runner._move(Subject(TIERED, KEPT), action).state is State.LEFT
    assert _told(things.run()) == [MOVE_DONE]
    assert things.where == ([], [1, 2], [1, 2])


def test_tables_that_differ_are_told_and_left(things: Things) -> None:
    """The refusal is the outcome of that action; nothing else stops for it."""
    things.insert(1)
    things.command("CREATE VIEW {db}.things_all AS SELECT 1")
    (outcome,) = things.run()
    assert (outcome.action.kind, outcome.state) == (Kind.MOVE, State.FAILED)
    assert "rename it" in outcome.told
    assert things.seqs("things") == [1]


# -- columns and names --


def test_a_column_that_a_migration_added_is_added_here_too(things: Things) -> None:
    """It stands at the same place, with its default and codec, and the view shows it."""
    things.insert(1)
    things.move()
    things.command("ALTER TABLE {db}.things ADD COLUMN price Nullable(Float64) CODEC(ZSTD(3)) AFTER ts_local")
    things.command("ALTER TABLE {db}.things ADD COLUMN first String DEFAULT 'x' FIRST")
    things.insert(2)
    assert things.move() == Moved(1, 0)
    live, tier = (
        read_tables(things.executor, things.database)[name] for name in ("things", "archived_things")
    )
    assert tier.columns == live.columns
    rows = things.client.query(f"SELECT first, price, _seq FROM {things.database}.things_all ORDER BY _seq")
    assert rows.result_rows == [("x", None, 1), ("x", None, 2)]


@pytest.mark.parametrize(
    "change", ["RENAME COLUMN text TO words", "MODIFY COLUMN text String", "DROP COLUMN text"]
)
def test_columns_that_differ_otherwise_keep_partitions_where_they_are(things: Things, change: str) -> None:
    """A rename looks like a new column: refused, told, and right again when the other table is altered alike."""
    things.command("ALTER TABLE {db}.things DROP COLUMN upper")
    things.insert(1)
    things.move()
    things.insert(2)
    things.command("SYSTEM START MERGES {db}.things")
    things.command(f"ALTER TABLE {{db}}.things {change} SETTINGS mutations_sync = 2")
    with pytest.raises(RetentionError, match=r"archived_things: differs from things.*text"):
        things.move()
    assert things.seqs("things") == [2]
    things.command(f"ALTER TABLE {{db}}.archived_things {change} SETTINGS mutations_sync = 2")
    things.move()
    assert things.where == ([], [1, 2], [1, 2])


@pytest.mark.parametrize(
    "taken",
    [
        "TABLE {db}.things_all (a UInt8) ENGINE = Memory",
        "VIEW {db}.things_all AS SELECT 1",
        "VIEW {db}.archived_things AS SELECT 1",
    ],
)
def test_what_else_has_the_name_is_not_touched(things: Things, taken: str) -> None:
    """A table or view of someone else is told, and nothing moves."""
    things.insert(1)
    things.command(f"CREATE {taken}")
    with pytest.raises(RetentionError, match="rename it"):
        things.move()
    assert things.seqs("things") == [1]


# -- the command --


def test_a_killed_command_is_completed_by_the_next(
    embedded: None, place: Place, tmp_path: pathlib.Path
) -> None:
    """kill -9 between each two of its statements: the view has each row once, and the last run leaves nothing due."""
    command = Killable(tmp_path, place, SETTINGS)

    def rows() -> list[int]:
        counts = ", ".join(f"(SELECT count() FROM {table})" for table in tables)
        return [int(count) for count in command.asked(f"SELECT [{counts}] AS n")[0]["n"]]

    command.done("migrate", "up")
    command.ingested(
        "market_data", *({"ts_local": FIRST_NS + number, "symbol": "BTCUSDT"} for number in range(3))
    )
    apply = ("retention", "apply", "market_data", "--yes", "--json")
    tables = ("market_data", "archived_market_data", "market_data_all")
    command.killed(*apply, step="after CREATE TABLE of move")
    command.killed(*apply, step="after CREATE OR REPLACE VIEW of move")
    assert rows() == [3, 0, 3]
    command.killed(*apply, step="after ALTER TABLE of move")
    assert rows() == [0, 3, 3]
    assert json.loads(command.done(*apply, step="never"))["outcomes"] == []
    plan = json.loads(command.done("retention", "plan", "market_data", "--json", step="never"))
    assert [(one["table"], one["rows"]) for one in plan["tables"]] == [(tables[0], 0), (tables[1], 3)]
