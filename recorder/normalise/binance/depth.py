"""Depth messages to rows: the diff stream, REST snapshots, and partial depth."""

from __future__ import annotations

from collections.abc import Sequence

from recorder.normalise.base import BadMessage, NormalisedRow
from recorder.normalise.binance.book import Level, Top
from recorder.normalise.binance.messages import DepthSnapshot, DepthUpdate
from recorder.normalise.binance.rows import Slot, book_delta_row, quote_row
from recorder.normalise.binance.state import (
    DEPTH,
    NO_TIME,
    QUOTE,
    SNAPSHOT,
    STALE,
    Best,
    Market,
    Symbols,
    SymbolState,
    crossed,
    gap_row,
    known_time_ns,
    time_ns,
)
from recorder.normalise.binance.sync import Change, Taken


class Depth(Symbols):
    """What depth messages become. `symbol` is that of snapshots which do not name it."""

    def __init__(
        self,
        market: Market | None,
        *,
        symbol: str | None,
        book_deltas: bool,
        price_only: bool,
        sample_ns: int,
        depth_levels: int,
    ):
        super().__init__(market, price_only=price_only, sample_ns=sample_ns, depth_levels=depth_levels)
        self._symbol = symbol
        self._book_deltas = book_deltas

    def _depth(self, message: DepthUpdate, ts_local: int) -> list[NormalisedRow]:
        futures = self._is_futures(message.pu is not None)
        if futures and message.pu is None:
            raise BadMessage("bad_field", "depthUpdate of a futures market without `pu`")
        if message.u < message.U:
            raise BadMessage(
                "bad_field", f"depthUpdate from {message.U} to {message.u}: it ends before it begins"
            )
        ts_exchange = known_time_ns(message.T, message.E)
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
        self._keep_delta(state, ts_local, ts_exchange, message.U, message.u, message.b, message.a, rows)
        if hole:
            rows.append(gap_row(Slot.DEPTH_GAP, state, "depth", hole, ts_local, ts_exchange))
        return rows

    def _snapshot(self, message: DepthSnapshot, ts_local: int) -> list[NormalisedRow]:
        ts_exchange = time_ns(message.T, message.E)
        state = self._state_of_snapshot(message)
        rows: list[NormalisedRow] = []
        if self._sample_ns:
            self._sample(state, ts_local, rows)
        if not state.book.snapshot(message.lastUpdateId, message.bids, message.asks):
            self.filtered["snapshot_too_old"] += 1
        self._book_moved(state, ts_local, ts_exchange, message.lastUpdateId, SNAPSHOT, rows)
        last_id, bids, asks = message.lastUpdateId, message.bids, message.asks
        self._keep_delta(state, ts_local, ts_exchange, None, last_id, bids, asks, rows)
        return rows

    def _keep_delta(
        self,
        state: SymbolState,
        ts_local: int,
        ts_exchange: int | None,
        first_id: int | None,
        last_id: int,
        bids: Sequence[Level],
        asks: Sequence[Level],
        rows: list[NormalisedRow],
    ) -> None:
        """The row of an update, or of a snapshot, which has no first id; only where they are wanted."""
        if not self._book_deltas:
            self.filtered["book_deltas_off"] += 1
            return
        snapshot = first_id is None
        rows.append(
            book_delta_row(
                ts_local, ts_exchange, state.symbol, first_id, last_id, bids, asks, snapshot, state.source
            )
        )

    def _state_of_snapshot(self, message: DepthSnapshot) -> SymbolState:
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
        state: SymbolState,
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
        state.book_flags = STALE if book.lost else 0
        if book.in_sync and not state.ticker_seen:
            self._quote_of_top(state, top, ts_local, ts_exchange, update_id, flags, rows)

    def _quote_of_top(
        self,
        state: SymbolState,
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
        if self._changed(state, best, DEPTH | crossed(best)):
            flags |= QUOTE | state.best_flags | state.book_flags
            if ts_exchange is None:
                flags |= NO_TIME
            rows.append(
                quote_row(ts_local, ts_exchange, state.symbol, best, top, update_id, state.source, flags)
            )

    # -- partial depth: the best 5, 10 or 20 levels, whole, each time -----------------------------------------------

    def _partial_depth(self, message: DepthUpdate, ts_local: int) -> list[NormalisedRow]:
        ts_exchange = known_time_ns(message.T, message.E)
        state = self._state(message.s, self._is_futures(message.pu is not None))
        return self._partial(state, message.b, message.a, message.u, ts_local, ts_exchange)

    def _partial_snapshot(
        self, message: DepthSnapshot, ts_local: int, state: SymbolState
    ) -> list[NormalisedRow]:
        return self._partial(
            state, message.bids, message.asks, message.lastUpdateId, ts_local, time_ns(message.T, message.E)
        )

    def _partial(
        self,
        state: SymbolState,
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
            self._quote_of_top(state, state.top, ts_local, ts_exchange, update_id, SNAPSHOT, rows)
        return rows
