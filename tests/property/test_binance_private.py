"""Private messages: exact to the last digit, one fill however it comes, and never anything but BadMessage."""

from __future__ import annotations

import contextlib
import json
from collections import defaultdict
from decimal import Context, Decimal
from typing import Any

from harness.binance_private import (
    ALL,
    NS,
    T0,
    account_position,
    account_update,
    balance,
    futures_trade,
    order_update,
    position,
    raw,
    spot_trade,
    trade_lite,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from recorder.bad_rows import BadRow
from recorder.build import BatchBuilder
from recorder.normalise.base import BadMessage, Message, NormalisedRow
from recorder.normalise.binance import BinanceNormaliser
from recorder.normalise.order_ids import OrderIdentity, OrderIds
from schemas.core.tables import PACK

WIDE = Context(prec=80)
TABLES = {table.name: table for table in PACK.tables}


def digits(least: int, most: int) -> st.SearchStrategy[str]:
    return st.text("0123456789", min_size=least, max_size=most)


amounts = st.builds(lambda whole, part: f"{whole}.{part}" if part else whole, digits(1, 20), digits(0, 18))
positive = amounts.filter(lambda text: bool(text.strip("0.")))
signed = st.builds(lambda sign, amount: sign + amount, st.sampled_from(["", "-"]), amounts)


def stored(row: NormalisedRow) -> dict[str, Any]:
    """A row as its batch has it, decimals and all."""
    bad: list[BadRow] = []
    builder = BatchBuilder(TABLES[row.table], epoch=1, run_id="r", on_bad=bad.append)
    list(builder.add([(row.row, NS, None, 100)]))
    assert not bad, bad
    [batch] = builder.seal()
    names = [name for name in batch.data.schema.names if not name.startswith("ts")]
    return {name: batch.data.column(name)[0].as_py() for name in names}


def rows_of(message: Any, **options: Any) -> dict[str, dict[str, Any]]:
    """The stored rows of one message, by table (the last of each)."""
    normaliser = BinanceNormaliser(**options)
    return {row.table: stored(row) for row in normaliser.normalise(Message(raw(message), NS))}


@given(qty=positive, price=positive, fee=signed, wanted=amounts, limit=amounts)
@settings(max_examples=60, deadline=None)
def test_every_digit_of_a_fill_survives(qty: str, price: str, fee: str, wanted: str, limit: str) -> None:
    """From the venue's text to the column: no float in between, on spot and on futures."""
    for message in (
        spot_trade(l=qty, L=price, n=fee, N="BNB", q=wanted, p=limit),
        futures_trade(l=qty, L=price, n=fee, q=wanted, p=limit),
    ):
        made = rows_of(message)
        fill, order = made["fills"], made["orders"]
        assert (fill["fill_qty"], fill["fill_price"], fill["fees"]) == (
            Decimal(qty),
            Decimal(price),
            Decimal(fee),
        )
        assert (order["qty"] or 0) == Decimal(wanted)
        assert (order["limit_px"] or 0) == Decimal(limit)
        assert fill["raw_json"] == raw(message)


@given(amount=signed, entry=amounts, profit=signed, wallet=signed, free=amounts, locked=amounts)
@settings(max_examples=60, deadline=None)
def test_every_digit_of_an_account_survives(
    amount: str, entry: str, profit: str, wallet: str, free: str, locked: str
) -> None:
    """Positions, balances, and the sum of what is free and what is locked."""
    held = position(amount=amount, ep=entry, cr=profit, up=profit)
    made = rows_of(account_update([held], [balance(amount=wallet)]))
    assert made["positions_intraday"]["position_qty"] == Decimal(amount)
    assert made["positions_intraday"]["realized_pnl"] == Decimal(profit)
    assert made["positions_intraday"]["avg_price"] == (Decimal(entry) if Decimal(amount) else None)
    assert made["account_state"]["cash"] == Decimal(wallet)
    units = 10**18
    total = int(Decimal(free).scaleb(18, WIDE)) + int(Decimal(locked).scaleb(18, WIDE))
    try:
        found = rows_of(account_position(("X", free, locked)))["account_state"]
    except BadMessage:
        assert total >= 10**20 * units
    else:
        assert int(found["cash"].scaleb(18, WIDE)) == total


# -- one fill -----------------------------------------------------------------------------------------------------

LITE, FULL = "lite", "full"
deliveries = st.lists(
    st.tuples(
        st.sampled_from([LITE, FULL]),
        st.integers(1, 3),
        st.sampled_from(["BUY", "SELL"]),
        st.sampled_from(["go on", "restart"]),
    ),
    min_size=1,
    max_size=24,
)


@given(deliveries)
@settings(max_examples=300)
def test_a_fill_is_one_fill_however_it_comes(events: list[tuple[str, int, str, str]]) -> None:
    """Any interleaving of TRADE_LITE, full events and repeats, of both sides of a trade with oneself, a restart
    anywhere between them: by the key of `fills_unique` each fill that was told is there once, under its own order, with
    the fee if any full event of its side came. No row depends on what came before but a lite one that is left out."""
    normaliser = BinanceNormaliser(account_id="main")
    fills: dict[tuple[str, ...], list[Any]] = defaultdict(list)
    for kind, trade_id, side, then in events:
        order = {"S": side, "c": f"c-{side}", "i": 1 + (side == "SELL")}
        message = trade_lite(trade_id, **order) if kind == LITE else futures_trade(trade_id, **order)
        made = list(normaliser.normalise(Message(raw(message), NS)))
        alone = list(BinanceNormaliser(account_id="main").normalise(Message(raw(message), NS)))
        assert made == alone or (kind == LITE and not made)
        for row in made:
            if row.table == "fills":
                fill: Any = row.row
                fills[fill.venue, fill.account_id, fill.symbol, fill.fill_id, fill.side].append(fill)
        if then == "restart":
            normaliser = BinanceNormaliser(account_id="main")
    told = {(str(trade_id), side) for _, trade_id, side, _ in events}
    assert {(key[3], key[4].upper()) for key in fills} == told
    assert len(fills) == len(told)
    for key, copies in fills.items():
        full = any((FULL, key[3], key[4].upper()) == (kind, str(t), side) for kind, t, side, _ in events)
        assert any(copy.fees is not None for copy in copies) == full
        assert len({(copy.fill_qty, copy.fill_price, copy.ts_exchange) for copy in copies}) == 1
        assert {copy.client_order_id for copy in copies} == {f"c-{key[4].upper()}"}


@given(
    st.lists(
        st.tuples(st.sampled_from(["own", "lite", "full", "new"]), st.integers(1, 3), st.booleans()),
        min_size=1,
        max_size=20,
    )
)
@settings(max_examples=300)
def test_completing_never_parts_a_fill(events: list[tuple[str, int, bool]]) -> None:
    """Whatever the order of own rows and the venue's, with the account set or found out: one fill has one key. And
    where the order's own row came first, every fill of it has the strategy."""
    for account in ("main", ""):
        normaliser, ids = BinanceNormaliser(account_id=account), OrderIds(100)
        accounts: dict[str, set[str]] = defaultdict(set)
        own: set[int] = set()
        for kind, number, restart in events:
            client = f"c-{number}"
            if kind == "own":
                own.add(number)
                ids.take(
                    "orders",
                    {"account_id": "main", "client_order_id": client, "strategy": "mm", "symbol": "S"},
                )
                continue
            message = {
                "lite": trade_lite(number, c=client, i=number),
                "full": futures_trade(number, c=client, i=number),
                "new": order_update(c=client, i=number),
            }[kind]
            for row in normaliser.normalise(Message(raw(message), NS)):
                taken: Any = ids.take(row.table, row.row)
                assert (taken.strategy == "mm") == (number in own)
                if row.table == "fills":
                    accounts[taken.fill_id].add(taken.account_id)
            if restart:
                normaliser = BinanceNormaliser(account_id=account)
        assert all(len(found) == 1 for found in accounts.values())


# -- whatever comes -------------------------------------------------------------------------------------------------

ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.just([]), st.just({}),
    st.sampled_from(["NaN", "-1", "0", "1e999", "1", "9" * 20, "9" * 40, -1, 0, 2**64, T0, "TRADE"]),
    st.sampled_from([[None], [{}]]),
)  # fmt: skip
KINDS = sorted(ALL)


def feed(payloads: list[bytes]) -> None:
    """Nothing but BadMessage comes out, and what becomes a row is one of its table's."""
    normaliser, ids = BinanceNormaliser(), OrderIds(5)
    for place, payload in enumerate(payloads):
        with contextlib.suppress(BadMessage):
            rows = normaliser.normalise(Message(payload, NS + place, "file", place))
            assert len({row[:2] for row in rows}) == len(rows)
            for row in rows:
                ids.take(row.table, row.row)
                if row.table == "fills":
                    fill: Any = row.row
                    assert Decimal(fill.fill_qty) > 0
                    assert Decimal(fill.fill_price) > 0
        normaliser.snapshots(NS)


@given(
    st.lists(
        st.tuples(st.sampled_from(KINDS), st.integers(0, 400), st.binary(max_size=3), st.integers(0, 3)),
        max_size=6,
    )
)
@settings(max_examples=400)
def test_messages_with_bytes_changed(mutations: list[tuple[str, int, bytes, int]]) -> None:
    """Cut, overwritten, or with bytes put in."""
    payloads = []
    for kind, at, new, removed in mutations:
        payload = raw(ALL[kind])
        payloads.append(payload[:at] + new + payload[at + removed :])
    feed(payloads)


@given(st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 60), ODD), max_size=6))
@settings(max_examples=400)
def test_messages_with_values_changed(mutations: list[tuple[str, int, Any]]) -> None:
    """Any field, at any depth, may hold anything."""
    payloads = []
    for kind, field, value in mutations:
        changed = json.loads(raw(ALL[kind]))
        places = list(_places(changed))
        owner, name = places[field % len(places)]
        owner[name] = value
        payloads.append(json.dumps(changed, separators=(",", ":")).encode())
    feed(payloads)


def _places(value: Any) -> Any:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in list(items):
        yield value, name
        yield from _places(inner)


texts = st.sampled_from(["", "a", "b", "c"])
order_rows = st.fixed_dictionaries({
    "account_id": texts, "client_order_id": st.one_of(st.none(), texts), "venue": st.one_of(st.none(), texts),
    "symbol": st.sampled_from(["S", "T"]), "broker_order_id": st.one_of(st.none(), texts, st.sampled_from("12345")),
    "strategy": st.one_of(st.none(), st.just("mm")), "ts_send": st.one_of(st.none(), st.just(5)),
})  # fmt: skip


@given(
    st.integers(1, 3),
    st.lists(st.tuples(st.sampled_from(["orders", "fills", "old"]), order_rows), max_size=30),
)
@settings(max_examples=500)
def test_the_map_of_orders_stays_whole(most: int, rows: list[tuple[str, dict[str, Any]]]) -> None:
    """However rows come: at most so many orders, nothing leads to one that is forgotten, and no row loses a value."""
    ids = OrderIds(most)
    for table, row in rows:
        if table == "old":
            texts = (
                row[name] or ""
                for name in ("account_id", "client_order_id", "venue", "symbol", "broker_order_id")
            )
            ids.learn(OrderIdentity(*texts), row, old=True)
        else:
            taken = ids.take(table, row)
            assert all(taken[name] == value for name, value in row.items() if value not in (None, ""))
        assert len(ids) <= most
        assert set(ids._numbers.values()) <= set(ids._orders)
        assert {(account, client) for client, found in ids._accounts.items() for account in found} == set(
            ids._orders
        )
        assert sorted(n for known in ids._orders.values() for n in known.numbers) == sorted(ids._numbers)
        assert len(ids._nameless) <= most
