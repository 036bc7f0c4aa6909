"""Binance messages to rows: which rows a message makes, by the recording policy and the state of its symbol.

Each symbol has its own state: the last best bid and ask, whether its bookTicker is seen (which then alone makes quote
rows), its depth book, its trade ids. State runs on from message to message, and from file to file.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from recorder.normalise.base import BadMessage, Message, NormalisedRow
from recorder.normalise.binance.book import NO_TOP, Level, Top
from recorder.normalise.binance.classify import (
    PARTIAL_DEPTHS,
    Ignored,
    is_partial_by_shape,
    read,
    read_by_stream_name,
)
from recorder.normalise.binance.ids import REPEATS_MAX, Hole, TradeIds
from recorder.normalise.binance.messages import (
    TIME_MAX_MS,
    TIME_MIN_MS,
    AggTrade,
    BookTicker,
    DepthSnapshot,
    DepthUpdate,
    PublicMessage,
    Trade,
)
from recorder.normalise.binance.rows import (
    MS,
    US,
    Slot,
    book_delta_row,
    check_field_order,
    feed_gap_row,
    quote_row,
    trade_row,
)
from recorder.normalise.binance.sync import BookSync, Change, Taken
from schemas.core.flags import MarketFlag

Market = Literal["spot", "usdm", "coinm"]
Best = tuple[float | None, float | None, float | None, float | None]

SYMBOLS_MAX = 4_096
"""Symbols with state; one more takes the place of the one seen first, which begins anew if it comes again."""
SAMPLE_MS = (10, 50)
DEPTH_LEVELS_MAX = 20

_COINM_SYMBOL = re.compile(r"USD_(PERP|\d{6})$")
_NO_BEST: Best = (None, None, None, None)

# Plain ints: an IntFlag's `|` costs more than all else a row does.
_TRADE = int(MarketFlag.TRADE)
_QUOTE = int(MarketFlag.QUOTE)
_SNAPSHOT = int(MarketFlag.SNAPSHOT)
_SAMPLED = int(MarketFlag.SAMPLED)
_NO_TIME = int(MarketFlag.EXCHANGE_TIME_MISSING)
_DEPTH = int(MarketFlag.DEPTH)
_AGGREGATED = int(MarketFlag.AGGREGATED)
_STALE = int(MarketFlag.BOOK_STALE)
_CROSSED = int(MarketFlag.CROSSED)
_OFF_BOOK = int(MarketFlag.OFF_BOOK)


class _Symbol:
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
        self.best: Best = _NO_BEST
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


class BinanceNormaliser:
    """Rows of Binance's public streams: bookTicker, trade, aggTrade, depth, and REST depth snapshots.

    `market` None derives the market from each message. `symbol` names the symbol of REST snapshots, which do not say
    it; without it the one symbol seen so far. `quotes` chooses when a quote row is written: when a best price or size
    changes, or a price only. `book_deltas` writes every depth message too. `sample_ms` (10 to 50) adds a row of the
    last known state at each multiple of it at which messages come. `depth_levels` is the length of the arrays.

    Raises:
        ValueError: an option is out of its range.
        TypeError: the row classes have other fields than this module writes.
    """

    def __init__(
        self,
        *,
        market: Market | None = None,
        symbol: str | None = None,
        quotes: Literal["price_or_size", "price"] = "price_or_size",
        book_deltas: bool = False,
        sample_ms: int | None = None,
        depth_levels: int = 5,
    ):
        if market not in (None, "spot", "usdm", "coinm"):
            raise ValueError(f"market is {market!r}; it is spot, usdm, coinm, or left out")
        if quotes not in ("price_or_size", "price"):
            raise ValueError(f"quotes is {quotes!r}; it is price_or_size or price")
        if sample_ms is not None and not SAMPLE_MS[0] <= sample_ms <= SAMPLE_MS[1]:
            raise ValueError(f"sample_ms is {sample_ms}; it is {SAMPLE_MS[0]} to {SAMPLE_MS[1]}, or left out")
        if not 1 <= depth_levels <= DEPTH_LEVELS_MAX:
            raise ValueError(f"depth_levels is {depth_levels}; it is 1 to {DEPTH_LEVELS_MAX}")
        check_field_order()
        self.filtered: Counter[str] = Counter()
        self.ignored: Counter[str] = Counter()
        self._market = market
        self._symbol = symbol
        self._price_only = quotes == "price"
        self._book_deltas = book_deltas
        self._sample_ns = sample_ms * MS if sample_ms else 0
        self._depth_levels = depth_levels
        self._spot: dict[str, _Symbol] = {}
        self._futures: dict[str, _Symbol] = {}

    def normalise(self, message: Message) -> Sequence[NormalisedRow]:
        """The rows of one message: at most one of each `Slot`.

        Raises:
            BadMessage: it is not of a kind this venue's public streams send, or its values cannot be; `reason` is
                one of `docs/normalisers.md`. The state is as if it had not come.
        """
        found = read_by_stream_name(message.payload)
        if found is not None:
            if type(found) is BookTicker:
                return self._book_ticker(found, message.ts_local)
            return self._other(found, message.ts_local, "")
        read_message, stream = read(message.payload, message.topic)
        if isinstance(read_message, Ignored):
            self.ignored[str(read_message)] += 1
            return ()
        return self._other(read_message, message.ts_local, stream)

    def _other(self, message: PublicMessage, ts_local: int, stream: str) -> list[NormalisedRow]:
        if type(message) is Trade:
            return self._trade(message, ts_local)
        if type(message) is AggTrade:
            return self._agg_trade(message, ts_local)
        if type(message) is BookTicker:
            return self._book_ticker(message, ts_local)
        prefix, _, suffix = stream.partition("@")
        partial = suffix.partition("@")[0] in PARTIAL_DEPTHS
        if type(message) is DepthUpdate:
            return self._partial_depth(message, ts_local) if partial else self._depth(message, ts_local)
        assert type(message) is DepthSnapshot
        if partial:
            return self._partial_snapshot(
                message, ts_local, self._state(prefix.upper(), self._is_futures(False))
            )
        if not stream and is_partial_by_shape(message):
            return self._partial_snapshot(message, ts_local, self._state_of_snapshot(message))
        return self._snapshot(message, ts_local)

    # -- state --------------------------------------------------------------------------------------------------

    def _state(self, symbol: str, futures: bool) -> _Symbol:
        """The state of a symbol; spot and futures may use one name for two instruments."""
        states = self._futures if futures else self._spot
        state = states.get(symbol)
        if state is None:
            market: Market | None = self._market
            if market is None:
                market = "spot" if not futures else "coinm" if _COINM_SYMBOL.search(symbol) else "usdm"
            state = _Symbol(symbol, market, self._depth_levels)
            if len(self._spot) + len(self._futures) >= SYMBOLS_MAX:
                crowded = self._spot if len(self._spot) > len(self._futures) else self._futures
                del crowded[next(iter(crowded))]
                self.filtered["symbol_evicted"] += 1
            states[symbol] = state
        return state

    def _is_futures(self, futures_by_shape: bool) -> bool:
        return futures_by_shape if self._market is None else self._market != "spot"

    def _sample(self, state: _Symbol, ts_local: int, rows: list[NormalisedRow]) -> None:
        """The state as it stood at the last sampling time before this message."""
        sample = ts_local // self._sample_ns
        previous, state.sample = state.sample, sample
        if previous is None or sample == previous or state.best is _NO_BEST:
            return
        flags = _SAMPLED | state.best_flags | state.book_flags
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

    def _changed(self, state: _Symbol, best: Best, flags: int) -> bool:
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

    # -- quotes and trades ----------------------------------------------------------------------------------------

    def _book_ticker(self, message: BookTicker, ts_local: int) -> list[NormalisedRow]:
        best = _best_of(message)
        ts_exchange = _time_ns(message.T, message.E)
        state = self._state(message.s, self._is_futures(message.e is not None))
        rows: list[NormalisedRow] = []
        if self._sample_ns:
            self._sample(state, ts_local, rows)
        state.ticker_seen = True
        if message.u <= state.ticker_id and state.ticker_repeats < REPEATS_MAX:
            state.ticker_repeats += 1
            self.filtered["quote_repeated"] += 1
            return rows
        state.ticker_id = message.u
        state.ticker_repeats = 0
        if self._changed(state, best, _crossed(best)):
            flags = _QUOTE | state.best_flags | state.book_flags
            if ts_exchange is None:
                flags |= _NO_TIME
            rows.append(
                quote_row(
                    ts_local, ts_exchange, state.symbol, best, state.top, message.u, state.source, flags
                )
            )
        return rows

    def _trade(self, message: Trade, ts_local: int) -> list[NormalisedRow]:
        placeholder = message.X == "NA" and not message.p and not message.q
        if not placeholder and not (message.p and message.q):
            raise BadMessage(
                "bad_field",
                f"trade {message.t}: price {message.p}, quantity {message.q}; both are "
                f"above 0 unless the venue marks the trade NA",
            )
        ts_exchange = _known_time_ns(message.T, message.E)
        state = self._state(message.s, self._is_futures(message.M is None))
        rows: list[NormalisedRow] = []
        if self._sample_ns:
            self._sample(state, ts_local, rows)
        new, hole = state.trades.follow(message.t)
        if placeholder:
            self.ignored["trade.NA"] += 1
        elif not new:
            self.filtered["trade_repeated"] += 1
        else:
            flags = _TRADE | state.best_flags | state.book_flags
            if message.X is not None and message.X != "MARKET":
                flags |= _OFF_BOOK
            rows.append(
                trade_row(
                    ts_local,
                    ts_exchange,
                    state.symbol,
                    state.best,
                    state.top,
                    message.p,
                    message.q,
                    message.m,
                    message.t,
                    state.source,
                    flags,
                )
            )
        if hole:
            rows.append(_gap(Slot.TRADE_GAP, state, "trade", hole, ts_local, ts_exchange))
        return rows

    def _agg_trade(self, message: AggTrade, ts_local: int) -> list[NormalisedRow]:
        ts_exchange = _known_time_ns(message.T, message.E)
        state = self._state(message.s, self._is_futures(message.M is None))
        rows: list[NormalisedRow] = []
        if self._sample_ns:
            self._sample(state, ts_local, rows)
        new, hole = state.aggregates.follow(message.a)
        if not new:
            self.filtered["trade_repeated"] += 1
            return rows
        flags = _TRADE | _AGGREGATED | state.best_flags | state.book_flags
        rows.append(
            trade_row(
                ts_local,
                ts_exchange,
                state.symbol,
                state.best,
                state.top,
                message.p,
                message.q,
                message.m,
                message.a,
                state.source,
                flags,
            )
        )
        if hole:
            rows.append(_gap(Slot.TRADE_GAP, state, "aggTrade", hole, ts_local, ts_exchange))
        return rows

    # -- depth --------------------------------------------------------------------------------------------------

    def _depth(self, message: DepthUpdate, ts_local: int) -> list[NormalisedRow]:
        futures = self._is_futures(message.pu is not None)
        if futures and message.pu is None:
            raise BadMessage("bad_field", "depthUpdate of a futures market without `pu`")
        if message.u < message.U:
            raise BadMessage(
                "bad_field", f"depthUpdate from {message.U} to {message.u}: it ends before it begins"
            )
        ts_exchange = _known_time_ns(message.T, message.E)
        state = self._state(message.s, futures)
        rows: list[NormalisedRow] = []
        if self._sample_ns:
            self._sample(state, ts_local, rows)
        taken, hole = state.book.change(
            Change(message.U, message.u, message.pu if futures else None, message.b, message.a)
        )
        if taken is Taken.REPEATED:
            self.filtered["depth_repeated"] += 1
        self._book_moved(state, ts_local, ts_exchange, message.u, 0, rows)
        if self._book_deltas:
            rows.append(
                book_delta_row(
                    ts_local,
                    ts_exchange,
                    state.symbol,
                    message.U,
                    message.u,
                    message.b,
                    message.a,
                    False,
                    state.source,
                )
            )
        else:
            self.filtered["book_deltas_off"] += 1
        if hole:
            rows.append(_gap(Slot.DEPTH_GAP, state, "depth", hole, ts_local, ts_exchange))
        return rows

    def _snapshot(self, message: DepthSnapshot, ts_local: int) -> list[NormalisedRow]:
        ts_exchange = _time_ns(message.T, message.E)
        state = self._state_of_snapshot(message)
        rows: list[NormalisedRow] = []
        if self._sample_ns:
            self._sample(state, ts_local, rows)
        if not state.book.snapshot(message.lastUpdateId, message.bids, message.asks):
            self.filtered["snapshot_too_old"] += 1
        self._book_moved(state, ts_local, ts_exchange, message.lastUpdateId, _SNAPSHOT, rows)
        if self._book_deltas:
            rows.append(
                book_delta_row(
                    ts_local,
                    ts_exchange,
                    state.symbol,
                    None,
                    message.lastUpdateId,
                    message.bids,
                    message.asks,
                    True,
                    state.source,
                )
            )
        else:
            self.filtered["book_deltas_off"] += 1
        return rows

    def _state_of_snapshot(self, message: DepthSnapshot) -> _Symbol:
        futures_by_shape = message.T is not None or message.E is not None
        symbol = message.symbol or self._symbol
        if symbol is not None:
            return self._state(symbol, self._is_futures(futures_by_shape))
        seen = [*self._spot.values(), *self._futures.values()]
        if len(seen) != 1:
            raise BadMessage(
                "symbol_unknown",
                f"a depth snapshot does not name its symbol and {len(seen)} were seen "
                f"before it; pass the normaliser's option `symbol`",
            )
        return seen[0]

    def _book_moved(
        self,
        state: _Symbol,
        ts_local: int,
        ts_exchange: int | None,
        update_id: int,
        flags: int,
        rows: list[NormalisedRow],
    ) -> None:
        """Take over the book's top, and write a quote row of it where no bookTicker does."""
        book = state.book
        if state.top is book.top:
            return
        state.top = top = book.top
        state.book_flags = _STALE if book.lost else 0
        if book.in_sync and not state.ticker_seen:
            self._quote_of_top(state, top, ts_local, ts_exchange, update_id, flags, rows)

    def _quote_of_top(
        self,
        state: _Symbol,
        top: Top,
        ts_local: int,
        ts_exchange: int | None,
        update_id: int,
        flags: int,
        rows: list[NormalisedRow],
    ) -> None:
        best: Best = (
            top.bid_pxs[0] if top.bid_pxs else None, top.bid_szs[0] if top.bid_szs else None,
            top.ask_pxs[0] if top.ask_pxs else None, top.ask_szs[0] if top.ask_szs else None,
        )  # fmt: skip
        if self._changed(state, best, _DEPTH | _crossed(best)):
            flags |= _QUOTE | state.best_flags | state.book_flags
            if ts_exchange is None:
                flags |= _NO_TIME
            rows.append(
                quote_row(ts_local, ts_exchange, state.symbol, best, top, update_id, state.source, flags)
            )

    # -- partial depth: the best 5, 10 or 20 levels, whole, each time -----------------------------------------------

    def _partial_depth(self, message: DepthUpdate, ts_local: int) -> list[NormalisedRow]:
        ts_exchange = _known_time_ns(message.T, message.E)
        state = self._state(message.s, self._is_futures(message.pu is not None))
        return self._partial(state, message.b, message.a, message.u, ts_local, ts_exchange)

    def _partial_snapshot(self, message: DepthSnapshot, ts_local: int, state: _Symbol) -> list[NormalisedRow]:
        return self._partial(
            state, message.bids, message.asks, message.lastUpdateId, ts_local, _time_ns(message.T, message.E)
        )

    def _partial(
        self,
        state: _Symbol,
        bids: Sequence[Level],
        asks: Sequence[Level],
        update_id: int,
        ts_local: int,
        ts_exchange: int | None,
    ) -> list[NormalisedRow]:
        rows: list[NormalisedRow] = []
        if self._sample_ns:
            self._sample(state, ts_local, rows)
        if state.book.stream_id is not None:  # the maintained book knows more
            self.filtered["partial_depth"] += 1
            return rows
        count = self._depth_levels
        state.top = Top(
            tuple([price for price, _ in bids[:count]]), tuple([size for _, size in bids[:count]]),
            tuple([price for price, _ in asks[:count]]), tuple([size for _, size in asks[:count]]),
        )  # fmt: skip
        if state.ticker_seen:
            self.filtered["partial_depth"] += 1
        else:
            self._quote_of_top(state, state.top, ts_local, ts_exchange, update_id, _SNAPSHOT, rows)
        return rows


def _best_of(message: BookTicker) -> Best:
    """Best bid and ask, None for a side the venue says is empty (price and size 0)."""
    bid, bid_size, ask, ask_size = message.b, message.B, message.a, message.A
    if bid and bid_size and ask and ask_size:
        return bid, bid_size, ask, ask_size
    if bool(bid) != bool(bid_size) or bool(ask) != bool(ask_size):
        raise BadMessage(
            "bad_field",
            f"bookTicker {message.u}: bid {bid} x {bid_size}, ask {ask} x {ask_size}; an "
            f"empty side has neither price nor size",
        )
    return bid or None, bid_size or None, ask or None, ask_size or None


def _crossed(best: Best) -> int:
    return _CROSSED if best[0] is not None and best[2] is not None and best[0] >= best[2] else 0


def _known_time_ns(event: int | None, sent: int) -> int:
    time_ns = _time_ns(event, sent)
    assert time_ns is not None
    return time_ns


def _time_ns(event: int | None, sent: int | None) -> int | None:
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


def _gap(slot: Slot, state: _Symbol, stream: str, hole: Hole, ts_local: int, ts: int | None) -> NormalisedRow:
    return feed_gap_row(slot, ts_local, ts, state.symbol, stream, hole, state.source)
