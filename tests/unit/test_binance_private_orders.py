"""What messages about one's own orders become."""

from __future__ import annotations

import json
from typing import Any

import pytest
from harness.binance_private import (
    ALL,
    LIST_STATUS,
    LISTEN_KEY,
    NS,
    T0,
    TRIGGER_REJECT,
    PrivateFeed,
    algo_update,
    execution_report,
    futures_trade,
    order_update,
    raw,
    spot_trade,
    trade_lite,
)

from recorder.bad_rows import BadRow
from recorder.build import BatchBuilder
from recorder.normalise.base import BadMessage
from recorder.normalise.binance import private_orders
from recorder.normalise.binance.private_words import STATUSES
from recorder.normalise.binance.rows import Slot
from schemas.core.tables import PACK
from schemas.core.vocabulary import FINAL_ORDER_STATUSES, ORDER_STATUSES


def test_every_row_passes_the_batch_builder() -> None:
    """Names, types and words are the tables'."""
    bad: list[BadRow] = []
    tables = {table.name: table for table in PACK.tables}
    seen = set()
    feed = PrivateFeed(account_id="main")
    for message in ALL.values():
        rows = feed(message)
        assert rows
        for row in [*rows, *feed.normaliser.snapshots(feed.at)]:
            builder = BatchBuilder(tables[row.table], epoch=1, run_id="r", on_bad=bad.append)
            list(builder.add([(row.row, feed.at, None, 100)]))
            seen.add(row.table)
    assert not bad
    assert seen == {"orders", "fills", "positions_intraday", "account_state", "system_events"}


def test_a_new_spot_order_says_all_it_knows() -> None:
    """Amounts as the venue writes them, the acknowledgement's time the message's arrival."""
    order = PrivateFeed(account_id="main").one(execution_report(), "orders")
    assert (order.account_id, order.venue, order.symbol) == ("main", "binance.spot", "ETHBTC")
    assert (order.client_order_id, order.broker_order_id) == ("web_a1", "4293153")
    assert (order.side, order.qty, order.limit_px) == ("buy", "1.00000000", "0.10264410")
    assert (order.order_type, order.tif, order.status) == ("LIMIT", "GTC", "Open")
    assert order.ts_local == order.ts_ack == NS + 1_000
    assert (order.ts_final, order.reject_reason, order.notes) == (None, None, None)
    assert (order.strategy, order.intent_id, order.ts_send) == (None, None, None)


def test_a_spot_fill_is_a_transition_and_a_fill() -> None:
    """The fill has the fee, its currency, who rested, the venue's time, and the message's own bytes."""
    body = raw(spot_trade())
    rows = PrivateFeed(account_id="main")(body)
    assert [(row.table, row.slot) for row in rows] == [("orders", Slot.ORDER), ("fills", Slot.FILL)]
    order, fill = (row.row for row in rows)
    assert (order.status, order.ts_ack, order.ts_final) == ("PartiallyFilled", None, None)
    assert (fill.fill_id, fill.venue, fill.account_id, fill.symbol) == (
        "77",
        "binance.spot",
        "main",
        "ETHBTC",
    )
    assert (fill.fill_qty, fill.fill_price) == ("0.25000000", "0.10264410")
    assert (fill.fees, fill.fee_currency, fill.liquidity) == ("0.00018750", "BNB", "maker")
    assert (fill.ts_exchange, fill.source, fill.raw_json) == (NS, "executionReport", body)
    assert (fill.client_order_id, fill.broker_order_id, fill.side) == ("web_a1", "4293153", "buy")


def test_a_futures_fill_is_a_transition_and_a_fill() -> None:
    """The fee is the venue's; a market order has no limit price."""
    body = raw(futures_trade())
    order, fill = (row.row for row in PrivateFeed()(body))
    assert (order.status, order.limit_px, order.ts_final) == ("Filled", None, NS + 1_000)
    assert (fill.venue, fill.fill_id, fill.side, fill.liquidity) == (
        "binance.usdm",
        "109100866",
        "sell",
        "taker",
    )
    assert (fill.fees, fill.fee_currency, fill.source) == ("1.28178400", "USDT", "ORDER_TRADE_UPDATE")
    assert fill.raw_json == body


@pytest.mark.parametrize("wrap", [
    lambda body: body,
    lambda body: b'{"stream":"%s","data":%s}' % (LISTEN_KEY.encode(), body),
    lambda body: b'{"subscriptionId":0,"event":%s}' % body,
    lambda body: b' { "event" : %s } ' % body,
], ids=["bare", "combined stream", "websocket API", "with blanks"])  # fmt: skip
def test_an_event_is_the_same_however_it_is_wrapped(wrap: Any) -> None:
    """The raw bytes kept are the event's own; a wrapper's name may be a secret."""
    body = b'{"e":"executionReport", ' + raw(spot_trade())[len('{"e":"executionReport",') :]
    assert PrivateFeed()(wrap(body)) == PrivateFeed()(body)
    assert PrivateFeed().one(wrap(body), "fills").raw_json == body


# -- statuses -----------------------------------------------------------------------------------------------------


def test_every_status_is_the_tables() -> None:
    """Each word of the venue's is one of ours."""
    assert set(STATUSES.values()) <= set(ORDER_STATUSES)


@pytest.mark.parametrize(("changes", "status"), [
    ({}, "Open"), ({"o": "MARKET", "p": "0.00000000"}, "Acked"), ({"f": "IOC"}, "Acked"), ({"f": "FOK"}, "Acked"),
    ({"o": "STOP_LOSS_LIMIT", "P": "0.1", "w": False}, "Acked"), ({"o": "LIMIT_MAKER"}, "Open"),
    ({"X": "PENDING_NEW", "w": False}, "Acked"),
    ({"x": "CANCELED", "X": "CANCELED"}, "Canceled"), ({"x": "REJECTED", "X": "REJECTED"}, "Rejected"),
    ({"x": "EXPIRED", "X": "EXPIRED"}, "Expired"), ({"x": "TRADE_PREVENTION", "X": "EXPIRED_IN_MATCH"}, "Expired"),
    ({"x": "TRADE_PREVENTION", "X": "PARTIALLY_FILLED"}, "PartiallyFilled"),
    ({"x": "REPLACED", "X": "NEW"}, "Open"), ({"x": "REPLACED", "X": "PARTIALLY_FILLED"}, "PartiallyFilled"),
])  # fmt: skip
def test_spot_statuses(changes: dict[str, Any], status: str) -> None:
    """`Open` only where the order rests in the book; a final status has its time, and no other."""
    order = PrivateFeed().one(execution_report(**changes), "orders")
    assert order.status == status
    assert (order.ts_final is not None) == (status in FINAL_ORDER_STATUSES)
    assert (order.ts_ack is not None) == (changes.get("x", "NEW") == "NEW")


@pytest.mark.parametrize(("changes", "status"), [
    ({"o": "LIMIT", "p": "64000", "ot": "LIMIT"}, "Open"), ({}, "Acked"), ({"o": "LIMIT", "f": "IOC"}, "Acked"),
    ({"o": "LIMIT", "f": "GTX"}, "Open"), ({"o": "STOP_MARKET", "sp": "63000"}, "Acked"),
    ({"x": "AMENDMENT", "o": "LIMIT"}, "Open"), ({"x": "CANCELED", "X": "CANCELED"}, "Canceled"),
    ({"x": "EXPIRED", "X": "EXPIRED"}, "Expired"), ({"x": "EXPIRED", "X": "EXPIRED_IN_MATCH"}, "Expired"),
])  # fmt: skip
def test_futures_statuses(changes: dict[str, Any], status: str) -> None:
    """The same, told by kind and time in force, since futures do not say whether an order rests."""
    order = PrivateFeed().one(order_update(**changes), "orders")
    assert order.status == status
    assert (order.ts_final is not None) == (status in FINAL_ORDER_STATUSES)


def test_a_triggered_conditional_order_goes_on() -> None:
    """The venue calls it expired, then new, under the same ids; it was acknowledged when it was placed."""
    feed = PrivateFeed()
    stop = {"ot": "STOP_MARKET", "sp": "63000"}
    placed = feed.one(order_update(o="STOP_MARKET", **stop), "orders")
    triggered = feed.one(order_update(o="STOP_MARKET", x="EXPIRED", X="EXPIRED", er="8", **stop), "orders")
    became = feed.one(order_update(o="MARKET", **stop), "orders")
    filled = feed.one(futures_trade(**stop), "orders")
    assert [row.status for row in (placed, triggered, became, filled)] == [
        "Acked",
        "Acked",
        "Acked",
        "Filled",
    ]
    assert [row.ts_ack is not None for row in (placed, triggered, became)] == [True, False, False]
    assert (triggered.ts_final, triggered.reject_reason) == (None, None)
    assert "triggered" in triggered.notes
    waits = feed.one(execution_report(o="STOP_LOSS_LIMIT", P="0.1", w=False), "orders")
    rests = feed.one(execution_report(o="STOP_LOSS_LIMIT", P="0.1", w=True), "orders")
    assert [row.status for row in (waits, rests)] == ["Acked", "Open"]
    assert [row.ts_ack is not None for row in (waits, rests)] == [True, False]


def test_reasons_are_kept_and_none_is_none() -> None:
    """Why an order was refused or expired, in the venue's word or by its number."""

    def reason(message: dict[str, Any]) -> Any:
        return PrivateFeed().one(message, "orders").reject_reason

    assert (
        reason(execution_report(x="REJECTED", X="REJECTED", r="INSUFFICIENT_BALANCES"))
        == "INSUFFICIENT_BALANCES"
    )
    assert reason(execution_report(x="EXPIRED", X="EXPIRED", eR="IOC")) == "IOC"
    assert reason(execution_report()) is None
    assert reason(order_update(x="EXPIRED", X="EXPIRED", er="5")) == "the account was liquidated"
    assert reason(order_update(x="EXPIRED", X="EXPIRED", er="77")) == "77"
    assert reason(order_update(x="EXPIRED", X="EXPIRED_IN_MATCH", er="0")) == "self-trade prevention"
    assert reason(order_update(er="2")) is None


# -- ids ----------------------------------------------------------------------------------------------------------


def test_a_cancelled_spot_order_keeps_its_own_id() -> None:
    """`c` is the cancel request's id then, and `C` the order's."""
    message = execution_report(x="CANCELED", X="CANCELED", c="cancel-9", C="web_a1")
    assert PrivateFeed().one(message, "orders").client_order_id == "web_a1"
    assert PrivateFeed().one(message | {"C": ""}, "orders").client_order_id == "cancel-9"


def test_an_amended_order_ends_under_the_one_id_and_goes_on_under_the_other() -> None:
    """One id is one order; both rows have the venue's number. One that keeps its id is one row."""
    message = execution_report(x="REPLACED", c="web_a2", C="web_a1", q="0.50000000")
    goes_on, before = PrivateFeed().all(message, "orders")
    assert (goes_on.client_order_id, goes_on.status, goes_on.qty) == ("web_a2", "Open", "0.50000000")
    assert (before.client_order_id, before.status, before.qty) == ("web_a1", "Canceled", None)
    assert before.ts_final is not None
    assert goes_on.broker_order_id == before.broker_order_id
    assert "web_a2" in before.notes
    assert PrivateFeed().one(message | {"C": "web_a2"}, "orders").client_order_id == "web_a2"


def test_fill_ids_where_the_venue_has_no_trade_id() -> None:
    """An allocation has its own number, a liquidation what the order had executed by then; else the message is bad."""
    feed = PrivateFeed()
    assert feed.one(spot_trade(-1, a=12, b="ONE_PARTY_TRADE_REPORT"), "fills").fill_id == "allocation-12"
    assert feed.one(spot_trade(0), "fills").fill_id == "0"
    assert feed.one(futures_trade(0, x="CALCULATED"), "fills").fill_id == "8389765591-0.040"
    assert feed.all(order_update(x="CALCULATED"), "fills") == []
    for message in (spot_trade(-1), futures_trade(0), trade_lite(0)):
        with pytest.raises(BadMessage, match="trade id"):
            feed(message)


@pytest.mark.parametrize(("client", "said"), [
    ("autoclose-1789", "liquidation"), ("adl_autoclose", "auto-deleveraging"),
    ("settlement_autoclose-1", "settlement"), ("delivery-3", "delivery"),
])  # fmt: skip
def test_orders_of_the_venues_own_are_named(client: str, said: str) -> None:
    """Liquidation, deleveraging and settlement are orders and fills as others, with a note."""
    rows = PrivateFeed()(futures_trade(c=client, o="LIQUIDATION", f="IOC", x="CALCULATED"))
    assert [row.table for row in rows] == ["orders", "fills"]
    assert said in rows[0].row.notes  # type: ignore[union-attr]
    assert rows[1].row.client_order_id == client  # type: ignore[union-attr]


def test_notes_say_what_has_no_column() -> None:
    """Stop price, order list, quote quantity, what self-trade prevention kept, hedge side, reduce only."""
    feed = PrivateFeed()
    assert feed.one(execution_report(P="0.1", g=2), "orders").notes == "stop price 0.1; order list 2"
    spent = feed.one(execution_report(Q="50.0", q="0.00000000"), "orders")
    assert (spent.notes, spent.qty) == ("for 50.0 of the quote currency", None)
    prevented = execution_report(x="TRADE_PREVENTION", X="EXPIRED_IN_MATCH", pl="2.1", pL="0.1", t=-1, v=3)
    assert feed.one(prevented, "orders").notes == "self-trade prevention: 2.1 at 0.1 not executed"
    assert feed.all(prevented, "fills") == []
    hedged = feed.one(order_update(R=True, cp=True, ps="LONG", sp="63000", ot="STOP_MARKET"), "orders")
    assert hedged.notes == "stop price 63000; reduce only; closes the position; long position"
    assert hedged.order_type == "STOP_MARKET"


# -- one fill -----------------------------------------------------------------------------------------------------


def test_trade_lite_and_the_full_event_are_one_fill() -> None:
    """The same key; the full one brings the fee. After it the lite one adds nothing, and is counted."""
    feed = PrivateFeed(account_id="main")
    lite = feed.one(trade_lite(), "fills")
    full = feed.one(futures_trade(), "fills")
    same = ("venue", "account_id", "symbol", "fill_id", "fill_qty", "fill_price", "side", "liquidity", "ts_exchange",
            "client_order_id", "broker_order_id")  # fmt: skip
    for name in same:
        assert getattr(lite, name) == getattr(full, name), name
    assert (lite.fees, lite.source) == (None, "TRADE_LITE")
    assert feed(trade_lite()) == []
    assert feed.normaliser.filtered == {"trade_lite_after_full": 1}
    assert feed.one(trade_lite(5), "fills").fill_id == "5"
    assert feed.one(trade_lite(s="ETHUSDT"), "fills").symbol == "ETHUSDT"
    feed(futures_trade(s="ETHUSDT"))
    assert feed(trade_lite(s="ETHUSDT")) == []


def test_a_full_event_speaks_for_its_own_side_alone() -> None:
    """Who trades with itself has two fills of one trade id: the other side's lite one is news."""
    feed = PrivateFeed()
    feed(futures_trade(S="BUY"))
    assert feed.one(trade_lite(S="SELL"), "fills").side == "sell"
    assert feed(trade_lite(S="BUY")) == []
    assert feed.normaliser.filtered == {"trade_lite_after_full": 1}


def test_few_full_events_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A TRADE_LITE that comes much later makes its row: one more in `fills`, none in `fills_unique`."""
    monkeypatch.setattr(private_orders, "FULL_FILLS_MAX", 3)
    feed = PrivateFeed()
    for trade_id in (1, 2, 3, 4):
        feed(futures_trade(trade_id))
    assert [len(feed(trade_lite(trade_id))) for trade_id in (1, 2, 3, 4)] == [1, 0, 0, 0]


def test_a_full_event_makes_its_row_however_often_it_comes() -> None:
    """It may have been lost before it was durable: only the lite one is ever left out."""
    feed = PrivateFeed()
    for _ in range(3):
        assert [row.slot for row in feed(futures_trade())] == [Slot.ORDER, Slot.FILL]


# -- venues -------------------------------------------------------------------------------------------------------


def test_the_venue_is_told_by_option_unit_and_symbol() -> None:
    """As the public streams name their source, so that equal symbols and numbers of two markets stay apart."""

    def venue(message: dict[str, Any], **options: Any) -> Any:
        return PrivateFeed(**options).one(message, "orders").venue

    assert venue(order_update()) == "binance.usdm"
    assert venue(order_update(s="BTCUSD_PERP")) == "binance.coinm"
    assert venue(order_update(s="BTCUSD_200925")) == "binance.coinm"
    assert venue(order_update({"fs": "CM"})) == "binance.coinm"
    assert venue(order_update({"fs": "UM"}, s="BTCUSD_PERP")) == "binance.usdm"
    assert venue(order_update(), market="coinm") == "binance.coinm"
    assert venue(order_update(), venue="BNX") == "BNX"
    assert venue(execution_report()) == "binance.spot"
    assert venue(execution_report(), market="usdm") == "binance.spot"
    assert venue(execution_report(), venue="BNX") == "BNX"


# -- conditional orders and lists -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("changes", "status"), [
    ({}, "Acked"), ({"X": "TRIGGERING"}, "Acked"), ({"X": "TRIGGERED", "ai": "88", "act": "LIMIT"}, "Open"),
    ({"X": "TRIGGERED", "ai": "88", "act": "MARKET"}, "Acked"), ({"X": "FINISHED", "aq": "0.01"}, "Filled"),
    ({"X": "FINISHED", "aq": "0.005"}, "Canceled"), ({"X": "FINISHED", "aq": ""}, "Canceled"),
    ({"X": "FINISHED", "aq": "0.0", "q": "0"}, "Canceled"),
    ({"X": "FINISHED", "aq": "3", "q": "0"}, "Filled"), ({"X": "CANCELED"}, "Canceled"),
    ({"X": "REJECTED"}, "Rejected"), ({"X": "EXPIRED"}, "Expired"),
])  # fmt: skip
def test_conditional_orders(changes: dict[str, Any], status: str) -> None:
    """Their numbers are not those of orders; a finished one is filled or cancelled by what was executed."""
    order = PrivateFeed().one(algo_update(**changes), "orders")
    assert (order.status, order.client_order_id, order.broker_order_id) == (status, "algo-7", "algo-2148719")
    assert (order.ts_final is not None) == (status in FINAL_ORDER_STATUSES)
    assert order.notes.startswith("conditional order; trigger price 750")
    assert ("order 88" in order.notes) == ("ai" in changes)


def test_a_refused_conditional_order_says_why() -> None:
    """By its own event and by the older one, which knows the venue's number alone."""
    order = PrivateFeed().one(algo_update(X="REJECTED", rm="Reduce Only reject"), "orders")
    assert order.reject_reason == "Reduce Only reject"
    order = PrivateFeed().one(TRIGGER_REJECT, "orders")
    assert (order.status, order.client_order_id, order.broker_order_id) == ("Rejected", None, "155618472834")
    assert order.reject_reason.startswith("Due to")


def test_a_refused_list_refuses_its_orders_and_another_is_counted() -> None:
    """Of a list that goes on each order has reports of its own, which a row of the list would hide."""
    feed = PrivateFeed()
    rows = feed(LIST_STATUS | {"L": "REJECT", "r": "OCO_BAD_PRICES"})
    assert [(row.slot, row.row.client_order_id, row.row.status) for row in rows] == [  # type: ignore[union-attr]
        (Slot.LEG, "leg-1", "Rejected"), (Slot.LEG + 1, "leg-2", "Rejected")]  # fmt: skip
    assert rows[0].row.reject_reason == "OCO_BAD_PRICES"  # type: ignore[union-attr]
    assert feed(LIST_STATUS) == []
    assert feed.normaliser.ignored == {"listStatus.EXECUTING": 1}


def test_what_no_table_takes_is_counted() -> None:
    """By event type."""
    feed = PrivateFeed()
    for name in ("STRATEGY_UPDATE", "GRID_UPDATE", "externalLockUpdate"):
        assert not feed({"e": name, "E": T0})
        assert feed.normaliser.ignored[name] == 1


def test_bytes_of_an_event_survive() -> None:
    """Blanks, escapes and the order of keys, too."""
    body = json.dumps(spot_trade(c="ü\u2028x"), indent=1).encode()
    fill = PrivateFeed().one(body, "fills")
    assert fill.raw_json == body
    assert fill.client_order_id == "ü\u2028x"
