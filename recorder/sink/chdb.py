"""The sink for the engine in this process: chDB, through clickhouse-connect.

chDB keeps one engine a process, and one process a database folder. A batch travels as a file the engine reads
(`INSERT … FROM INFILE`, which reports errors truly).

After a fork the child must not touch the engine, whose threads exist only in the parent: every call there raises.
Such a child has to end with `os._exit` (as those of `multiprocessing` do) or `exec`: the engine's own exit handlers
would wait for ever.

The engine's threads want every core for an insert and run beside the host's own: they have a lower priority, which a
thread inherits from the one that starts it. So each thread of the sink lowers its own before it opens its handle.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pathlib
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from clickhouse_connect.driver.binding import quote_identifier
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError

from recorder.batch import Batch
from recorder.sink import carrier, engine_config, folder
from recorder.sink.client_sink import ClientSink
from recorder.sink.engine import open_engine
from recorder.sink.errors import Retryable, SinkError, SinkUnavailable
from recorder.sink.sound_parts import NOT_ENOUGH_SPACE, SoundParts, guard_of

ENGINE_NICE = 10
TURN_WAIT_S = 0.1
"""The longest an insert waits for the one before it."""


class ChdbSink(ClientSink):
    """Inserts into `database` of the engine folder `path`.

    `tables` are watched over from the start (`sound_parts`), others from their first insert or look-up on.
    `create_database` makes the database where it is missing. `tmp_dir` is used where the system has no anonymous
    files; by default it lies beside the folder, under its name with `.tmp`. `settings` are session settings of
    every handle. `engine_nice` (0 to 19) is the nice value of the engine's threads and of those that call it, on
    Linux; 0 leaves it alone. `keep_free_bytes` is what the engine leaves free on the disk: it refuses inserts and
    merges that would use more of it; None stands for `engine_config.KEEP_FREE_BYTES`, less on a small disk, and 0
    for nothing. Both hold for an engine that this sink is the first to open. The bounds are those of `ClientSink`.

    Raises:
        ValueError: `engine_nice` or `keep_free_bytes` is out of its range.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        database: str = "default",
        *,
        tables: Iterable[str] = (),
        create_database: bool = True,
        tmp_dir: str | os.PathLike[str] | None = None,
        settings: Mapping[str, Any] | None = None,
        engine_nice: int = ENGINE_NICE,
        keep_free_bytes: int | None = None,
        **bounds: Any,
    ):
        if keep_free_bytes is not None and keep_free_bytes < 0:
            raise ValueError(f"keep_free_bytes is {keep_free_bytes}; it is 0 (nothing) or more")
        if not 0 <= engine_nice <= 19:
            raise ValueError(f"engine_nice is {engine_nice}; it is 0 (leave it alone) to 19")
        super().__init__(**bounds)
        self._engine_nice = engine_nice
        self._path = pathlib.Path(os.path.realpath(path))
        self._tmp_dir = (
            pathlib.Path(tmp_dir) if tmp_dir is not None else self._path.with_name(self._path.name + ".tmp")
        )
        self._database = database
        self._tables = tuple(tables)
        self._create_database = create_database
        self._turn = threading.Lock()
        self._settings = dict(settings or {})
        self._wanted_free_bytes = keep_free_bytes

    @property
    def database(self) -> str:
        """The database that unqualified table names mean."""
        return self._database

    async def start(self) -> None:
        """Open the engine; raise `SinkUnavailable` with the remedy where that fails."""
        self._check_process()
        folder.check(self._path)
        carrier.sweep(self._tmp_dir)
        await super().start()
        self._guard.own((self._database, table) for table in self._tables)
        await self._ask(self._commands, self._guard.recall, "start")

    def _open(self, settings: Mapping[str, Any]) -> Client:
        _lower_priority(self._engine_nice)  # before the engine is there: its threads inherit it
        client = open_engine(
            self._path,
            keep_free_bytes=self._keep_free_bytes,
            tmp_dir=self._tmp_dir,
            settings={**settings, **self._settings},
        )
        try:
            self._use_database(client)
        except BaseException:
            client.close()
            raise
        return client

    def _told(self, error: BaseException, what: str) -> SinkError:
        if getattr(error, "code", 0) == NOT_ENOUGH_SPACE and not isinstance(error, SinkError):
            return self._no_room(what, error)
        return super()._told(error, what)

    def _use_database(self, client: Client) -> None:
        name = self._database
        # Asked first: later handles open on a full or read-only disk too.
        if client.command("EXISTS DATABASE " + quote_identifier(name)):
            pass
        elif self._create_database:
            client.command(f"CREATE DATABASE IF NOT EXISTS {quote_identifier(name)}")
        else:
            raise SinkUnavailable(
                f'{self._path} has no database {name}; run "recorder migrate up", or name another one',
                code=81,
            )
        client.database = name

    def _send(self, client: Client, batch: Batch, settings: Mapping[str, Any]) -> None:
        columns = ", ".join(quote_identifier(name) for name in batch.data.schema.names)
        pinned = ", ".join(f"{name} = '{value}'" for name, value in settings.items())
        try:
            with (
                self._guard.inserting(client, (self._database, batch.table)),
                carrier.as_file(batch.data, self._tmp_dir) as path,
                self._in_turn(),
            ):
                client.command(
                    f"INSERT INTO {quote_identifier(batch.table)} ({columns}) FROM INFILE '{path}' "
                    f"SETTINGS {pinned} FORMAT ArrowStream"
                )
        except DatabaseError as error:
            if error.code == NOT_ENOUGH_SPACE:
                raise self._no_room(batch.table, error) from error
            raise

    def _looking_up(self, client: Client, table: str) -> contextlib.AbstractContextManager[None]:
        return self._guard.reading(client, (self._database, table))

    @functools.cached_property
    def _keep_free_bytes(self) -> int:
        return engine_config.keep_free_on(self._path, self._wanted_free_bytes)

    @functools.cached_property
    def _guard(self) -> SoundParts:
        return guard_of(self._path, self._keep_free_bytes)

    def _no_room(self, what: str, error: BaseException) -> Retryable:
        """What to say when the engine refused an insert or a statement because the disk is too full."""
        free, kept = self._guard.disk.free_bytes() / (1 << 20), self._keep_free_bytes / (1 << 20)
        return Retryable(
            f"{what}: the disk of {self._path} has {free:.1f} MiB free, and the engine keeps {kept:.1f} MiB "
            f"free; free space there, or lower engine_keep_free_bytes ({str(error).splitlines()[0]})",
            code=NOT_ENOUGH_SPACE,
        )

    @contextlib.contextmanager
    def _in_turn(self) -> Iterator[None]:
        """One insert after the other while all are short: side by side they take the producers' core for as long.

        Nobody waits longer than `TURN_WAIT_S`, so an insert that hangs costs the others that and no more.
        """
        mine = self._turn.acquire(timeout=TURN_WAIT_S)
        try:
            yield
        finally:
            if mine:
                self._turn.release()

    def _server_uuid(self, client: Client) -> str:
        # serverUUID() of the embedded engine is all zeros; the database's own tells one folder from another.
        name = "SELECT toString(uuid) FROM system.databases WHERE name = currentDatabase()"
        return str(client.query(name).result_rows[0][0])


def _lower_priority(nice: int) -> None:
    """Give the calling thread this nice value, unless it has a higher one already."""
    if nice == 0 or sys.platform != "linux":  # elsewhere a priority is the whole process's
        return
    thread = threading.get_native_id()
    with contextlib.suppress(OSError):  # a system that forbids it records at the priority it has
        if os.getpriority(os.PRIO_PROCESS, thread) < nice:
            os.setpriority(os.PRIO_PROCESS, thread, nice)
