"""Private messages as the venue's documents show them, with plausible values; tests change what they are about."""

from __future__ import annotations

import json
from typing import Any

from recorder.normalise.base import Message, NormalisedRow
from recorder.normalise.binance import BinanceNormaliser

T0 = 1_723_161_255_000
NS = T0 * 1_000_000
"""When messages arrive, unless a test says otherwise."""


def execution_report(**changes: Any) -> dict[str, Any]:
    """Spot: a resting limit order was accepted."""
    return {
        "e": "executionReport", "E": T0 + 1, "s": "ETHBTC", "c": "web_a1", "S": "BUY", "o": "LIMIT", "f": "GTC",
        "q": "1.00000000", "p": "0.10264410", "P": "0.00000000", "F": "0.00000000", "g": -1, "C": "", "x": "NEW",
        "X": "NEW", "r": "NONE", "i": 4293153, "l": "0.00000000", "z": "0.00000000", "L": "0.00000000", "n": "0",
        "N": None, "T": T0, "t": -1, "I": 8641984, "w": True, "m": False, "M": False, "O": T0,
        "Z": "0.00000000", "Y": "0.00000000", "Q": "0.00000000", "W": T0, "V": "NONE",
    } | changes  # fmt: skip


def spot_trade(trade_id: int = 77, **changes: Any) -> dict[str, Any]:
    """Spot: a quarter of it was executed, as maker, the fee in another currency."""
    return execution_report(
        x="TRADE", X="PARTIALLY_FILLED", l="0.25000000", z="0.25000000", L="0.10264410", n="0.00018750", N="BNB",
        t=trade_id, m=True, Z="0.02566103", Y="0.02566103",
    ) | changes  # fmt: skip


def order_update(message: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """Futures: a market order was accepted. `message` changes the message, keywords its order."""
    return {
        "e": "ORDER_TRADE_UPDATE", "E": T0 + 1, "T": T0,
        "o": {
            "s": "BTCUSDT", "c": "mm-000017", "S": "SELL", "o": "MARKET", "f": "GTC", "q": "0.040", "p": "0",
            "ap": "0", "sp": "0", "x": "NEW", "X": "NEW", "i": 8389765591, "l": "0", "z": "0", "L": "0", "n": "0",
            "N": "USDT", "T": T0, "t": 0, "b": "0", "a": "0", "m": False, "R": False, "wt": "CONTRACT_PRICE",
            "ot": "MARKET", "ps": "BOTH", "cp": False, "rp": "0", "pP": False, "si": 0, "ss": 0, "V": "EXPIRE_TAKER",
            "pm": "NONE", "gtd": 0, "er": "0",
        } | changes,
    } | (message or {})  # fmt: skip


def futures_trade(
    trade_id: int = 109_100_866, message: dict[str, Any] | None = None, **changes: Any
) -> dict[str, Any]:
    """Futures: all of it was executed, as taker."""
    done = {
        "x": "TRADE", "X": "FILLED", "l": "0.040", "z": "0.040", "L": "64089.20", "ap": "64089.20", "n": "1.28178400",
        "t": trade_id, "rp": "-3.10000000",
    }  # fmt: skip
    return order_update(message, **(done | changes))


def trade_lite(trade_id: int = 109_100_866, **changes: Any) -> dict[str, Any]:
    """The same fill, sooner and shorter."""
    return {
        "e": "TRADE_LITE", "E": T0, "T": T0, "s": "BTCUSDT", "q": "0.040", "p": "0", "m": False, "c": "mm-000017",
        "S": "SELL", "L": "64089.20", "l": "0.040", "t": trade_id, "i": 8389765591,
    } | changes  # fmt: skip


def algo_update(**changes: Any) -> dict[str, Any]:
    """USD-M: a conditional order was accepted."""
    return {
        "e": "ALGO_UPDATE", "T": T0, "E": T0 + 6,
        "o": {
            "caid": "algo-7", "aid": 2148719, "at": "CONDITIONAL", "o": "TAKE_PROFIT", "s": "BNBUSDT", "S": "SELL",
            "ps": "BOTH", "f": "GTC", "q": "0.01", "X": "NEW", "ai": "", "ap": "0.00000", "aq": "0.00000",
            "act": "0", "tp": "750", "p": "749.5", "V": "EXPIRE_MAKER", "wt": "CONTRACT_PRICE", "pm": "NONE",
            "cp": False, "pP": False, "R": False, "tt": 0, "gtd": 0,
        } | changes,
    }  # fmt: skip


def account_update(
    positions: list[dict[str, Any]] | None = None, balances: list[dict[str, Any]] | None = None,
    reason: str = "ORDER", **changes: Any,
) -> dict[str, Any]:  # fmt: skip
    """Futures: what an execution changed."""
    return {
        "e": "ACCOUNT_UPDATE", "E": T0 + 2, "T": T0,
        "a": {
            "m": reason,
            "B": [balance()] if balances is None else balances,
            "P": [position()] if positions is None else positions,
        },
    } | changes  # fmt: skip


def balance(asset: str = "USDT", amount: str = "122624.12345678", change: str = "0") -> dict[str, Any]:
    return {"a": asset, "wb": amount, "cw": "100.12345678", "bc": change}


def position(
    symbol: str = "BTCUSDT", amount: str = "-0.040", side: str = "BOTH", **changes: Any
) -> dict[str, Any]:
    return {
        "s": symbol, "pa": amount, "ep": "64089.20000", "bep": "64056.9", "cr": "200.50000000", "up": "-1.25000000",
        "mt": "cross", "iw": "0.00000000", "ps": side, "ma": "USDT",
    } | changes  # fmt: skip


def account_position(*assets: tuple[str, str, str], **changes: Any) -> dict[str, Any]:
    """Spot: balances as asset, free, locked."""
    held = assets or (("ETH", "10000.000000", "0.250000"),)
    return {
        "e": "outboundAccountPosition", "E": T0 + 2, "u": T0,
        "B": [{"a": asset, "f": free, "l": locked} for asset, free, locked in held],
    } | changes  # fmt: skip


BALANCE_UPDATE = {"e": "balanceUpdate", "E": T0 + 2, "a": "BTC", "d": "-100.00000000", "T": T0}
MARGIN_CALL = {
    "e": "MARGIN_CALL", "E": T0, "cw": "3.16812045",
    "p": [{"s": "ETHUSDT", "ps": "LONG", "pa": "1.327", "mt": "CROSSED", "iw": "0", "mp": "187.17127",
           "up": "-1.166074", "mm": "1.614445"}],
}  # fmt: skip
TRIGGER_REJECT = {
    "e": "CONDITIONAL_ORDER_TRIGGER_REJECT", "E": T0, "T": T0,
    "or": {"s": "ETHUSDT", "i": 155618472834, "r": "Due to the order could not be filled immediately"},
}  # fmt: skip
LIST_STATUS = {
    "e": "listStatus", "E": T0, "s": "ETHBTC", "g": 2, "c": "OCO", "l": "EXEC_STARTED", "L": "EXECUTING", "r": "NONE",
    "C": "F4QN4G8DlFATFlIUQ0cjdD", "T": T0,
    "O": [{"s": "ETHBTC", "i": 17, "c": "leg-1"}, {"s": "ETHBTC", "i": 18, "c": "leg-2"}],
}  # fmt: skip
LISTEN_KEY = "WsCMN0a4KHUPTQuX6IUnqEZfB1inxmv1qR4kbf1LuEjur5VdbzqvyxqG9TSjVVxv"
EXPIRED_KEY = {"e": "listenKeyExpired", "E": T0, "listenKey": LISTEN_KEY}
TERMINATED = {"subscriptionId": 0, "event": {"e": "eventStreamTerminated", "E": T0}}
LEVERAGE = {"e": "ACCOUNT_CONFIG_UPDATE", "E": T0, "T": T0, "ac": {"s": "BTCUSDT", "l": 25}}

ALL: dict[str, dict[str, Any]] = {
    "new spot order": execution_report(),
    "spot fill": spot_trade(),
    "new futures order": order_update(),
    "trade lite": trade_lite(),
    "futures fill": futures_trade(),
    "conditional order": algo_update(),
    "account": account_update(),
    "spot account": account_position(),
    "transfer": BALANCE_UPDATE,
    "margin call": MARGIN_CALL,
    "refused trigger": TRIGGER_REJECT,
    "refused list": LIST_STATUS | {"l": "RESPONSE", "L": "REJECT", "r": "OCO_BAD_PRICES"},
    "end": EXPIRED_KEY,
    "leverage": LEVERAGE,
}
"""One of each kind that makes rows."""


def raw(message: Any) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode()


class PrivateFeed:
    """A normaliser and what is given to it."""

    def __init__(self, **options: Any):
        self.normaliser = BinanceNormaliser(**options)
        self.at = NS
        self.topic = ""

    def __call__(self, message: Any) -> list[NormalisedRow]:
        self.at += 1_000
        payload = message if isinstance(message, bytes) else raw(message)
        rows = list(self.normaliser.normalise(Message(payload, self.at, self.topic)))
        assert len({row[:2] for row in rows}) == len(rows), "two rows of one table share a slot"
        return rows

    def one(self, message: Any, table: str) -> Any:
        """The one row of a table."""
        [row] = self.all(message, table)
        return row

    def all(self, message: Any, table: str) -> list[Any]:
        """The rows of a table."""
        return [row.row for row in self(message) if row.table == table]
