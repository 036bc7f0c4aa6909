"""What a database remembers of its migrations: one row an attempt at a statement, and a few settings.

Rows are only ever appended. A statement is done when any row says so; since every statement may be run again
safely, a crash between running it and saying so costs nothing but running it once more.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from schemas.executor import SqlExecutor
from schemas.pack import Migration
from schemas.quote import quote_name, quote_text

MIGRATIONS_TABLE = "recorder_migrations"
SETTINGS_TABLE = "recorder_settings"
DONE = "done"
FAILED = "failed"
TTL_SETTING = "ttl"


@dataclass(frozen=True)
class Applied:
    """What the database says of one migration.

    `checksum` is of the text its last statement was run from; `statements` maps each statement that is done,
    counted from 1, to its checksum. `error` is the last failure's, empty after a success.
    """

    pack: str
    number: int
    name: str
    checksum: str
    total: int
    statements: dict[int, str]
    last_at: dt.datetime | None
    error: str = ""

    @property
    def complete(self) -> bool:
        """Whether every statement is done."""
        return len(self.statements) >= self.total > 0


def bootstrap_statements(database: str, on_cluster: str) -> tuple[str, ...]:
    """The statements that make the database and the manager's own tables; each may be run again."""
    db = quote_name(database)
    durable = (
        "fsync_after_insert = 1, fsync_part_directory = 1, "
        "min_rows_to_fsync_after_merge = 1, min_compressed_bytes_to_fsync_after_merge = 1"
    )
    return (
        f"CREATE DATABASE IF NOT EXISTS {db} {on_cluster}".rstrip(),
        f"CREATE TABLE IF NOT EXISTS {db}.{MIGRATIONS_TABLE} {on_cluster}\n"
        "(\n"
        "    pack LowCardinality(String),\n"
        "    number UInt32,\n"
        "    name String,\n"
        "    checksum String,\n"
        "    statement UInt32,\n"
        "    statements UInt32,\n"
        "    statement_checksum String,\n"
        "    state LowCardinality(String),\n"
        "    error String,\n"
        "    owner String,\n"
        "    applied_at DateTime64(6, 'UTC')\n"
        ")\n"
        f"ENGINE = MergeTree ORDER BY (pack, number, statement, applied_at) SETTINGS {durable}",
        f"CREATE TABLE IF NOT EXISTS {db}.{SETTINGS_TABLE} {on_cluster}\n"
        "(\n"
        "    name String,\n"
        "    value String,\n"
        "    set_at DateTime64(6, 'UTC')\n"
        ")\n"
        f"ENGINE = MergeTree ORDER BY (name, set_at) SETTINGS {durable}",
    )


@dataclass(frozen=True)
class Attempt:
    """One statement that was run: the `statement`-th of its migration, from 1, DONE or FAILED with its error."""

    migration: Migration
    statement: int
    state: str
    error: str = ""


class History:
    """Reads and appends the rows."""

    def __init__(self, executor: SqlExecutor, database: str):
        self._executor = executor
        self._database = database
        self._db = quote_name(database)

    def exists(self) -> bool:
        """Whether the manager's own tables are there."""
        rows = self._executor.query(
            "SELECT count() FROM system.tables WHERE database = {db:String} AND name IN ({a:String}, {b:String})",
            {"db": self._database, "a": MIGRATIONS_TABLE, "b": SETTINGS_TABLE},
        )
        return int(rows[0][0]) == 2

    def read(self) -> dict[tuple[str, int], Applied]:
        """Every migration the database knows, by pack and number."""
        if not self.exists():
            return {}
        rows = self._executor.query(
            "SELECT pack, number, name, checksum, statement, statements, statement_checksum, state, error, applied_at "
            f"FROM {self._db}.{MIGRATIONS_TABLE} ORDER BY pack, number, applied_at"
        )
        found: dict[tuple[str, int], Applied] = {}
        for pack, number, name, checksum, statement, total, statement_checksum, state, error, at in rows:
            before = found.get((pack, number))
            done = dict(before.statements) if before else {}
            if state == DONE:
                done[int(statement)] = statement_checksum
            found[pack, number] = Applied(pack, int(number), name, checksum, int(total), done, at, error)
        return found

    def record(self, attempts: Sequence[Attempt], owner: str) -> None:
        """Append attempts, all in one insert."""
        rows = [
            (
                quote_text(attempt.migration.pack),
                str(attempt.migration.number),
                quote_text(attempt.migration.name),
                quote_text(attempt.migration.checksum),
                str(attempt.statement),
                str(len(attempt.migration.statements)),
                quote_text(attempt.migration.statement_checksum(attempt.statement)),
                quote_text(attempt.state),
                quote_text(attempt.error),
                quote_text(owner),
            )
            for attempt in attempts
        ]
        self._insert(
            MIGRATIONS_TABLE,
            "pack, number, name, checksum, statement, statements, statement_checksum, state, error, owner, applied_at",
            [", ".join(values) for values in rows],
        )

    def setting(self, name: str) -> str | None:
        """A remembered setting's value, None where it was never set."""
        if not self.exists():
            return None
        rows = self._executor.query(
            f"SELECT value FROM {self._db}.{SETTINGS_TABLE} WHERE name = {{name:String}} ORDER BY set_at DESC LIMIT 1",
            {"name": name},
        )
        return str(rows[0][0]) if rows else None

    def remember(self, name: str, value: str) -> None:
        """Set a setting."""
        self._insert(SETTINGS_TABLE, "name, value, set_at", [f"{quote_text(name)}, {quote_text(value)}"])

    def _insert(self, table: str, columns: str, rows: Sequence[str]) -> None:
        # INSERT ... SELECT is never asynchronous: when it returns, the rows are there.
        selects = " UNION ALL ".join(f"SELECT {values}, now64(6, 'UTC')" for values in rows)
        self._executor.command(f"INSERT INTO {self._db}.{table} ({columns}) {selects}")
