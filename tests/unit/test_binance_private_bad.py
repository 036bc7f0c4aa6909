"""What is no private message: refused with a reason, never a row of zeros."""

from __future__ import annotations

import json
from typing import Any

import pytest
from harness.binance_private import (
    ALL,
    T0,
    PrivateFeed,
    account_position,
    account_update,
    balance,
    execution_report,
    futures_trade,
    order_update,
    position,
    raw,
    spot_trade,
    trade_lite,
)

from recorder.normalise.base import BadMessage

NEEDED = {
    "executionReport": "EscSofqpxXilzLTtm",
    "ORDER_TRADE_UPDATE": "E",
    "TRADE_LITE": "EscSlLtim",
    "ALGO_UPDATE": "E",
    "ACCOUNT_UPDATE": "E",
    "outboundAccountPosition": "EB",
    "balanceUpdate": "Ead",
    "MARGIN_CALL": "Ep",
    "listStatus": "EsgclLO",
}
INNER = {"ORDER_TRADE_UPDATE": ("o", "scSofqpxXilzLTtm"), "ALGO_UPDATE": ("o", ["caid", "aid", *"sSofXq"])}
ODD: tuple[Any, ...] = (None, [], {}, 1.5, True, [1])


def reason_of(message: Any) -> str:
    feed = PrivateFeed()
    with pytest.raises(BadMessage) as caught:
        feed(message)
    assert str(caught.value)
    assert not feed.normaliser.ignored
    assert not feed.normaliser.filtered
    assert feed.normaliser.snapshots(1) == []
    return caught.value.reason


@pytest.mark.parametrize("kind", ALL)
def test_every_needed_field_is_needed(kind: str) -> None:
    """A message without one of them is bad."""
    message = ALL[kind]
    for field in NEEDED.get(message["e"], "E"):
        assert reason_of({name: value for name, value in message.items() if name != field}) == "bad_field", (
            field
        )
    place, fields = INNER.get(message["e"], ("", ()))
    for field in fields:
        inner = {name: value for name, value in message[place].items() if name != field}
        assert reason_of(message | {place: inner}) == "bad_field", field


@pytest.mark.parametrize("kind", ALL)
def test_a_needed_field_of_another_type_is_bad(kind: str) -> None:
    """null, lists, objects, fractions; numbers where the venue writes strings."""
    message = ALL[kind]
    for field in NEEDED.get(message["e"], "E"):
        for value in ODD:
            empty_list = value == [] and field in ("p", "B") and isinstance(message[field], list)
            if not empty_list and not (isinstance(value, bool) and isinstance(message[field], bool)):
                assert reason_of(message | {field: value}) == "bad_field", (field, value)


@pytest.mark.parametrize("value", [
    "NaN", "nan", "Infinity", "-inf", "-1", "-0.00000001", "", " 1", "1 ", "1\n", "0x1", "1_0", "1e5", "1,5", ".5",
    "5.", "+1", "\u0661", "1" * 21, "0." + "1" * 19, 1, 0.25, None,
])  # fmt: skip
def test_an_amount_that_cannot_be_is_bad(value: Any) -> None:
    """No number, not finite, negative, more digits than the tables hold, or a number that a float may have been."""
    for field in "qlL":
        assert reason_of(spot_trade(**{field: value})) == "bad_field", field
        assert reason_of(futures_trade(**{field: value})) == "bad_field", field
    for field in "lL":
        assert reason_of(trade_lite(**{field: value})) == "bad_field", field
    assert reason_of(account_position(("BTC", value, "0"))) == "bad_field"


@pytest.mark.parametrize("value", ["NaN", "--1", "-", "", "1e5", "1" * 21, "-0." + "1" * 19, 1, None])
def test_a_signed_amount_that_cannot_be_is_bad(value: Any) -> None:
    """The same for what may be below zero."""
    assert reason_of(account_update([position(amount=value)])) == "bad_field"
    assert reason_of(account_update([position(ep=value)])) == "bad_field"
    assert reason_of(account_update(None, [balance(amount=value)])) == "bad_field"
    if value is not None:
        assert reason_of(spot_trade(n=value)) == "bad_field"


def test_a_fill_of_nothing_or_for_nothing_is_bad() -> None:
    """A zero is no quantity and no price."""
    for zero in ("0", "0.000", "00"):
        for field in "lL":
            assert reason_of(spot_trade(**{field: zero})) == "bad_field"
            assert reason_of(futures_trade(**{field: zero})) == "bad_field"
            assert reason_of(trade_lite(**{field: zero})) == "bad_field"


@pytest.mark.parametrize("value", ["", "HOLD", "buy", "Buy", 1])
def test_a_side_that_is_none_is_bad(value: Any) -> None:
    """Never a guess."""
    assert reason_of(execution_report(S=value)) == "bad_field"
    assert reason_of(order_update(S=value)) == "bad_field"
    assert reason_of(trade_lite(S=value)) == "bad_field"


def test_a_status_nobody_knows_is_bad() -> None:
    """A new word of the venue's becomes a dead letter, not a wrong status."""
    assert reason_of(execution_report(X="SUSPENDED")) == "bad_field"
    assert reason_of(order_update(X="SUSPENDED")) == "bad_field"
    assert (
        reason_of(ALL["conditional order"] | {"o": ALL["conditional order"]["o"] | {"X": "WAITING"}})
        == "bad_field"
    )


@pytest.mark.parametrize("time", [0, -1, T0 // 1_000, T0 * 1_000_000, "1723161255000", 1e30])
def test_a_time_that_cannot_be_is_bad(time: Any) -> None:
    """Seconds, nanoseconds, strings."""
    assert reason_of(execution_report(T=time)) == "bad_field"
    assert reason_of(futures_trade(T=time)) == "bad_field"
    assert reason_of(account_update(T=time)) == "bad_field"


def test_microseconds_are_told_apart() -> None:
    """A connection may ask for them."""
    assert (
        PrivateFeed().one(spot_trade(T=T0 * 1_000 + 7, E=T0 * 1_000 + 9), "fills").ts_exchange
        == T0 * 1_000_000 + 7_000
    )


@pytest.mark.parametrize("body", [
    b'{"event":null}', b'{"event":5,"subscriptionId":0}', b'{"event":[],"subscriptionId":0}',
    b'{"event":{"e":"nothing"}}', b'{"event":{}}', b'{"e":"executionReport"}',
    b'{"stream":"k","data":{"e":"TRADE_LITE"}}',
])  # fmt: skip
def test_wrappers_of_nothing_are_bad(body: bytes) -> None:
    """Whatever they hold."""
    assert reason_of(body) in {"bad_field", "unknown_event", "unknown_message"}


def test_options_are_not_read() -> None:
    """Their messages have the futures' names and fees of the other sign: rather a dead letter than a wrong fee."""
    option = "BTC-251123-126000-C"
    for message in (futures_trade(s=option), trade_lite(s=option), account_update([position(option)])):
        assert reason_of(message) == "unknown_market"


def test_long_words_and_names_are_bad() -> None:
    """Nothing unbounded becomes a name in a table."""
    for field in "csoX":
        assert reason_of(execution_report(**{field: "x" * 5_000})) == "bad_field", field


def test_a_bad_message_leaves_no_trace() -> None:
    """The messages around it make the rows they make without it."""
    bad = [
        futures_trade(l="0"),
        spot_trade(-1),
        trade_lite(L="0"),
        account_update([position(), position(amount="x")]),
        account_update(None, [balance(), balance(amount="NaN")]),
        account_position(("A", "9" * 20, "9" * 20)),
    ]
    good = [*ALL.values(), trade_lite(3), futures_trade(3)]
    clean, dirty = PrivateFeed(), PrivateFeed()
    for message in good:
        for other in bad:
            with pytest.raises(BadMessage):
                dirty(other)
        dirty.at = clean.at
        assert dirty(message) == clean(message)
        assert dirty.normaliser.snapshots(1) == clean.normaliser.snapshots(1)
    assert dirty.normaliser.filtered == clean.normaliser.filtered


def test_a_huge_message_ends_like_a_small_one() -> None:
    """Ten megabytes of anything."""
    assert reason_of(raw(execution_report(c="y" * 10_000_000))) == "bad_field"
    assert reason_of(json.dumps({"event": "z" * 10_000_000}).encode()) in {"bad_field", "unknown_message"}
