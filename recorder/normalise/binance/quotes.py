"""bookTicker, trade and aggTrade messages to rows."""

from __future__ import annotations

from recorder.normalise.base import BadMessage, NormalisedRow
from recorder.normalise.binance.ids import REPEATS_MAX
from recorder.normalise.binance.messages import AggTrade, BookTicker, Trade
from recorder.normalise.binance.rows import Slot, quote_row, trade_row
from recorder.normalise.binance.state import (
    AGGREGATED,
    NO_TIME,
    OFF_BOOK,
    QUOTE,
    TRADE,
    Best,
    Symbols,
    SymbolState,
    crossed,
    gap_row,
    known_time_ns,
    time_ns,
)


class QuotesAndTrades(Symbols):
    """What the streams of quotes and trades become."""

    def _book_ticker(self, message: BookTicker, ts_local: int) -> list[NormalisedRow]:
        best = _best_of(message)
        ts_exchange = time_ns(message.T, message.E)
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
        if self._changed(state, best, crossed(best)):
            flags = QUOTE | state.best_flags | state.book_flags
            if ts_exchange is None:
                flags |= NO_TIME
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
        ts_exchange = known_time_ns(message.T, message.E)
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
            off_book = OFF_BOOK if message.X is not None and message.X != "MARKET" else 0
            rows.append(_trade_of(message, message.t, state, ts_local, ts_exchange, off_book))
        if hole:
            rows.append(gap_row(Slot.TRADE_GAP, state, "trade", hole, ts_local, ts_exchange))
        return rows

    def _agg_trade(self, message: AggTrade, ts_local: int) -> list[NormalisedRow]:
        ts_exchange = known_time_ns(message.T, message.E)
        state = self._state(message.s, self._is_futures(message.M is None))
        rows: list[NormalisedRow] = []
        if self._sample_ns:
            self._sample(state, ts_local, rows)
        new, hole = state.aggregates.follow(message.a)
        if not new:
            self.filtered["trade_repeated"] += 1
            return rows
        rows.append(_trade_of(message, message.a, state, ts_local, ts_exchange, AGGREGATED))
        if hole:
            rows.append(gap_row(Slot.TRADE_GAP, state, "aggTrade", hole, ts_local, ts_exchange))
        return rows


def _trade_of(
    message: Trade | AggTrade, trade_id: int, state: SymbolState, ts_local: int, ts_exchange: int, flags: int
) -> NormalisedRow:
    """The row of a trade, with what is known of the book beside it."""
    return trade_row(
        ts_local,
        ts_exchange,
        state.symbol,
        state.best,
        state.top,
        message.p,
        message.q,
        message.m,
        trade_id,
        state.source,
        TRADE | flags | state.best_flags | state.book_flags,
    )


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
