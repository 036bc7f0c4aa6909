"""From settings and packs to what retention asks of each table, and a database in which no TTL acts meanwhile."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from recorder.failure import Failure
from recorder.reading.database import connect_quietly, folder_of, must_exist, server_client
from retention.policy import RetentionPolicy
from schemas.executor import ClientExecutor, SqlExecutor
from schemas.render import RenderContext

if TYPE_CHECKING:
    from recorder.settings import Settings
    from schemas.table import Table

_ROWS = "JSONCompactEachRow"
_TRIES = 5


def policy_of(settings: Settings, table: Table, *, ttl: bool) -> RetentionPolicy:
    """What the settings ask of a table; where the database's TTL is off (`ttl` False), its rows never expire.

    Raises:
        SettingsError: they contradict themselves.
    """
    resolved = settings.for_table(table)
    context = RenderContext(database=settings.database, ttl=ttl, keep_days={table.name: resolved.ttl_days})
    return RetentionPolicy(
        table=table.name,
        partition=table.policy.partition,
        keep_days=resolved.keep_days if ttl else None,
        archive_after_days=resolved.archive_after_days,
        bars=resolved.bars,
        tier_after_days=resolved.tier_after_days,
        native_ttl=context.ttl_expression(table),
        symbol_groups=table.policy.symbol_groups,
    )


@contextlib.contextmanager
def read_only(settings: Settings) -> Iterator[SqlExecutor]:
    """The database of the settings, for questions alone. An embedded engine merges nothing meanwhile, so that no TTL
    acts while one looks at it.

    Raises:
        Failure, SinkError: there is none, or it cannot be opened; the message says why and what to do.
    """
    with quiet(settings, writes=False) as executor:
        yield executor


@contextlib.contextmanager
def quiet(settings: Settings, *, writes: bool = True) -> Iterator[SqlExecutor]:
    """The same, to be changed. An embedded engine is opened without merges: with them, a TTL could take the very rows
    that are to be held.

    Raises:
        Failure, SinkError: as `read_only`; or it is to be changed, and is a server that only answers questions.
    """
    if not settings.target.embedded:
        with server_client(settings) as client:
            executor = ClientExecutor(client)
            if writes:
                must_take_changes(executor, settings)
            yield executor
        return
    folder = folder_of(settings)
    must_exist(folder)
    connection = connect_quietly(folder, settings)
    try:
        if not writes:
            connection.query("SET readonly = 2")
        yield _Quiet(connection)
    finally:
        connection.close()


def must_take_changes(executor: SqlExecutor, settings: Settings) -> None:
    """Refuse before anything is begun, as the first thing that fails would be a question about the archive."""
    readonly = int(executor.query("SELECT toInt64(getSetting('readonly'))")[0][0])
    if readonly:
        raise Failure(
            f"database {settings.database}: the server only answers questions (readonly {readonly}, expected 0); if a "
            "recorder serves it, stop that one and name its folder with --data-dir or --target; else use a database "
            "user that may change it"
        )


class _Quiet:
    """A connection of chDB itself as a `SqlExecutor`. What a statement that failed has left of its answer is no part of
    the next one's (see `recorder.sink.clean_client`)."""

    def __init__(self, connection: Any):
        self._connection = connection
        self._dirty = False

    def command(self, sql: str) -> object:
        """Run a statement that returns nothing."""
        return self._asked(lambda: self._connection.query(sql))

    def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Sequence[Sequence[Any]]:
        """Rows of a statement; 64-bit integers are ints, or texts of them."""
        bound = dict(parameters or {})
        answer: bytes = self._asked(lambda: self._connection.query(sql, _ROWS, params=bound).bytes())
        return [json.loads(line) for line in answer.splitlines()]

    def _asked(self, ask: Callable[[], Any]) -> Any:
        if self._dirty:
            self._clear()
        try:
            return ask()
        except BaseException:
            self._dirty = True
            raise

    def _clear(self) -> None:
        word = uuid.uuid4().hex
        for _ in range(_TRIES):
            if self._connection.query(f"SELECT '{word}'", _ROWS).bytes().strip() == f'["{word}"]'.encode():
                self._dirty = False
                return
        raise Failure(
            "the engine still gives what is left of a statement that failed; nothing was asked, run again"
        )
