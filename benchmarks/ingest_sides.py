"""The ways into a table that `recorder bench ingest` compares, and the rows that all of them take.

The database is the embedded engine or a server: the sides are the same, only the driver's client is another.
"""

from __future__ import annotations

import asyncio
import itertools
import pathlib
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from clickhouse_connect.driver.client import Client

from benchmarks.gcstate import GcState, gc_state
from benchmarks.pack.tables import BENCH_TICKS
from benchmarks.pack.tables import PACK as BENCH_PACK
from benchmarks.rows import make_reel
from recorder import Recorder
from recorder.batch import Batch
from recorder.build import BatchBuilder
from recorder.cli.errors import Failure
from recorder.identity import new_epoch
from recorder.settings import Settings
from recorder.sink.engine import open_engine
from recorder.sink.engine_config import keep_free_on
from recorder.sink.http_access import close_pool
from recorder.sink.http_errors import failure_of
from recorder.sink.open import access_of, open_sink
from schemas.core.tables import PACK as CORE_PACK
from schemas.render import RenderContext, created_table, render
from schemas.table import Table

PACKS = (CORE_PACK, BENCH_PACK)
TABLES: Mapping[str, Table] = {table.name: table for pack in PACKS for table in pack.tables}
DISTINCT_ROWS = 100_000
"""Rows made for a table; a longer run goes through them again, on every side alike."""

Rows = list[tuple[Any, ...]]


def make_rows(table: Table) -> Rows:
    """Ready tuples in the order of the table's columns."""
    if table is BENCH_TICKS:
        now_ns = time.time_ns()
        return [
            (
                now_ns + n * 40_000,
                "bench",
                ("BTCUSDT", "ETHUSDT", "SOLUSDT")[n % 3],
                ("binance", "okx")[n % 2],
                f"o-{n:08d}",
                5_266_583_935 + n,
                n % 20,
                61_800.0 + (n % 997) * 0.1,
                61_800.1 + (n % 991) * 0.1,
                (n % 4_099) * 0.001,
            )
            for n in range(DISTINCT_ROWS)
        ]
    rows: Rows = [
        row for _, row in itertools.islice(make_reel([table.name], 25_000, 30_000).events(), DISTINCT_ROWS)
    ]
    # A run id, so that the recorder has nothing to fill in that the others do not.
    at = [column.name for column in table.columns].index("run_id")
    return [(*row[:at], "bench", *row[at + 1 :]) for row in rows]


def chunks(rows: Rows, total: int, size: int) -> Iterator[Rows]:
    """`total` rows in lists of `size`, going through `rows` again and again."""
    source = itertools.islice(itertools.cycle(rows), total)
    while chunk := list(itertools.islice(source, size)):
        yield chunk


def arrow_batches(table: Table, rows: Rows, total: int, size: int) -> list[pa.RecordBatch]:
    """The same rows as the record batches that the recorder would send."""

    def bad(row: Any) -> None:
        raise Failure(f"{table.name}: the benchmark's own row was refused: {row.detail}")

    builder = BatchBuilder(table, epoch=new_epoch(), run_id="bench", on_bad=bad)
    batches = []
    for chunk in chunks(rows, total, size):
        for _ in builder.add([(row, 0, None, 0) for row in chunk]):
            pass
        batches += [batch.data for batch in builder.seal()]
    return batches


# -- the sides --------------------------------------------------------------------------------------------------


@dataclass
class Arena:
    """What all sides share in a round: a fresh database and the rows."""

    settings: Settings
    table: Table
    rows: Rows
    batches: Sequence[pa.RecordBatch]
    total: int
    batch_rows: int
    collector: GcState

    @property
    def names(self) -> list[str]:
        """The columns a producer fills."""
        return [column.name for column in self.table.columns]

    def client(self) -> Client:
        """A client of the driver, on the round's database."""
        client = self._embedded() if self.settings.target.embedded else self._on_server()
        client.command(f"CREATE DATABASE IF NOT EXISTS {self.settings.database}")
        client.database = self.settings.database
        return client

    def _embedded(self) -> Client:
        path = pathlib.Path(self.settings.target.path)
        return open_engine(
            path,
            keep_free_bytes=keep_free_on(path, self.settings.engine_keep_free_bytes),
            tmp_dir=self.settings.data_dir / "tmp",
        )

    def _on_server(self) -> Client:
        """With the login, the TLS and the compression of the settings, as the sink has them."""
        access = access_of(self.settings)
        name, port = self.settings.target.hosts[0]
        pool = access.pool(name, 2)
        try:
            client = access.client(pool, name, port)
        except Exception as error:
            close_pool(pool)
            raise failure_of(error, access.place(name, port), access.user, opening=True).told(
                "target"
            ) from error
        close = client.close

        def close_both() -> None:
            close()
            close_pool(pool)

        client.close = close_both  # type: ignore[method-assign]
        return client

    def create(self, client: Client) -> None:
        """The table as the recorder's migrations make it."""
        context = RenderContext(database=self.settings.database)
        pack = next(pack for pack in PACKS if self.table in pack.tables)
        for migration in pack.migrations:
            for statement in migration.statements:
                if created_table(statement.text) == self.table.name:
                    client.command(render(statement.text, {self.table.name: self.table}, context))


def limit_by_driver(arena: Arena) -> float:
    """The driver's own insert of Arrow tables."""
    client = arena.client()
    try:
        arena.create(client)
        tables = [pa.Table.from_batches([batch]) for batch in arena.batches]
        with gc_state(arena.collector):
            began = time.perf_counter()
            for table in tables:
                client.insert_arrow(arena.table.name, table, settings=_token())
            return time.perf_counter() - began
    finally:
        client.close()


def limit_by_sink(arena: Arena) -> float:
    """The recorder's sink, fed with ready batches one after another."""
    client = arena.client()
    arena.create(client)

    async def run() -> float:
        sink = open_sink(arena.settings)
        await sink.start()
        try:
            batches = [Batch(arena.table.name, data, 0) for data in arena.batches]
            with gc_state(arena.collector):
                began = time.perf_counter()
                for batch in batches:
                    await sink.insert(batch, timeout_s=60)
                return time.perf_counter() - began
        finally:
            await sink.close()

    try:
        return asyncio.run(run())
    finally:
        client.close()


def tight_loop(arena: Arena, *, by_columns: bool = False) -> float:
    """Rows collected in a list, inserted when it is full."""
    client = arena.client()
    try:
        arena.create(client)
        name, names, size = arena.table.name, arena.names, arena.batch_rows
        with gc_state(arena.collector):
            began = time.perf_counter()
            collected: list[Any] = []
            for row in itertools.islice(itertools.cycle(arena.rows), arena.total):
                collected.append(row)
                if len(collected) == size:
                    _insert(client, name, names, collected, by_columns)
                    collected = []
            if collected:
                _insert(client, name, names, collected, by_columns)
            return time.perf_counter() - began
    finally:
        client.close()


def _insert(client: Client, name: str, names: list[str], rows: list[Any], by_columns: bool) -> None:
    data = list(zip(*rows, strict=True)) if by_columns else rows
    client.insert(name, data, column_names=names, column_oriented=by_columns, settings=_token())


def _token() -> dict[str, str]:
    # The table remembers what was inserted, and rows are replayed here: without a token of its own a batch would
    # be taken for a repeat and dropped.
    return {"insert_deduplication_token": uuid.uuid4().hex, "async_insert": "0"}


def recorder(arena: Arena) -> float:
    """`record()` of every row, until all are queryable."""
    with Recorder(arena.settings, packs=PACKS) as rec:
        rec.flush(60)
        record, name = rec.record, arena.table.name
        with gc_state(arena.collector):
            began = time.perf_counter()
            for row in itertools.islice(itertools.cycle(arena.rows), arena.total):
                record(name, row)
            rec.flush(600)
            took = time.perf_counter() - began
        balance = rec.balance()[name]
    if balance.inserted != arena.total or not balance.exact:
        raise Failure(f"{name}: {arena.total} rows were recorded, the recorder says {balance.as_dict()}")
    return took


SIDES: Mapping[str, Callable[[Arena], float]] = {
    "limit, by the sink": limit_by_sink,
    "limit, by the driver": limit_by_driver,
    "tight loop, rows": tight_loop,
    "tight loop, columns": lambda arena: tight_loop(arena, by_columns=True),
    "recorder": recorder,
}
LIMITS = ("limit, by the sink", "limit, by the driver")
