"""The state of each symbol, and what all messages do with it: sampling, and taking a new best bid and ask."""

from __future__ import annotations

import re
from collections import Counter
from typing import Literal

from recorder.normalise.base import BadMessage, NormalisedRow
from recorder.normalise.binance.book import NO_TOP, Top
from recorder.normalise.binance.ids import Hole, TradeIds
from recorder.normalise.binance.messages import TIME_MAX_MS, TIME_MIN_MS
from recorder.normalise.binance.rows import MS, US, Slot, feed_gap_row, quote_row
from recorder.normalise.binance.sync import BookSync
from schemas.core.flags import MarketFlag

Market = Literal["spot", "usdm", "coinm"]
Best = tuple[float | None, float | None, float | None, float | None]

SYMBOLS_MAX = 4_096
"""Symbols with state; one more takes the place of the one seen first, which begins anew if it comes again."""

COINM_SYMBOL = re.compile(r"USD_(PERP|\d{6})$")
NO_BEST: Best = (None, None, None, None)

# Plain ints: an IntFlag's `|` costs more than all else a row does.
TRADE = int(MarketFlag.TRADE)
QUOTE = int(MarketFlag.QUOTE)
SNAPSHOT = int(MarketFlag.SNAPSHOT)
SAMPLED = int(MarketFlag.SAMPLED)
NO_TIME = int(MarketFlag.EXCHANGE_TIME_MISSING)
DEPTH = int(MarketFlag.DEPTH)
AGGREGATED = int(MarketFlag.AGGREGATED)
STALE = int(MarketFlag.BOOK_STALE)
CROSSED = int(MarketFlag.CROSSED)
OFF_BOOK = int(MarketFlag.OFF_BOOK)


class SymbolState:
    """The state of one symbol."""

    __slots__ = (
        "aggregates",
        "best",
        "best_flags",
        "book",
        "book_flags",
        "sample",
        "source",
        "symbol",
        "ticker_id",
        "ticker_repeats",
        "ticker_seen",
        "top",
        "trades",
    )

    def __init__(self, symbol: str, market: Market, depth: int):
        self.symbol = symbol
        self.source = f"binance.{market}"
        self.best: Best = NO_BEST
        self.best_flags = 0
        """DEPTH and CROSSED, as they hold for `best`."""
        self.top: Top = NO_TOP
        self.book_flags = 0
        """BOOK_STALE while the book is lost."""
        self.ticker_seen = False
        self.ticker_id = -1
        self.ticker_repeats = 0
        self.book = BookSync(depth)
        self.trades = TradeIds()
        self.aggregates = TradeIds()
        self.sample: int | None = None


class Symbols:
    """The states, and the policy of what is recorded of them. `sample_ns` 0 samples nothing."""

    def __init__(self, market: Market | None, *, price_only: bool, sample_ns: int, depth_levels: int):
        self.filtered: Counter[str] = Counter()
        self.ignored: Counter[str] = Counter()
        self._market = market
        self._price_only = price_only
        self._sample_ns = sample_ns
        self._depth_levels = depth_levels
        self._spot: dict[str, SymbolState] = {}
        self._futures: dict[str, SymbolState] = {}

    def _state(self, symbol: str, futures: bool) -> SymbolState:
        """The state of a symbol; spot and futures may use one name for two instruments."""
        states = self._futures if futures else self._spot
        state = states.get(symbol)
        if state is None:
            market: Market | None = self._market
            if market is None:
                market = "spot" if not futures else "coinm" if COINM_SYMBOL.search(symbol) else "usdm"
            state = SymbolState(symbol, market, self._depth_levels)
            if len(self._spot) + len(self._futures) >= SYMBOLS_MAX:
                crowded = self._spot if len(self._spot) > len(self._futures) else self._futures
                del crowded[next(iter(crowded))]
                self.filtered["symbol_evicted"] += 1
            states[symbol] = state
        return state

    def _is_futures(self, futures_by_shape: bool) -> bool:
        return futures_by_shape if self._market is None else self._market != "spot"

    def _sample(self, state: SymbolState, ts_local: int, rows: list[NormalisedRow]) -> None:
        """The state as it stood at the last sampling time before this message."""
        sample = ts_local // self._sample_ns
        previous, state.sample = state.sample, sample
        if previous is None or sample == previous or state.best is NO_BEST:
            return
        flags = SAMPLED | state.best_flags | state.book_flags
        rows.append(
            quote_row(
                sample * self._sample_ns,
                None,
                state.symbol,
                state.best,
                state.top,
                None,
                state.source,
                flags,
                Slot.SAMPLE,
            )
        )

    def _changed(self, state: SymbolState, best: Best, flags: int) -> bool:
        """Take a new best bid and ask; whether the policy wants a row of it."""
        last = state.best
        state.best = best
        state.best_flags = flags
        if best == last:
            self.filtered["quote_unchanged"] += 1
            return False
        if self._price_only and best[0] == last[0] and best[2] == last[2]:
            self.filtered["quote_size_only"] += 1
            return False
        return True


def crossed(best: Best) -> int:
    """The flag of a bid that is not below the ask, else 0."""
    return CROSSED if best[0] is not None and best[2] is not None and best[0] >= best[2] else 0


def time_ns(event: int | None, sent: int | None) -> int | None:
    """Venue time: of the event, else of sending, else None."""
    time = sent if event is None else event
    if time is None:
        return None
    if time < TIME_MAX_MS:
        return time * MS
    if time >= TIME_MIN_MS * US:
        return time * US
    raise BadMessage(
        "bad_field", f"venue time {time} is neither milliseconds nor microseconds of this century"
    )


def known_time_ns(event: int | None, sent: int) -> int:
    """The same, of a message that always says when it was sent."""
    known_ns = time_ns(event, sent)
    assert known_ns is not None
    return known_ns


def gap_row(
    slot: Slot, state: SymbolState, stream: str, hole: Hole, ts_local: int, ts: int | None
) -> NormalisedRow:
    """The row that tells of a hole in a stream's ids."""
    return feed_gap_row(slot, ts_local, ts, state.symbol, stream, hole, state.source)
