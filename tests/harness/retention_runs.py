"""What tests of retention's runs share: a client as the runner asks one, a lock at which something comes between, and
what ends a run at any step."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from harness.archives import Stopped, Stopping

from recorder.retaining.source import Answers
from schemas.executor import ClientExecutor

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client


class Asked(Answers):
    """A client as the archive's source asks one."""

    def __init__(self, client: Client):
        self._client = client

    def arrow(self, sql: str) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        """The rows of a statement."""
        reader = pa.ipc.open_stream(io.BytesIO(self._client.raw_query(sql, fmt="ArrowStream")))
        return reader.schema, iter(reader)

    def stream(self, sql: str, clickhouse_format: str) -> Iterator[bytes]:
        """The answer in the given format."""
        yield self._client.raw_query(sql, fmt=clickhouse_format)


class Doing:
    """What happens where a run takes its lock: something comes between its last look and its first drop."""

    def __init__(self, between: Callable[[], object] = lambda: None):
        self._between = between

    @contextlib.contextmanager
    def __call__(self) -> Iterator[Doing]:
        self._between()
        yield self

    def renew(self) -> None:
        """It is held."""


class Ended(BaseException):
    """The process is gone: nothing catches it."""


class StoppingExecutor(ClientExecutor):
    """Stops before the command number `stop_at`."""

    def __init__(self, client: Client, stop_at: int):
        super().__init__(client)
        self._left = stop_at

    def command(self, sql: str) -> object:
        """Run a statement, or stop."""
        self._left -= 1
        if self._left < 0:
            raise Ended
        return super().command(sql)


class Fatal(Stopping):
    """A store whose stop ends the process."""

    def _call(self, call: Callable[[], Any]) -> Any:
        try:
            return super()._call(call)
        except Stopped as error:
            raise Ended from error
