"""`recorder bench ingest`: how many rows a second go in, against what the engine could take and what one would write.

The sides take turns (A B C A B C …), each on a fresh table of the same definition in the same engine, with the same
rows, made beforehand; the count in the table is checked every time. Ratios are taken within a round. With `--target`
the engine is a server, reached over HTTP by every side.

- *limit*: ready-made Arrow record batches, one insert each: no Python value is touched. Whichever way into the
  engine is faster, the driver's own or the recorder's sink, is the limit.
- *tight loop*: rows are collected in a list and inserted by the driver when the batch is full: what one writes by
  hand, without identity, checks, retries or a second thread. By rows, the usual way; by columns for comparison.
- *recorder*: `record()` of every row, until `flush()` has returned.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from benchmarks import rig
from benchmarks.gcstate import GcState
from benchmarks.ingest_sides import LIMITS, SIDES, TABLES, Arena, arrow_batches, make_rows
from benchmarks.machine import describe_machine
from benchmarks.options import check_option, gc_option, rounds_option, switch_interval_option
from benchmarks.pack.tables import BENCH_TICKS
from benchmarks.report import Report, Section, Verdict, announce, count, publish, spread_of_numbers
from benchmarks.rows import ALL_TABLES
from benchmarks.stats import Spread, ratios, spread
from recorder.cli.errors import Failure
from recorder.cli.options import Invocation, equip, pass_invocation
from recorder.settings import Settings
from recorder.sink.errors import SinkError
from schemas.table import Table

LIMIT_TARGET = 0.45
TIGHT_TARGET = 1.0


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
            database = f"bench_{os.getpid()}_{table.name}_{turn}_{number}"
            arena = Arena(settings(database), table, ready, batches, rows, batch_rows, collector)
            try:
                took = side(arena)
                there = rig.ask(arena.settings, {"": f"SELECT count() FROM {table.name}"})[""][0][0]
                if there != rows:
                    raise Failure(f"{table.name}, {name}: {rows} rows went in, the table has {there}")
            finally:
                # The next side must not run beside the merges of this one, and a server keeps nothing of ours.
                with contextlib.suppress(SinkError):  # the server may be gone, and that was said
                    rig.ask(settings("default"), {"": f"DROP DATABASE IF EXISTS {database} SYNC"})
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
        describe_machine(
            rig.engine_version(settings), server="" if settings.target.embedded else str(settings.target)
        ),
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


def _not_empty(_ctx: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    if value == "":
        raise click.BadParameter("it is empty; name a server, or leave it out")
    return value


@click.command("ingest")
@click.option(
    "--rows",
    default=500_000,
    show_default=True,
    type=click.IntRange(min=1, max=1_000_000_000),
    help="Rows a side and round.",
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
@click.option(
    "--target",
    metavar="URL",
    callback=_not_empty,
    help="A server, such as http://127.0.0.1:8123; else a fresh embedded database.",
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
    target: str | None,
    switch_interval: float | None,
    collector: GcState,
    check: bool,
) -> None:
    """Compare the recorder with ready Arrow batches and with a loop written by hand.

    Each side makes a database of its own, named bench_…, and drops it again.

    \b
    Example:
        recorder bench ingest
        recorder bench ingest --target http://127.0.0.1:8123
        recorder bench ingest --rows 100000 --rounds 3 --table bench_ticks --table market_data --json
    """
    what = f"{count(rows)} rows in batches of {count(batch_rows)}, {rounds} round{'s' if rounds > 1 else ''} in turn"
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
                target=target or invocation.target,
                database=database,
                # A server's tables are made by whoever asks for them: here that is us.
                migrate_on_start=True,
                packs=None,
                switch_interval_s=switch_interval,
                tables=dict.fromkeys(tables, limits),
            )

        one = settings("default")
        where = "same engine and process" if one.target.embedded else "same server, all sides over HTTP"
        conditions = (
            f"{where}, fresh table each, same rows made beforehand, counts checked; "
            f"garbage collector: {collector}"
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
        publish(report(results, one, what, conditions), as_json=invocation.json, check=check)


equip(command)
