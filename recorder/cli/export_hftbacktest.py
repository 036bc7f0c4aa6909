"""`recorder export hftbacktest`: market data as hftbacktest's event files, orders as its order latencies.

What becomes of rows is in `recorder.export_hftbacktest`; here are options, files, and what is said.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from recorder.cli.errors import Failure
from recorder.cli.export_file import NewFile, check
from recorder.cli.options import Invocation, Number, PathName, pass_invocation
from recorder.cli.output import counted, emit_json, note, notes, progress
from recorder.cli.wal_filter import Moment
from recorder.reading.reader import open_reader

if TYPE_CHECKING:
    import pyarrow as pa

    from recorder.export_hftbacktest.latency import Latencies
    from recorder.export_hftbacktest.read import Ask, Show, Wanted
    from recorder.reading.reader import Reader

SUFFIX = ".npz"
DAY_NS = 86_400 * 10**9
EXTRA = 'hftbacktest is not installed; pip install "coldpath-recorder[hftbacktest]"'


class FileOut(PathName):
    """A file that hftbacktest reads by its name."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The path."""
        path = Path(super().convert(value, param, ctx))
        if path.suffix != SUFFIX:
            self.fail(f"{path} does not end in {SUFFIX}, by which hftbacktest knows its files", param, ctx)
        return path


@click.command()
@click.option("--symbol", required=True, metavar="NAME", help="The instrument, as the venue writes it.")
@click.option("--source", metavar="NAME", help="The feed, such as binance.usdm, where there are several.")
@click.option("--date", type=Moment(), metavar="DAY", help="One day in UTC, such as 2024-08-08.")
@click.option("--since", type=Moment(), metavar="TIME", help="Rows whose ts_local is this or later.")
@click.option("--until", type=Moment(), metavar="TIME", help="Rows whose ts_local is before this.")
@click.option("--out", type=FileOut(), required=True, metavar="FILE", help=f"The event file, {SUFFIX}.")
@click.option(
    "--snapshots/--no-snapshots", default=True, show_default=True, help="With snapshots of the book."
)
@click.option("--bbo", is_flag=True, help="With best bids and asks as events of their own.")
@click.option(
    "--base-latency-ns", type=click.IntRange(min=0), default=0, metavar="N",
    help="What the least latency becomes where the venue's clock is ahead.  [default: 0]",
)  # fmt: skip
@click.option(
    "--local-offset-ns", type=int, default=0, metavar="N", help="Added to every local time.  [default: 0]"
)
@click.option(
    "--negative-latency", type=click.Choice(["shift", "refuse"]), default="shift", show_default=True,
    help="Where the venue's clock is ahead: move all local times, or end.",
)  # fmt: skip
@click.option(
    "--latency-out", type=FileOut(), metavar="FILE", help="Also the latencies of the symbol's orders."
)
@click.option(
    "--entry-share", type=Number(0, 1), default=0.5, show_default=True, metavar="0..1",
    help="Where between sending and acknowledgement the venue had an order.",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Replace files that are there.")
@pass_invocation
def hftbacktest(
    invocation: Invocation,
    /,
    out: Path,
    latency_out: Path | None,
    entry_share: float,
    force: bool,
    snapshots: bool,
    bbo: bool,
    base_latency_ns: int,
    local_offset_ns: int,
    negative_latency: str,
    **which: Any,
) -> None:
    """Write recorded market data of one symbol as an event file of hftbacktest, in the order its validator wants.

    The book is from book_deltas, trades from market_data. Where no book_deltas were recorded, the book has the best bid
    and ask alone, and a note says so. All events are held in memory: export a day at a time.

    \b
    Example:
        recorder export hftbacktest --symbol BTCUSDT --date 2024-08-08 --out btcusdt_20240808.npz
        recorder export hftbacktest --symbol BTCUSDT --source binance.usdm --out all.npz --latency-out orders.npz
    """
    wanted = _wanted(**which)
    for file in filter(None, (out, latency_out)):
        check(file, force=force)
    if latency_out is not None and latency_out.resolve() == out.resolve():
        raise click.UsageError(f"--out and --latency-out are both {out}; name two files")
    try:
        from recorder.export_hftbacktest.export import Options, export
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "hftbacktest":
            raise
        raise Failure(EXTRA) from error
    options = Options(
        snapshots=snapshots,
        bbo=bbo,
        base_latency_ns=base_latency_ns,
        local_offset_ns=local_offset_ns,
        refuse_negative=negative_latency == "refuse",
    )
    with contextlib.closing(open_reader(invocation.settings())) as reader:
        ask = _asking(reader)
        with _shown(invocation, f"reading {wanted.symbol}") as show:
            made = export(ask, wanted, options, show)
        latencies = None
        if latency_out is not None:
            latencies = _latencies(ask, wanted, entry_share, made.shift_ns)
    if latency_out is not None and latencies is not None:
        _write(latency_out, latencies.rows, force=force)
    _write(out, made.corrected.events, force=force)
    for text in made.notes:
        note(text)
    events = len(made.corrected.events)
    said: dict[str, Any] = {
        "file": str(out),
        "symbol": wanted.symbol,
        "source": made.source,
        "events": events,
        "made_of": dict(made.counts),
        "shift_ns": made.shift_ns,
        "least_latency_ns": made.corrected.least_latency_ns,
        "notes": list(made.notes),
    }
    if latencies is not None:
        said["latencies"] = {
            "file": str(latency_out),
            "orders": len(latencies.rows),
            "unanswered": latencies.unanswered,
            "impossible": latencies.impossible,
        }
    if invocation.json:
        emit_json(said)
        return
    parts = ", ".join(f"{count:,} {name}" for name, count in made.counts.items())
    click.echo(
        f"{out}: {counted(events, 'event')} of {wanted.symbol}, {made.source} (before ordering {parts})"
    )
    if latencies is not None:
        click.echo(
            f"{latency_out}: latencies of {counted(len(latencies.rows), 'order')}; left out: {latencies.unanswered:,} "
            f"without both times, {latencies.impossible:,} answered before they were sent"
        )


def _wanted(
    symbol: str, source: str | None, date: int | None, since: int | None, until: int | None
) -> Wanted:
    from recorder.export_hftbacktest.read import Wanted

    if date is not None:
        if since is not None or until is not None:
            raise click.UsageError("--date is one whole day; leave --since and --until out, or --date")
        if date % DAY_NS:
            raise click.UsageError("--date has a time of day; give a day, or --since and --until")
        since, until = date, date + DAY_NS
    if since is not None and until is not None and since >= until:
        raise click.UsageError("--until is not after --since; no row can be between them")
    return Wanted(symbol, source, since, until)


def _asking(reader: Reader) -> Ask:
    import pyarrow as pa

    def ask(sql: str) -> pa.Table:
        schema, batches = reader.arrow(sql)
        return pa.Table.from_batches(batches, schema)

    return ask


def _latencies(ask: Ask, wanted: Wanted, entry_share: float, shift_ns: int) -> Latencies:
    from recorder.export_hftbacktest.latency import order_latencies
    from recorder.export_hftbacktest.read import read_orders

    found = order_latencies(read_orders(ask, wanted), entry_share=entry_share, shift_ns=shift_ns)
    if not len(found.rows):
        raise Failure(
            f"orders has no order of {wanted.symbol} in that time with a time of sending and one of the "
            "acknowledgement; leave --latency-out out"
        )
    return found


def _write(path: Path, rows: Any, *, force: bool) -> None:
    import numpy as np

    with NewFile(path, force=force) as file:
        np.savez_compressed(file, data=rows)
        file.complete()


@contextlib.contextmanager
def _shown(invocation: Invocation, what: str) -> Iterator[Show]:
    """Progress on a terminal; nothing elsewhere."""
    if invocation.json or not notes().is_terminal:
        yield lambda done, total: None
        return
    with progress(transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=max(1, total))
