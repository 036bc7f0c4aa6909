"""What tests of copying share: a table with all kinds of columns, two databases of one engine, and a copy."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from recorder.copying import Outcome, Plan, Span, Verified, Writer, look, run
from schemas.executor import ClientExecutor

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client
    from harness.backends import Backend

COLUMNS = """
    ts_local DateTime64(9, 'UTC'), ts_venue Nullable(DateTime64(9, 'UTC')), symbol LowCardinality(String),
    note LowCardinality(Nullable(String)), payload Nullable(String),
    price Decimal(38, 18), size Nullable(Decimal(38, 18)),
    bids Array(Float64), labels Map(LowCardinality(String), String), live Bool, kind Enum8('buy' = 1, 'sell' = -2),
    rate Nullable(Float64), `all` UInt32, twice UInt32 MATERIALIZED `all` * 2, _log UInt64, _seq UInt64
"""
NAMES = "ts_local, ts_venue, symbol, note, payload, price, size, bids, labels, live, kind, rate, `all`, _log, _seq"
VALUES = """
    toDateTime64('2024-08-08 12:00:00.123456789', 9, 'UTC') + intDiv(number, 4) * 60 AS ts_local,
    if(number % 3 = 0, NULL, ts_local) AS ts_venue, concat('S', toString(number % 7)) AS symbol,
    if(number % 4 = 0, NULL, 'n') AS note,
    if(number % 5 = 0, NULL, concat(unhex('00FF80'), toString(number))) AS payload,
    toDecimal128(number, 18) + toDecimal128('0.000000000000000001', 18) AS price,
    if(number % 2 = 0, NULL, price) AS size, range(number % 4) AS bids, map('k', toString(number)) AS labels,
    number % 2 = 0 AS live, if(number % 2 = 0, 'buy', 'sell') AS kind, if(number % 6 = 0, NULL, number / 3) AS rate,
    number AS `all`, 18446744073709551615 - number % 2 AS _log, number AS _seq
"""
FIRST_NS = 1_723_118_400_123_456_789
"""The time of row 0; four rows share a time, and the next four come a minute later."""
STEP_NS = 60_000_000_000
DAY_ROWS = 2_880
"""Rows up to the end of the first day; the next one begins the second partition."""


class ClientSide:
    """A database through a test's own client; `before` and `after` are called around each question, and
    before the rows of an answer in Arrow."""

    def __init__(self, client: Client, database: str, name: str):
        self.name, self.database = name, database
        self.executor = ClientExecutor(client)
        self.asked: list[str] = []
        self.before: Callable[[str], None] = lambda sql: None
        self.after: Callable[[str], None] = lambda sql: None
        self._client = client

    def rows(self, sql: str) -> Sequence[Sequence[Any]]:
        self.before(sql)
        answer = self.executor.query(sql)
        self.after(sql)
        return answer

    def arrow(self, sql: str) -> Iterator[pa.RecordBatch]:
        self.asked.append(sql)
        self.before(sql)
        answer = self._client.raw_query(sql, fmt="ArrowStream")
        self.after(sql)
        yield from pa.ipc.open_stream(answer)


class Pair:
    """Two databases of one engine, and copies from the first to the second."""

    def __init__(self, backend: Backend, source: str, target: str):
        self.client = backend.client
        self.source = ClientSide(self.client, source, "source")
        self.target = ClientSide(self.client, target, "target")
        self.verified = Verified()
        self._backend = backend

    def make(self, *, columns: str = COLUMNS, table: str = "trades", end: str = "") -> None:
        """The table in both databases."""
        for side in (self.source, self.target):
            self.command(
                f"CREATE TABLE {side.database}.{table} ({columns}) ENGINE = MergeTree "
                f"PARTITION BY toYYYYMMDD(ts_local) ORDER BY (symbol, ts_local) {end}"
            )

    def command(self, sql: str) -> None:
        self.client.command(sql)

    def fill(self, start: int, stop: int, *, side: ClientSide | None = None, values: str = VALUES) -> None:
        """Rows from number `start` on and before `stop`, in the source unless another side is named."""
        database = (side or self.source).database
        self.command(
            f"INSERT INTO {database}.trades ({NAMES}) SELECT {values} FROM numbers({start}, {stop - start})"
        )

    def plan(self, *names: str, span: Span | None = None) -> Plan:
        return look(self.source, self.target, (), names or ("trades",), span or Span())

    def copy(self, *, span: Span | None = None, plan: Plan | None = None) -> list[Outcome]:
        """Copy, and what became of each partition."""
        return asyncio.run(self._copy(plan or self.plan(span=span)))

    async def _copy(self, plan: Plan) -> list[Outcome]:
        sink = self._backend.sink(self.target.database)
        try:
            await sink.start()
            writer = Writer(sink, insert_timeout_s=30.0, patience_s=0.0)
            return [one async for one in run(plan, self.source, self.target, writer, self.verified)]
        finally:
            await sink.close()

    def content(self, side: ClientSide, where: str = "1") -> list[tuple[Any, ...]]:
        """Every value of every row, as text, in the order of identity."""
        return [
            tuple(row)
            for row in self.client.query(
                f"SELECT toString(tuple({NAMES})) FROM {side.database}.trades WHERE {where} ORDER BY _log, _seq"
            ).result_rows
        ]


@contextlib.contextmanager
def pair_on(backend: Backend) -> Iterator[Pair]:
    """Two fresh databases, dropped afterwards."""
    with backend.fresh_database() as source, backend.fresh_database() as target:
        yield Pair(backend, source, target)
