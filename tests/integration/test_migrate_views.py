"""Laws of the views over appended events, on a real ClickHouse."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from schemas.core.tables import PACK
from schemas.core.vocabulary import FINAL_ORDER_STATUSES, ORDER_STATUSES
from schemas.executor import ClientExecutor
from schemas.manager import Manager

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

DAY_NS = 86_400_000_000_000
NOW_NS = 20_600 * DAY_NS


class Book:
    """Appends events to one database and reads its views."""

    def __init__(self, client: Client, database: str):
        self._client = client
        self._database = database
        self._seq = 0

    def add(self, table: str, at: int, **values: Any) -> None:
        """Append a row at `ts_local` = `at` ns past a fixed day."""
        self._seq += 1
        row = {"ts_local": NOW_NS + at, "_log": 1, "_seq": self._seq, **values}
        self._client.insert(
            table,
            [list(row.values())],
            column_names=list(row),
            database=self._database,
            settings={"async_insert": 0},
        )

    def rows(self, view: str, columns: str, where: str = "1") -> list[tuple[Any, ...]]:
        """Rows of a view, ordered."""
        sql = f"SELECT {columns} FROM {self._database}.{view} WHERE {where} ORDER BY ALL"
        return [tuple(row) for row in self._client.query(sql).result_rows]

    def order(self, at: int, status: str, client: str | None = "c-1", **values: Any) -> None:
        """Append a transition of an order."""
        self.add(
            "orders", at, symbol="BTCUSDT", account_id="a", client_order_id=client, status=status, **values
        )


@pytest.fixture
def book(client: Client, database: str) -> Book:
    """A database with the core pack, without TTL: its rows lie in the past."""
    Manager(ClientExecutor(client), [PACK], database, ttl=False).up()
    return Book(client, database)


def test_an_order_is_the_latest_known_value_of_each_column(book: Book) -> None:
    """Transitions carry what they know; the view puts them together, with the submit latency."""
    book.order(1, "Submitted", qty=Decimal("1.5"), strategy="mm", ts_send=NOW_NS + 100)
    book.order(2, "Acked", broker_order_id="b-1", ts_ack=NOW_NS + 350)
    book.order(3, "PartiallyFilled", qty=Decimal("1.25"))
    (row,) = book.rows(
        "orders_current",
        "status, is_final, client_order_id, broker_order_id, strategy, qty, submit_latency_ns, transitions",
    )
    assert row == ("PartiallyFilled", False, "c-1", "b-1", "mm", Decimal("1.25"), 250, 3)


def test_the_submit_latency_is_null_until_both_times_are_known(book: Book) -> None:
    """Without an acknowledgement there is no latency."""
    book.order(1, "Submitted", ts_send=NOW_NS)
    assert book.rows("orders_current", "submit_latency_ns") == [(None,)]


def test_a_late_transition_never_moves_a_final_status_back(book: Book) -> None:
    """An acknowledgement that arrives after the fill fills in its time and leaves the status."""
    book.order(1, "Submitted", ts_send=NOW_NS)
    book.order(2, "Filled", ts_final=NOW_NS + 20)
    book.order(3, "Acked", ts_ack=NOW_NS + 10)
    assert book.rows("orders_current", "status, is_final, submit_latency_ns, conflicting_finals") == [
        ("Filled", True, 10, 0)
    ]


def test_the_view_and_the_vocabulary_agree_on_what_is_final(book: Book) -> None:
    """No status is final in one and open in the other."""
    for status in ORDER_STATUSES:
        book.order(1, status, client=status)
    found = book.rows("orders_current", "status", "is_final")
    assert found == [(status,) for status in sorted(FINAL_ORDER_STATUSES)]


def test_of_two_final_statuses_the_first_stands_and_the_other_is_counted(book: Book) -> None:
    """A cancel reported after the fill changes neither status nor final time nor reason."""
    book.order(1, "Filled", ts_final=NOW_NS + 1)
    book.order(2, "Filled", ts_final=NOW_NS + 2)
    book.order(3, "Rejected", ts_final=NOW_NS + 3, reject_reason="too late")
    (row,) = book.rows(
        "orders_current", "status, toUnixTimestamp64Nano(ts_final), reject_reason, conflicting_finals"
    )
    assert row == ("Filled", NOW_NS + 1, None, 1)


def test_rows_with_the_venues_id_alone_join_their_order(book: Book) -> None:
    """A transition that names only the broker's id belongs to the order that another row gave both ids."""
    book.order(1, "Acked", broker_order_id="b-1")
    book.order(2, "Filled", client=None, broker_order_id="b-1")
    book.order(3, "Open", client="", broker_order_id="b-9")
    book.order(4, "Filled", client=None, broker_order_id="b-9")
    book.order(5, "Submitted", client="c-2")
    assert book.rows("orders_current", "client_order_id, broker_order_id, status, transitions") == [
        ("c-1", "b-1", "Filled", 2),
        ("c-2", None, "Submitted", 1),
        (None, "b-9", "Filled", 2),
    ]


def test_the_venues_id_is_one_orders_within_its_venue_and_symbol(book: Book) -> None:
    """Venues count orders per symbol: one id in two symbols, or at two venues, is two orders."""
    for at, (symbol, venue) in enumerate((("BTC", "v"), ("ETH", "v"), ("BTC", "w"))):
        where = {"account_id": "a", "symbol": symbol, "venue": venue}
        book.add("orders", at, **where, broker_order_id="1", status="Open")
    book.add("orders", 9, account_id="a", symbol="ETH", venue="v", broker_order_id="1", status="Filled")
    assert book.rows("orders_current", "symbol, venue, status, transitions") == [
        ("BTC", "v", "Open", 1), ("BTC", "w", "Open", 1), ("ETH", "v", "Filled", 2),
    ]  # fmt: skip


def test_the_venues_id_leads_to_the_order_of_its_own_venue_and_symbol(book: Book) -> None:
    """A row with the venue's id alone joins no order of another symbol or venue."""
    for at, (symbol, venue) in enumerate((("BTC", "v"), ("ETH", "v"), ("BTC", "w"))):
        where = {"account_id": "a", "symbol": symbol, "venue": venue, "broker_order_id": "1"}
        book.add("orders", at, **where, client_order_id=f"{symbol}@{venue}", status="Acked")
        if symbol == "BTC":
            book.add("orders", 10 + at, **where, status="Filled")
    book.add("orders", 20, account_id="a", symbol="SOL", venue="v", broker_order_id="1", status="Expired")
    assert book.rows("orders_current", "symbol, client_order_id, status, transitions") == [
        ("BTC", "BTC@v", "Filled", 2), ("BTC", "BTC@w", "Filled", 2), ("ETH", "ETH@v", "Acked", 1),
        ("SOL", None, "Expired", 1),
    ]  # fmt: skip


def test_a_row_without_its_venue_joins_the_one_venue_there_is(book: Book) -> None:
    """What an event does not say does not tear an order apart; where two venues fit, it joins neither."""
    book.order(1, "Acked", broker_order_id="b-1")
    book.order(2, "Filled", client=None, broker_order_id="b-1", venue="v")
    book.order(3, "Acked", "c-2", broker_order_id="b-2", venue="v")
    book.order(4, "Filled", client=None, broker_order_id="b-2")
    book.order(5, "Acked", "c-3", broker_order_id="b-3", venue="v")
    book.order(6, "Acked", "c-4", broker_order_id="b-3", venue="w")
    book.order(7, "Filled", client=None, broker_order_id="b-3")
    assert book.rows("orders_current", "client_order_id, status, transitions") == [
        ("c-1", "Filled", 2), ("c-2", "Filled", 2), ("c-3", "Acked", 1), ("c-4", "Acked", 1), (None, "Filled", 1),
    ]  # fmt: skip


def test_the_same_client_id_in_two_accounts_is_two_orders(book: Book) -> None:
    """An order's key is the account and the client's id; rows without any id are no order."""
    book.order(1, "Open")
    book.add("orders", 2, symbol="X", account_id="b", client_order_id="c-1", status="Filled")
    book.add("orders", 3, symbol="X", account_id="b", status="Filled")
    assert book.rows("orders_current", "account_id, status") == [("a", "Open"), ("b", "Filled")]


def test_a_fill_sent_twice_is_one_fill(book: Book) -> None:
    """fills_unique has one row an execution with the latest known values, so its sums are right."""
    fill = {"fill_id": "f-1", "symbol": "BTCUSDT", "venue": "v", "side": "buy"}
    book.add("fills", 1, **fill, fill_qty=Decimal(2), fill_price=Decimal(10))
    book.add("fills", 2, **fill, fill_qty=Decimal(2), fill_price=Decimal(10), fees=Decimal("0.1"))
    book.add("fills", 3, **fill, fill_qty=Decimal(2), fill_price=Decimal(10))
    book.add("fills", 4, **{**fill, "venue": "w"}, fill_qty=Decimal(5), fill_price=Decimal(10))
    assert book.rows("fills_unique", "venue, fill_qty, fees, copies") == [
        ("v", Decimal(2), Decimal("0.1"), 3), ("w", Decimal(5), None, 1),
    ]  # fmt: skip


def test_the_two_sides_of_a_trade_with_oneself_are_two_fills(book: Book) -> None:
    """The venue gives both the trade's id; each side keeps its own order and fee, and the sum is that of both."""
    fill = {
        "fill_id": "f-1",
        "symbol": "BTCUSDT",
        "venue": "v",
        "fill_qty": Decimal(2),
        "fill_price": Decimal(10),
    }
    book.add("fills", 1, **fill, side="buy", client_order_id="c-1")
    book.add("fills", 2, **fill, side="sell", client_order_id="c-2", fees=Decimal("0.2"))
    book.add("fills", 3, **fill, side="buy", client_order_id="c-1", fees=Decimal("0.1"))
    assert book.rows("fills_unique", "side, client_order_id, fees, copies") == [
        ("buy", "c-1", Decimal("0.1"), 2), ("sell", "c-2", Decimal("0.2"), 1),
    ]  # fmt: skip


def test_a_position_is_its_latest_state(book: Book) -> None:
    """The latest by the state's own time, one row a strategy; the account's net position has no strategy."""
    at = {"symbol": "BTCUSDT", "account_id": "a"}
    book.add("positions_intraday", 2, **at, strategy="mm", position_qty=Decimal(2), ts=NOW_NS + 20)
    book.add(
        "positions_intraday",
        3,
        **at,
        strategy="mm",
        position_qty=Decimal(1),
        ts=NOW_NS + 10,
        avg_price=Decimal(7),
    )
    book.add("positions_intraday", 4, **at, position_qty=Decimal(9))
    assert book.rows("positions_intraday_current", "strategy, position_qty, avg_price") == [
        ("mm", Decimal(2), Decimal(7)), (None, Decimal(9), None),
    ]  # fmt: skip


def test_a_flat_position_has_no_average_price(book: Book) -> None:
    """The price of a position that was closed is neither the flat one's nor the next one's."""
    at = {"symbol": "BTCUSDT", "account_id": "a"}
    book.add("positions_intraday", 1, **at, position_qty=Decimal(1), avg_price=Decimal(100))
    book.add("positions_intraday", 2, **at, position_qty=Decimal(0))
    columns = "position_qty, avg_price"
    assert book.rows("positions_intraday_current", columns) == [(Decimal(0), None)]
    book.add("positions_intraday", 3, **at, position_qty=Decimal(2))
    assert book.rows("positions_intraday_current", columns) == [(Decimal(2), None)]
    book.add("positions_intraday", 4, **at, position_qty=Decimal(2), avg_price=Decimal(90))
    book.add("positions_intraday", 5, **at, position_qty=Decimal(1))
    assert book.rows("positions_intraday_current", columns) == [(Decimal(1), Decimal(90))]


def test_an_account_is_its_latest_state(book: Book) -> None:
    """Partial updates add up to one state an account."""
    book.add("account_state", 1, account_id="a", equity=Decimal(100), risk_mode="normal")
    book.add("account_state", 2, account_id="a", cash=Decimal(40))
    book.add("account_state", 3, account_id="b", equity=Decimal(1))
    assert book.rows("account_state_current", "account_id, equity, cash, risk_mode") == [
        ("a", Decimal(100), Decimal(40), "normal"), ("b", Decimal(1), None, None),
    ]  # fmt: skip
