"""What the recorder needs of a place that rows go to.

A sink knows one ClickHouse, embedded or behind HTTP. Its calls are coroutines; the thread or the socket
behind them is the sink's own. Every implementation passes `tests/contract/sink_contract.py` unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from recorder.batch import Batch


@dataclass(frozen=True)
class ServerInfo:
    """Which server answers. A change of `uuid` or `started_at_s` means it restarted or is another one."""

    version: str
    uuid: str
    started_at_s: int


class Sink(Protocol):
    """Inserts batches, and answers which of a batch's rows are there.

    Every method raises a `recorder.sink.errors.SinkError`, whose class says what the caller does next.
    """

    async def start(self) -> None:
        """Connect; raise `SinkUnavailable` with the remedy where that fails."""

    async def close(self) -> None:
        """Let running calls end, then release everything. Idempotent."""

    async def server(self) -> ServerInfo:
        """Which server answers now."""

    async def insert(self, batch: Batch, *, timeout_s: float) -> None:
        """Insert the batch's record batch as one insert under its token, with the pinned settings.

        Returns only when the server said yes. After `timeout_s` the running insert is killed first and then
        `InsertTimeout` raised, so that no late commit follows the caller's look-up; where the kill does not
        work, `InsertStillRunning`, and again for every call with this batch until the insert has ended.
        """

    async def look_up(self, batch: Batch) -> set[tuple[int, int]]:
        """The identities `(_log, _seq)` among the batch's rows that the table has, each once."""

    async def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Sequence[Sequence[Any]]:
        """Rows of a statement; parameters are bound on the server (`{name:Type}`)."""

    async def query_arrow(self, sql: str, parameters: Mapping[str, Any] | None = None) -> pa.Table:
        """The same as an Arrow table; String columns come as binary, so that every byte survives."""

    async def command(self, sql: str) -> None:
        """Run a statement that returns nothing."""
