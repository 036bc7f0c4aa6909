"""The sink for the engine in this process: chDB, through clickhouse-connect.

chDB keeps one engine a process, and one process a database folder. A batch travels as a file the engine reads
(`INSERT … FROM INFILE`, which reports errors truly): an anonymous file in memory, so that neither a kill nor a full
disk leaves row data behind; where the system has none, a file in `tmp_dir`, swept at start.

After a fork the child must not touch the engine: its threads exist only in the parent.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import clickhouse_connect
import pyarrow as pa
from clickhouse_connect.driver.binding import quote_identifier
from clickhouse_connect.driver.client import Client

from recorder.batch import Batch
from recorder.sink import statements
from recorder.sink.client_sink import ClientSink


class ChdbSink(ClientSink):
    """Inserts into the database `database` of the engine folder `path`.

    `create_database` makes the database where it is missing. `settings` are session settings of every handle.
    For the bounds see `ClientSink`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        database: str = "default",
        *,
        create_database: bool = True,
        tmp_dir: str | os.PathLike[str] | None = None,
        settings: Mapping[str, Any] | None = None,
        **bounds: Any,
    ):
        super().__init__(**bounds)
        self._path = pathlib.Path(os.path.realpath(path))
        self._tmp_dir = pathlib.Path(tmp_dir) if tmp_dir is not None else self._path.parent / "tmp"
        self._database = database
        self._create_database = create_database
        self._settings = dict(settings or {})

    @property
    def database(self) -> str:
        """The database that unqualified table names mean."""
        return self._database

    def _open(self) -> Client:
        client = clickhouse_connect.get_client(
            interface="chdb", path=str(self._path), settings={**statements.READING, **self._settings}
        )
        if self._create_database:
            client.command(f"CREATE DATABASE IF NOT EXISTS {quote_identifier(self._database)}")
        client.database = self._database
        return client

    def _send(self, client: Client, batch: Batch, settings: Mapping[str, Any]) -> None:
        columns = ", ".join(quote_identifier(name) for name in batch.data.schema.names)
        pinned = ", ".join(f"{name} = '{value}'" for name, value in settings.items())
        with self._as_file(batch.data) as path:
            client.command(
                f"INSERT INTO {quote_identifier(batch.table)} ({columns}) FROM INFILE '{path}' "
                f"SETTINGS {pinned} FORMAT ArrowStream"
            )

    def _server_uuid(self, client: Client) -> str:
        # serverUUID() of the embedded engine is all zeros; the database's own tells one folder from another.
        return str(client.query("SELECT uuid FROM system.databases WHERE name = currentDatabase()").result_rows[0][0])

    @contextlib.contextmanager
    def _as_file(self, data: pa.RecordBatch) -> Iterator[str]:
        descriptor = os.memfd_create("recorder-insert", os.MFD_CLOEXEC)
        try:
            path = f"/proc/self/fd/{descriptor}"
            with pa.OSFile(path, "wb") as out, pa.ipc.new_stream(out, data.schema) as writer:
                writer.write_batch(data)
            yield path
        finally:
            os.close(descriptor)
