"""The map that completes the venue's rows from the producer's."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest

from recorder.normalise.order_ids import CONTEXT, ENTRY_BYTES, OrderIdentity, OrderIds
from recorder.normalise.order_ids_load import _since
from schemas.core.trading import Fill, Order

OWN: dict[str, Any] = {
    "account_id": "main", "client_order_id": "c-1", "symbol": "BTCUSDT", "status": "Submitted",
    "strategy": "mm", "intent_id": "i-1", "approved_id": "a-1", "decision_id": "d-1", "correlation_id": "k-1",
    "ts_intent": 10, "ts_send": 20,
}  # fmt: skip
"""What a trading process says of an order."""
KNOWN = {name: OWN[name] for name in CONTEXT}


def venue_order(**changes: Any) -> Order:
    return Order(**{
        "account_id": "main", "client_order_id": "c-1", "broker_order_id": "7", "symbol": "BTCUSDT",
        "venue": "binance.usdm", "status": "Open",
    } | changes)  # fmt: skip


def venue_fill(**changes: Any) -> Fill:
    return Fill(**{
        "account_id": "main", "client_order_id": "c-1", "broker_order_id": "7", "symbol": "BTCUSDT",
        "venue": "binance.usdm", "fill_id": "f", "side": "buy", "fill_qty": "1", "fill_price": "2",
    } | changes)  # fmt: skip


def said(row: Any, *names: str) -> dict[str, Any]:
    return {name: getattr(row, name) for name in (names or CONTEXT)}


def test_the_venues_order_is_completed() -> None:
    """By its client id: who wanted it, who approved it, when it was sent."""
    ids = OrderIds()
    assert ids.take("orders", OWN) is OWN
    assert said(ids.take("orders", venue_order())) == KNOWN
    assert (ids.completed, ids.unresolved) == ({"orders": 1}, {})


def test_a_fill_gets_what_a_fill_has() -> None:
    """Strategy and correlation."""
    ids = OrderIds()
    ids.take("orders", OWN)
    fill = ids.take("fills", venue_fill())
    assert said(fill, "strategy", "correlation_id") == {"strategy": "mm", "correlation_id": "k-1"}


def test_the_venues_number_leads_to_the_order_once_a_row_has_named_both() -> None:
    """A row with the number alone gets the client id, too."""
    ids = OrderIds()
    ids.take("orders", OWN)
    late = ids.take("fills", venue_fill(client_order_id=None))
    assert (late.strategy, ids.unresolved) == (None, {"fills": 1})
    ids.take("orders", venue_order())
    known = ids.take("fills", venue_fill(client_order_id=None))
    assert (known.strategy, known.client_order_id) == ("mm", "c-1")
    other_id = ids.take("orders", venue_order(client_order_id="c-2"))  # amended: goes on under another id
    assert (other_id.strategy, other_id.client_order_id) == ("mm", "c-2")
    assert ids.take("fills", venue_fill(client_order_id="c-2", broker_order_id="8")).strategy == "mm"


@pytest.mark.parametrize("where", [{"symbol": "ETHUSDT"}, {"venue": "binance.spot"}, {"account_id": "other"}])
def test_a_number_is_one_orders_within_account_venue_and_symbol(where: dict[str, str]) -> None:
    """Venues number orders within a symbol: the same number elsewhere is another order."""
    ids = OrderIds()
    ids.take("orders", OWN)
    ids.take("orders", venue_order())
    assert ids.take("fills", venue_fill(client_order_id=None, **where)).strategy is None
    assert ids.take("fills", venue_fill(client_order_id=None)).strategy == "mm"


def test_a_number_from_a_row_without_a_venue_serves_every_venue() -> None:
    """A trading process need not name the venue as the normaliser does."""
    ids = OrderIds()
    ids.take("orders", OWN | {"broker_order_id": "7"})
    assert ids.take("fills", venue_fill(client_order_id=None)).strategy == "mm"


def test_the_same_client_id_in_two_accounts_is_two_orders() -> None:
    """Each gets its own."""
    ids = OrderIds()
    ids.take("orders", OWN)
    ids.take("orders", OWN | {"account_id": "other", "strategy": "momentum"})
    assert ids.take("fills", venue_fill()).strategy == "mm"
    assert ids.take("fills", venue_fill(account_id="other")).strategy == "momentum"
    assert ids.take("fills", venue_fill(account_id="third")).strategy is None


def test_what_a_row_says_itself_stands() -> None:
    """Only what is null is completed, and a later own row changes what is known."""
    ids = OrderIds()
    ids.take("orders", OWN)
    row = ids.take("orders", venue_order(strategy="manual", ts_send=5))
    assert (row.strategy, row.ts_send, row.intent_id) == ("manual", 5, "i-1")
    assert ids.take("fills", venue_fill()).strategy == "manual"


def test_a_row_that_comes_first_stays_as_it_is_and_is_counted() -> None:
    """What follows the order's own row is completed."""
    ids = OrderIds()
    early = venue_order()
    assert ids.take("orders", early) is early
    assert ids.unresolved == {"orders": 1}
    ids.take("orders", OWN)
    assert ids.take("fills", venue_fill()).strategy == "mm"
    assert ids.take("fills", venue_fill(client_order_id=None)).strategy is None, "no row has named both since"


@pytest.mark.parametrize("form", ["object", "mapping", "tuple"])
def test_every_form_of_a_row_is_taken_and_none_is_changed(form: str) -> None:
    """A completed row is a copy, of the same form."""
    ids = OrderIds()
    ids.take("orders", OWN)
    row: Any = venue_fill()
    fields = Fill.__struct_fields__
    if form != "object":
        row = {name: getattr(row, name) for name in fields}
    if form == "tuple":
        row = tuple(row.values())
    taken = ids.take("fills", row)
    values = (
        taken
        if form == "mapping"
        else dict(zip(fields, taken, strict=True))
        if form == "tuple"
        else said(taken, *fields)
    )
    assert type(taken) is type(row)
    assert values["strategy"] == "mm"
    before = (
        row
        if form == "mapping"
        else dict(zip(fields, row, strict=True))
        if form == "tuple"
        else said(row, *fields)
    )
    assert before["strategy"] is None


@pytest.mark.parametrize("row", [
    {}, None, 5, "text", (), (1, 2), [], {"client_order_id": 5}, {"client_order_id": []}, {"account_id": {}},
    OWN | {"strategy": 7, "ts_send": "soon", "intent_id": None}, OWN | {"account_id": None},
    {"broker_order_id": b"7", "symbol": 3},
])  # fmt: skip
def test_whatever_a_row_is_it_never_raises(row: Any) -> None:
    """What is wrong with it is for the batch builder to say."""
    ids = OrderIds()
    for table in ("orders", "fills", "market_data", "none"):
        taken = ids.take(table, row)
        assert taken is row or isinstance(row, dict)


def test_rows_of_other_tables_pass() -> None:
    """Untouched and uncounted; with no entries allowed all rows do."""
    ids, off = OrderIds(), OrderIds(0)
    row = {"client_order_id": "c-1"}
    ids.take("orders", OWN)
    assert ids.take("risk_decisions", row) is row
    assert not ids.wants("risk_decisions")
    for one in (OWN, OWN | {"strategy": None}):
        assert off.take("orders", one) is one
    assert (len(off), off.unresolved, off.wants("orders")) == (0, {}, False)


# -- accounts -----------------------------------------------------------------------------------------------------


def test_a_row_without_an_account_takes_that_of_its_order() -> None:
    """Where exactly one account knows the client id."""
    ids = OrderIds()
    ids.take("orders", OWN)
    fill = ids.take("fills", venue_fill(account_id=""))
    assert (fill.account_id, fill.strategy) == ("main", "mm")
    ids.take("orders", venue_order(account_id=""))
    number_only = ids.take("fills", venue_fill(account_id="", client_order_id=None))
    assert (number_only.account_id, number_only.client_order_id) == ("main", "c-1")
    ids.take("orders", OWN | {"account_id": "other"})
    ambiguous = ids.take("fills", venue_fill(account_id="", broker_order_id=None))
    assert (ambiguous.account_id, ambiguous.strategy) == ("", None)


def test_two_messages_about_one_fill_never_end_under_two_accounts() -> None:
    """The account is part of the fill's key: what came without one before its order was known stays without."""
    ids = OrderIds()
    early = ids.take("fills", venue_fill(account_id=""))
    ids.take("orders", OWN)
    late = ids.take("fills", venue_fill(account_id=""))
    assert (early.account_id, late.account_id) == ("", "")
    assert late.strategy == "mm"


# -- bounds -------------------------------------------------------------------------------------------------------


def test_the_order_not_seen_for_longest_gives_way() -> None:
    """And all that led to it."""
    ids = OrderIds(3)
    for number in range(3):
        ids.take("orders", OWN | {"client_order_id": f"c-{number}", "broker_order_id": str(number)})
    ids.take("fills", venue_fill(client_order_id="c-0"))
    ids.take("orders", OWN | {"client_order_id": "c-3"})
    assert len(ids) == 3
    assert ids.take("fills", venue_fill(client_order_id="c-1", broker_order_id="1")).strategy is None
    for client in ("c-0", "c-2", "c-3"):
        assert ids.take("fills", venue_fill(client_order_id=client)).strategy == "mm"


def test_memory_is_bounded() -> None:
    """Ten times more orders than it holds cost no more than stated, with the longest usual ids, named or nameless."""
    entries = 300
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        ids = OrderIds(entries)
        for number in range(10 * entries):
            own = {
                name: f"{name}-{number:024d}"
                for name in ("intent_id", "approved_id", "decision_id", "correlation_id")
            }
            client = f"client-{number:024d}"
            times = {"ts_intent": 10**18 + number, "ts_send": 10**18 + number}
            ids.take("orders", venue_order(client_order_id=f"x{client}", account_id="", broker_order_id=None))
            ids.take("orders", OWN | own | times | {"client_order_id": client})
            for place in range(9):
                ids.take(
                    "orders", venue_order(client_order_id=client, broker_order_id=f"{number:020d}{place}")
                )
        used = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert len(ids) == entries
    assert used < entries * ENTRY_BYTES
    assert len(ids._numbers) <= 4 * entries
    assert len(ids._accounts) <= entries


def test_rows_from_before_never_overwrite_what_is_known() -> None:
    """Loaded late, they add what is missing, push no order out and are the first to give way."""
    ids = OrderIds(2)
    ids.take("orders", OWN | {"strategy": "new", "intent_id": None})
    old = {"account_id": "main", "client_order_id": "c-1", "strategy": "old", "intent_id": "i-0"}
    ids.learn(OrderIdentity("main", "c-1", "", "BTCUSDT", "7"), old, old=True)
    row = ids.take("fills", venue_fill(client_order_id=None))
    assert row.strategy == "new"
    assert ids.take("orders", venue_order()).intent_id == "i-0"
    for client in ("c-8", "c-9"):
        before = old | {"client_order_id": client}
        ids.learn(OrderIdentity("main", client, "", "BTCUSDT", ""), before, old=True)
    assert len(ids) == 2
    assert ids.take("fills", venue_fill(client_order_id="c-9", broker_order_id=None)).strategy is None
    ids.take("orders", OWN | {"client_order_id": "c-2"})
    assert ids.take("fills", venue_fill(client_order_id="c-8", broker_order_id=None)).strategy is None
    assert ids.take("fills", venue_fill()).strategy == "new"


def test_so_far_back_is_read_as_the_map_can_hold() -> None:
    """Whole hours from the newest on, and always the newest."""
    hours = [(7_200, 10), (3_600, 5), (0, 100)]
    assert [_since(hours, most) for most in (1, 10, 14, 15, 114)] == [7_200, 7_200, 7_200, 3_600, 3_600]
    assert _since([(3_600, 1_000_000)], 10) == 3_600
    assert _since([], 10) == 0


def test_a_negative_bound_is_refused() -> None:
    """By name."""
    with pytest.raises(ValueError, match="max_entries"):
        OrderIds(-1)
