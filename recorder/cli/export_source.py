"""What an export asks of the database: the statements, and what is known of their answer before it comes.

It reads system tables and types, and no row of the answer.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import click

from recorder.cli.errors import Failure
from recorder.cli.export_columns import require_names
from recorder.cli.wal_filter import TIME
from recorder.packs import packs_of
from recorder.settings_sources import did_you_mean
from schemas.columns import Kind
from schemas.quote import quote_moment, quote_name, quote_text

if TYPE_CHECKING:
    from recorder.reading.reader import Reader
    from recorder.settings import Settings


_SYNTAX = "(code 62"
"""In the words of an error: a statement that cannot stand within another, or is none."""


@dataclass(frozen=True)
class Asked:
    """What is exported: a statement, or the rows of a table with a `ts_local` in [since_ns, until_ns)."""

    sql: str | None = None
    table: str | None = None
    since_ns: int | None = None
    until_ns: int | None = None
    binary: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """What to ask. The answers of all `statements`, one after the other, are that of `sql`.

    `types` are those of the columns as ClickHouse names them, empty where it does not tell; `binary` names Strings that
    are bytes; `rows` is how many there are, None where only reading them tells.
    """

    name: str
    sql: str
    statements: tuple[str, ...]
    types: Mapping[str, str] = field(default_factory=dict)
    binary: frozenset[str] = frozenset()
    rows: int | None = None


def source_of(engine: Reader, asked: Asked, settings: Settings) -> Source:
    """What to ask for what was asked.

    Raises:
        Failure: the table has no times, or two columns of the answer have one name.
        click.UsageError: there is no such table; or the statement says itself where its answer goes, or is several.
    """
    kept_as_bytes = {
        table.name: {column.name for column in table.all_columns if column.type.kind is Kind.BYTES}
        for pack in packs_of(settings)
        for table in pack.tables
    }
    every = frozenset(itertools.chain.from_iterable(kept_as_bytes.values()))
    if asked.table is not None:
        binary = frozenset(kept_as_bytes.get(asked.table, every)).union(asked.binary)
        return _of_table(engine, asked, asked.table, settings.database, binary)
    assert asked.sql is not None
    _refuse_own_output(engine, asked.sql)
    types = _types(engine, asked.sql)
    return Source("query", asked.sql, (asked.sql,), types, every.union(asked.binary))


def _of_table(engine: Reader, asked: Asked, table: str, database: str, binary: frozenset[str]) -> Source:
    """A table's rows, partition by partition: to sort by its key those of all, the engine would hold a piece of every
    part of the table in memory."""
    keys = {
        one["name"]: one["sorting_key"]
        for one in _rows(
            engine, "SELECT name, sorting_key FROM system.tables WHERE database = currentDatabase()"
        )
    }
    if table not in keys:
        near = did_you_mean(table, keys) or f"; there are {', '.join(sorted(keys)) or 'none'}"
        raise click.UsageError(f"--table {table!r}: database {database} has no such table{near}")
    name, key = quote_name(table), keys[table]
    types = _types(engine, f"SELECT * FROM {name}")
    conditions = _conditions(asked, table, types)
    sql = f"SELECT * FROM {name}{_where(conditions)}"
    if not key:  # a view, or another engine than MergeTree
        return Source(table, sql, (sql,), types, binary)
    partitions = _rows(
        engine,
        f"SELECT _partition_id, count() FROM {name}{_where(conditions)} GROUP BY _partition_id ORDER BY _partition_id",
    )
    ids = [quote_text(one["_partition_id"]) for one in partitions]
    of_partitions = tuple(
        f"SELECT * FROM {name}{_where([f'_partition_id = {partition}', *conditions])} ORDER BY {key}"
        for partition in ids
    )
    rows = sum(int(one["count()"]) for one in partitions)
    whole = f"{sql} ORDER BY _partition_id, {key}"
    return Source(table, whole, of_partitions or (whole,), types, binary, rows)


def _conditions(asked: Asked, table: str, types: Mapping[str, str]) -> list[str]:
    bounds = ((">=", asked.since_ns), ("<", asked.until_ns))
    found = [f"{TIME} {sign} {quote_moment(at_ns)}" for sign, at_ns in bounds if at_ns is not None]
    if found and not types.get(TIME, "").startswith("DateTime64"):
        raise Failure(f"{table} has no {TIME}; leave --since and --until out, or give SQL with a WHERE")
    return found


def _where(conditions: list[str]) -> str:
    return " WHERE " + " AND ".join(conditions) if conditions else ""


def _refuse_own_output(engine: Reader, sql: str) -> None:
    try:
        engine.refuse_own_output(sql)
    except click.UsageError as error:
        if "FORMAT" in error.message or "OUTFILE" in error.message:
            raise click.UsageError(
                "leave FORMAT and INTO OUTFILE out of the SQL; the command says the form, and --out the file"
            ) from error
        raise


def _types(engine: Reader, sql: str) -> dict[str, str]:
    """The types of an answer's columns; none where only asking tells them, as of SHOW, or that it is no statement.

    Raises:
        Failure: two columns have one name, or they cannot be told; to go on would write other types.
    """
    try:
        found = _rows(engine, f"DESCRIBE TABLE (\n{sql}\n)")
    except Failure as error:
        if _SYNTAX not in error.message:
            raise
        return {}
    require_names(one["name"] for one in found)
    return {one["name"]: one["type"] for one in found}


def _rows(engine: Reader, sql: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in b"".join(engine.stream(sql, "JSONEachRow")).splitlines()]
