"""From the rows of a symbol to events that hftbacktest takes, and to the latencies of its orders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from recorder.export_hftbacktest.correct import Corrected, corrected
from recorder.export_hftbacktest.errors import NothingRecorded
from recorder.export_hftbacktest.events import Kept, assemble, book_events, trade_events
from recorder.export_hftbacktest.read import Ask, Found, Rows, Show, Wanted, find, read, shed_rows
from recorder.export_hftbacktest.top import bbo_events, one_level_events


@dataclass(frozen=True, kw_only=True)
class Options:
    """What becomes events, and how clocks are treated.

    `snapshots` and `bbo` say whether these become events; without recorded book changes BBO always does.
    `local_offset_ns` is added to every local time first; then times that are before their venue's move all by the
    worst, plus `base_latency_ns`, or, with `refuse_negative`, end the export.
    """

    snapshots: bool = True
    bbo: bool = False
    base_latency_ns: int = 0
    local_offset_ns: int = 0
    refuse_negative: bool = False


@dataclass(frozen=True)
class Exported:
    """The events, and what is to be said of them."""

    corrected: Corrected
    source: str
    counts: Mapping[str, int]
    """Events of each kind before they were ordered; ordering may split an event in two."""
    shift_ns: int
    """What was added to every local time in all."""
    notes: Sequence[str]
    """What who uses the file should know, a sentence each."""


def export(ask: Ask, wanted: Wanted, options: Options, show: Show) -> Exported:
    """The events of the rows wanted.

    Raises:
        CannotExport: there are none, or of several sources, or clocks are not as they have to be.
    """
    found = find(ask, wanted)
    rows = read(ask, wanted, found, show, quotes=options.bbo or not found.deltas)
    trades, notes = _one_kind_of_trades(rows.trades)
    parts: dict[str, Kept] = {"trades": trade_events(trades)}
    if found.deltas:
        deltas = rows.deltas if options.snapshots else rows.deltas.filter(pc.invert(_is_snapshot(rows)))
        parts["book"] = book_events(deltas)
        notes += _about_the_book(rows, options)
    else:
        parts["book"] = one_level_events(rows.quotes)
        notes.append(
            "no book changes were recorded (book_deltas): trades and best bids and asks are from market_data, and the "
            "book has one level a side"
        )
    if options.bbo or not found.deltas:
        parts["bbo"] = bbo_events(rows.quotes)
    made = assemble(parts, local_offset_ns=options.local_offset_ns)
    if not len(made.events):
        raise NothingRecorded(
            f"of {wanted.symbol} there are rows, and none that makes an event; see --bbo and --snapshots"
        )
    mended = corrected(
        made.events, base_latency_ns=options.base_latency_ns, refuse_negative=options.refuse_negative
    )
    if mended.shift_ns:
        notes.append(
            f"the venue's clock was ahead by up to {-mended.least_latency_ns:,} ns: "
            f"all local times were moved by {mended.shift_ns:,} ns"
        )
    if made.without_venue_time:
        notes.append(
            "rows without a venue time have the local one less the median latency of the others: "
            f"{made.without_venue_time:,} in all"
        )
    notes += _about_gaps(ask, found)
    return Exported(mended, found.source, made.counts, options.local_offset_ns + mended.shift_ns, notes)


def _one_kind_of_trades(trades: pa.Table) -> tuple[pa.Table, list[str]]:
    """Trades, without the aggregates where the trades they stand for are there too."""
    aggregated = pc.cast(trades["is_aggregated"], pa.bool_())
    count = pc.sum(aggregated).as_py() or 0
    if not 0 < count < trades.num_rows:
        return trades, []
    return trades.filter(pc.invert(aggregated)), [
        f"trades were recorded one by one and as aggregates: the {count:,} aggregates are left out"
    ]


def _is_snapshot(rows: Rows) -> pa.ChunkedArray:
    return pc.cast(rows.deltas["is_snapshot"], pa.bool_())


def _about_the_book(rows: Rows, options: Options) -> list[str]:
    if options.snapshots and pc.any(_is_snapshot(rows)).as_py():
        return []
    return ["there is no snapshot of the book: it fills up as levels change, so begin later, or give one"]


def _about_gaps(ask: Ask, found: Found) -> list[str]:
    shed = shed_rows(ask, found)
    if not shed:
        return []
    return [f"the recorder shed {shed:,} rows of market data in that time (recorder_gaps), of any symbol"]
