"""Rows of `market_data` and `book_deltas` as hftbacktest's events, in the order they came in. No I/O.

What an event means is hftbacktest's (`hftbacktest.types`, and its converter for Binance's futures): a trade's side is
the aggressor's; a depth event sets a level's size; a snapshot clears each side up to its last price, then sets its
levels. Events here have neither EXCH nor LOCAL yet: `correct` sets these.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from hftbacktest.types import (
    BUY_EVENT,
    DEPTH_CLEAR_EVENT,
    DEPTH_EVENT,
    DEPTH_SNAPSHOT_EVENT,
    SELL_EVENT,
    TRADE_EVENT,
    event_dtype,
)

from recorder.export_hftbacktest.order import Int64s, ranks, venue_times_ns

Events = npt.NDArray[Any]
"""An array of hftbacktest's `event_dtype`."""


@dataclass(frozen=True)
class Piece:
    """Events of rows of one kind: which row each belongs to, its place among that row's, and what it says."""

    row: Int64s
    place: Int64s
    ev: npt.NDArray[np.uint64]
    px: npt.NDArray[np.float64]
    qty: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Kept:
    """The rows that events are made of, and the pieces they make.

    `rows` has columns `local_ns`, `venue_ns` (null where the venue sent none), `_log` and `_seq`.
    """

    rows: pa.Table
    pieces: Sequence[Piece]


@dataclass(frozen=True)
class Assembled:
    """Events in the order they came in, and how many there are of what."""

    events: Events
    counts: Mapping[str, int] = field(default_factory=dict)
    without_venue_time: int = 0
    """Rows whose venue time is an estimate."""


def trade_events(rows: pa.Table) -> Kept:
    """One event a trade; columns `px`, `qty` and `is_sell` beside those of `Kept`."""
    count = rows.num_rows
    sell = _numbers(rows["is_sell"], np.bool_)
    side = np.where(sell, np.uint64(TRADE_EVENT | SELL_EVENT), np.uint64(TRADE_EVENT | BUY_EVENT))
    piece = Piece(
        np.arange(count),
        np.zeros(count, np.int64),
        side,
        _numbers(rows["px"], np.float64),
        _numbers(rows["qty"], np.float64),
    )
    return Kept(rows, (piece,))


def book_events(rows: pa.Table) -> Kept:
    """One event a level, bids before asks; columns `bid_pxs`, `bid_szs`, `ask_pxs`, `ask_szs` and `is_snapshot`."""
    snapshot = _numbers(rows["is_snapshot"], np.bool_)
    pieces: list[Piece] = []
    place = np.zeros(rows.num_rows, np.int64)
    for name, side in (("bid", BUY_EVENT), ("ask", SELL_EVENT)):
        counts, pxs = _lists(rows[f"{name}_pxs"])
        _, szs = _lists(rows[f"{name}_szs"])
        ends = np.cumsum(counts)
        clears = np.flatnonzero(snapshot & (counts > 0))
        pieces.append(
            Piece(
                clears,
                place[clears],
                np.full(len(clears), DEPTH_CLEAR_EVENT | side, np.uint64),
                pxs[ends[clears] - 1],
                np.zeros(len(clears)),
            )
        )
        place[clears] += 1
        of_row = np.repeat(np.arange(rows.num_rows), counts)
        within = np.arange(len(pxs)) - np.repeat(ends - counts, counts)
        kind = np.where(snapshot[of_row], np.uint64(DEPTH_SNAPSHOT_EVENT), np.uint64(DEPTH_EVENT))
        pieces.append(Piece(of_row, place[of_row] + within, kind | np.uint64(side), pxs, szs))
        place += counts
    return Kept(rows, pieces)


def assemble(parts: Mapping[str, Kept], *, local_offset_ns: int = 0) -> Assembled:
    """The events of all parts in the order their rows came in; `local_offset_ns` is added to every local time."""
    kept = list(parts.values())
    rows = pa.concat_tables([part.rows.select(["local_ns", "venue_ns", "_log", "_seq"]) for part in kept])
    ts_local_ns = _numbers(rows["local_ns"], np.int64) + local_offset_ns
    known = _numbers(pc.is_valid(rows["venue_ns"]), np.bool_)
    ts_exchange_ns = _numbers(pc.fill_null(rows["venue_ns"], 0), np.int64)
    ts_exchange_ns = venue_times_ns(ts_local_ns, ts_exchange_ns, known)
    placed = ranks(ts_local_ns, _numbers(rows["_log"], np.uint64), _numbers(rows["_seq"], np.uint64))
    firsts = np.cumsum([0, *(part.rows.num_rows for part in kept)])
    sizes = np.zeros(rows.num_rows, np.int64)
    for first, part in zip(firsts, kept, strict=False):
        for piece in part.pieces:
            sizes += np.bincount(piece.row + first, minlength=rows.num_rows)
    by_rank = np.empty_like(sizes)
    by_rank[placed] = sizes
    starts = (np.cumsum(by_rank) - by_rank)[placed]
    events = np.zeros(int(sizes.sum()), event_dtype)
    for first, part in zip(firsts, kept, strict=False):
        for piece in part.pieces:
            row = piece.row + first
            at = starts[row] + piece.place
            events["ev"][at] = piece.ev
            events["exch_ts"][at] = ts_exchange_ns[row]
            events["local_ts"][at] = ts_local_ns[row]
            events["px"][at] = piece.px
            events["qty"][at] = piece.qty
    counts = Counter({name: sum(len(piece.row) for piece in part.pieces) for name, part in parts.items()})
    return Assembled(events, counts, int(np.count_nonzero(~known & (sizes > 0))))


def _numbers(column: pa.ChunkedArray, kind: Any) -> npt.NDArray[Any]:
    return np.asarray(column.to_numpy()).astype(kind, copy=False)


def _lists(column: pa.ChunkedArray) -> tuple[Int64s, npt.NDArray[np.float64]]:
    """How many numbers each row has, and the numbers of all."""
    return _numbers(pc.list_value_length(column), np.int64), _numbers(pc.list_flatten(column), np.float64)
