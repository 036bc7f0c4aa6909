"""When a batch goes: full at once, else after the linger, and all tables together within the insert budget."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from recorder.budget import WINDOW_NS, InsertBudget
from recorder.flush_policy import NS_PER_MS, NS_PER_S, FlushPolicy, is_due, is_full, linger_ns

POLICY = FlushPolicy(batch_rows=100, batch_bytes=10_000, linger_ms=250, linger_max_ms=1_000)


@pytest.mark.parametrize(
    ("rows", "nbytes", "full"), [(99, 9_999, False), (100, 0, True), (1, 10_000, True), (0, 0, False)]
)
def test_a_batch_is_full_by_rows_or_bytes(rows: int, nbytes: int, full: bool) -> None:
    """Either bound alone makes it full."""
    assert is_full(POLICY, rows, nbytes) is full


def test_a_full_batch_goes_at_once_and_another_after_the_linger() -> None:
    """The oldest row's wait decides, to the nanosecond; an empty batch never goes."""
    linger = 250 * NS_PER_MS
    assert is_due(POLICY, 100, 0, 5, 5, linger)
    assert not is_due(POLICY, 1, 0, 5, 5 + linger - 1, linger)
    assert is_due(POLICY, 1, 0, 5, 5 + linger, linger)
    assert not is_due(POLICY, 0, 0, None, 5 + linger, linger)
    assert not is_due(POLICY, 0, 0, 5, 5 + linger, linger)


@given(
    st.floats(1, 2_000), st.floats(0, 5_000), st.integers(0, 500), st.floats(0, 100), st.floats(0.1, 200),
)  # fmt: skip
def test_the_linger_stays_within_its_bounds_and_keeps_the_budget(
    least: float, more: float, active: int, full_per_s: float, budget: float
) -> None:
    """From `linger_ms` to `linger_max_ms`; below the longest, all active tables together keep the budget."""
    policy = FlushPolicy(batch_rows=1, batch_bytes=1, linger_ms=least, linger_max_ms=least + more)
    linger = linger_ns(policy, active_tables=active, full_batches_per_s=full_per_s, budget_per_s=budget)
    assert least * NS_PER_MS - 1 <= linger <= (least + more) * NS_PER_MS + 1
    if linger < int((least + more) * NS_PER_MS):
        inserts_per_s = full_per_s + active * NS_PER_S / linger
        assert inserts_per_s <= budget * 1.001 + 0.001


def test_a_budget_that_does_not_bind_leaves_the_linger_alone() -> None:
    """Few tables go after `linger_ms`."""
    assert linger_ns(POLICY, active_tables=3, full_batches_per_s=0, budget_per_s=40) == 250 * NS_PER_MS
    assert linger_ns(POLICY, active_tables=20, full_batches_per_s=0, budget_per_s=40) == 500 * NS_PER_MS
    assert linger_ns(POLICY, active_tables=1, full_batches_per_s=40, budget_per_s=40) == 1_000 * NS_PER_MS


@pytest.mark.parametrize(("tables", "budget"), [(13, 40.0), (30, 40.0), (8, 10.0), (60, 80.0)])
def test_all_tables_together_keep_the_budget(tables: int, budget: float) -> None:
    """Rows come to every table all the time: over ten seconds of a simulated clock the inserts stay within the budget,
    and go at least as often as the longest linger asks."""
    shared = InsertBudget(budget)
    oldest: dict[int, int] = {}
    inserts = 0
    step = 5 * NS_PER_MS
    for now in range(0, 12 * NS_PER_S, step):
        for table in range(tables):
            oldest.setdefault(table, now)
            shared.saw_rows(str(table), now)
            if is_due(POLICY, 1, 1, oldest[table], now, shared.linger_ns(POLICY, now)):
                inserts += now >= 2 * NS_PER_S
                del oldest[table]
    assert inserts / 10 <= max(budget, tables) * 1.02
    assert inserts / 10 >= tables * 0.95


def test_tables_that_fell_silent_give_their_share_back() -> None:
    """Only tables with rows in the last seconds count, and only full batches of that time."""
    budget = InsertBudget(10)
    for table in "abcdefgh":
        budget.saw_rows(table, 0)
    assert budget.linger_ns(POLICY, 0) == 800 * NS_PER_MS
    budget.saw_rows("a", WINDOW_NS + 1)
    assert budget.linger_ns(POLICY, WINDOW_NS + 1) == 250 * NS_PER_MS
    for n in range(18):
        budget.sent_full(WINDOW_NS + n)
    assert budget.linger_ns(POLICY, WINDOW_NS + 20) == 1_000 * NS_PER_MS
    assert budget.linger_ns(POLICY, 3 * WINDOW_NS) == 250 * NS_PER_MS
