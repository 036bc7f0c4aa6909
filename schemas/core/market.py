"""Market data: top of book and trades, and the raw changes of the book."""

from __future__ import annotations

from schemas.columns import Bool, Float, Floats, Levels, Name, TimeNs, UInt32, UInt64
from schemas.core.rows import Event
from schemas.core.vocabulary import Side
from schemas.policy import Durability, Overflow, Partition, TablePolicy
from schemas.table import table


class MarketData(Event, kw_only=True):
    """Top of book and trades: a row when the best bid or ask changes, when a trade happens, or when a timer asks."""

    ts_exchange: TimeNs | None = None
    """Venue time of the event, ns; null where the venue sends none. It may step backwards."""
    symbol: Name
    """The instrument, as the venue writes it."""
    bid_px1: Float | None = None
    """Best bid price, in the quote currency; null before any quote."""
    bid_sz1: Float | None = None
    """Size at the best bid, in the venue's unit of quantity."""
    ask_px1: Float | None = None
    """Best ask price, in the quote currency; null before any quote."""
    ask_sz1: Float | None = None
    """Size at the best ask, in the venue's unit of quantity."""
    bid_pxs: Floats = ()
    """Bid prices of the top five levels, best first, from the maintained depth book; empty until it is in sync."""
    bid_szs: Floats = ()
    """Sizes of `bid_pxs`, in the same order."""
    ask_pxs: Floats = ()
    """Ask prices of the top five levels, best first, from the maintained depth book; empty until it is in sync."""
    ask_szs: Floats = ()
    """Sizes of `ask_pxs`, in the same order."""
    last_price: Float | None = None
    """Price of this row's trade; null where the row is no trade."""
    last_qty: Float | None = None
    """Quantity of this row's trade, in the venue's unit."""
    last_side: Side | None = None
    """The aggressor's side of this row's trade."""
    trade_id: UInt64 | None = None
    """The venue's number of the trade; of an aggregate the venue's number of the aggregate. Null where it is not a
    number."""
    update_id: UInt64 | None = None
    """The venue's number of the book update behind this row; null where it sends none."""
    source: Name = ""
    """The feed the row came from, such as `binance.usdm`."""
    flags: UInt32 = 0
    """Bits of `schemas.core.flags.MarketFlag`."""


class BookDelta(Event, kw_only=True):
    """One change message of the order book, or a whole snapshot of it, as the venue sent it."""

    ts_exchange: TimeNs | None = None
    """Venue time of the message, ns; null where the venue sends none (REST snapshots)."""
    symbol: Name
    """The instrument, as the venue writes it."""
    first_update_id: UInt64 | None = None
    """First update number the message covers; null for a snapshot."""
    last_update_id: UInt64 | None = None
    """Last update number the message covers."""
    bid_pxs: Levels = ()
    """Bid prices that changed, in the venue's order."""
    bid_szs: Levels = ()
    """New sizes of `bid_pxs`; 0 removes the level."""
    ask_pxs: Levels = ()
    """Ask prices that changed, in the venue's order."""
    ask_szs: Levels = ()
    """New sizes of `ask_pxs`; 0 removes the level."""
    is_snapshot: Bool = False
    """Whether the message replaces the whole book."""
    source: Name = ""
    """The feed the row came from, such as `binance.usdm`."""


MARKET_DATA = table(
    "market_data",
    MarketData,
    TablePolicy(
        durability=Durability.MEMORY,
        overflow=Overflow.DROP_OLDEST,
        partition=Partition.DAY,
        order_by=("symbol", "ts_local"),
        keep_days=90,
        conflate_key=("symbol",),
    ),
)
BOOK_DELTAS = table(
    "book_deltas",
    BookDelta,
    TablePolicy(
        durability=Durability.MEMORY,
        overflow=Overflow.DROP_OLDEST,
        partition=Partition.DAY,
        order_by=("symbol", "ts_local"),
        keep_days=30,
        enabled=False,
    ),
)
