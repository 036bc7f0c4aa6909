"""What is no message of the venue's public streams, and what is one without a table."""

from __future__ import annotations

import json
from typing import Any

import pytest
from binance_samples import T0, Feed, agg_trade, book_ticker, depth, raw, snapshot, trade

from recorder.normalise.base import BadMessage


def reason_of(message: Any, stream: str | None = None, **options: Any) -> str:
    feed = Feed(**options)
    with pytest.raises(BadMessage) as caught:
        feed(message, stream)
    assert str(caught.value)
    assert not feed.normaliser.ignored
    return caught.value.reason


@pytest.mark.parametrize("event", [
    {"e": "kline", "E": T0, "s": "BTCUSDT", "k": {}}, {"e": "24hrTicker", "s": "BTCUSDT"},
    {"e": "markPriceUpdate", "p": "1"}, {"e": "forceOrder", "o": {}}, {"e": "serverShutdown", "E": T0},
])  # fmt: skip
@pytest.mark.parametrize("stream", [None, "btcusdt@something"])
def test_a_known_event_without_a_table_is_counted(event: dict[str, Any], stream: str | None) -> None:
    """By its event type, wrapped or bare."""
    feed = Feed()
    assert not feed(event, stream)
    assert feed.normaliser.ignored == {event["e"]: 1}


def test_arrays_and_replies_are_counted() -> None:
    """All-market streams send arrays; a subscription is answered."""
    feed = Feed()
    feed([{"e": "24hrTicker"}, {"e": "24hrTicker"}], "!ticker@arr")
    feed([{"e": "markPriceUpdate"}])
    feed({"result": None, "id": 1})
    feed({"result": ["btcusdt@trade"], "id": 3})
    assert feed.normaliser.ignored == {"24hrTicker": 1, "markPriceUpdate": 1, "reply": 2}


@pytest.mark.parametrize(("payload", "reason"), [
    (b"", "not_json"), (b"{", "not_json"), (b"nonsense", "not_json"), (b"\xff\xfe\x00", "not_json"),
    (b"1723161255030314667", "bad_field"), (b"null", "bad_field"), (b'"trade"', "bad_field"),
    (b"[" * 1_000_000, "bad_field"), (b'{"a":' * 1_000_000, "not_json"), (b"[1]", "bad_field"),
    (b'{"e":"trade\xff"}', "not_utf8"), (b'{"stream":"btcusdt@trade","data":null}', "bad_field"),
    (b'{"stream":"btcusdt@trade","data":"x"}', "bad_field"), (b'{"e":5}', "bad_field"),
], ids=lambda value: repr(value)[:40])  # fmt: skip
def test_what_is_no_json_object_is_bad(payload: bytes, reason: str) -> None:
    """Never a crash, whatever the bytes."""
    assert reason_of(payload) == reason


def test_ten_megabytes_of_anything_are_bad() -> None:
    """Long input ends like short input."""
    assert reason_of(b"x" * 10_000_000) == "not_json"
    assert reason_of(raw({"e": "y" * 10_000_000})) == "unknown_event"
    assert reason_of(raw(trade(), "z" * 10_000_000)[:-2]) == "not_json"


@pytest.mark.parametrize(("message", "reason"), [
    ({"e": "outboundAccountInfo"}, "unknown_event"), ({}, "unknown_message"), ({"hello": 1}, "unknown_message"),
    ([{"e": "trade"}], "unknown_event"), ({"result": {"x": 1}, "id": 1}, "unknown_message"),
    ({"error": {"code": 2, "msg": "Invalid request"}, "id": 1}, "venue_error"),
    ({"code": -1121, "msg": "Invalid symbol."}, "venue_error"),
])  # fmt: skip
@pytest.mark.parametrize("stream", [None, "btcusdt@trade"])
def test_an_unknown_message_is_bad(message: Any, reason: str, stream: str | None) -> None:
    """It becomes a dead letter with its bytes, and no row."""
    assert reason_of(message, stream) == reason


SAMPLES = {
    "btcusdt@trade": trade(), "btcusdt@aggTrade": agg_trade(), "btcusdt@bookTicker": book_ticker(),
    "btcusdt@depth@100ms": depth(5, 9, 4, [("1", "2")], [("3", "4")]),
}  # fmt: skip
SPOT = {
    "btcusdt@trade": trade(futures=False), "btcusdt@aggTrade": agg_trade(futures=False),
    "btcusdt@bookTicker": book_ticker(futures=False), "btcusdt@depth": depth(5, 9),
}  # fmt: skip
OPTIONAL = {"T", "X", "M", "f", "l", "pu"}


@pytest.mark.parametrize("samples", [SAMPLES, SPOT], ids=["futures", "spot"])
@pytest.mark.parametrize("wrapped", [True, False])
def test_every_needed_field_is_needed(samples: dict[str, Any], wrapped: bool) -> None:
    """A message without one of them is bad, never a row with a zero in its place."""
    for stream, sample in samples.items():
        for field in sample.keys() - OPTIONAL - ({"e", "E"} if "bookTicker" in stream else set()):
            message = {name: value for name, value in sample.items() if name != field}
            assert reason_of(message, stream if wrapped else None) in {"bad_field", "unknown_message"}, field
    for field in ("lastUpdateId", "bids", "asks"):
        message = {name: value for name, value in snapshot(5).items() if name != field}
        assert reason_of(message, symbol="BTCUSDT") in {"bad_field", "unknown_message"}


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_field_of_another_type_is_bad(wrapped: bool) -> None:
    """null, lists, objects, and words where numbers stand."""
    for stream, sample in SAMPLES.items():
        for field in sample.keys() - {"f", "l"}:
            for value in ([], {}, [1]) + (() if field in OPTIONAL | {"e", "E"} else (None,)):
                if field in "ab" and value == [] and "depth" in stream:
                    continue
                assert reason_of({**sample, field: value}, stream if wrapped else None) in {
                    "bad_field", "unknown_event"}, (stream, field, value)  # fmt: skip


@pytest.mark.parametrize(
    "value", ["NaN", "nan", "inf", "-Infinity", "-1", "1e400", "1e13", "", " 1", "0x1", "1_0"]
)
def test_a_price_that_cannot_be_is_bad(value: str) -> None:
    """NaN, infinite, negative, absurd, or no number."""
    assert reason_of(trade(price=value)) == "bad_field"
    assert reason_of(book_ticker(ask=value)) == "bad_field"
    assert reason_of(depth(5, 9, 4, [(value, "1")])) == "bad_field"
    assert reason_of(snapshot(5, [(value, "1")]), symbol="BTCUSDT") == "bad_field"


@pytest.mark.parametrize("value", ["NaN", "-0.5", "inf", "1e19"])
def test_a_size_that_cannot_be_is_bad(value: str) -> None:
    """As for prices."""
    assert reason_of(trade(quantity=value)) == "bad_field"
    assert reason_of(book_ticker(bid_size=value)) == "bad_field"
    assert reason_of(depth(5, 9, 4, [("1", value)])) == "bad_field"


def test_zeros_are_bad_where_they_mean_nothing() -> None:
    """A trade for nothing, half an empty side, a level at price 0."""
    assert reason_of(trade(price="0")) == "bad_field"
    assert reason_of(trade(quantity="0")) == "bad_field"
    assert reason_of(trade(price="0", quantity="0")) == "bad_field"
    assert reason_of(trade(price="0", X="NA")) == "bad_field"
    assert reason_of(book_ticker(bid="0")) == "bad_field"
    assert reason_of(book_ticker(ask_size="0")) == "bad_field"
    assert reason_of(depth(5, 9, 4, [("0", "1")])) == "bad_field"


@pytest.mark.parametrize("time", [0, -1, 1_723_161_255, 10**14, 10**18, 10**30])
def test_a_time_that_cannot_be_is_bad(time: int) -> None:
    """Seconds, nanoseconds, the year 5138: no time of this venue."""
    assert reason_of(trade(T=time)) == "bad_field"
    assert reason_of({**book_ticker(), "T": time}) == "bad_field"


@pytest.mark.parametrize("id_", [-1, 2**63, 1.5, "x"])
def test_an_id_that_cannot_be_is_bad(id_: Any) -> None:
    """Negative, beyond 63 bits, or no whole number."""
    assert reason_of(trade(t=id_)) == "bad_field"
    assert reason_of({**depth(5, 9, 4), "u": id_}) == "bad_field"


def test_update_ids_out_of_order_or_missing_are_bad() -> None:
    """A change that ends before it begins; one of futures that does not say what it follows."""
    assert reason_of(depth(9, 5, 4)) == "bad_field"
    assert reason_of(depth(5, 9), market="usdm") == "bad_field"


def test_a_level_of_other_length_is_bad() -> None:
    """A level is a price and a size."""
    assert reason_of(depth(5, 9, 4, [("1",)])) == "bad_field"
    assert reason_of(depth(5, 9, 4, [("1", "2", "3")])) == "bad_field"


def test_a_snapshot_needs_a_symbol() -> None:
    """From the option, else from the one symbol seen so far; else the error names the option."""
    with pytest.raises(BadMessage, match="symbol") as caught:
        Feed()(snapshot(5))
    assert caught.value.reason == "symbol_unknown"
    assert Feed(symbol="BTCUSDT")(snapshot(5))
    feed = Feed()
    feed(book_ticker(symbol="AAAUSDT"))
    feed(snapshot(5))
    feed(book_ticker(symbol="BBBUSDT"))
    with pytest.raises(BadMessage, match="2 were seen"):
        feed(snapshot(5))


def test_a_bad_message_leaves_no_trace() -> None:
    """The messages around it make the rows they make without it."""
    good = [
        depth(1, 2, 0),
        snapshot(3, T=T0),
        book_ticker(1),
        trade(7),
        depth(3, 4, 2, [("100", "9")]),
        trade(8),
    ]
    bad = [trade(t=-1), trade(99, price="0"), {**depth(40, 50, 39), "b": [["x", "1"]]}, {**book_ticker(9), "T": 10**14},
           {**snapshot(90), "bids": None}, depth(90, 80, 70), {"e": "nothing"}]  # fmt: skip
    clean, dirty = Feed(), Feed()
    for message in good:
        for other in bad:
            with pytest.raises(BadMessage):
                dirty.normaliser.normalise(_message(other, dirty.ts_local))
        assert dirty(message) == clean(message)


def _message(value: Any, ts_local: int) -> Any:
    from recorder.normalise.base import Message

    return Message(json.dumps(value).encode(), ts_local)
