"""Whatever the seed, a simulated session is a consistent story, and its truth is what its rows say."""

from __future__ import annotations

from collections import Counter, defaultdict
from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext
from functools import lru_cache
from itertools import islice
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from recorder.bad_rows import BadRow
from recorder.build import BatchBuilder
from recorder.simulate import TABLES, Faults, Mix, Session
from schemas.core.tables import PACK
from schemas.core.vocabulary import FINAL_ORDER_STATUSES

START_NS = 1_760_000_000_000_000_000
BUSY = Mix(
    quotes_per_s=15,
    trades_per_s=10,
    book_deltas_per_s=3,
    orders_per_s=20,
    guardrails_per_min=20,
    system_events_per_min=120,
)
FAULTY = Faults(fill_repeats=0.1, venue_rejects=0.05, gateway_failures=0.03, risk_denials=0.05)
FOLLOWS = {
    None: {"Submitted"},
    "Submitted": {"Acked", "Rejected", "Failed"},
    "Acked": {"Open", "PartiallyFilled", "Filled", "Expired"},
    "Open": {"PartiallyFilled", "Filled", "Canceled", "Expired"},
    "PartiallyFilled": {"PartiallyFilled", "Filled", "Canceled", "Expired"},
}
Events = list[tuple[str, Any]]

seeds = st.integers(min_value=0, max_value=2**64)
laws = settings(max_examples=10, deadline=None)


@lru_cache(maxsize=16)
def session(seed: int, seconds: float = 6.0) -> tuple[Session, Events]:
    made = Session(seed, START_NS, duration_s=seconds, mix=BUSY, faults=FAULTY)
    return made, list(made.events())


def rows_of(events: Events, table: str) -> list[Any]:
    return [row for name, row in events if name == table]


def unique_fills(events: Events) -> list[Any]:
    return list({row.fill_id: row for row in reversed(rows_of(events, "fills"))}.values())[::-1]


@laws
@given(seed=seeds)
def test_rows_come_in_order_of_local_time_within_the_session(seed: int) -> None:
    """`ts_local` never steps back, and starts at the session's start."""
    _, events = session(seed)
    times = [row.ts_local for _, row in events]
    assert times == sorted(times)
    assert times[0] >= START_NS


@laws
@given(seed=seeds)
def test_every_order_goes_legally_from_submitted_to_one_final_status(seed: int) -> None:
    """Each transition may follow the one before, the last is final, and times of one order only grow."""
    _, events = session(seed)
    last: dict[str, Any] = {}
    for row in rows_of(events, "orders"):
        before = last.get(row.client_order_id)
        assert row.status in FOLLOWS[before.status if before else None]
        known = [t for t in (row.ts_intent, row.ts_send, row.ts_ack, row.ts_final) if t is not None]
        assert known == sorted(known)
        assert known[-1] <= row.ts_local
        assert (row.ts_final is not None) == (row.status in FINAL_ORDER_STATUSES)
        last[row.client_order_id] = row
    assert {row.status for row in last.values()} <= set(FINAL_ORDER_STATUSES)


@laws
@given(seed=seeds)
def test_every_fill_has_an_order_that_was_not_final(seed: int) -> None:
    """A fill first reported names an order sent before, acknowledged, not final, and of the same particulars."""
    _, events = session(seed)
    orders: dict[str, Any] = {}
    seen: set[str] = set()
    for table, row in events:
        if table == "orders":
            orders[row.client_order_id] = row
        elif table == "fills" and row.fill_id not in seen:
            seen.add(row.fill_id)
            order = orders[row.client_order_id]
            assert order.status in {"Acked", "Open", "PartiallyFilled"}
            for name in (
                "broker_order_id",
                "account_id",
                "strategy",
                "symbol",
                "venue",
                "side",
                "correlation_id",
            ):
                assert getattr(row, name) == getattr(order, name)
            assert order.ts_ack <= row.ts_exchange <= row.ts_local
            assert Decimal(row.fill_qty) > 0
            if order.limit_px is not None:
                better = Decimal(order.limit_px) - Decimal(row.fill_price)
                assert better >= 0 if row.side == "buy" else better <= 0


@laws
@given(seed=seeds)
def test_fills_add_up_to_the_order(seed: int) -> None:
    """A filled order's fills sum to its quantity exactly; any other's to less; one never sent or refused has none."""
    made, events = session(seed)
    filled: dict[str, Decimal] = defaultdict(Decimal)
    for row in unique_fills(events):
        filled[row.client_order_id] += Decimal(row.fill_qty)
    last = {row.client_order_id: row for row in rows_of(events, "orders")}
    for order_id, row in last.items():
        if row.status == "Filled":
            assert filled[order_id] == Decimal(row.qty)
        else:
            assert filled[order_id] < Decimal(row.qty)
        if row.status in {"Rejected", "Failed"}:
            assert filled[order_id] == 0
            assert row.reject_reason
        assert made.truth.orders[order_id].filled_qty == filled[order_id]
        assert made.truth.orders[order_id].status == row.status


class Recount:
    """Average cost, counted again in Decimals, independently of the simulator's whole numbers."""

    def __init__(self) -> None:
        self.qty = self.avg = self.realized = self.fees = Decimal(0)

    def fill(self, row: Any) -> None:
        qty, price = Decimal(row.fill_qty), Decimal(row.fill_price)
        signed = qty if row.side == "buy" else -qty
        self.fees += Decimal(row.fees)
        if self.qty * signed >= 0:
            cost = abs(self.qty) * self.avg + qty * price
            self.avg = (cost / (abs(self.qty) + qty)).quantize(Decimal("1e-9"))
        else:
            closed = min(qty, abs(self.qty))
            self.realized += closed * (price - self.avg) * (1 if self.qty > 0 else -1)
            if qty > abs(self.qty):
                self.avg = price
        self.qty += signed
        if self.qty == 0:
            self.avg = Decimal(0)


@laws
@given(seed=seeds)
def test_positions_follow_the_fills_exactly(seed: int) -> None:
    """Each position row after a fill, and the truth at the end, equal a recount of the fills, to the last digit."""
    made, events = session(seed)
    books: dict[tuple[str, str, str], Recount] = defaultdict(Recount)
    states: dict[tuple[str, str, str, int], tuple[Decimal, ...]] = {}
    seen: set[str] = set()
    checked = 0
    with localcontext(Context(prec=80, rounding=ROUND_HALF_EVEN)):
        for table, row in events:
            if table == "fills" and row.fill_id not in seen:
                seen.add(row.fill_id)
                key = (row.account_id, row.symbol, row.strategy)
                book = books[key]
                book.fill(row)
                states[(*key, row.ts_local)] = (book.qty, book.avg, book.realized, book.fees)
            elif table == "positions_intraday" and row.correlation_id is not None:
                stated = (row.position_qty, row.avg_price or 0, row.realized_pnl, row.fees_accum)
                expected = states[(row.account_id, row.symbol, row.strategy, row.ts)]
                assert tuple(map(Decimal, stated)) == expected
                checked += 1
    assert checked == len(seen)
    assert set(made.truth.positions) == set(books)
    for key, position in made.truth.positions.items():
        book = books[key]
        assert (position.qty, position.avg_price, position.realized_pnl, position.fees) == (
            book.qty,
            book.avg,
            book.realized,
            book.fees,
        )


@laws
@given(seed=seeds)
def test_accounts_balance(seed: int) -> None:
    """Cash is the opening balance plus what fills realised minus fees; equity splits into margin used and free."""
    made, events = session(seed)
    last: dict[str, Any] = {}
    for row in rows_of(events, "account_state"):
        last[row.account_id] = row
        assert Decimal(row.margin_used) + Decimal(row.margin_available) == Decimal(row.equity)
        assert Decimal(row.equity) - Decimal(row.day_pnl) == Decimal(1_000_000)
    for account_id, row in last.items():
        mine = [p for key, p in made.truth.positions.items() if key[0] == account_id]
        assert Decimal(row.cash) == 1_000_000 + sum(p.realized_pnl - p.fees for p in mine)


@laws
@given(seed=seeds)
def test_one_correlation_id_ties_a_chain_in_its_order(seed: int) -> None:
    """Quote, risk decision, first transition, first fill, position, account: in this order, with matching ids."""
    _, events = session(seed)
    chains: dict[str, Events] = defaultdict(list)
    for table, row in events:
        if row.correlation_id is not None:
            chains[row.correlation_id].append((table, row))
    order = ("market_data", "risk_decisions", "orders", "fills", "positions_intraday", "account_state")
    for chain in chains.values():
        firsts = list(dict.fromkeys(table for table, _ in chain))
        expected = [table for table in order if table in firsts]
        # The first fill comes before its own transition, after the order's first.
        assert firsts == expected
        assert firsts[:2] == ["market_data", "risk_decisions"]
        decision = chain[1][1]
        orders = [row for table, row in chain if table == "orders"]
        assert bool(orders) == (decision.decision != "deny")
        for row in orders:
            assert (row.intent_id, row.risk_decision_id, row.client_order_id) == (
                decision.intent_id,
                decision.risk_decision_id,
                decision.client_order_id,
            )
            assert chain[0][1].ts_local <= row.ts_intent <= decision.ts_local <= row.ts_send


@laws
@given(seed=seeds)
def test_ids_are_unique(seed: int) -> None:
    """No two orders, fills, decisions or venue numbers share an id; a fill comes twice only as a repeat."""
    made, events = session(seed)
    decisions = rows_of(events, "risk_decisions")
    for name in ("risk_decision_id", "intent_id", "client_order_id"):
        assert len({getattr(row, name) for row in decisions}) == len(decisions)
    broker = {
        (row.broker_order_id, row.client_order_id) for row in rows_of(events, "orders") if row.broker_order_id
    }
    assert len({one for one, _ in broker}) == len(broker)
    counts = Counter(row.fill_id for row in rows_of(events, "fills"))
    assert set(counts.values()) <= {1, 2}
    assert sum(n - 1 for n in counts.values()) == made.truth.repeated_fills


@laws
@given(seed=seeds)
def test_truth_equals_a_recount(seed: int) -> None:
    """Rows per table, and fills per strategy, counted again from the rows."""
    made, events = session(seed)
    assert made.truth.rows == Counter(table for table, _ in events)
    assert made.truth.decisions == Counter(row.decision for row in rows_of(events, "risk_decisions"))
    for name, truth in made.truth.fills.items():
        fills = [row for row in unique_fills(events) if row.strategy == name]
        assert truth.fills == len(fills)
        assert truth.qty == sum(Decimal(row.fill_qty) for row in fills)
        assert truth.notional == sum(Decimal(row.fill_qty) * Decimal(row.fill_price) for row in fills)
        assert truth.fees == sum(Decimal(row.fees) for row in fills)


@laws
@given(seed=seeds)
def test_every_table_is_there_and_its_rows_pass_validation(seed: int) -> None:
    """The recorder's own builder finds no bad row, as objects of the row class or as mappings."""
    _, events = session(seed)
    assert {table for table, _ in events} == {*TABLES, "book_deltas"}
    for table in PACK.tables:
        made = rows_of(events, table.name)
        assert all(type(row) is table.row for row in made)
        bad: list[BadRow] = []
        builder = BatchBuilder(table, epoch=1, run_id="run", on_bad=bad.append)
        for form in (made, [msgspec.structs.asdict(row) for row in made]):
            for _ in builder.add([(row, 1, None, 0) for row in form]):
                pass
        assert bad == []
        assert sum(batch.rows for batch in builder.seal()) == 2 * len(made)


@laws
@given(seed=seeds)
def test_the_market_is_never_crossed_and_on_its_grid(seed: int) -> None:
    """Bid below ask, five levels in order, sizes above zero, trades at the touch, venue ids without holes."""
    _, events = session(seed)
    trades: dict[str, int] = {}
    for row in rows_of(events, "market_data"):
        assert 0 < row.bid_px1 < row.ask_px1
        assert list(row.bid_pxs) == sorted(row.bid_pxs, reverse=True)
        assert list(row.ask_pxs) == sorted(row.ask_pxs)
        assert min((*row.bid_szs, *row.ask_szs, row.bid_sz1, row.ask_sz1)) > 0
        if row.last_price is not None:
            assert row.last_price == (row.ask_px1 if row.last_side == "buy" else row.bid_px1)
            assert row.trade_id == trades.get(row.symbol, row.trade_id - 1) + 1
            trades[row.symbol] = row.trade_id
    last: dict[str, int] = {}
    for row in rows_of(events, "book_deltas"):
        if row.symbol in last:
            assert row.first_update_id == last[row.symbol] + 1
        last[row.symbol] = row.last_update_id


@settings(max_examples=10, deadline=None)
@given(seed=seeds, max_rows=st.integers(min_value=1, max_value=2_000))
def test_a_row_limit_still_ends_cleanly(seed: int, max_rows: int) -> None:
    """With `max_rows`, at least so many rows come, and no order is left open."""
    made = Session(seed, START_NS, max_rows=max_rows, mix=BUSY)
    assert sum(1 for _ in made.events()) >= max_rows
    assert set(made.truth.statuses()) <= set(FINAL_ORDER_STATUSES)


@settings(max_examples=10, deadline=None)
@given(seed=seeds, taken=st.integers(min_value=1, max_value=1_500))
def test_truth_speaks_of_the_rows_handed_out_so_far(seed: int, taken: int) -> None:
    """Stopped anywhere, the truth counts what was taken and nothing that was still to come."""
    made = Session(seed, START_NS, duration_s=20, mix=BUSY, faults=FAULTY)
    events = list(islice(made.events(), taken))
    assert made.truth.total_rows == len(events)
    assert sum(s.fills for s in made.truth.fills.values()) == len(unique_fills(events))
    last = {row.client_order_id: row.status for row in rows_of(events, "orders")}
    assert {order_id: order.status for order_id, order in made.truth.orders.items()} == last
