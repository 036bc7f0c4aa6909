"""Who keeps rows on disk beside the log: each with the same rows, in the same groups, synced as it can be.

A rival is given a group's rows in the form it wants, made beforehand: tuples, or mappings. It writes them as one
transaction, one item, one flush, and returns when they are on disk; where it cannot tell, `tells` says so.

- *SQLite*: a table with the columns of the rows, `journal_mode=WAL`, `synchronous=FULL`, one `executemany` and one
  commit a group.
- *persist-queue*, `SQLiteQueue`: an item is a group's list of rows, which it pickles; one commit an item. A row
  an item, as it is mostly used, would be a commit a row.
- *persist-queue*, `Queue`: files; it syncs one when that is full, so a file holds one item, a group.
- *questdb*, store-and-forward without a server: a flush a group into its mapped files, **not synced**. The one way it
  has to sync, `sf_durability=periodic`, makes no third file while the server is away, and then refuses rows (6.0.0).
"""

from __future__ import annotations

import contextlib
import importlib
import sqlite3
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

Row = tuple[Any, ...]


class Rival(Protocol):
    """One way to keep rows, open on a fresh folder."""

    def put(self, rows: Sequence[Any]) -> None:
        """Take a group's rows; they are on disk when it returns, if `tells`."""

    def close(self) -> None:
        """Let go of everything."""


class RivalKind(Protocol):
    """What is known of a rival before it is opened."""

    name: str
    package: str
    """What is imported, and installed by `pip install`; empty for the standard library."""
    tells: bool
    """Whether `put` returns when the rows are on disk."""
    note: str

    def __call__(self, folder: Path, schema: pa.Schema) -> Rival:
        """Open it."""

    def form(self, rows: pa.RecordBatch) -> Sequence[Any]:
        """A group's rows as it wants them."""


def plain_rows(rows: pa.RecordBatch) -> list[Row]:
    """Tuples of what Python and SQLite have: times as integers, decimals as texts."""
    columns = []
    for column in rows.columns:
        if pa.types.is_timestamp(column.type):
            values = column.cast(pa.timestamp("ns", tz=column.type.tz)).cast(pa.int64()).to_pylist()
        elif pa.types.is_uint64(column.type):
            values = column.view(
                pa.int64()
            ).to_pylist()  # neither SQLite nor questdb has 64 bits without a sign
        else:
            values = column.to_pylist()
        columns.append([str(v) if isinstance(v, Decimal | list | dict) else v for v in values])
    return list(zip(*columns, strict=True))


class Sqlite:
    """SQLite, of the standard library."""

    name, package, tells = "SQLite", "", True
    note = "WAL mode, synchronous=FULL, a transaction a group"
    form = staticmethod(plain_rows)

    def __init__(self, folder: Path, schema: pa.Schema):
        self._db = sqlite3.connect(folder / "rows.db", isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL").close()
        self._db.execute("PRAGMA synchronous=FULL").close()
        columns = ", ".join(f'"{name}"' for name in schema.names)
        self._db.execute(f"CREATE TABLE rows ({columns})").close()
        self._insert = f"INSERT INTO rows VALUES ({', '.join('?' * len(schema.names))})"

    def put(self, rows: Sequence[Any]) -> None:
        """One transaction."""
        self._db.execute("BEGIN").close()
        self._db.executemany(self._insert, rows).close()
        self._db.execute("COMMIT").close()

    def close(self) -> None:
        """Close the database."""
        self._db.close()


class PersistSqlite:
    """persist-queue over SQLite."""

    name, package, tells = "persist-queue, SQLite", "persist-queue", True
    note = "SQLiteQueue, an item a group"
    form = staticmethod(plain_rows)

    def __init__(self, folder: Path, schema: pa.Schema):
        module = importlib.import_module("persistqueue")
        self._queue = module.SQLiteQueue(str(folder), multithreading=True)

    def put(self, rows: Sequence[Any]) -> None:
        """One item, and its commit."""
        self._queue.put(rows)

    def close(self) -> None:
        """Close the database."""
        self._queue.close()


class PersistFiles:
    """persist-queue in files."""

    name, package, tells = "persist-queue, files", "persist-queue", True
    note = "Queue, an item a group and a file an item"
    form = staticmethod(plain_rows)

    def __init__(self, folder: Path, schema: pa.Schema):
        module = importlib.import_module("persistqueue")
        self._queue = module.Queue(str(folder / "queue"), chunksize=1, tempdir=str(folder))

    def put(self, rows: Sequence[Any]) -> None:
        """One item, whose file is synced as it is full."""
        self._queue.put(rows)

    def close(self) -> None:
        """It closes its files when it is collected."""
        del self._queue


class QuestDb:
    """questdb's store-and-forward, its server absent."""

    name, package, tells = "questdb, unsynced", "questdb", False
    note = "store-and-forward without a server, and without any sync"

    def __init__(self, folder: Path, schema: pa.Schema):
        module = importlib.import_module("questdb")
        self._handle = module.connect(
            f"ws::addr=127.0.0.1:1;sf_dir={folder};lazy_connect=true;close_flush_timeout_millis=0;"
        )
        self._sender = self._handle.sender().__enter__()

    @staticmethod
    def form(rows: pa.RecordBatch) -> Sequence[Any]:
        """Symbols, columns and time of each row, without what is null."""
        module = importlib.import_module("questdb")
        return [_quest_row(row, module) for row in _named(rows)]

    def put(self, rows: Sequence[Any]) -> None:
        """A row each, and one flush."""
        row = self._sender.row
        for symbols, columns, at in rows:
            row("rows", symbols=symbols, columns=columns, at=at)
        self._sender.flush()

    def close(self) -> None:
        """Drop what it would still send."""
        with contextlib.suppress(
            Exception
        ):  # it complains of rows that nobody took, which is what was wanted
            self._sender.close()
        with contextlib.suppress(Exception):
            self._handle.close(timeout=1)


def _named(rows: pa.RecordBatch) -> list[dict[str, Any]]:
    return [dict(zip(rows.schema.names, values, strict=True)) for values in plain_rows(rows)]


SYMBOLS = ("symbol", "venue", "side", "strategy", "account_id")


def _quest_row(row: dict[str, Any], module: Any) -> tuple[dict[str, str], dict[str, Any], Any]:
    at = module.TimestampNanos(row.pop("ts_local"))
    symbols = {name: row.pop(name) for name in SYMBOLS if row.get(name)}
    columns: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        if value is not None:
            columns[name] = value
    return symbols, columns, at


RIVALS: tuple[RivalKind, ...] = (Sqlite, PersistSqlite, PersistFiles, QuestDb)


def missing(kind: RivalKind) -> str:
    """Why a rival cannot run here, and what to do; empty if it can."""
    if not kind.package:
        return ""
    try:
        importlib.import_module(kind.package.replace("persist-queue", "persistqueue"))
    except ImportError as error:
        return f"cannot be imported ({error}): pip install {kind.package}, or 'coldpath-recorder[bench]'"
    return ""
