"""Laws of packs: what they say of their tables, and what is refused."""

from __future__ import annotations

import pathlib
import time
from dataclasses import replace
from typing import Annotated

import pytest

from schemas.columns import Name, UInt32, choice
from schemas.core import vocabulary
from schemas.core.flags import MarketFlag
from schemas.core.tables import PACK
from schemas.core.trading import FILLS
from schemas.document import page
from schemas.errors import PackError, StatementError
from schemas.pack import Pack, load_packs
from schemas.policy import KEEP_DAYS_MAX, Durability, Overflow, Partition, TablePolicy
from schemas.render import RenderContext, render
from schemas.rerun import why_not_twice
from schemas.table import Row, Table, table

JOINING = (
    "strategy", "symbol", "account_id", "venue", "intent_id", "approved_id", "risk_decision_id", "decision_id",
    "client_order_id", "broker_order_id", "fill_id", "correlation_id", "run_id", "recorder_run_id", "ts_local",
)  # fmt: skip


def test_a_table_is_not_kept_longer_than_a_ttl_can_say() -> None:
    """A TTL's time ends in 2106 and begins anew: more days would delete rows as they come."""
    policy = replace(FILLS.policy, keep_days=KEEP_DAYS_MAX)
    assert table("fills", FILLS.row, policy).policy.keep_days == KEEP_DAYS_MAX
    with pytest.raises(PackError, match=r"fills: keep_days 20,001 .*None for ever"):
        table("fills", FILLS.row, replace(policy, keep_days=KEEP_DAYS_MAX + 1))


@pytest.mark.parametrize("core_table", PACK.tables, ids=lambda core_table: core_table.name)
def test_every_table_and_column_says_what_it_holds(core_table: Table) -> None:
    """Each row class has a docstring, and each field one under it."""
    assert core_table.doc
    assert [column.name for column in core_table.columns if not column.doc] == []


@pytest.mark.parametrize("core_table", PACK.tables, ids=lambda core_table: core_table.name)
def test_every_table_keeps_the_conventions(core_table: Table) -> None:
    """Times are called ts_*, the three common columns come first, and day partitions go with less than a year."""
    names = [column.name for column in core_table.columns]
    assert names[:3] == ["ts_local", "run_id", "correlation_id"]
    times = {column.name for column in core_table.columns if column.clickhouse_type.find("DateTime64") >= 0}
    assert all(name == "ts" or name.startswith("ts_") for name in times)
    policy = core_table.policy
    under_a_year = policy.keep_days is not None and policy.keep_days < 365
    assert (policy.partition is Partition.DAY) == under_a_year
    assert set(policy.order_by) <= set(names)
    assert not any(core_table.column(name).nullable for name in policy.order_by)
    assert (policy.overflow is Overflow.SPILL) == (policy.durability is not Durability.MEMORY)


def test_columns_that_join_tables_have_one_type() -> None:
    """A name that stands in several tables means one thing: the same type everywhere, nullable or not."""
    for name in JOINING:
        kinds = {column.type for t in PACK.tables for column in t.columns if column.name == name}
        allowed = (
            2 if name == "recorder_run_id" else 1
        )  # an id of few values where it repeats, in its own table many
        assert 1 <= len(kinds) <= allowed, name


def test_flags_are_single_bits_that_never_move() -> None:
    """The stored meaning of each bit of market_data.flags."""
    assert {flag.name: flag.value for flag in MarketFlag} == {
        "TRADE": 1, "QUOTE": 2, "SNAPSHOT": 4, "SAMPLED": 8, "EXCHANGE_TIME_MISSING": 16, "DEPTH": 32,
        "AGGREGATED": 64, "BOOK_STALE": 128, "CROSSED": 256, "OFF_BOOK": 512,
    }  # fmt: skip


def test_final_statuses_in_the_view_are_those_of_the_vocabulary() -> None:
    """orders_current closes an order on exactly the final statuses."""
    text = PACK.migrations[3].text
    listed = ", ".join(f"'{status}'" for status in vocabulary.FINAL_ORDER_STATUSES)
    assert f"t.status IN ({listed})" in text
    assert set(vocabulary.FINAL_ORDER_STATUSES) < set(vocabulary.ORDER_STATUSES)


class Thing(Row, kw_only=True):
    """A thing."""

    ts_local: Annotated[int, PACK.table("fills").column("ts_local").type] = 0
    """When."""
    run_id: Name = ""
    """Run."""
    count: UInt32
    """How many."""
    colour: Annotated[str, choice("red", "blue")] = "red"
    """Which."""


POLICY = TablePolicy(
    durability=Durability.WAL,
    overflow=Overflow.SPILL,
    partition=Partition.MONTH,
    order_by=("ts_local",),
    keep_days=9,
)
THINGS = table("things", Thing, POLICY)


def _pack(folder: pathlib.Path, *files: tuple[str, str]) -> Pack:
    for name, text in files:
        (folder / name).write_text(text)
    return Pack("mine", folder, (THINGS,))


def test_migrations_come_in_order_with_their_checksums(tmp_path: pathlib.Path) -> None:
    """Files are read by number; the checksum is of the text, however its lines end."""
    pack = _pack(tmp_path, ("0002_b.sql", "SELECT 2"), ("0001_a.sql", "SELECT 1;\nSELECT 1"))
    assert [migration.label for migration in pack.migrations] == ["mine/0001_a", "mine/0002_b"]
    (tmp_path / "0001_a.sql").write_bytes(b"SELECT 1;\r\nSELECT 1")
    again = Pack("mine", tmp_path, (THINGS,))
    assert again.migrations[0].checksum == pack.migrations[0].checksum


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ((), "no migrations"),
        ((("0001_a.sql", "SELECT 1"), ("0003_c.sql", "SELECT 1")), "migration 0002 is missing"),
        ((("0002_a.sql", "SELECT 1"),), "migration 0001 is missing"),
        ((("0001_a.sql", "SELECT 1"), ("0001_b.sql", "SELECT 1")), "there twice"),
        ((("1_a.sql", "SELECT 1"),), "no migration name"),
        ((("0001_a.sql", "-- nothing; here\n"),), "holds no statement"),
        ((("0001_a.sql", "SELECT 'x"),), "never closed"),
        (
            (("0001_a.sql", "SELECT 1;\n/* a */ CREATE TABLE {{db}}.t (a Int8)"),),
            "line 2: .*write IF NOT EXISTS",
        ),
        ((("0001_a.sql", "CREATE MATERIALIZED VIEW {{db}}.t AS SELECT 1"),), "write IF NOT EXISTS"),
        ((("0001_a.sql", "DROP TABLE {{db}}.t"),), "write IF EXISTS"),
        ((("0001_a.sql", "ALTER TABLE {{db}}.t ADD COLUMN a Int8"),), "write IF NOT EXISTS"),
        ((("0001_a.sql", "ALTER TABLE {{db}}.t DROP COLUMN a"),), "write IF EXISTS"),
        ((("0001_a.sql", "DROP TABLE IF EXISTS t"),), "names no {{db}}"),
    ],
)
def test_what_is_wrong_with_a_folder_is_said(
    tmp_path: pathlib.Path, files: tuple[tuple[str, str], ...], says: str
) -> None:
    """Gaps, doubles, bad names, empty and broken files are refused by name."""
    with pytest.raises(PackError, match=says):
        _ = _pack(tmp_path, *files).migrations


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE  IF\n NOT  EXISTS {{db}}.t (a Int8)",
        "create or replace view {{db}}.v as select 1",
        "DROP VIEW IF EXISTS {{ db }}.v",
        "ALTER TABLE {{db}}.t {{on_cluster}} ADD COLUMN IF NOT EXISTS a Enum8('x,y' = 1, 'z' = 2) AFTER b, "
        "DROP INDEX IF EXISTS i",
        "ALTER TABLE {{db}}.t /* why, */ MODIFY COLUMN a Int16 COMMENT 'REMOVE', RENAME COLUMN IF EXISTS b TO c",
        "ALTER TABLE {{db}}.t MODIFY SETTING a = 1, b = 'x, y', MODIFY COMMENT 'DROP COLUMN'",
        "ALTER TABLE {{db}}.t MODIFY COLUMN a REMOVE DEFAULT",
        "SELECT 1",
    ],
)
def test_what_bears_a_second_run_is_taken(tmp_path: pathlib.Path, sql: str) -> None:
    """However it is laid out, and whatever words stand in its strings."""
    assert len(_pack(tmp_path, ("0001_a.sql", sql)).migrations) == 1


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO {{db}}.t SELECT * FROM {{db}}.u",
        "WITH 1 AS x INSERT INTO {{db}}.t SELECT x",
        "RENAME TABLE {{db}}.t TO {{db}}.u",
        "EXCHANGE TABLES {{db}}.t AND {{db}}.u",
        "CREATE OR REPLACE TABLE {{db}}.t (a Int8) ENGINE = Null",
        "TRUNCATE TABLE {{db}}.t",
        "ALTER TABLE {{db}}.t RENAME COLUMN a TO b",
        "ALTER TABLE {{db}}.t ADD COLUMN IF NOT EXISTS a Int8, ADD COLUMN b Int8",
        "ALTER TABLE {{db}}.t MODIFY SETTING a = 1, DROP COLUMN b",
        "ALTER TABLE {{db}}.t UPDATE a = a + 1 WHERE 1",
        "ALTER TABLE {{db}}.t REMOVE TTL",
        "ALTER TABLE {{db}}.t MODIFY SETTING a = 1, modify column IF EXISTS a REMOVE  DEFAULT",
        "ALTER TABLE {{db}}.t ADD CONSTRAINT c CHECK 1",
        "CREATE TABLE {{db}}.t (a String DEFAULT 'IF NOT EXISTS')",
    ],
)
def test_what_is_not_known_to_bear_a_second_run_is_refused(tmp_path: pathlib.Path, sql: str) -> None:
    """Doubling rows, undoing itself, or failing: none of it may follow a crash between running and recording."""
    with pytest.raises(PackError, match=r"0001_a, line 1: .*(cannot be|being) run twice"):
        _ = _pack(tmp_path, ("0001_a.sql", sql)).migrations


def test_judging_a_statement_takes_no_time() -> None:
    """A long statement is judged in time that grows with its length, not with its square."""
    sql = "ALTER TABLE {{db}}.t " + ", ".join(
        f"ADD COLUMN IF NOT EXISTS c{n} Int8{' ' * 50}" for n in range(2_000)
    )
    started = time.perf_counter()
    assert why_not_twice(sql) is None
    assert time.perf_counter() - started < 5


def test_packs_are_found_by_entry_point_and_by_dotted_name() -> None:
    """`core` is an entry point; `module:ATTRIBUTE` needs none; naming one twice is the same as once."""
    assert load_packs(["core", "core"]) == (PACK,)
    assert load_packs(["schemas.core.tables:PACK"]) == (PACK,)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nonesuch", "no pack is called 'nonesuch'; .* core"),
        ("no.such.module:PACK", "cannot be loaded"),
        ("schemas.core.tables:NOPE", "cannot be loaded"),
        ("schemas.core.tables:Fill", "expected a schemas.pack.Pack"),
    ],
)
def test_a_name_that_leads_nowhere_is_refused(name: str, says: str) -> None:
    """The message names what was looked for and where."""
    with pytest.raises(PackError, match=says):
        load_packs([name])


CREATE = (
    "CREATE TABLE IF NOT EXISTS {{db}}.things {{on_cluster}} (a UInt8) ENGINE = {{engine}} "
    "PARTITION BY {{partition}} ORDER BY a {{ttl}} SETTINGS {{settings}}"
)


def test_policies_are_rendered_into_the_statement() -> None:
    """Engine, partition, TTL and settings come from the policy and the context."""
    tables = {"things": THINGS}
    plain = render(CREATE, tables, RenderContext(database="my-db"))
    assert "`my-db`.things" in plain
    assert "ENGINE = MergeTree PARTITION BY toYYYYMM(ts_local)" in plain
    assert "TTL toDateTime(ts_local) + toIntervalDay(9) SETTINGS" in plain
    assert "non_replicated_deduplication_window = 100000" in plain
    assert "fsync_after_insert = 1" in plain
    assert "TTL" not in render(CREATE, tables, RenderContext(database="d", ttl=False))
    assert "TTL" not in render(CREATE, tables, RenderContext(database="d", keep_days={"things": None}))
    assert "toIntervalDay(3)" in render(CREATE, tables, RenderContext(database="d", keep_days={"things": 3}))


def test_on_a_cluster_engines_are_replicated() -> None:
    """The same DDL goes to every node, with the replicated engine and its own deduplication window."""
    sql = render(CREATE, {"things": THINGS}, RenderContext(database="d", cluster="prod"))
    assert "ON CLUSTER 'prod'" in sql
    assert "ENGINE = ReplicatedMergeTree(" in sql
    assert " replicated_deduplication_window = 100000" in sql


@pytest.mark.parametrize("sql", ["SELECT {{nonsense}}", "ALTER TABLE {{db}}.things {{ttl}}"])
def test_a_placeholder_without_a_value_is_refused(sql: str) -> None:
    """An unknown placeholder, or a table's one outside its CREATE TABLE, names itself and what is known."""
    with pytest.raises(StatementError, match=r"core/0009: placeholder \{\{.*known: db, on_cluster"):
        render(sql, {"things": THINGS}, RenderContext(database="d"), where="core/0009")


def test_the_page_of_tables_is_current() -> None:
    """docs/tables.md is what the row classes say; `python -m schemas.document core` writes it."""
    written = (pathlib.Path(__file__).parents[2] / "docs" / "tables.md").read_text()
    assert written == page(PACK) + "\n"
