"""`recorder ingest`."""

from __future__ import annotations

import pathlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import click

from recorder.cli.errors import EXIT_INTERRUPTED, Failure
from recorder.cli.options import Invocation, PathName, pass_invocation
from recorder.cli.output import counted, emit_json, emit_table, note, notes, progress

if TYPE_CHECKING:
    from recorder.ingest import IngestResult, Progress

PLAIN_EVERY_S = 5.0
"""How often progress is a line where there is no terminal."""
SWITCH_INTERVAL_S = 1e-3
"""The reader and the recorder pass the interpreter's lock back and forth; at its own 5 ms an insert waits for it longer
than it takes."""
OWN_ROWS_S = 2.0
"""How long a run waits at its start for the recorder's rows about itself."""
FORMATS = ("binance-capture", "ndjson", "parquet")


class Speed(click.ParamType["float | None"]):
    """`max`, or a multiple of real time."""

    name = "N|max"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | None:
        """None for `max`."""
        if value is None or value == "max":
            return None
        try:
            speed = float(value.removesuffix("x")) if isinstance(value, str) else float(value)
        except ValueError:
            speed = 0.0
        if not 0 < speed < float("inf"):
            self.fail(f'{value!r} is no speed; give "max", or a multiple of real time such as 10', param, ctx)
        return speed


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=PathName(path_type=pathlib.Path))
@click.option(
    "--format", "file_format", type=click.Choice(FORMATS), help="What the files hold; told by content."
)
@click.option("--table", metavar="NAME", help="Table of the rows of an NDJSON or Parquet file.")
@click.option("--speed", type=Speed(), default="max", show_default=True, help="Replay at N times real time.")
@click.option(
    "--market", type=click.Choice(["spot", "usdm", "coinm"]), help="Market of a capture; told by content."
)
@click.option("--account", metavar="NAME", help="Account of private streams in a capture.")
@click.option("--symbol", metavar="NAME", help="Symbol of REST snapshots in a capture, which do not name it.")
@click.option(
    "--quotes",
    type=click.Choice(["price_or_size", "price"]),
    help="Which change of the best bid or ask is a row.",
)
@click.option(
    "--sample-ms", type=click.IntRange(0, 50), help="Also a row of the last state every 10 to 50 ms."
)
@click.option(
    "--book-deltas", is_flag=True, help="Also record every change of the book (book_deltas): much data."
)
@click.option(
    "--normaliser", metavar="NAME", default="binance", show_default=True, help="Who reads a capture."
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Stop after N records.")
@click.option("--skip-old", is_flag=True, help="Leave out rows that their table's TTL would delete at once.")
@pass_invocation
def ingest(
    invocation: Invocation,
    files: tuple[pathlib.Path, ...],
    file_format: str | None,
    table: str | None,
    speed: float | None,
    market: str | None,
    account: str | None,
    symbol: str | None,
    quotes: str | None,
    sample_ms: int | None,
    book_deltas: bool,
    normaliser: str,
    limit: int | None,
    skip_old: bool,
) -> None:
    """Record files: captures of Binance streams, NDJSON, Parquet; plain or gzip.

    Rows are known by the content of their file, so running again, or going on after a kill, adds nothing twice.
    A database that this command creates keeps its rows for ever (no TTL).

    \b
    Example:
        recorder ingest captures/*.gz
        recorder ingest --book-deltas --speed 10 usdm_btcusdt_20240808.gz
        recorder ingest --table fills fills.ndjson
        recorder ingest --table market_data --json day.parquet
    """
    from recorder.collector import rare_collection
    from recorder.errors import NotDurable
    from recorder.ingest import Format, IngestOptions, WrongUse, run_ingest
    from recorder.ingest.errors import FileTruncated, RowsTooOld
    from recorder.ingest.source import open_file
    from recorder.packs import packs_of
    from recorder.recorder import Recorder
    from recorder.settings_sources import which_table

    settings = invocation.settings(
        base={"ttl": False, "wal": False, "switch_interval_s": SWITCH_INTERVAL_S},
        tables={"book_deltas": {"enabled": True}} if book_deltas else None,
    )
    given: dict[str, Any] = dict(settings.normalisers.of(normaliser))
    deltas = settings.tables.get("book_deltas")
    enabled = book_deltas or (deltas is not None and bool(deltas.enabled))
    if normaliser == "binance":
        mine = {
            "market": market,
            "account_id": account,
            "symbol": symbol,
            "quotes": quotes,
            "sample_ms": sample_ms,
            "book_deltas": enabled or None,
        }
        given |= {name: value for name, value in mine.items() if value is not None}
        given["sample_ms"] = given.get("sample_ms") or None
    options = IngestOptions(
        format=Format(file_format) if file_format else None,
        table=table,
        speed=speed,
        limit=limit,
        normaliser=normaliser,
        normaliser_options=given,
        skip_old=skip_old,
    )
    packs = packs_of(settings)  # before a database is made for packs or settings that are wrong
    known = sorted(one.name for pack in packs for one in pack.tables)
    if table is not None and table not in known:
        raise click.UsageError(f"--table {table!r}: no loaded pack has this table{which_table(table, known)}")
    stop = threading.Event()
    try:
        for file in files:
            open_file(file).close()  # before a database is made for files that are not there
        with (
            _stop_on_terminate(stop),
            rare_collection(),
            Recorder(settings, packs=packs) as recorder,
            _shown(invocation) as show,
        ):
            with suppress(NotDurable):
                # The recorder's row about this run would else be counted among the files' rows of that table.
                recorder.flush(timeout_s=OWN_ROWS_S)
            result = run_ingest(recorder, files, options, show, stop=stop)
    except WrongUse as error:
        raise click.UsageError(str(error)) from error
    if invocation.json:
        emit_json(result.as_dict())
    else:
        _print(result)
    if result.interrupted:
        note(
            "stopped: what is counted above is recorded; run the same command again to go on, nothing is added twice"
        )
        click.get_current_context().exit(EXIT_INTERRUPTED)
    if result.missing:
        counts = ", ".join(f"{rows:,} of {name}" for name, rows in result.missing.items())
        raise Failure(
            f"rows did not reach the database: {counts}; run the same command again, nothing is added twice"
        )
    if result.truncated:
        raise FileTruncated(
            "; ".join(_truncated(file.name, file.notice, file.log) for file in result.truncated)
        )
    if table is None and not result.rows and set(result.bad_records) == {"no_table"}:
        raise click.UsageError(
            "no record says which table it is for; give --table (the records are kept as dead letters)"
        )
    if result.too_old:
        from recorder.ingest.age import remedy

        counts = ", ".join(f"{rows:,} of {name}" for name, rows in result.too_old.items())
        raise RowsTooOld(
            f"rows older than their table's TTL were left out: {counts}. {remedy(result.too_old)}"
        )


def _truncated(name: str, notice: str, log: int) -> str:
    return (
        f"{name}: {notice}; what could be read is recorded. The whole file is another source: before you ingest it, "
        f"delete these rows (WHERE _log = {log})"
    )


@contextmanager
def _stop_on_terminate(stop: threading.Event) -> Iterator[None]:
    """SIGTERM ends the run as Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, lambda *_: stop.set())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _shown(invocation: Invocation) -> Iterator[Callable[[Progress], None]]:
    """A bar on a terminal, lines elsewhere, nothing with `--json`."""
    if invocation.json:
        yield lambda now: None
    elif notes().is_terminal:
        with progress() as bar:
            task = bar.add_task("checking", total=None)

            def show(now: Progress) -> None:
                what = f"{now.phase} {pathlib.Path(now.file).name}"
                rate = f"{now.rows_per_s:,.0f}" if now.phase != "checking" else "-"
                description = f"{what} ({now.waiting_for})" if now.waiting_for else what
                bar.update(
                    task,
                    description=description,
                    total=now.total_bytes or None,
                    completed=now.done_bytes,
                    rate=rate,
                )

            yield show
    else:
        yield _Lines().show


class _Lines:
    """Progress where there is no terminal."""

    def __init__(self) -> None:
        self._next_s = time.monotonic() + PLAIN_EVERY_S

    def show(self, now: Progress) -> None:
        if time.monotonic() < self._next_s:
            return
        self._next_s = time.monotonic() + PLAIN_EVERY_S
        share = 100 * now.done_bytes / now.total_bytes if now.total_bytes else 0.0
        left = f", {now.remaining_s:.0f} s left" if now.remaining_s is not None else ""
        waiting = f"; waiting: {now.waiting_for}" if now.waiting_for else ""
        note(
            f"{now.phase} {now.file}: {share:.0f} %, {now.rows:,} rows, {now.rows_per_s:,.0f} rows/s{left}{waiting}"
        )


def _print(result: IngestResult) -> None:
    """The totals, for people."""
    for file in result.files:
        if file.notice:
            note(f"{file.name}: {file.notice}")
    inserted, there = result.inserted, result.already_there
    rows = [
        (
            table,
            f"{count:,}",
            f"{inserted.get(table, 0):,}",
            f"{there.get(table, 0):,}",
            f"{result.balance[table].dead_lettered:,}",
            f"{result.missing.get(table, 0):,}",
        )
        for table, count in sorted(result.rows.items())
    ]
    columns = ["table", "rows", "inserted", "already there", "dead letters", "not recorded"]
    if rows:
        emit_table(columns, rows, right=columns[1:])
    else:
        click.echo("no rows")
    kinds = _counts(result.kinds)
    click.echo(
        f"{counted(result.records, 'record')} of {counted(len(result.files), 'file')}"
        + (f": {kinds}" if kinds else "")
    )
    for what, counts in (
        ("filtered", result.filtered),
        ("ignored", result.ignored),
        ("without strategy, of no known order", result.unresolved),
        ("too old", result.too_old),
        ("records that made no row (see dead_letters)", result.bad_records),
    ):
        if counts:
            click.echo(f"{what}: {_counts(counts)}")
    if result.clock_steps_back:
        click.echo(f"local times that step back: {result.clock_steps_back:,}")
    balance = "exact" if result.exact else "NOT EXACT"
    click.echo(f"{result.elapsed_s:.1f} s, {result.rows_per_s:,.0f} rows/s, balance {balance}")


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items(), key=lambda item: -item[1]))
