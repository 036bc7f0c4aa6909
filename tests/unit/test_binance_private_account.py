"""What messages about one's own account become, and what a timer repeats."""

from __future__ import annotations

import json
from typing import Any

import pytest
from harness.binance_private import (
    BALANCE_UPDATE,
    EXPIRED_KEY,
    LEVERAGE,
    LISTEN_KEY,
    MARGIN_CALL,
    NS,
    T0,
    TERMINATED,
    PrivateFeed,
    account_position,
    account_update,
    balance,
    position,
    trade_lite,
)

from recorder.normalise.base import BadMessage
from recorder.normalise.binance import BinanceNormaliser
from recorder.normalise.binance.private import STREAMS_MAX
from recorder.normalise.binance.private_account import STATES_MAX
from recorder.normalise.binance.rows import POSITIONS_MAX, WALLETS_MAX, Slot

LATER = NS + 5_000_000_000


def event(message: Any, **options: Any) -> Any:
    return PrivateFeed(**options).one(message, "system_events")


def test_a_position_and_a_wallet_are_rows() -> None:
    """Amounts as the venue writes them; the time is the venue's."""
    rows = PrivateFeed(account_id="main")(account_update())
    assert [(row.table, row.slot) for row in rows] == [
        ("positions_intraday", Slot.POSITION), ("account_state", Slot.WALLET)]  # fmt: skip
    held, wallet = (row.row for row in rows)
    assert (held.ts, held.ts_local, held.account_id, held.venue) == (NS, NS + 1_000, "main", "binance.usdm")
    assert (held.symbol, held.position_qty, held.avg_price) == ("BTCUSDT", "-0.040", "64089.20000")
    assert (held.realized_pnl, held.unrealized_pnl) == ("200.50000000", "-1.25000000")
    assert (held.position_side, held.strategy) == (None, None)
    assert (wallet.account_id, wallet.venue, wallet.currency) == ("main", "binance.usdm", "USDT")
    assert (wallet.cash, wallet.equity, wallet.ts) == ("122624.12345678", None, NS)


def test_a_hedged_account_has_two_positions_in_a_symbol() -> None:
    """Told apart by their side; a flat one has no price."""
    rows = PrivateFeed().all(
        account_update([position(amount="0", side="LONG"), position(amount="-3", side="SHORT")]),
        "positions_intraday",
    )
    assert [(row.position_side, row.position_qty, row.avg_price) for row in rows] == [
        ("long", "0", None), ("short", "-3", "64089.20000")]  # fmt: skip


def test_spot_balances_are_added_to_the_last_digit() -> None:
    """Cash is what is free and what is locked together, beyond what a float or a short decimal can say."""
    wallet = PrivateFeed().one(
        account_position(("SHIB", "99999999999999999998.000000000000000001", "1.999999999999999998")),
        "account_state",
    )
    assert wallet.cash == "99999999999999999999.999999999999999999"
    assert (wallet.margin_available, wallet.margin_used) == (
        "99999999999999999998.000000000000000001", "1.999999999999999998")  # fmt: skip
    assert (wallet.venue, wallet.currency, wallet.ts) == ("binance.spot", "SHIB", NS)
    with pytest.raises(BadMessage, match="digits"):
        PrivateFeed()(account_position(("SHIB", "9" * 20, "1")))


def test_the_venue_of_an_account_is_told_by_unit_alias_and_symbol() -> None:
    """COIN-M names the account's alias, portfolio margin the unit; else the first position's symbol says it."""

    def venue(message: dict[str, Any], **options: Any) -> Any:
        return PrivateFeed(**options).one(message, "account_state").venue

    assert venue(account_update([])) == "binance.usdm"
    assert venue(account_update([], i="SfsR")) == "binance.coinm"
    assert venue(account_update([], i="", fs="UM")) == "binance.usdm"
    assert venue(account_update([], fs="CM")) == "binance.coinm"
    assert venue(account_update([position("BTCUSD_PERP")])) == "binance.coinm"
    assert venue(account_update([]), market="coinm") == "binance.coinm"


def test_money_that_no_order_moved_is_an_event() -> None:
    """Funding, transfers, deposits: what changed and why."""
    assert PrivateFeed().all(account_update(), "system_events") == []
    funding = event(account_update([], [balance(change="-1.25")], "FUNDING_FEE"), account_id="main")
    assert (funding.kind, funding.severity, funding.component) == ("balance_change", "info", "binance.usdm")
    assert json.loads(funding.payload) == {
        "account_id": "main", "reason": "FUNDING_FEE",
        "changes": [{"currency": "USDT", "change": "-1.25", "balance": "122624.12345678"}],
    }  # fmt: skip
    transfer = event(BALANCE_UPDATE)
    assert (transfer.kind, transfer.ts, transfer.component) == ("balance_change", NS, "binance.spot")
    assert json.loads(transfer.payload)["changes"] == [{"currency": "BTC", "change": "-100.00000000"}]


def test_margin_calls_and_leverage_are_events() -> None:
    """A margin call is critical."""
    call = event(MARGIN_CALL)
    assert (call.kind, call.severity) == ("margin_call", "critical")
    assert json.loads(call.payload)["positions"][0]["mm"] == "1.614445"
    assert json.loads(event(LEVERAGE).payload)["leverage"] == 25
    mode = {"e": "ACCOUNT_CONFIG_UPDATE", "E": T0, "ai": {"j": True}}
    assert json.loads(event(mode).payload)["multi_assets_margin"] is True


def test_the_end_of_the_stream_is_told_without_its_key() -> None:
    """The key is a secret."""
    end = event(EXPIRED_KEY)
    assert (end.kind, end.severity) == ("private_stream_end", "error")
    assert LISTEN_KEY not in repr(end)
    assert event(TERMINATED).kind == "private_stream_end"


def test_the_time_of_an_end_may_be_a_string() -> None:
    """As the venue's documents of listenKeyExpired have it; what is no time is bad, and ends nothing."""
    feed = PrivateFeed()
    feed(account_update())
    for wrong in ("", "soon", str(T0 // 1_000), f" {T0}"):
        with pytest.raises(BadMessage):
            feed(EXPIRED_KEY | {"E": wrong})
    assert len(snapshots(feed)) == 2
    assert feed.one(EXPIRED_KEY | {"E": str(T0)}, "system_events").ts == NS
    assert snapshots(feed) == []


# -- snapshots ----------------------------------------------------------------------------------------------------


def snapshots(feed: PrivateFeed, now_ns: int = LATER) -> list[Any]:
    return [row.row for row in feed.normaliser.snapshots(now_ns)]


def test_a_timer_repeats_what_holds() -> None:
    """At the timer's time and with the venue's time of the state, so that it never passes for newer than a message."""
    feed = PrivateFeed(account_id="main")
    assert snapshots(feed) == []
    told = feed(account_update())
    for now in (LATER, LATER + 1):
        again = snapshots(feed, now)
        assert [type(row) for row in again] == [type(row.row) for row in told]
        assert all(row.ts_local == now and row.ts == NS for row in again)
        assert again[0].position_qty == "-0.040"
        assert again[1].cash == "122624.12345678"
    assert all(row.row.ts_local == NS + 1_000 for row in told), "rows given away stay as they were"  # type: ignore[union-attr]


def test_what_is_closed_or_empty_is_not_repeated() -> None:
    """Its own row said so; a message from before, come again, does not bring it back."""
    feed = PrivateFeed()
    opened = account_update()
    feed(opened)
    closed = account_update([position(amount="0.000")], [balance(amount="0.00000000")], T=T0 + 5)
    assert [row.table for row in feed(closed)] == ["positions_intraday", "account_state"]
    assert snapshots(feed) == []
    assert len(feed(opened)) == 2, "its rows are made again: they may not have been durable"
    assert snapshots(feed) == []
    feed(account_update([position(amount="7")], [], T=T0 + 6))
    assert [row.position_qty for row in snapshots(feed)] == ["7"]


def test_each_position_and_wallet_has_its_own_state() -> None:
    """By venue, symbol and side; by venue and currency."""
    feed = PrivateFeed()
    feed(account_update([position(side="LONG", amount="1"), position(side="SHORT", amount="-2")], []))
    feed(account_update([position("BTCUSD_PERP", "3")], [balance("BTC", "4")]))
    feed(account_position(("BTC", "5", "0"), ("ETH", "6", "0")))
    assert [getattr(row, "position_qty", None) or row.cash for row in snapshots(feed)] == [
        "1", "-2", "3", "4", "5", "6"]  # fmt: skip


def test_nothing_is_repeated_after_the_end_of_the_stream() -> None:
    """What is known no longer holds; the next message begins anew."""
    feed = PrivateFeed()
    feed(account_update())
    feed(EXPIRED_KEY)
    assert snapshots(feed) == []
    feed(account_update())
    assert len(snapshots(feed)) == 2


def heard(feed: PrivateFeed) -> None:
    """A wallet of each market: spot's by the websocket API, the others' by streams of their own."""
    feed({"subscriptionId": 0, "event": account_position(("BTC", "5", "0"))})
    feed({"stream": "usdm", "data": account_update([])})
    feed({"stream": "coinm", "data": account_update([], i="SfsR")})


def venues(feed: PrivateFeed) -> list[str]:
    return [row.venue.removeprefix("binance.") for row in snapshots(feed)]


def test_an_end_ends_what_its_own_stream_fed() -> None:
    """Spot's leaves futures alone, and a listen key's leaves the venues of other streams alone."""
    feed = PrivateFeed()
    heard(feed)
    end = feed.one(TERMINATED, "system_events")
    assert (end.component, json.loads(end.payload)["venues"]) == ("binance.spot", ["binance.spot"])
    assert venues(feed) == ["usdm", "coinm"]
    heard(feed)
    end = feed.one({"stream": "usdm", "data": EXPIRED_KEY}, "system_events")
    assert (end.component, json.loads(end.payload)["venues"]) == ("binance.usdm", ["binance.usdm"])
    assert venues(feed) == ["spot", "coinm"]


def test_orders_too_tell_what_a_stream_is_of() -> None:
    """A new connection that brought nothing but an order ends the wallets that the one before it had told."""
    feed = PrivateFeed()
    heard(feed)
    feed({"stream": "usdm-2", "data": trade_lite()})
    feed({"stream": "usdm-2", "data": EXPIRED_KEY})
    assert venues(feed) == ["spot", "coinm"]


def test_without_a_wrapper_the_topic_is_the_stream() -> None:
    """One topic may carry spot's wrapped events and a bare futures stream: the key that expired was the latter's."""
    feed = PrivateFeed()
    feed.topic = "user.main"
    feed({"subscriptionId": 0, "event": account_position(("BTC", "5", "0"))})
    feed(account_update([]))
    feed(EXPIRED_KEY)
    assert venues(feed) == ["spot"]


@pytest.mark.parametrize(("options", "left"), [({}, []), ({"market": "usdm"}, ["spot"])], ids=["any", "usdm"])
def test_a_key_that_nobody_knows_ends_all_it_may_have_fed(options: dict[str, Any], left: list[str]) -> None:
    """Rather no snapshot than a stale one; the market, where it is set, says what that can be."""
    feed = PrivateFeed(**options)
    feed({"subscriptionId": 0, "event": account_position(("BTC", "5", "0"))})
    feed({"stream": "old key", "data": account_update([])})
    end = feed.one({"stream": "new key", "data": EXPIRED_KEY}, "system_events")
    assert end.component == ("binance.usdm" if options else "binance")
    assert venues(feed) == left


def test_streams_are_bounded() -> None:
    """The one heard first is forgotten: its end is then one that nobody knows."""
    feed = PrivateFeed()
    heard(feed)
    for number in range(STREAMS_MAX - 1):
        feed({"stream": f"coinm-{number}", "data": account_update([], i="SfsR")})
    feed({"stream": "usdm", "data": EXPIRED_KEY})
    assert venues(feed) == []


def test_states_are_bounded() -> None:
    """The one changed first gives way, and is counted."""
    feed = PrivateFeed()
    for number in range(STATES_MAX + 10):
        feed(account_update([position(f"S{number}", "1")], []))
    assert len(snapshots(feed)) == STATES_MAX
    assert snapshots(feed)[0].symbol == "S10"
    assert feed.normaliser.filtered == {"snapshot_evicted": 10}


def test_a_message_of_too_many_rows_is_bad() -> None:
    """Slots are fixed; a message with more rows than slots is none the venue sends."""
    feed = PrivateFeed()
    most = account_update(
        [position(f"S{n}") for n in range(POSITIONS_MAX)], [balance(f"A{n}") for n in range(WALLETS_MAX)]
    )
    assert len(feed(most)) == POSITIONS_MAX + WALLETS_MAX
    for message in (
        account_update([position(f"S{n}") for n in range(POSITIONS_MAX + 1)]),
        account_position(*((f"A{n}", "1", "0") for n in range(WALLETS_MAX + 1))),
    ):
        with pytest.raises(BadMessage) as caught:
            feed(message)
        assert caught.value.reason == "too_many_rows"


@pytest.mark.parametrize("seconds", [0, 0.9, 5.1, 60])
def test_the_interval_is_one_to_five_seconds(seconds: float) -> None:
    """Anything else is refused by name."""
    with pytest.raises(ValueError, match="snapshot_interval_s"):
        BinanceNormaliser(snapshot_interval_s=seconds)
    assert BinanceNormaliser(snapshot_interval_s=1).snapshot_interval_s == 1
