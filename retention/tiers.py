"""Moves partitions of a table to `archived_<table>`, and makes the view `<table>_all` in which each row counts once.

The server moves a partition at once for whoever reads: its rows are in the one table or in the other. A query reads the
live table first and the other one after it, so it may meet a row in both, and never in none. The view shows such a row
as it is live, and asks that of the very snapshot that it reads (`enable_shared_storage_snapshot_in_query`, which is on
by default).

A server that is killed while it moves may have rows in both for longer, and so may a recorder that inserts again what
it never knew was in. Both are seen here, by identity, before the partition moves: parts whose every row is in the other
table are dropped, so that no table has a row twice.

What is due is `retention.due`'s, and holds and the lock are the runner's. Tables of replicas are not moved.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from retention.archive.rowhash import LOG, SEQ
from retention.errors import RetentionError
from retention.live_parts import LivePart, PartsSums, active_parts, drop_part, must_see_all, parts_filter
from retention.policy import TIER_PREFIX
from schemas.executor import SqlExecutor
from schemas.live import LiveTable, read_tables
from schemas.quote import quote_name, quote_text

VIEW_SUFFIX = "_all"
_IDENTITY = f"({LOG}, {SEQ})"
_SHOWN = ("", "DEFAULT")
"""Kinds of columns that `SELECT *` has."""


class Moved(NamedTuple):
    """How many rows moved, and how many were not moved but dropped, since the other table had them already."""

    rows: int
    twins: int

    def __str__(self) -> str:
        twins = f", {self.twins:,} dropped that had moved before" if self.twins else ""
        return f"{self.rows:,} rows moved{twins}"


def view_sql(database: str, table: str, columns: list[str]) -> str:
    """The statement that makes the view `<table>_all` with these columns."""
    names = ", ".join(map(quote_name, columns))
    live, tier = _name(database, table), _name(database, TIER_PREFIX + table)
    # The live table stands first: a row that moves while a query begins is then met twice, and not missed. Only
    # identities of rows that came late for a moved partition are held in memory.
    both = (
        f"SELECT {LOG}, {SEQ} FROM {live} WHERE _partition_id IN (SELECT DISTINCT _partition_id FROM {tier})"
    )
    return (
        f"CREATE OR REPLACE VIEW {_name(database, table + VIEW_SUFFIX)} AS SELECT {names} FROM {live} "
        f"UNION ALL SELECT {names} FROM {tier} WHERE {_IDENTITY} NOT IN ({both})"
    )


def move_partition(
    executor: SqlExecutor, database: str, table: str, partition: str, *, renew: Callable[[], None]
) -> Moved:
    """Move a partition, named by its id; before that make the table that it moves to, and the view, where it must.

    `renew` is called before each change. Where it ends half-way, all rows are in the view once, and the next call
    goes on.

    Raises:
        RetentionError: the tables do not go together, or rows of a part are in both and others are not; nothing moved.
    """
    prepare(executor, database, table, renew)
    tier = TIER_PREFIX + table
    twins = _drop_twins(executor, database, table, partition, renew)
    there = _rows(executor, database, tier, partition)
    coming = _rows(executor, database, table, partition)
    if not coming:
        return Moved(0, twins)
    renew()
    executor.command(
        f"ALTER TABLE {_name(database, table)} MOVE PARTITION ID {quote_text(partition)} "
        f"TO TABLE {_name(database, tier)}"
    )
    now_there = _rows(executor, database, tier, partition)
    if now_there != there + coming:
        _see_each_once(executor, database, tier, partition)  # rows came since they were compared
    return Moved(now_there - there, twins)


def set_ttl(executor: SqlExecutor, database: str, table: str, ttl: str) -> None:
    """Give a table this TTL, as the server writes it, or take it away where it is empty."""
    change = f"MODIFY TTL {ttl}" if ttl else "REMOVE TTL"
    # Parts are not rewritten for it: an engine without merges would never end that, and the runner drops what expires.
    executor.command(
        f"ALTER TABLE {_name(database, table)} {change} SETTINGS materialize_ttl_after_modify = 0"
    )


def prepare(executor: SqlExecutor, database: str, table: str, renew: Callable[[], None]) -> None:
    """Have the table `archived_<table>`, with every column of the live one, and the view over both.

    Raises:
        RetentionError: there is something else of such a name, or columns differ by more than being new.
    """
    tier, view = TIER_PREFIX + table, table + VIEW_SUFFIX
    live = _movable(executor, database, table)
    _see_name(executor, database, view, tier)
    if tier not in read_tables(executor, database):
        renew()
        executor.command(f"CREATE TABLE IF NOT EXISTS {_name(database, tier)} AS {_name(database, table)}")
    there = read_tables(executor, database).get(tier)
    if there is None:
        raise RetentionError(
            f"{database}.{tier}: is no table that partitions of {table} can move to; rename it, then run this again"
        )
    _see_alike(live, there)
    if new := {column.name for column in live.columns} - {column.name for column in there.columns}:
        renew()
        _add_columns(executor, database, live, new)
    renew()
    shown = [column.name for column in live.columns if column.default_kind in _SHOWN]
    executor.command(view_sql(database, table, shown))


def _movable(executor: SqlExecutor, database: str, table: str) -> LiveTable:
    live = read_tables(executor, database).get(table)
    if live is None:
        raise RetentionError(f"{database}.{table}: is gone, expected a table; look again with retention plan")
    if live.engine != "MergeTree":
        raise RetentionError(
            f"{database}.{table}: has the engine {live.engine}, and only partitions of a MergeTree are moved; take "
            "tier_after_days away"
        )
    if missing := {LOG, SEQ} - {column.name for column in live.columns}:
        raise RetentionError(
            f"{database}.{table}: has no column {', '.join(sorted(missing))}, so rows in two tables could not be told "
            "apart; take tier_after_days away"
        )
    return live


def _see_name(executor: SqlExecutor, database: str, view: str, tier: str) -> None:
    found = executor.query(
        "SELECT engine, position(as_select, {tier:String}) FROM system.tables "
        "WHERE database = {db:String} AND name = {view:String}",
        {"db": database, "view": view, "tier": tier},
    )
    for engine, at in found:
        if engine != "View" or not int(at):
            raise RetentionError(
                f"{database}.{view}: is there already and no view over {tier}; rename it, since the view over live and "
                "moved rows gets this name"
            )


def _see_alike(live: LiveTable, tier: LiveTable) -> None:
    """Refuse what the server would refuse, and what it would take for two columns although one was renamed."""
    mine = {column.name: column.type for column in live.columns}
    wrong = [
        f"{column.name} {column.type} (expected {mine.get(column.name, 'no such column')})"
        for column in tier.columns
        if mine.get(column.name) != column.type
    ]
    for what, expected, observed in (
        ("partition key", live.partition_key, tier.partition_key),
        ("sorting key", live.sorting_key, tier.sorting_key),
    ):
        if expected != observed:
            wrong.append(f"{what} {observed} (expected {expected})")
    if wrong:
        raise RetentionError(
            f"{tier.name}: differs from {live.name}, so no partition moves to it: {'; '.join(wrong)}. What a "
            f"migration changed of {live.name} is changed here, too: ALTER TABLE {tier.name} "
            "RENAME, MODIFY or DROP COLUMN as it did"
        )


def _add_columns(executor: SqlExecutor, database: str, live: LiveTable, new: set[str]) -> None:
    """The columns that a migration gave the live table, each where it stands there."""
    found = executor.query(
        "SELECT name, type, default_kind, default_expression, compression_codec FROM system.columns "
        "WHERE database = {db:String} AND table = {table:String} ORDER BY position",
        {"db": database, "table": live.name},
    )
    changes, place = [], "FIRST"
    for name, kind, default_kind, default, codec in found:
        if name in new:
            value = f" {default_kind} {default}" if default_kind else ""
            changes.append(
                f"ADD COLUMN IF NOT EXISTS {quote_name(name)} {kind}{value} {codec} {place}".replace(
                    "  ", " "
                )
            )
        place = f"AFTER {quote_name(name)}"
    executor.command(f"ALTER TABLE {_name(database, TIER_PREFIX + live.name)} {', '.join(changes)}")


def _drop_twins(
    executor: SqlExecutor, database: str, table: str, partition: str, renew: Callable[[], None]
) -> int:
    """Drop the parts of a partition whose rows have all moved before; how many rows those were.

    Raises:
        RetentionError: of a part some rows have, and some have not; nothing was dropped.
    """
    live, tier = _name(database, table), _name(database, TIER_PREFIX + table)
    here = f"_partition_id = {quote_text(partition)}"
    # The live partition's identities are held in memory: where the other table has rows, these are few, of late rows.
    found = executor.query(
        f"SELECT count() FROM {tier} WHERE {here} AND {_IDENTITY} IN (SELECT {LOG}, {SEQ} FROM {live} WHERE {here})"
    )
    if not int(found[0][0]):
        return 0
    moved = f"{_IDENTITY} IN (SELECT {LOG}, {SEQ} FROM {tier} WHERE {here})"
    parts = active_parts(executor, database, table, partition)
    rows = executor.query(
        f"SELECT _part, count(), countIf({moved}) FROM {live} WHERE {parts_filter(part.name for part in parts)} "
        "GROUP BY _part"
    )
    counts = {str(part): (int(count), int(twins)) for part, count, twins in rows}
    must_see_all(table, parts, PartsSums(sum(count for count, _ in counts.values()), 0))
    if mixed := [
        f"{part}: {twins:,} of {count:,} rows" for part, (count, twins) in counts.items() if 0 < twins < count
    ]:
        raise RetentionError(
            f"{table} {partition}: parts have rows that {TIER_PREFIX}{table} has as well, and others "
            f"({'; '.join(sorted(mixed))}); expected all or none of a part. The view shows each row once. "
            f"Take those out: ALTER TABLE {live} DELETE IN PARTITION ID {quote_text(partition)} WHERE {moved}"
        )
    return sum(
        _drop(executor, database, table, part, counts[part.name][0], renew)
        for part in parts
        if counts.get(part.name, (0, 0))[1]
    )


def _drop(
    executor: SqlExecutor, database: str, table: str, part: LivePart, rows: int, renew: Callable[[], None]
) -> int:
    renew()
    if not drop_part(executor, database, table, part):
        raise RetentionError(
            f"{table}: part {part.name} was merged while its rows were compared; the next run looks again"
        )
    return rows


def _see_each_once(executor: SqlExecutor, database: str, tier: str, partition: str) -> None:
    found = executor.query(
        f"SELECT count() - uniqExact({LOG}, {SEQ}) FROM {_name(database, tier)} "
        f"WHERE _partition_id = {quote_text(partition)}"
    )
    if again := int(found[0][0]):
        raise RetentionError(
            f"{tier} {partition}: {again:,} rows are there twice, since they were inserted again right when the "
            f"partition moved; expected each once. Run OPTIMIZE TABLE {_name(database, tier)} PARTITION ID "
            f"{quote_text(partition)} FINAL DEDUPLICATE"
        )


def _rows(executor: SqlExecutor, database: str, table: str, partition: str) -> int:
    found = executor.query(
        f"SELECT count() FROM {_name(database, table)} WHERE _partition_id = {quote_text(partition)}"
    )
    return int(found[0][0])


def _name(database: str, table: str) -> str:
    return f"{quote_name(database)}.{quote_name(table)}"
