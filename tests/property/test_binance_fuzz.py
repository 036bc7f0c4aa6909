"""Whatever bytes come, a normaliser makes rows or raises BadMessage."""

from __future__ import annotations

import contextlib
import json
import math
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from recorder.normalise.base import BadMessage, Message
from recorder.normalise.binance import BinanceNormaliser
from recorder.normalise.internal import InternalNormaliser

T0 = 1_723_161_255_000
REAL: list[Any] = [
    {"stream": "btcusdt@trade", "data": {"e": "trade", "E": T0, "T": T0, "s": "BTCUSDT", "t": 5266583935,
                                         "p": "61800.30", "q": "0.006", "X": "MARKET", "m": False}},
    {"stream": "btcusdt@bookTicker", "data": {"u": 50093239212, "s": "BTCUSDT", "b": "61837.63000000",
                                              "B": "3.78826000", "a": "61837.64000000", "A": "1.54698000"}},
    {"stream": "btcusdt@depth@0ms", "data": {"e": "depthUpdate", "E": T0, "T": T0, "s": "BTCUSDT", "U": 11, "u": 15,
                                             "pu": 9, "b": [["58710.20", "0.014"]], "a": [["61510.90", "0.000"]]}},
    {"e": "depthUpdate", "E": T0, "s": "BTCUSDT", "U": 11, "u": 15, "b": [["58710.20", "0.014"]], "a": []},
    {"e": "aggTrade", "E": T0, "a": 16599292, "s": "CTKUSDT", "p": "1.011", "q": "10", "T": T0, "m": False},
    {"lastUpdateId": 12, "E": T0, "T": T0, "bids": [["61800.20", "2.909"]], "asks": [["61800.30", "1"]]},
    {"result": None, "id": 1},
    {"stream": "x@kline_1m", "data": {"e": "kline"}},
]  # fmt: skip
ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.just([]), st.just({}),
    st.sampled_from(["NaN", "-1", "0", "1e999", "1", -1, 0, 2**64, T0]),
)  # fmt: skip


def feed(payloads: list[bytes]) -> None:
    normaliser = BinanceNormaliser(book_deltas=True, sample_ms=10, symbol="BTCUSDT")
    for position, payload in enumerate(payloads):
        with contextlib.suppress(BadMessage):
            rows = normaliser.normalise(Message(payload, (T0 + position * 7) * 1_000_000, "file", position))
            for row in rows:
                if isinstance(row.row, tuple):
                    for value in row.row:
                        values = value if isinstance(value, tuple) else (value,)
                        assert all(math.isfinite(x) and x >= 0 for x in values if isinstance(x, float))
        with contextlib.suppress(BadMessage):
            InternalNormaliser().normalise(Message(payload, 1, "t"))


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_any_bytes(payloads: list[bytes]) -> None:
    """Only BadMessage ever comes out."""
    feed(payloads)


@given(st.lists(st.tuples(st.sampled_from(REAL), st.integers(0, 200), st.binary(max_size=3), st.integers(0, 3)),
                max_size=8))  # fmt: skip
@settings(max_examples=400)
def test_real_messages_with_bytes_changed(mutations: list[tuple[Any, int, bytes, int]]) -> None:
    """Cut, overwritten, or with bytes put in."""
    payloads = []
    for message, at, new, removed in mutations:
        payload = json.dumps(message, separators=(",", ":")).encode()
        payloads.append(payload[:at] + new + payload[at + removed :])
    feed(payloads)


@given(st.lists(st.tuples(st.sampled_from(REAL), st.integers(0, 12), ODD), max_size=8))
@settings(max_examples=400)
def test_real_messages_with_values_changed(mutations: list[tuple[Any, int, Any]]) -> None:
    """Any field may hold anything; what becomes a row is finite and not negative."""
    payloads = []
    for message, field, value in mutations:
        changed = json.loads(json.dumps(message))
        inner = changed.get("data", changed)
        names = sorted(inner)
        inner[names[field % len(names)]] = value
        payloads.append(json.dumps(changed, separators=(",", ":")).encode())
    feed(payloads)
