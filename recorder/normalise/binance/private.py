"""The private streams: which message is which, who makes its rows, and which venues a stream tells of.

The end of a stream ends what is known of its venues and of no others. `eventStreamTerminated` is spot's; a
`listenKeyExpired` does not say whose key it was, so the venues are those that its stream told of before (by the name of
the stream around it, or the topic), else the one of the option `market`, else all: rather no snapshot than a stale one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

from msgspec import Struct
from msgspec.json import Decoder

from recorder.normalise.base import BadMessage, NormalisedRow
from recorder.normalise.binance import private_messages as messages
from recorder.normalise.binance.private_account import PrivateAccount
from recorder.normalise.binance.private_orders import PrivateOrders
from recorder.normalise.binance.state import COINM_SYMBOL, Market
from schemas.core.trading import AccountState, Fill, Order, PositionIntraday

STREAMS_MAX = 256
"""Streams whose venues are remembered; one more takes the place of the one heard first."""
STREAM_NAME_MAX = 255
"""Characters of a stream's name that tell it from others."""

TYPES: dict[str, type[Struct]] = {
    "executionReport": messages.ExecutionReport,
    "listStatus": messages.ListStatus,
    "outboundAccountPosition": messages.AccountPosition,
    "balanceUpdate": messages.BalanceUpdate,
    "ORDER_TRADE_UPDATE": messages.OrderTradeUpdate,
    "TRADE_LITE": messages.TradeLite,
    "ALGO_UPDATE": messages.AlgoUpdate,
    "CONDITIONAL_ORDER_TRIGGER_REJECT": messages.TriggerReject,
    "ACCOUNT_UPDATE": messages.AccountUpdate,
    "ACCOUNT_CONFIG_UPDATE": messages.ConfigUpdate,
    "MARGIN_CALL": messages.MarginCall,
    "listenKeyExpired": messages.StreamEnd,
    "eventStreamTerminated": messages.StreamEnd,
}
"""The private events that make rows."""

WITHOUT_TABLE = frozenset({
    "STRATEGY_UPDATE", "GRID_UPDATE", "externalLockUpdate", "CONDITIONAL_ORDER_TRADE_UPDATE",
    "USER_LIABILITY_CHANGE", "MARGIN_LEVEL_STATUS_CHANGE", "liabilityChange", "openOrderLoss", "riskLevelChange",
})  # fmt: skip
"""Private events that no table takes."""

_OPTION_SYMBOL = re.compile(r"-[CP]$")
_DECODERS: dict[str, Callable[[bytes], Any]] = {
    # The documents of listenKeyExpired show its time as a string.
    name: Decoder(kind, strict=kind is not messages.StreamEnd).decode
    for name, kind in TYPES.items()
}
_OF_A_VENUE = (Order, Fill, PositionIntraday, AccountState)


class PrivateEvent(Struct, gc=False):
    """A private event that was read; `body` are its own bytes, without a wrapper's."""

    name: str
    message: Any
    body: bytes


def read_private(name: str, body: bytes) -> PrivateEvent:
    """A private event of a known name.

    Raises:
        msgspec.MsgspecError: it misses a field, or one has a wrong value.
    """
    return PrivateEvent(name, _DECODERS[name](body), body)


class PrivateStreams:
    """What private events become. Counts go to `filtered` and `ignored`."""

    def __init__(
        self,
        market: Market | None,
        *,
        account_id: str,
        venue: str | None,
        filtered: Counter[str],
        ignored: Counter[str],
    ):
        self._market = market
        self._venue = venue
        spot = self._spot = venue or "binance.spot"
        self._told: dict[str, set[str]] = {}
        """By stream, the venues it told of."""
        orders = PrivateOrders(account_id, spot, self._venue_of, filtered, ignored)
        account = self._account = PrivateAccount(account_id, spot, self._venue_of, filtered)
        self._makers: dict[str, Callable[[Any, int, bytes], list[NormalisedRow]]] = {
            "executionReport": orders.execution_report,
            "listStatus": orders.list_status,
            "ORDER_TRADE_UPDATE": orders.order_trade_update,
            "TRADE_LITE": orders.trade_lite,
            "ALGO_UPDATE": orders.algo_update,
            "CONDITIONAL_ORDER_TRIGGER_REJECT": orders.trigger_reject,
            "outboundAccountPosition": account.account_position,
            "balanceUpdate": account.balance_update,
            "ACCOUNT_UPDATE": account.account_update,
            "ACCOUNT_CONFIG_UPDATE": account.config_update,
            "MARGIN_CALL": account.margin_call,
        }

    def rows(self, event: PrivateEvent, ts_local: int, stream: str) -> list[NormalisedRow]:
        """The rows of one event, which came by a stream of that name.

        Raises:
            BadMessage: its values contradict each other; no state has changed.
        """
        stream = stream[:STREAM_NAME_MAX]
        if isinstance(event.message, messages.StreamEnd):
            return self._account.stream_end(event.message, ts_local, self._ended(event.name, stream))
        rows = self._makers[event.name](event.message, ts_local, event.body)
        self._heard(stream, rows)
        return rows

    def snapshots(self, now_ns: int) -> list[NormalisedRow]:
        """Positions and wallets as last heard."""
        return self._account.snapshots(now_ns)

    def _heard(self, stream: str, rows: list[NormalisedRow]) -> None:
        for row in rows:
            if isinstance(row.row, _OF_A_VENUE) and row.row.venue:
                if stream not in self._told and len(self._told) >= STREAMS_MAX:
                    del self._told[next(iter(self._told))]
                self._told.setdefault(stream, set()).add(row.row.venue)

    def _ended(self, name: str, stream: str) -> frozenset[str] | None:
        """The venues that a stream's end is about; None for all."""
        if name == "eventStreamTerminated":
            return frozenset({self._spot})
        if told := self._told.get(stream):
            return frozenset(told)
        if self._market is not None:
            return frozenset({self._venue or f"binance.{self._market}"})
        return None

    def _venue_of(self, symbol: str, unit: str | None) -> str:
        """The venue of a futures event: by option, by the unit it names, by its symbol.

        Raises:
            BadMessage: it is about an option, whose fees have the other sign.
        """
        if _OPTION_SYMBOL.search(symbol):
            raise BadMessage("unknown_market", f"{symbol} is an option; options are not read")
        if self._venue is not None:
            return self._venue
        if self._market in ("usdm", "coinm"):
            return f"binance.{self._market}"
        coinm = unit == "CM" if unit is not None else COINM_SYMBOL.search(symbol) is not None
        return "binance.coinm" if coinm else "binance.usdm"
