"""The windows of bars, and the hours in which bars are computed. Values; times in nanoseconds since 1970, UTC."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

S_NS = 1_000_000_000
HOUR_NS = 3_600 * S_NS
"""Bars are computed by the hour of one feed: all of its windows in one insert, into one partition."""
CARRY_NS = HOUR_NS
"""As long a quote holds where none follows. Not above an hour: an hour's bars are made of its rows and of the hour's
before, and of no others."""


@dataclass(frozen=True)
class Bars:
    """One length of window: `name` is the view that is read, `stored` the table below it."""

    name: str
    window_ns: int

    @property
    def stored(self) -> str:
        """The table that bars are inserted into; it may have several versions of one bar."""
        return f"{self.name}_built"

    def closed(self, until_ns: int) -> int:
        """The end of the last window that ends at or before this time."""
        return until_ns - until_ns % self.window_ns


OF_TABLE = "market_data"
"""The table that bars are made of."""
ALL_BARS = (Bars("market_bars_1s", S_NS), Bars("market_bars_1m", 60 * S_NS))


class Hour(NamedTuple):
    """An hour of a feed: its symbol at its source, and when the hour begins."""

    source: str
    symbol: str
    begin_ns: int

    @property
    def end_ns(self) -> int:
        """The first moment after it."""
        return self.begin_ns + HOUR_NS

    def moved(self, hours: int) -> Hour:
        """The same feed's hour so many later."""
        return self._replace(begin_ns=self.begin_ns + hours * HOUR_NS)

    def __str__(self) -> str:
        return f"{self.symbol} of {self.source or 'no source'}"


def hour_of(at_ns: int) -> int:
    """When the hour of this time began."""
    return at_ns - at_ns % HOUR_NS
