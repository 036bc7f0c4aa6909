"""Rows as tuples, in the order of their row class's fields, and the slot of each kind of row.

`market_data` and `book_deltas` rows are tuples because a tuple is made in a third of the time of the row object; the
order they are written in is compared with the row classes when a normaliser is made.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import IntEnum
from typing import Any

from recorder.normalise.base import NormalisedRow
from recorder.normalise.binance.book import NO_TOP, Level, Top
from recorder.normalise.binance.ids import Hole
from schemas.core.market import BookDelta, MarketData
from schemas.core.operations import SystemEvent

MS = 1_000_000
US = 1_000


class Slot(IntEnum):
    """The place of each kind of row among the rows of one message. Part of a row's identity: never renumber one."""

    QUOTE = 0
    TRADE = 1
    BOOK_DELTA = 2
    DEPTH_GAP = 3
    TRADE_GAP = 4
    SAMPLE = 5
    ORDER = 6
    FILL = 7
    ACCOUNT_EVENT = 8
    AMENDED = 9
    LEG = 64
    """Of the order lists' orders the first; the others follow."""
    POSITION = 1_024
    """Of a message's positions the first; the others follow."""
    WALLET = 2_048
    """Of a message's wallets the first; the others follow."""


LEGS_MAX = 64
POSITIONS_MAX = 1_024
WALLETS_MAX = 2_048
"""Rows of these kinds that one message can make; one with more is a dead letter."""

KINDS = {
    **{int(slot): slot.name.lower() for slot in Slot},
    **{Slot.LEG + place: "leg" for place in range(LEGS_MAX)},
    **{Slot.POSITION + place: "position" for place in range(POSITIONS_MAX)},
    **{Slot.WALLET + place: "wallet" for place in range(WALLETS_MAX)},
}
"""What the rows of each slot are called."""

MARKET_DATA_FIELDS = (
    "ts_local", "run_id", "correlation_id", "ts_exchange", "symbol",
    "bid_px1", "bid_sz1", "ask_px1", "ask_sz1", "bid_pxs", "bid_szs", "ask_pxs", "ask_szs",
    "last_price", "last_qty", "last_side", "trade_id", "update_id", "source", "flags",
)  # fmt: skip
BOOK_DELTA_FIELDS = (
    "ts_local", "run_id", "correlation_id", "ts_exchange", "symbol", "first_update_id", "last_update_id",
    "bid_pxs", "bid_szs", "ask_pxs", "ask_szs", "is_snapshot", "source",
)  # fmt: skip


def check_field_order() -> None:
    """See that rows are written in the order of the row classes.

    Raises:
        TypeError: a row class has other fields, or another order.
    """
    for row_class, written in ((MarketData, MARKET_DATA_FIELDS), (BookDelta, BOOK_DELTA_FIELDS)):
        if row_class.__struct_fields__ != written:
            raise TypeError(
                f"{row_class.__name__} has fields {row_class.__struct_fields__}, "
                f"recorder.normalise.binance.rows writes {written}; bring them together"
            )


def quote_row(
    ts_local: int,
    ts_exchange: int | None,
    symbol: str,
    best: tuple[float | None, float | None, float | None, float | None],
    top: Top,
    update_id: int | None,
    source: str,
    flags: int,
    slot: int = Slot.QUOTE,
) -> NormalisedRow:
    """A `market_data` row that is no trade; `best` is bid price, bid size, ask price, ask size."""
    return NormalisedRow(
        "market_data",
        slot,
        (
            ts_local,
            "",
            None,
            ts_exchange,
            symbol,
            *best,
            *top,
            None,
            None,
            None,
            None,
            update_id,
            source,
            flags,
        ),
    )


def trade_row(
    ts_local: int,
    ts_exchange: int,
    symbol: str,
    best: tuple[float | None, float | None, float | None, float | None],
    top: Top,
    price: float,
    quantity: float,
    buyer_is_maker: bool,
    trade_id: int,
    source: str,
    flags: int,
) -> NormalisedRow:
    """A `market_data` row of a trade."""
    side = "sell" if buyer_is_maker else "buy"
    return NormalisedRow(
        "market_data",
        Slot.TRADE,
        (
            ts_local,
            "",
            None,
            ts_exchange,
            symbol,
            *best,
            *top,
            price,
            quantity,
            side,
            trade_id,
            None,
            source,
            flags,
        ),
    )


def book_delta_row(
    ts_local: int,
    ts_exchange: int | None,
    symbol: str,
    first_id: int | None,
    last_id: int,
    bids: Sequence[Level],
    asks: Sequence[Level],
    is_snapshot: bool,
    source: str,
) -> NormalisedRow:
    """A `book_deltas` row."""
    bid_pxs, bid_szs = zip(*bids, strict=True) if bids else NO_TOP[:2]
    ask_pxs, ask_szs = zip(*asks, strict=True) if asks else NO_TOP[:2]
    return NormalisedRow(
        "book_deltas",
        Slot.BOOK_DELTA,
        (
            ts_local, "", None, ts_exchange, symbol, first_id, last_id,
            bid_pxs, bid_szs, ask_pxs, ask_szs, is_snapshot, source,
        ),
    )  # fmt: skip


def feed_gap_row(
    slot: Slot, ts_local: int, ts: int | None, symbol: str, stream: str, hole: Hole, source: str
) -> NormalisedRow:
    """A `system_events` row of kind `feed_gap`."""
    payload: dict[str, Any] = {
        "symbol": symbol, "stream": stream, "expected": hole.expected, "got": hole.got, "count": hole.count,
    }  # fmt: skip
    return NormalisedRow(
        "system_events",
        slot,
        SystemEvent(
            ts_local=ts_local,
            ts=ts,
            severity="warning",
            kind="feed_gap",
            component=source,
            message=f"{symbol} {stream}: expected id {hole.expected}, got {hole.got}",
            payload=json.dumps(payload),
        ),
    )
