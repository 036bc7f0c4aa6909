"""A depth book: price levels of both sides, bounded, with the best few always at hand.

A side is a dict of sizes and a sorted list of keys with the best at its end, where nearly all changes happen, so that
inserting moves little memory. What it does not do: know of levels that lay beyond the end of the snapshot and have not
changed since; the venue sends none of them.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from typing import NamedTuple

LEVELS_MAX = 20_000
"""Levels a side keeps; above it the worst are trimmed to three quarters."""

Level = tuple[float, float]
"""Price and size; size 0 removes the level."""


class Top(NamedTuple):
    """The best levels of a book, best first."""

    bid_pxs: tuple[float, ...] = ()
    bid_szs: tuple[float, ...] = ()
    ask_pxs: tuple[float, ...] = ()
    ask_szs: tuple[float, ...] = ()


NO_TOP = Top()


class Side:
    """One side of a book. `sign` is 1 for bids, whose best is the highest price, and -1 for asks."""

    def __init__(self, sign: int, snapshot: Sequence[Level] = (), *, levels_max: int = LEVELS_MAX):
        self._sign = sign
        self._levels_max = levels_max
        self._sizes = {price: size for price, size in dict(snapshot).items() if size}
        self._keys = sorted(price * sign for price in self._sizes)
        self._trim()

    def __len__(self) -> int:
        return len(self._keys)

    def apply(self, levels: Sequence[Level]) -> None:
        """Set or remove levels."""
        sizes, keys, sign = self._sizes, self._keys, self._sign
        for price, size in levels:
            if size:
                if price not in sizes:
                    insort(keys, price * sign)
                sizes[price] = size
            elif price in sizes:
                del sizes[price]
                del keys[bisect_left(keys, price * sign)]
        if len(keys) > self._levels_max:
            self._trim()

    def best(self, count: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Prices and sizes of the best `count` levels, best first."""
        keys = self._keys[: -count - 1 : -1]
        prices = tuple([key * self._sign for key in keys])
        sizes = self._sizes
        return prices, tuple([sizes[price] for price in prices])

    def _trim(self) -> None:
        surplus = len(self._keys) - self._levels_max
        if surplus <= 0:
            return
        surplus += self._levels_max // 4
        for key in self._keys[:surplus]:
            del self._sizes[key * self._sign]
        del self._keys[:surplus]


class Book:
    """Both sides of a book, from a snapshot."""

    def __init__(self, bids: Sequence[Level], asks: Sequence[Level], *, levels_max: int = LEVELS_MAX):
        self.bids = Side(1, bids, levels_max=levels_max)
        self.asks = Side(-1, asks, levels_max=levels_max)

    def apply(self, bids: Sequence[Level], asks: Sequence[Level]) -> None:
        """Set or remove levels of both sides."""
        self.bids.apply(bids)
        self.asks.apply(asks)

    def top(self, count: int) -> Top:
        """The best `count` levels of both sides."""
        return Top(*self.bids.best(count), *self.asks.best(count))
