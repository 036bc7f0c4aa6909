"""`recorder bench ingest`: how many rows a second go in, against what the engine could take and what one would write.

The sides take turns (A B C A B C …), each on a fresh table of the same definition in the same engine, with the same
rows, made beforehand; the count in the table is checked every time. Ratios are taken within a round.

- *limit*: ready-made Arrow record batches, one insert each: no Python value is touched. Whichever way into the
  engine is faster, the driver's own or the recorder's sink, is the limit.
- *tight loop*: rows are collected in a list and inserted by the driver when the batch is full: what one writes by
  hand, without identity, checks, retries or a second thread. By rows, the usual way; by columns for comparison.
- *recorder*: `record()` of every row, until `flush()` has returned.
"""

from __future__ import annotations

import asyncio
import itertools
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click
import clickhouse_connect
import pyarrow as pa
from clickhouse_connect.driver.client import Client

from benchmarks import rig
from benchmarks.gcstate import GcState, gc_state
from benchmarks.machine import describe_machine
from benchmarks.options import check_option, gc_option, rounds_option, switch_interval_option
from benchmarks.pack.tables import BENCH_TICKS
from benchmarks.pack.tables import PACK as BENCH_PACK
from benchmarks.report import Report, Section, Verdict, announce, count, publish, spread_of_numbers
from benchmarks.rows import ALL_TABLES, make_reel
from benchmarks.stats import Spread, ratios, spread
from recorder import Recorder
from recorder.batch import Batch
from recorder.build import BatchBuilder
from recorder.cli.errors import Failure
from recorder.cli.options import Invocation, equip, pass_invocation
from recorder.identity import new_epoch
from recorder.settings import Settings
from recorder.sink.open import open_sink
from schemas.core.tables import PACK as CORE_PACK
from schemas.render import RenderContext, created_table, render
from schemas.table import Table

PACKS = (CORE_PACK, BENCH_PACK)
TABLES: Mapping[str, Table] = {table.name: table for pack in PACKS for table in pack.tables}
LIMIT_TARGET = 0.45
TIGHT_TARGET = 1.0
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
        client = clickhouse_connect.get_client(interface="chdb", path=self.settings.target.path)
        client.command(f"CREATE DATABASE IF NOT EXISTS {self.settings.database}")
        client.database = self.settings.database
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


@dataclass(frozen=True)
class TableResult:
    """Rows/s of every side, round by round, on one table."""

    table: str
    rates: Mapping[str, Sequence[float]]

    @property
    def limit(self) -> list[float]:
        """The better of the two limits, round by round."""
        return [max(pair) for pair in zip(*(self.rates[name] for name in LIMITS), strict=True)]

    @property
    def of_limit(self) -> Spread:
        """The recorder's share of the limit."""
        return ratios(self.rates["recorder"], self.limit)

    @property
    def of_tight_loop(self) -> Spread:
        """The recorder against the tight loop by rows."""
        return ratios(self.rates["recorder"], self.rates["tight loop, rows"])

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "rows_per_s": {name: spread(values).as_dict() for name, values in self.rates.items()},
            "recorder_to_limit": self.of_limit.as_dict(),
            "recorder_to_tight_loop": self.of_tight_loop.as_dict(),
        }


def run_table(
    settings: Callable[[str], Settings],
    table: Table,
    *,
    rows: int,
    batch_rows: int,
    rounds: int,
    collector: GcState,
) -> TableResult:
    """Measure all sides in turn. `settings` gives those for a database of that name.

    Raises:
        Failure: a side's table does not have every row.
    """
    ready = make_rows(table)
    batches = arrow_batches(table, ready, rows, batch_rows)
    rates: dict[str, list[float]] = {name: [] for name in SIDES}
    for turn in range(rounds):
        for number, (name, side) in enumerate(SIDES.items()):
            database = f"bench_{table.name}_{turn}_{number}"
            arena = Arena(settings(database), table, ready, batches, rows, batch_rows, collector)
            took = side(arena)
            there = rig.ask(arena.settings, {"": f"SELECT count() FROM {table.name}"})[""][0][0]
            if there != rows:
                raise Failure(f"{table.name}, {name}: {rows} rows went in, the table has {there}")
            # The next side must not run beside the merges of this one.
            rig.ask(arena.settings, {"": f"DROP DATABASE {database} SYNC"})
            rates[name].append(rows / took)
    return TableResult(table.name, rates)


def report(results: Sequence[TableResult], settings: Settings, what: str, conditions: str) -> Report:
    """The runs as people and programs read them."""
    sections, found = [], []
    for result in results:
        limit = spread(result.limit)
        rows = []
        for name, values in result.rates.items():
            rate = spread(values)
            of_limit = ratios(values, result.limit)
            of_tight = ratios(values, result.rates["tight loop, rows"])
            rows.append(
                [
                    name,
                    count(rate.median),
                    f"{count(rate.least)} … {count(rate.greatest)}",
                    spread_of_numbers(of_limit),
                    spread_of_numbers(of_tight),
                ]
            )
        columns = ("", "rows/s", "least … most", "of the limit", "of the tight loop")
        sections.append(
            Section(
                f"{result.table}, {len(TABLES[result.table].columns)} columns",
                columns,
                rows,
                f"Median limit {count(limit.median)} rows/s.",
            )
        )
        found += [
            Verdict(
                f"{result.table}: recorder to limit",
                spread_of_numbers(result.of_limit),
                f"≥ {LIMIT_TARGET}",
                result.of_limit.median >= LIMIT_TARGET,
            ),
            Verdict(
                f"{result.table}: recorder to tight loop",
                spread_of_numbers(result.of_tight_loop),
                f"≥ {TIGHT_TARGET}",
                result.of_tight_loop.median >= TIGHT_TARGET,
            ),
        ]
    # The targets speak of the plain table; others are shown for what they are.
    aimed = [v for v in found if v.name.startswith(BENCH_TICKS.name)] or found
    return Report(
        "ingest",
        what,
        conditions,
        describe_machine(rig.engine_version(settings)),
        sections,
        aimed,
        {"tables": {result.table: result.as_dict() for result in results}},
    )


def _table_names(
    _ctx: click.Context, _parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[str, ...]:
    known = (BENCH_TICKS.name, *ALL_TABLES)
    for value in values:
        if value not in known:
            raise click.BadParameter(f"no rows for {value}; there are {', '.join(known)}")
    return values or (BENCH_TICKS.name,)


@click.command("ingest")
@click.option(
    "--rows", default=500_000, show_default=True, type=click.IntRange(min=1), help="Rows a side and round."
)
@click.option(
    "--batch-rows", default=10_000, show_default=True, type=click.IntRange(min=1), help="Rows an insert."
)
@rounds_option(5)
@click.option(
    "--table",
    "tables",
    multiple=True,
    callback=_table_names,
    help="Table, may be given again; the plain bench_ticks where none is.",
)
@switch_interval_option(1e-3, "sys.setswitchinterval beside the recorder, as recorder ingest sets it.")
@gc_option()
@check_option()
@pass_invocation
def command(
    invocation: Invocation,
    rows: int,
    batch_rows: int,
    rounds: int,
    tables: tuple[str, ...],
    switch_interval: float | None,
    collector: GcState,
    check: bool,
) -> None:
    """Compare the recorder with ready Arrow batches and with a loop written by hand.

    \b
    Example:
        recorder bench ingest
        recorder bench ingest --rows 100000 --rounds 3 --table bench_ticks --table market_data --json
    """
    what = f"{count(rows)} rows in batches of {count(batch_rows)}, {rounds} round{'s' if rounds > 1 else ''} in turn"
    conditions = (
        "same engine and process, fresh table each, same rows made beforehand, counts checked; "
        f"garbage collector: {collector}"
    )
    with rig.scratch_folder() as folder:

        def settings(database: str) -> Settings:
            # The queue holds two batches, and a producer that is faster waits: a file's rows are not shed.
            limits = {
                "enabled": True,
                "batch_rows": batch_rows,
                "queue_rows": max(4 * batch_rows, 100_000),
                "queue_bytes": "1 GiB",
                "batch_bytes": "256 MiB",
                "overflow": "block",
                "overflow_second": "drop_oldest",
                "block_timeout_ms": 60_000,
            }
            return rig.settings_of(
                invocation,
                folder,
                database=database,
                packs=None,
                switch_interval_s=switch_interval,
                tables=dict.fromkeys(tables, limits),
            )

        results = []
        for name in tables:
            announce(f"{name}: {what}")
            results.append(
                run_table(
                    settings,
                    TABLES[name],
                    rows=rows,
                    batch_rows=batch_rows,
                    rounds=rounds,
                    collector=collector,
                )
            )
        publish(report(results, settings("default"), what, conditions), as_json=invocation.json, check=check)


equip(command)
