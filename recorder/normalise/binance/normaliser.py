"""Binance messages to rows: which rows a message makes, by the recording policy and the state of its symbol.

Each symbol has its own state: the last best bid and ask, whether its bookTicker is seen (which then alone makes quote
rows), its depth book, its trade ids. State runs on from message to message, and from file to file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from recorder.normalise.base import Message, NormalisedRow
from recorder.normalise.binance.classify import (
    PARTIAL_DEPTHS,
    Ignored,
    is_partial_by_shape,
    read,
    read_by_stream_name,
)
from recorder.normalise.binance.depth import Depth
from recorder.normalise.binance.messages import (
    AggTrade,
    BookTicker,
    DepthSnapshot,
    DepthUpdate,
    PublicMessage,
    Trade,
)
from recorder.normalise.binance.private import PrivateEvent, PrivateStreams
from recorder.normalise.binance.quotes import QuotesAndTrades
from recorder.normalise.binance.rows import KINDS, MS, check_field_order
from recorder.normalise.binance.state import Market

SAMPLE_MS = (10, 50)
DEPTH_LEVELS_MAX = 20
SNAPSHOT_INTERVAL_S = (1.0, 5.0)


class BinanceNormaliser(QuotesAndTrades, Depth):
    """Rows of Binance's public streams (bookTicker, trade, aggTrade, depth, REST depth snapshots) and private ones.

    `market` None derives the market from each message. `symbol` names the symbol of REST snapshots, which do not say
    it; without it the one symbol seen so far. `quotes` chooses when a quote row is written: when a best price or size
    changes, or a price only. `book_deltas` writes every depth message too. `sample_ms` (10 to 50) adds a row of the
    last known state at each multiple of it at which messages come. `depth_levels` is the length of the arrays.

    Of private streams `account_id` names the account, which messages do not say, and `venue` the venue; without it
    `binance.spot`, `binance.usdm` or `binance.coinm`. Every `snapshot_interval_s` (1 to 5 s) whoever runs the
    normaliser is to record `snapshots`.

    Raises:
        ValueError: an option is out of its range.
        TypeError: the row classes have other fields than this module writes.
    """

    kinds: ClassVar[Mapping[int, str]] = KINDS
    """What the rows of each slot are called."""

    def __init__(
        self,
        *,
        market: Market | None = None,
        symbol: str | None = None,
        quotes: Literal["price_or_size", "price"] = "price_or_size",
        book_deltas: bool = False,
        sample_ms: int | None = None,
        depth_levels: int = 5,
        account_id: str = "",
        venue: str | None = None,
        snapshot_interval_s: float = 5.0,
    ):
        if market not in (None, "spot", "usdm", "coinm"):
            raise ValueError(f"market is {market!r}; it is spot, usdm, coinm, or left out")
        if quotes not in ("price_or_size", "price"):
            raise ValueError(f"quotes is {quotes!r}; it is price_or_size or price")
        if sample_ms is not None and not SAMPLE_MS[0] <= sample_ms <= SAMPLE_MS[1]:
            raise ValueError(f"sample_ms is {sample_ms}; it is {SAMPLE_MS[0]} to {SAMPLE_MS[1]}, or left out")
        if not 1 <= depth_levels <= DEPTH_LEVELS_MAX:
            raise ValueError(f"depth_levels is {depth_levels}; it is 1 to {DEPTH_LEVELS_MAX}")
        shortest, longest = SNAPSHOT_INTERVAL_S
        if not shortest <= snapshot_interval_s <= longest:
            raise ValueError(
                f"snapshot_interval_s is {snapshot_interval_s}; it is {shortest:g} to {longest:g}"
            )
        check_field_order()
        super().__init__(
            market,
            symbol=symbol,
            book_deltas=book_deltas,
            price_only=quotes == "price",
            sample_ns=sample_ms * MS if sample_ms else 0,
            depth_levels=depth_levels,
        )
        self.snapshot_interval_s = snapshot_interval_s
        self._private = PrivateStreams(
            market, account_id=account_id, venue=venue, filtered=self.filtered, ignored=self.ignored
        )

    def normalise(self, message: Message) -> Sequence[NormalisedRow]:
        """The rows of one message: at most one of each slot.

        Raises:
            BadMessage: it is not of a kind this venue's streams send, or its values cannot be; `reason` is
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
        if isinstance(read_message, PrivateEvent):
            return self._private.rows(read_message, message.ts_local, stream or message.topic)
        return self._other(read_message, message.ts_local, stream)

    def snapshots(self, now_ns: int) -> Sequence[NormalisedRow]:
        """Every position that is not flat and every wallet that is not empty, as last heard, at `now_ns`.

        For a timer, on the thread that normalises. The rows are the recorder's own: `recorder.record(row.table,
        row.row)`; their slots mean nothing.
        """
        return self._private.snapshots(now_ns)

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
