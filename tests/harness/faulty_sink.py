"""A real sink with faults in its way: what a network or a server may do that the embedded engine cannot be made to.

sink = FaultySink(real)
sink.plan("fills", LoseAnswer(), Fail(Retryable("busy", code=202)))   # one fault for each insert, then none
sink.always("orders", Fail(HoldError("no such table", code=60)))      # until sink.always("orders", None)
"""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from recorder.batch import Batch
from recorder.sink.base import ServerInfo, Sink
from recorder.sink.errors import InsertTimeout, SinkError, SinkUnavailable

OTHER_LOG = 2**64 - 1
"""Of the row that took the token of a batch away."""


@dataclass(frozen=True)
class Fail:
    """Nothing is sent; the insert raises `error`."""

    error: SinkError


@dataclass(frozen=True)
class LoseAnswer:
    """The rows are committed, and the insert raises `error` all the same."""

    error: SinkError = field(default_factory=lambda: SinkUnavailable("connection reset"))


@dataclass(frozen=True)
class Hang:
    """The insert hangs for `seconds`, or until its limit, which cuts it with nothing committed; then it goes on."""

    seconds: float


@dataclass(frozen=True)
class CommitPart:
    """The first `rows` rows are committed under another token, and the insert raises `error`."""

    rows: int
    error: SinkError = field(default_factory=lambda: SinkUnavailable("connection reset"))


@dataclass(frozen=True)
class SpendToken:
    """The server remembers the batch's token and not its rows, and the insert raises `error`.

    As one does that is killed between the two. Here the token goes to one row of another identity.
    """

    error: SinkError = field(default_factory=lambda: SinkUnavailable("connection reset"))


Fault = SpendToken | Fail | LoseAnswer | Hang | CommitPart | None


class FaultySink:
    """Passes everything on to `inner`, but for what was planned. `attempts` are all inserts asked for, in order."""

    def __init__(self, inner: Sink):
        self.inner = inner
        self.attempts: list[Batch] = []
        self.look_ups: list[Batch] = []
        self.server_info: ServerInfo | None = None  # set to pretend the server restarted
        self._planned: dict[str, collections.deque[Fault]] = collections.defaultdict(collections.deque)
        self._always: dict[str, Fault] = {}
        self._look_up_errors: dict[str, collections.deque[SinkError]] = collections.defaultdict(
            collections.deque
        )

    def plan(self, table: str, *faults: Fault) -> None:
        """One fault for each of the table's next inserts; None lets one through."""
        self._planned[table].extend(faults)

    def always(self, table: str, fault: Fault) -> None:
        """The fault of every insert that has none planned; None ends it."""
        self._always[table] = fault

    def plan_look_up(self, table: str, *errors: SinkError) -> None:
        """One error for each of the table's next look-ups."""
        self._look_up_errors[table].extend(errors)

    def attempts_of(self, table: str) -> list[Batch]:
        """The inserts asked for into one table, in order."""
        return [batch for batch in self.attempts if batch.table == table]

    async def start(self) -> None:
        await self.inner.start()

    async def close(self) -> None:
        await self.inner.close()

    async def server(self) -> ServerInfo:
        return self.server_info or await self.inner.server()

    async def insert(self, batch: Batch, *, timeout_s: float) -> None:
        self.attempts.append(batch)
        planned = self._planned[batch.table]
        match planned.popleft() if planned else self._always.get(batch.table):
            case Fail(error):
                raise error
            case LoseAnswer(error):
                await self.inner.insert(batch, timeout_s=timeout_s)
                raise error
            case SpendToken(error):
                row = batch.data.slice(0, 1)
                other = pa.array([OTHER_LOG], pa.uint64())
                row = row.set_column(row.schema.get_field_index("_log"), row.schema.field("_log"), other)
                await self.inner.insert(Batch(batch.table, row, 0, token=batch.token), timeout_s=timeout_s)
                raise error
            case CommitPart(rows, error):
                part = Batch(batch.table, batch.data.slice(0, rows), batch.accepted_ns)
                await self.inner.insert(part, timeout_s=timeout_s)
                raise error
            case Hang(seconds):
                await asyncio.sleep(min(seconds, timeout_s))
                if seconds >= timeout_s:
                    raise InsertTimeout(f"{batch.table}: cut after {timeout_s:g} s")
                await self.inner.insert(batch, timeout_s=timeout_s - seconds)
            case _:
                await self.inner.insert(batch, timeout_s=timeout_s)

    async def look_up(self, batch: Batch) -> set[tuple[int, int]]:
        self.look_ups.append(batch)
        if errors := self._look_up_errors[batch.table]:
            raise errors.popleft()
        return await self.inner.look_up(batch)

    async def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Sequence[Sequence[Any]]:
        return await self.inner.query(sql, parameters)

    async def query_arrow(self, sql: str, parameters: Mapping[str, Any] | None = None) -> pa.Table:
        return await self.inner.query_arrow(sql, parameters)

    async def command(self, sql: str) -> None:
        await self.inner.command(sql)
