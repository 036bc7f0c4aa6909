"""Best bids and asks of `market_data` as hftbacktest's events. No I/O.

hftbacktest's backtests take no notice of a BBO event; it is for what fuses such events with a book
(`hftbacktest.data.FuseMarketDepth`) and for one's own use. Where no book was recorded, a book of one level a side is
made of depth events, so that a backtest has one at all: prices behind the best are missing, and queues at them are not
known.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from hftbacktest.types import BUY_EVENT, DEPTH_BBO_EVENT, DEPTH_EVENT, SELL_EVENT

from recorder.export_hftbacktest.events import Kept, Piece
from recorder.export_hftbacktest.order import Int64s, ranks

Floats = npt.NDArray[np.float64]
SIDES = (("bid", BUY_EVENT), ("ask", SELL_EVENT))


def bbo_events(rows: pa.Table) -> Kept:
    """An event for each side of a quote that is not empty, the bid first.

    Columns `bid_px`, `bid_sz`, `ask_px` and `ask_sz` beside those of `Kept`, null where a side is empty.
    """
    count = np.zeros(rows.num_rows, np.int64)
    pieces = []
    for name, side in SIDES:
        pxs, szs = _floats(rows[f"{name}_px"]), _floats(rows[f"{name}_sz"])
        there = np.flatnonzero(~np.isnan(pxs))
        pieces.append(_next(there, DEPTH_BBO_EVENT | side, pxs[there], szs[there], count))
    return Kept(rows, pieces)


def one_level_events(rows: pa.Table) -> Kept:
    """Depth events that keep a book of the best level a side, columns as for `bbo_events`.

    Levels that are left go first, the bid's before the ask's, then what is new is set: so no bid stands above an ask
    unless the venue said so.
    """
    placed = ranks(*(rows[name].to_numpy() for name in ("local_ns", "_log", "_seq")))
    came = np.empty_like(placed)
    came[placed] = np.arange(len(placed))
    leaves, sets = [], []
    for name, side in SIDES:
        pxs, szs = _floats(rows[f"{name}_px"])[came], _floats(rows[f"{name}_sz"])[came]
        before, before_sz = _shifted(pxs), _shifted(szs)
        left = np.flatnonzero(~np.isnan(before) & (before != pxs))
        new = np.flatnonzero(~np.isnan(pxs) & ((before != pxs) | (before_sz != szs)))
        leaves.append((came[left], DEPTH_EVENT | side, before[left], np.zeros(len(left))))
        sets.append((came[new], DEPTH_EVENT | side, pxs[new], szs[new]))
    count = np.zeros(rows.num_rows, np.int64)
    return Kept(rows, [_next(row, kind, pxs, szs, count) for row, kind, pxs, szs in leaves + sets])


def _next(row: Int64s, kind: int, pxs: Floats, qtys: Floats, count: Int64s) -> Piece:
    """At most one event a row, behind those that it has by `count`, which is brought up to date."""
    place = count[row]
    count[row] += 1
    return Piece(row, place, np.full(len(row), kind, np.uint64), pxs, qtys)


def _shifted(values: Floats) -> Floats:
    """Each value's predecessor; of the first none."""
    return np.concatenate(([np.nan], values[:-1])) if len(values) else values


def _floats(column: pa.ChunkedArray) -> Floats:
    return np.asarray(pc.fill_null(column, float("nan")).to_numpy(), np.float64)
