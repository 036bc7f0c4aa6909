"""One table that archived rows go back into: asked through a client, inserted into through the recorder's own sink.

The sink pins its settings, kills an insert that takes too long, and repeats none by itself. After every error the table
is asked which of the rows it has, and only the others are sent again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa

from recorder.backoff import Backoff
from recorder.batch import Batch
from recorder.cli.errors import Failure
from recorder.retaining.source import DERIVED, SETTINGS
from recorder.sink.errors import InsertStillRunning, Retryable
from retention.archive import Times, identity_sum_sql
from retention.archive.rowhash import LOG, SEQ, TIME, identity_hash_sql
from schemas.quote import quote_moment, quote_name, quote_text

if TYPE_CHECKING:
    from recorder.sink.base import Sink

ARROW = "ArrowStream"
ATTEMPTS = 8


class Client(Protocol):
    """What is asked of a database; one of clickhouse-connect's clients, or a `HostClient`."""

    def raw_query(self, query: str, *, fmt: str) -> bytes:
        """The answer in a format."""


class TableTarget:
    """See `retention.archive.Target`. Its coroutines run on `runner`; `before` is called ahead of every insert.

    Raises:
        Failure: there is no such table, or its rows cannot be told apart.
    """

    def __init__(
        self,
        client: Client,
        sink: Sink,
        runner: asyncio.Runner,
        database: str,
        table: str,
        *,
        insert_timeout_s: float,
        backoff: Backoff,
        before: Callable[[], None] = lambda: None,
    ):
        self.name = f"{database}.{table}"
        self._client, self._sink, self._runner, self._table = client, sink, runner, table
        self._timeout_s, self._backoff, self._before = insert_timeout_s, backoff, before
        self._from = f"FROM {quote_name(database)}.{quote_name(table)}"
        self._settled = False
        columns = self._arrow(
            f"SELECT name, type FROM system.columns WHERE database = {quote_text(database)} "
            f"AND table = {quote_text(table)} AND default_kind NOT IN {DERIVED} ORDER BY position"
        )
        self.columns: Mapping[str, str] = {
            row["name"].decode(): row["type"].decode() for row in columns.to_pylist()
        }
        if not self.columns:
            raise Failure(f"{database} has no table {table}; see \"recorder query 'SHOW TABLES'\"")
        for name in (TIME, LOG, SEQ):
            if name not in self.columns:
                raise Failure(f"{self.name} has no column {name}; only tables of a pack can be restored into")
        names = ", ".join(map(quote_name, self.columns))
        self.schema: pa.Schema = self._arrow(f"SELECT {names} {self._from} LIMIT 0").schema.remove_metadata()

    def sums(self, times: Times | None) -> tuple[int, int]:
        """See `Target`."""
        self._settle()
        (row,) = self._arrow(f"SELECT {identity_sum_sql()} {self._from}{_within(times)}").to_pylist()
        return int(row["rows"]), int(row["identity_sum"])

    def identities(self, times: Times | None, number: int, of: int) -> Iterator[pa.RecordBatch]:
        """See `Target`."""
        self._settle()
        portion = f"{identity_hash_sql()} % {of} = {number}" if of > 1 else ""
        yield from self._arrow(f"SELECT _log, _seq {self._from}{_within(times, portion)}").to_batches()

    def insert(self, rows: pa.RecordBatch, token: str) -> None:
        """See `Target`.

        Raises:
            SinkError: the table does not take them, or nobody answers for long.
        """
        self._settle()
        self._before()
        self._runner.run(self._insert(Batch(self._table, rows, 0, token=token)))

    async def _insert(self, batch: Batch) -> None:
        for attempt in range(ATTEMPTS):
            try:
                if attempt:
                    here = await self._sink.look_up(batch)
                    lacking = np.array([identity not in here for identity in batch.identities()])
                    if not lacking.any():
                        return
                    # Under the same token: the server knows by it which partitions of the first attempt it has.
                    batch = batch.only(lacking)
                await self._sink.insert(batch, timeout_s=self._timeout_s)
                return
            except Retryable:
                if attempt == ATTEMPTS - 1:
                    raise
                await asyncio.sleep(self._backoff.wait_s(attempt))

    def _settle(self) -> None:
        """See that no insert of an earlier, killed run may still bring rows: what is asked then is final."""
        if not self._settled:
            self._runner.run(self._earlier_ended())
            self._settled = True

    async def _earlier_ended(self) -> None:
        # Rows of a source are those that a recorder which is gone may have sent. This one is none of any table.
        nothing = {TIME: pa.array([0], pa.timestamp("ns", "UTC")), LOG: _word(0), SEQ: _word(0)}
        batch = Batch(self._table, pa.record_batch(nothing), 0, from_source=True)
        for attempt in range(10**6):
            try:
                await self._sink.look_up(batch)
                return
            except InsertStillRunning:
                await asyncio.sleep(self._backoff.wait_s(attempt))

    def _arrow(self, sql: str) -> pa.Table:
        answer: Any = self._client.raw_query(f"{sql} SETTINGS {SETTINGS}", fmt=ARROW)
        return pa.ipc.open_stream(answer).read_all()


def _word(value: int) -> pa.Array:
    return pa.array([value], pa.uint64())


def _within(times: Times | None, also: str = "") -> str:
    parts = [also] if also else []
    if times is not None:
        parts.append(f"{TIME} BETWEEN {quote_moment(times.first_ns)} AND {quote_moment(times.last_ns)}")
    return f" WHERE {' AND '.join(parts)}" if parts else ""
