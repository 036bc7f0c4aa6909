"""Messages as the venue's documents show them, with plausible values; tests change what they are about."""

from __future__ import annotations

import json
from typing import Any

from recorder.normalise.base import Message, NormalisedRow
from recorder.normalise.binance import BinanceNormaliser
from recorder.normalise.binance.rows import BOOK_DELTA_FIELDS, MARKET_DATA_FIELDS

T0 = 1_723_161_255_000


def book_ticker(
    u: int = 1,
    bid: str = "100.0",
    bid_size: str = "1",
    ask: str = "100.1",
    ask_size: str = "2",
    futures: bool = True,
    symbol: str = "BTCUSDT",
) -> dict[str, Any]:
    message: dict[str, Any] = {"u": u, "s": symbol, "b": bid, "B": bid_size, "a": ask, "A": ask_size}
    return {"e": "bookTicker", **message, "T": T0, "E": T0 + 1} if futures else message


def trade(
    t: int = 7, price: str = "100.1", quantity: str = "0.5", futures: bool = True, **more: Any
) -> dict[str, Any]:
    own = {"X": "MARKET"} if futures else {"M": True}
    return {
        "e": "trade",
        "E": T0 + 1,
        "T": T0,
        "s": "BTCUSDT",
        "t": t,
        "p": price,
        "q": quantity,
        "m": False,
        **own,
        **more,
    }


def agg_trade(a: int = 9, futures: bool = True) -> dict[str, Any]:
    own = {} if futures else {"M": True}
    return {
        "e": "aggTrade",
        "E": T0 + 1,
        "s": "BTCUSDT",
        "a": a,
        "p": "100.1",
        "q": "3",
        "f": 1,
        "l": 4,
        "T": T0,
        "m": True,
        **own,
    }


def depth(
    first: int, last: int, before: int | None = None, bids: Any = (), asks: Any = (), symbol: str = "BTCUSDT"
) -> dict[str, Any]:
    futures = {} if before is None else {"T": T0, "pu": before}
    return {
        "e": "depthUpdate",
        "E": T0 + 1,
        "s": symbol,
        "U": first,
        "u": last,
        "b": list(bids),
        "a": list(asks),
        **futures,
    }


def snapshot(
    last: int, bids: Any = (("100", "1"), ("99", "2")), asks: Any = (("101", "3"), ("102", "4")), **more: Any
) -> dict[str, Any]:
    return {"lastUpdateId": last, "bids": list(bids), "asks": list(asks), **more}


def raw(message: Any, stream: str | None = None) -> bytes:
    value = message if stream is None else {"stream": stream, "data": message}
    return json.dumps(value, separators=(",", ":")).encode()


class Feed:
    """A normaliser and what is given to it; rows come back as mappings, by slot."""

    def __init__(self, **options: Any):
        self.normaliser = BinanceNormaliser(**options)
        self.ts_local = T0 * 1_000_000

    def __call__(
        self, message: Any, stream: str | None = None, *, later_ns: int = 1_000_000, topic: str = ""
    ) -> dict[int, dict[str, Any]]:
        self.ts_local += later_ns
        payload = message if isinstance(message, bytes) else raw(message, stream)
        rows = self.normaliser.normalise(Message(payload, self.ts_local, topic))
        assert len({row.slot for row in rows}) == len(rows), "two rows of one message share a slot"
        return {int(row.slot): as_mapping(row) for row in rows}


def as_mapping(row: NormalisedRow) -> dict[str, Any]:
    if row.table == "system_events":
        return {name: getattr(row.row, name) for name in row.row.__struct_fields__}  # type: ignore[union-attr]
    fields = MARKET_DATA_FIELDS if row.table == "market_data" else BOOK_DELTA_FIELDS
    assert isinstance(row.row, tuple)
    return dict(zip(fields, row.row, strict=True))
