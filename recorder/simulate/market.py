"""One symbol's market: a random walk on the tick grid with a spread, five levels a side, and trades at the
touch.

Pure state and a random generator; time is given by the caller. Prices and sizes of dense rows are floats,
each the float nearest to the exact decimal.
"""

from __future__ import annotations

import random

from recorder.simulate.amount import NANO
from recorder.simulate.instruments import Instrument
from schemas.core.flags import MarketFlag
from schemas.core.market import BookDelta, MarketData

LEVELS = 5
SOURCE = "simulate"
_SIZES = (
    4_096  # sizes are drawn beforehand and walked through: drawing twenty a quote costs more than the quote
)


class Market:
    """The book and trades of one instrument; prices in ticks, sizes in lots."""

    def __init__(self, instrument: Instrument, rng: random.Random, run_id: str = "") -> None:
        self.instrument = instrument
        self._rng = rng
        self._run_id = run_id
        self._mid = float(instrument.start_ticks)
        self._sizes = [
            max(1, round(rng.lognormvariate(0.0, 0.8) * instrument.order_lots)) for _ in range(_SIZES)
        ]
        self._lot_floats = [lots * instrument.lot / NANO for lots in self._sizes]
        self._offset = 0
        self.bid = self.ask = 0
        self.update_id = 1_000_000 + rng.randrange(1_000_000)
        self.trade_id = 5_000_000 + rng.randrange(1_000_000)
        self._book_update_id = self.update_id
        self._move()

    @property
    def mark(self) -> int:
        """The middle price in 1e-9."""
        return (self.bid + self.ask) * self.instrument.tick // 2

    def price(self, ticks: int) -> int:
        """A price on the grid in 1e-9."""
        return ticks * self.instrument.tick

    def ask_levels(self) -> list[tuple[int, int]]:
        """(price in ticks, lots) of the asks, best first."""
        return [(self.ask + i, self._sizes[(self._offset + 7 + i) % _SIZES]) for i in range(LEVELS)]

    def bid_levels(self) -> list[tuple[int, int]]:
        """(price in ticks, lots) of the bids, best first."""
        return [(self.bid - i, self._sizes[(self._offset + i) % _SIZES]) for i in range(LEVELS)]

    def _move(self) -> None:
        rng, start = self._rng, self.instrument.start_ticks
        if rng.random() < 0.6:
            # A weak pull back to the start keeps a long session on the grid and above zero.
            self._mid += rng.gauss(0.0, self.instrument.step_ticks) + (start - self._mid) * 1e-4
            self._mid = max(self._mid, start * 0.2 + LEVELS + 3)
        half = 1 + int(rng.random() ** 3 * 3)
        self.bid = int(self._mid) - half + 1
        self.ask = self.bid + half + (rng.random() < 0.3)
        self._offset = rng.randrange(_SIZES)
        self.update_id += 1 + rng.randrange(4)

    def quote(self, now_ns: int, feed_ns: int, correlation_id: str | None = None) -> MarketData:
        """Move the market and report its new top of book; `feed_ns` is how long the feed took."""
        self._move()
        tick, bid, ask, sizes = self.instrument.tick, self.bid, self.ask, self._lot_floats
        at, other = self._offset, self._offset + 7
        return MarketData(
            ts_local=now_ns,
            run_id=self._run_id,
            correlation_id=correlation_id,
            ts_exchange=now_ns - feed_ns,
            symbol=self.instrument.symbol,
            bid_px1=bid * tick / NANO,
            bid_sz1=sizes[at],
            ask_px1=ask * tick / NANO,
            ask_sz1=sizes[other % _SIZES],
            bid_pxs=tuple([(bid - i) * tick / NANO for i in range(LEVELS)]),
            bid_szs=tuple([sizes[(at + i) % _SIZES] for i in range(LEVELS)]),
            ask_pxs=tuple([(ask + i) * tick / NANO for i in range(LEVELS)]),
            ask_szs=tuple([sizes[(other + i) % _SIZES] for i in range(LEVELS)]),
            update_id=self.update_id,
            source=SOURCE,
            flags=_QUOTE,
        )

    def trade(self, now_ns: int, feed_ns: int) -> tuple[MarketData, str, int, int]:
        """A trade at the touch: its row, the aggressor's side, its price in ticks and its lots."""
        rng, instrument = self._rng, self.instrument
        side = "buy" if rng.random() < 0.5 else "sell"
        ticks = self.ask if side == "buy" else self.bid
        lots = max(1, int(rng.expovariate(1.5) * instrument.order_lots))
        self.trade_id += 1
        tick, sizes, at = instrument.tick, self._lot_floats, self._offset
        row = MarketData(
            ts_local=now_ns,
            run_id=self._run_id,
            ts_exchange=now_ns - feed_ns,
            symbol=instrument.symbol,
            bid_px1=self.bid * tick / NANO,
            bid_sz1=sizes[at],
            ask_px1=self.ask * tick / NANO,
            ask_sz1=sizes[(at + 7) % _SIZES],
            last_price=ticks * tick / NANO,
            last_qty=lots * instrument.lot / NANO,
            last_side=side,
            trade_id=self.trade_id,
            update_id=self.update_id,
            source=SOURCE,
            flags=_TRADE,
        )
        return row, side, ticks, lots

    def delta(self, now_ns: int, feed_ns: int, *, is_snapshot: bool = False) -> BookDelta:
        """What changed in the book since the last delta, or all five levels of it; deltas leave no hole in
        their ids."""
        rng, instrument = self._rng, self.instrument
        bids, asks = self.bid_levels(), self.ask_levels()
        if not is_snapshot:
            bids, asks = rng.sample(bids, rng.randrange(1, 4)), rng.sample(asks, rng.randrange(1, 4))
        first, self._book_update_id = self._book_update_id + 1, max(self.update_id, self._book_update_id + 1)
        self.update_id = self._book_update_id
        return BookDelta(
            ts_local=now_ns,
            run_id=self._run_id,
            ts_exchange=None if is_snapshot else now_ns - feed_ns,
            symbol=instrument.symbol,
            first_update_id=None if is_snapshot else first,
            last_update_id=self._book_update_id,
            bid_pxs=tuple([ticks * instrument.tick / NANO for ticks, _ in bids]),
            bid_szs=tuple([lots * instrument.lot / NANO for _, lots in bids]),
            ask_pxs=tuple([ticks * instrument.tick / NANO for ticks, _ in asks]),
            ask_szs=tuple([lots * instrument.lot / NANO for _, lots in asks]),
            is_snapshot=is_snapshot,
            source=SOURCE,
        )


_QUOTE = int(MarketFlag.QUOTE | MarketFlag.DEPTH)
_TRADE = int(MarketFlag.TRADE)
