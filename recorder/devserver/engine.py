"""The engine of this process: connections of its own, and statements run on them.

A request without a session gets a connection of its own, opened in a quarter of a millisecond: settings, `USE`, and
what a failed statement leaves behind (chDB gives it to the next one) end with it. An answer leaves through `INTO
OUTFILE` a pipe, in any format as one stream, and no faster than it is read; an insert's data come in by `FROM INFILE`.

Everything here blocks, and is called on threads.
"""

from __future__ import annotations

import contextlib
import pathlib
import socket
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from recorder.devserver.errors import Code, StatementError
from recorder.sink import engine_config, folder
from recorder.sink.engine import configured
from schemas.quote import quote_name, quote_text

MARK = "send_logs_source_regexp"
"""A setting that does nothing here, and is to be seen in `system.processes`: it carries what tells a running statement
from all others, because chDB gives query ids of its own."""
SERVER_LIKE = {"implicit_select": "0", "allow_introspection_functions": "0"}
"""Settings that the embedded engine has otherwise than a server."""
_READ_ONLY_CLASS = "READ_ONLY"


@dataclass(frozen=True)
class Server:
    """What answers say of the server."""

    version: str
    timezone: str
    name: str
    defaults: Mapping[str, str]
    reaching: frozenset[str]
    """Table functions that reach beyond the tables, in small letters: the engine's `readonly` refuses most of them."""


@dataclass(frozen=True)
class Outcome:
    """What a statement that ran has done. `rest` is what of its answer did not go through the pipe."""

    rest: bytes
    read_rows: int
    read_bytes: int
    written_rows: int
    written_bytes: int
    result_rows: int
    elapsed_ns: int


@dataclass(frozen=True)
class Judged:
    """What the engine's parser says of a text: `READ_ONLY`, `CONTROL`, `MUTATING`, … or `UNKNOWN`, and how many."""

    kind: str
    count: int

    @property
    def reads(self) -> bool:
        """Whether it only asks."""
        return self.kind == _READ_ONLY_CLASS

    @property
    def writes(self) -> bool:
        """Whether it changes tables or rows."""
        return self.kind.startswith("MUTATING")


class Connection:
    """A connection of the engine. One statement at a time."""

    def __init__(self, opened: Any):
        self._opened = opened  # its end closes what is below it
        self._raw = opened._conn

    def judge(self, sql: bytes) -> Judged:
        """What a text is, without running it."""
        said = self._raw.classify_query(sql)
        return Judged(said["query_class"].name, said["statement_count"])

    def run(self, sql: bytes, answer_format: str, parameters: Mapping[str, str] | None = None) -> Outcome:
        """Run one statement.

        Raises:
            StatementError: it failed.
        """
        try:
            result = self._raw.query(sql, answer_format, params=dict(parameters or {}))
        except RuntimeError as error:
            raise StatementError.of_engine(error) from None
        except UnicodeDecodeError as error:  # its message quotes bytes of the statement
            told = bytes(error.object).decode("utf-8", "replace")
            raise StatementError.of_engine(RuntimeError(told)) from None
        return Outcome(
            rest=result.bytes(),
            read_rows=result.storage_rows_read(),
            read_bytes=result.storage_bytes_read(),
            written_rows=result.rows_written(),
            written_bytes=result.bytes_written(),
            result_rows=result.rows_read(),
            elapsed_ns=int(result.elapsed() * 1e9),
        )

    def ask(self, sql: str) -> list[list[str]]:
        """The rows of a short answer."""
        text = self.run(sql.encode(), "TSVRaw").rest.decode("utf-8", "replace")
        return [line.split("\t") for line in text.splitlines()]

    def clear(self) -> None:
        """Hear what a failed statement left, until the answer is to the question asked (see `clean_client`).

        Raises:
            StatementError: there is no end of it.
        """
        for attempt in range(5):
            word = f"clean-{id(self)}-{attempt}"
            if self.ask(f"SELECT '{word}'") == [[word]]:
                return
        raise StatementError.ours(Code.STD_EXCEPTION, "The session is broken; begin another one.")

    def set(self, settings: Mapping[str, str]) -> None:
        """Set settings of the connection."""
        if settings:
            said = ", ".join(f"{name} = {quote_text(value)}" for name, value in settings.items())
            self.run(f"SET {said}".encode("utf-8", "surrogateescape"), "TSV")

    def use(self, database: str) -> None:
        """Make a database the current one."""
        self.run(f"USE {quote_name(database)}".encode("utf-8", "surrogateescape"), "TSV")

    def close(self) -> None:
        """Close it. Idempotent."""
        self._opened.close()


class Engine:
    """The engine folder `path` in this process: opened here, or joined where it is open."""

    def __init__(self, path: pathlib.Path, *, keep_free_bytes: int | None, tmp_dir: pathlib.Path):
        self._path = path
        self._keep_free_bytes = keep_free_bytes
        self._tmp_dir = tmp_dir
        self._base: Connection | None = None

    def open(self, database: str) -> Server:
        """Open it, with `database` in it.

        Raises:
            SinkUnavailable: the folder cannot be used; the message says why and what to do.
        """
        folder.check(self._path)
        keep_free_bytes = engine_config.keep_free_on(self._path, self._keep_free_bytes)
        with configured(self._path, keep_free_bytes=keep_free_bytes, tmp_dir=self._tmp_dir) as config:
            try:
                self._base = self._connect(f"?config-file={urllib.parse.quote(config, safe='')}")
            except RuntimeError as error:
                raise folder.reason_after(self._path, error) from error
        if not self._base.ask(f"SELECT 1 FROM system.databases WHERE name = {quote_text(database)}"):
            self._base.run(f"CREATE DATABASE IF NOT EXISTS {quote_name(database)}".encode(), "TSV")
        version, timezone = self._base.ask("SELECT version(), timezone()")[0]
        rows: Any = self._base.ask(
            "SELECT name, value FROM system.settings WHERE name IN ('enable_http_compression', "
            "'cancel_http_readonly_queries_on_client_close', 'http_receive_timeout', 'http_send_timeout')"
        )
        reaching = self._base.ask("SELECT lower(name) FROM system.table_functions WHERE NOT allow_readonly")
        return Server(
            version, timezone, socket.gethostname(), dict(rows), frozenset(name for (name,) in reaching)
        )

    def connect(self) -> Connection:
        """A new connection."""
        return self._connect("")

    @contextlib.contextmanager
    def connection(self) -> Iterator[Connection]:
        """A new connection, closed afterwards."""
        connection = self.connect()
        try:
            yield connection
        finally:
            connection.close()

    def kill(self, mark: str) -> None:
        """Ask the statement with this mark to end; nothing where there is none."""
        with self.connection() as connection:
            connection.run(f"KILL QUERY WHERE Settings['{MARK}'] = {quote_text(mark)} ASYNC".encode(), "TSV")

    def own_query_id(self, mark: str) -> str | None:
        """What the engine calls the running statement with this mark."""
        with self.connection() as connection:
            found = connection.ask(
                f"SELECT query_id FROM system.processes WHERE Settings['{MARK}'] = {quote_text(mark)}"
            )
        return found[0][0] if found else None

    def close(self) -> None:
        """Close it; connections that are open keep it in the process. Idempotent."""
        if self._base is not None:
            self._base.close()
            self._base = None

    def _connect(self, options: str) -> Connection:
        import chdb

        connect: Any = chdb.connect
        return Connection(connect(f"{self._path}{options}"))
