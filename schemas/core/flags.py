"""What the bits of `market_data.flags` mean."""

from __future__ import annotations

import enum


class MarketFlag(enum.IntFlag):
    """Why a market data row is there and what it lacks. Values are stored: never renumber one."""

    TRADE = 1
    """A trade happened; `last_*` and `trade_id` are its own."""
    QUOTE = 2
    """The best bid or ask changed."""
    SNAPSHOT = 4
    """Taken from a full snapshot of the book, not from a change."""
    SAMPLED = 8
    """Written by a timer; it repeats the last known state."""
    EXCHANGE_TIME_MISSING = 16
    """The venue's message carried no time, so `ts_exchange` is null."""
    DEPTH = 32
    """Top of book comes from a maintained depth book, not from the venue's best-quote stream."""
    AGGREGATED = 64
    """The trade stands for several fills that the venue reported as one."""
    BOOK_STALE = 128
    """The depth book lost its place in the venue's ids; its levels are left out until it is in sync again."""
    CROSSED = 256
    """The venue's best bid was not below its best ask."""
    OFF_BOOK = 512
    """The venue made the trade outside the order book (insurance fund, deleveraging): no market price."""
