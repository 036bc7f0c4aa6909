"""Every kind of private message that the venue's documents name, in every state they give it: rows, or counted."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from harness.binance_private import (
    BALANCE_UPDATE,
    LEVERAGE,
    LIST_STATUS,
    MARGIN_CALL,
    NS,
    T0,
    PrivateFeed,
    account_update,
    algo_update,
    balance,
    execution_report,
    futures_trade,
    order_update,
    position,
    raw,
    spot_trade,
)

from recorder.bad_rows import BadRow
from recorder.build import BatchBuilder
from recorder.normalise.base import BadMessage, NormalisedRow
from recorder.normalise.binance.private import WITHOUT_TABLE
from schemas.core.tables import PACK
from schemas.core.vocabulary import FINAL_ORDER_STATUSES

TABLES = {table.name: table for table in PACK.tables}
SPOT_EXECUTIONS = ("NEW", "CANCELED", "REPLACED", "REJECTED", "TRADE", "EXPIRED", "TRADE_PREVENTION")
SPOT_STATUSES = ("NEW", "PENDING_NEW", "PARTIALLY_FILLED", "FILLED", "CANCELED", "PENDING_CANCEL", "REJECTED",
                 "EXPIRED", "EXPIRED_IN_MATCH")  # fmt: skip
FUTURES_EXECUTIONS = ("NEW", "CANCELED", "CALCULATED", "EXPIRED", "TRADE", "AMENDMENT")
FUTURES_STATUSES = ("NEW", "PARTIALLY_FILLED", "FILLED", "CANCELED", "EXPIRED", "EXPIRED_IN_MATCH", "NEW_INSURANCE",
                    "NEW_ADL")  # fmt: skip
FUTURES_TYPES = ("LIMIT", "MARKET", "STOP", "STOP_MARKET", "TAKE_PROFIT", "TAKE_PROFIT_MARKET",
                 "TRAILING_STOP_MARKET", "LIQUIDATION")  # fmt: skip
ACCOUNT_REASONS = (
    "DEPOSIT", "WITHDRAW", "ORDER", "FUNDING_FEE", "WITHDRAW_REJECT", "ADJUSTMENT", "INSURANCE_CLEAR",
    "ADMIN_DEPOSIT", "ADMIN_WITHDRAW", "MARGIN_TRANSFER", "MARGIN_TYPE_CHANGE", "ASSET_TRANSFER",
    "OPTIONS_PREMIUM_FEE", "OPTIONS_SETTLE_PROFIT", "AUTO_EXCHANGE", "COIN_SWAP_DEPOSIT", "COIN_SWAP_WITHDRAW",
)  # fmt: skip
FINAL = frozenset(FINAL_ORDER_STATUSES)


def built(rows: list[NormalisedRow]) -> list[str]:
    """The tables of rows, each of which its table takes."""
    bad: list[BadRow] = []
    for row in rows:
        builder = BatchBuilder(TABLES[row.table], epoch=1, run_id="r", on_bad=bad.append)
        assert list(builder.add([(row.row, NS, None, 100)])) == [1], bad
    assert not bad
    return [row.table for row in rows]


# -- orders -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("execution", SPOT_EXECUTIONS)
def test_every_spot_execution_in_every_status(execution: str) -> None:
    """A transition each; a fill for TRADE and for nothing else; the end's time for an end and for nothing else."""
    executed = {"l": "0.25000000", "L": "0.1", "t": 77} if execution == "TRADE" else {}
    for status, kind, works in itertools.product(
        SPOT_STATUSES, ("LIMIT", "MARKET", "STOP_LOSS_LIMIT"), (True, False)
    ):
        message = execution_report(x=execution, X=status, o=kind, w=works, **executed)
        rows = PrivateFeed(account_id="main")(message)
        order: Any = rows[0].row
        assert built(rows) == (["orders", "fills"] if execution == "TRADE" else ["orders"]), status
        assert (order.ts_final is not None) == (order.status in FINAL)
        assert order.client_order_id == "web_a1"


@pytest.mark.parametrize("execution", FUTURES_EXECUTIONS)
def test_every_futures_execution_in_every_status(execution: str) -> None:
    """The same; CALCULATED is a fill too, where something was executed."""
    executed = (
        {"l": "0.040", "z": "0.040", "L": "64089.20", "t": 9} if execution in ("TRADE", "CALCULATED") else {}
    )
    for status, kind, side, unit in itertools.product(
        FUTURES_STATUSES,
        FUTURES_TYPES,
        ("BOTH", "LONG", "SHORT"),
        ({}, {"fs": "UM", "i": ""}, {"fs": "CM", "i": "SfsR"}),
    ):
        rows = PrivateFeed(account_id="main")(
            order_update(unit, x=execution, X=status, o=kind, ps=side, **executed)
        )
        order: Any = rows[0].row
        assert built(rows) == (["orders", "fills"] if executed else ["orders"]), (status, kind)
        assert (order.ts_final is not None) == (order.status in FINAL)
        assert order.venue == ("binance.coinm" if unit.get("fs") == "CM" else "binance.usdm")


@pytest.mark.parametrize("client", ["autoclose-1723161255000", "adl_autoclose"])
def test_a_liquidation_from_its_beginning_to_its_end(client: str) -> None:
    """NEW, executed piece by piece by the venue, done: one order, each piece a fill of its own, with a trade id or
    without."""
    feed = PrivateFeed()
    own = {"c": client, "o": "LIQUIDATION", "f": "IOC", "q": "3", "p": "63000"}
    told = [
        order_update(X="NEW_INSURANCE", **own),
        order_update(x="CALCULATED", X="PARTIALLY_FILLED", l="1", z="1", L="63000", t=0, **own),
        order_update(x="CALCULATED", X="PARTIALLY_FILLED", l="1", z="2", L="63000", t=0, **own),
        order_update(x="CALCULATED", X="FILLED", l="1", z="3", L="63000", t=12, **own),
    ]
    rows = [row for message in told for row in feed(message)]
    orders: list[Any] = [row.row for row in rows if row.table == "orders"]
    fills: list[Any] = [row.row for row in rows if row.table == "fills"]
    assert [order.status for order in orders] == ["Acked", "PartiallyFilled", "PartiallyFilled", "Filled"]
    assert [fill.fill_id for fill in fills] == ["8389765591-1", "8389765591-2", "12"]
    assert {order.client_order_id for order in orders} == {client}
    assert "liquidation" in orders[0].notes or "auto-deleveraging" in orders[0].notes


def test_an_amended_futures_order_has_its_new_amounts() -> None:
    """Under its own id; it is no acknowledgement and no end."""
    order = PrivateFeed().one(order_update(x="AMENDMENT", o="LIMIT", q="0.030", p="63999.9"), "orders")
    assert (order.status, order.qty, order.limit_px) == ("Open", "0.030", "63999.9")
    assert (order.ts_ack, order.ts_final) == (None, None)
    assert "amended" in order.notes


def test_a_pending_order_of_a_list_is_acknowledged_when_it_is_placed() -> None:
    """And not again when the order before it is filled and it comes into the book: the submit latency is the first."""
    feed = PrivateFeed()
    placed = feed.one(execution_report(g=7, X="PENDING_NEW", w=False), "orders")
    working = feed.one(execution_report(g=7, T=T0 + 5_000, O=T0), "orders")
    assert (placed.status, placed.ts_ack) == ("Acked", placed.ts_local)
    assert (working.status, working.ts_ack) == ("Open", None)
    for alone in (execution_report(T=T0 + 1, O=T0), execution_report(g=7), execution_report(g=7, O=None)):
        assert feed.one(alone, "orders").ts_ack is not None


def test_spots_reasons_are_its_own() -> None:
    """Its words stay, its numbers do not mean what the futures' mean."""

    def reason(**changes: Any) -> Any:
        return PrivateFeed().one(execution_report(**changes), "orders").reject_reason

    ends = {"x": "EXPIRED", "X": "EXPIRED"}
    assert reason(**ends, eR="UNFILLED_IOC_QUANTITY_EXPIRED") == "UNFILLED_IOC_QUANTITY_EXPIRED"
    assert reason(**ends, eR=5) == "5"
    assert reason(**ends) is None
    assert reason(x="TRADE_PREVENTION", X="EXPIRED_IN_MATCH") == "self-trade prevention"
    assert reason(x="TRADE_PREVENTION", X="NEW") is None


def test_a_refused_order_without_a_number_is_told() -> None:
    """The venue may never have given it one."""
    order = PrivateFeed().one(
        execution_report(x="REJECTED", X="REJECTED", r="INSUFFICIENT_BALANCES", i=-1), "orders"
    )
    assert (order.client_order_id, order.broker_order_id, order.status) == ("web_a1", None, "Rejected")


@pytest.mark.parametrize("status", ["EXECUTING", "ALL_DONE", "REJECT"])
def test_an_order_list_ends_no_order_that_may_go_on(status: str) -> None:
    """A refusal may answer a cancellation: without a reason of a placement nothing is said of its orders."""
    feed = PrivateFeed()
    for kind in ("RESPONSE", "EXEC_STARTED", "UPDATED", "ALL_DONE"):
        assert feed(LIST_STATUS | {"l": kind, "L": status, "c": "OTO"}) == []
    assert feed.normaliser.ignored == {f"listStatus.{status}": 4}


def test_states_of_a_list_that_nobody_knows_are_not_counted_one_by_one() -> None:
    """Counters are bounded: a word of the venue's that is new is a dead letter."""
    feed = PrivateFeed()
    for number in range(20):
        with pytest.raises(BadMessage, match="order list"):
            feed(LIST_STATUS | {"L": f"STATE{number}"})
    assert not feed.normaliser.ignored


@pytest.mark.parametrize(
    "kind", ["STOP", "TAKE_PROFIT", "STOP_MARKET", "TAKE_PROFIT_MARKET", "TRAILING_STOP_MARKET"]
)
def test_conditional_orders_of_every_type_and_status(kind: str) -> None:
    """A transition each."""
    for status, became in itertools.product(
        ("NEW", "CANCELED", "TRIGGERING", "TRIGGERED", "FINISHED", "REJECTED", "EXPIRED"),
        ("LIMIT", "MARKET", "0", ""),
    ):
        rows = PrivateFeed()(algo_update(o=kind, X=status, act=became, q="0.00", p="0.000", tp="0", aq=""))
        assert built(rows) == ["orders"]


# -- the account ----------------------------------------------------------------------------------------------------

HEDGED = [
    position(amount="0", side="BOTH"),
    position(amount="20", side="LONG"),
    position(amount="-10", side="SHORT"),
]


@pytest.mark.parametrize("reason", ACCOUNT_REASONS)
def test_every_reason_of_an_account_update(reason: str) -> None:
    """Rows of all positions and wallets, told apart by side; an event of it where no order is the reason."""
    for positions, balances in itertools.product(
        ([], [position()], HEDGED, [*HEDGED, position("ETHUSDT")]),
        ([], [balance()], [balance(), balance("BNB", "-1.5", "-0.25")]),
    ):
        rows = PrivateFeed(account_id="main")(account_update(positions, balances, reason))
        events = [row.row for row in rows if row.table == "system_events"]
        assert built(rows) == [
            *["positions_intraday"] * len(positions),
            *["account_state"] * len(balances),
            *["system_events"] * (reason != "ORDER"),
        ]
        assert all(json.loads(event.payload)["reason"] == reason for event in events)  # type: ignore[union-attr]
    held = [row.row for row in PrivateFeed()(account_update(HEDGED, [], reason))][:3]
    assert [(row.position_side, row.position_qty) for row in held] == [
        (None, "0"),
        ("long", "20"),
        ("short", "-10"),
    ]  # type: ignore[union-attr]


def test_the_three_sides_of_a_symbol_are_three_states() -> None:
    """A hedged account's flat net position hides neither of the other two."""
    feed = PrivateFeed()
    feed(account_update(HEDGED, []))
    feed(account_update([position(amount="-11", side="SHORT")], [], T=T0 + 1))
    found: list[Any] = [row.row for row in feed.normaliser.snapshots(NS)]
    assert {row.position_side: row.position_qty for row in found} == {"long": "20", "short": "-11"}


def test_other_events_of_the_account() -> None:
    """One event each, which its table takes; portfolio margin's say their unit."""
    for message, kind in (
        (BALANCE_UPDATE, "balance_change"),
        (BALANCE_UPDATE | {"d": "0.00000000"}, "balance_change"),
        (MARGIN_CALL, "margin_call"),
        (MARGIN_CALL | {"p": []}, "margin_call"),
        ({"e": "MARGIN_CALL", "E": T0, "fs": "CM", "i": "SfsR", "p": MARGIN_CALL["p"]}, "margin_call"),
        (LEVERAGE, "account_config"),
        (LEVERAGE | {"fs": "CM", "ac": {"s": "BTCUSD_PERP", "l": 125}}, "account_config"),
        ({"e": "ACCOUNT_CONFIG_UPDATE", "E": T0, "T": T0, "ai": {"j": False}}, "account_config"),
        ({"e": "ACCOUNT_CONFIG_UPDATE", "E": T0}, "account_config"),
    ):
        [row] = PrivateFeed(account_id="main")(message)
        assert built([row]) == ["system_events"]
        assert row.row.kind == kind  # type: ignore[union-attr]


@pytest.mark.parametrize("name", sorted(WITHOUT_TABLE))
def test_what_no_table_takes_is_counted_whatever_is_in_it(name: str) -> None:
    """By event type; nothing else of it is read, and what comes next is not disturbed."""
    feed = PrivateFeed()
    for rest in ({}, {"E": "soon"}, {"o": [], "su": {"si": 1}, "gu": None}, {"a": "BTC", "d": "10", "T": T0}):
        assert feed({"e": name} | rest) == []
        assert feed({"stream": "k", "data": {"e": name} | rest}) == []
    assert feed.normaliser.ignored == {name: 8}
    assert built(feed(spot_trade())) == ["orders", "fills"]


# -- hostile ones -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [
    r"\ud800", r"\udc00\ud800", r"\u0000", r"\ud83d\udd11", "'); DROP TABLE orders; --", r"\"", "\N{KEY}" * 32,
])  # fmt: skip
def test_a_strange_client_id_costs_at_most_its_message(text: str) -> None:
    """Rows that their tables take, or a bad message; never another error."""
    body = raw(spot_trade(c="ID")).replace(b'"ID"', b'"' + text.encode() + b'"')
    feed = PrivateFeed()
    try:
        rows = feed(body)
    except BadMessage:
        rows = []
    assert built(rows) in ([], ["orders", "fills"])
    assert built(feed(futures_trade())) == ["orders", "fills"]


def test_of_a_field_told_twice_the_last_counts_and_the_bytes_stay() -> None:
    """As every reader of JSON has it."""
    body = raw(spot_trade()).replace(b'"l":"0.25000000"', b'"l":"9","l":"0.25000000"')
    fill = PrivateFeed().one(body, "fills")
    assert (fill.fill_qty, fill.raw_json) == ("0.25000000", body)


def test_names_of_streams_are_bounded() -> None:
    """A wrapper may say anything; what is remembered of it is short."""
    feed = PrivateFeed()
    for number in range(5):
        feed({"stream": f"{number}" + "k" * 1_000_000, "data": account_update()})
    assert max(map(len, feed.normaliser._private._told)) <= 255
