"""The two databases of `recorder copy`: the source is only read, the target asked beside the sink that writes to it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click
import orjson
import pyarrow as pa

from recorder.cli.errors import Failure
from recorder.copying import CopyStopped
from recorder.copying.errors import GO_ON
from recorder.reading.database import client_of, plain_message
from recorder.reading.reader import Reader, open_reader
from recorder.redact import redacted
from recorder.retaining.policies import read_only
from recorder.retaining.source import ROWS
from recorder.sink.errors import SinkError
from recorder.sink.http_errors import HostFailed
from schemas.executor import ClientExecutor, SqlExecutor

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

    from recorder.settings import Settings


class _Side:
    """What both have; see `recorder.copying.Side`."""

    def __init__(self, settings: Settings, executor: SqlExecutor):
        self.name = str(settings.target)
        self.database = settings.database
        self.executor = executor

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        """Say which side it is that does not answer."""
        try:
            yield
        except (click.ClickException, SinkError, HostFailed) as error:
            message = error.message if isinstance(error, click.ClickException) else plain_message(error)
            raise CopyStopped(f"{self.name}: {redacted(message)}; {GO_ON}") from error


class SourceSide(_Side):
    """The database that rows are copied from."""

    def __init__(self, settings: Settings, executor: SqlExecutor, reader: Reader):
        super().__init__(settings, executor)
        self._reader = reader

    def rows(self, sql: str) -> Sequence[Sequence[Any]]:
        """A small answer."""
        with self._asking():
            answer = b"".join(self._reader.stream(sql, ROWS))
        return [orjson.loads(line) for line in answer.splitlines() if line]

    def arrow(self, sql: str) -> Iterator[pa.RecordBatch]:
        """An answer as Arrow, batch by batch."""
        with self._asking():
            yield from self._reader.arrow(sql)[1]


class TargetSide(_Side):
    """The database that rows are copied to."""

    def __init__(self, settings: Settings, client: Client):
        super().__init__(settings, ClientExecutor(client))
        self._client = client

    def rows(self, sql: str) -> Sequence[Sequence[Any]]:
        """A small answer."""
        with self._asking():
            return self.executor.query(sql)

    def arrow(self, sql: str) -> Iterator[pa.RecordBatch]:
        """An answer as Arrow, held whole: what is asked of a target is bounded."""
        with self._asking():
            raw = self._client.raw_query(sql, fmt="ArrowStream")
        with pa.ipc.open_stream(raw) as reader:
            yield from reader


@contextlib.contextmanager
def source_side(settings: Settings) -> Iterator[SourceSide]:
    """The source, read-only; an embedded one merges nothing meanwhile.

    Raises:
        Failure, SinkError: there is no such database, or it cannot be opened.
    """
    with read_only(settings) as executor, contextlib.closing(open_reader(settings)) as reader:
        yield SourceSide(settings, executor, reader)


@contextlib.contextmanager
def target_side(settings: Settings) -> Iterator[TargetSide]:
    """The target.

    Raises:
        Failure, SinkError: there is no such database, or it cannot be opened.
    """
    if settings.target.embedded:
        from recorder.reading.database import folder_of, must_exist

        must_exist(folder_of(settings))
    with client_of(settings, create=False) as client:
        name = client.query(
            "SELECT count() FROM system.databases WHERE name = {db:String}",
            parameters={"db": settings.database},
        )
        if not int(name.result_rows[0][0]):
            raise Failure(
                f"{settings.target} has no database {settings.database}; make it first: "
                f'recorder --target "{settings.target}" migrate up'
            )
        yield TargetSide(settings, client)
