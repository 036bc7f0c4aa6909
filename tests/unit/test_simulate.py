"""Seeds, reels and runs of the simulator."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import Any

import msgspec
import pytest

from recorder.build import BatchBuilder
from recorder.simulate import (
    TABLES,
    Mix,
    Reel,
    Schedule,
    Session,
    SimulationOptions,
    Steady,
    make_session,
    pregenerate,
    run_simulation,
)
from recorder.simulate.amount import atto_text, nano_text, rounded_quotient
from recorder.simulate.lifecycle import TRANSITIONS
from schemas.core.tables import PACK
from schemas.core.vocabulary import FINAL_ORDER_STATUSES, ORDER_STATUSES

START_NS = 1_760_000_000_000_000_000
MIX = Mix(book_deltas_per_s=2, orders_per_s=15)


class Memory:
    """Takes rows as a recorder does; refuses every n-th."""

    def __init__(self, refuse_each: int = 0) -> None:
        self.rows: list[tuple[str, Any]] = []
        self.refused = 0
        self._refuse_each = refuse_each

    def record(self, table: str, row: Any) -> bool:
        if self._refuse_each and (len(self.rows) + self.refused) % self._refuse_each == 0:
            self.refused += 1
            return False
        self.rows.append((table, row))
        return True


def rows(seed: int, **kwargs: Any) -> list[tuple[str, tuple[Any, ...]]]:
    session = Session(seed, START_NS, duration_s=5, mix=MIX, **kwargs)
    return [(table, msgspec.structs.astuple(row)) for table, row in session.events()]


def test_the_same_seed_makes_the_same_rows() -> None:
    """Two sessions of one seed are equal in every field of every row."""
    assert rows(42) == rows(42)


def test_another_seed_makes_another_session() -> None:
    """Prices, ids and times differ with the seed."""
    one, other = rows(1), rows(2)
    assert one != other
    orders = [{row for table, row in session if table == "orders"} for session in (one, other)]
    assert not orders[0] & orders[1]


def test_another_start_shifts_times_and_changes_ids() -> None:
    """Sessions of one seed at two starts share no order id, so that both fit in one database."""
    ids = []
    for start_ns in (START_NS, START_NS + 10**12):
        session = Session(1, start_ns, duration_s=5, mix=MIX)
        events = list(session.events())
        assert min(row.ts_local for _, row in events) >= start_ns  # type: ignore[attr-defined]
        ids.append(set(session.truth.orders))
    assert ids[0]
    assert not ids[0] & ids[1]


def test_every_table_has_rows_and_the_builder_takes_them_all() -> None:
    """What the simulator makes passes the recorder's own validation: no row is bad, none is lost."""
    session = Session(3, START_NS, duration_s=20, mix=MIX)
    by_table: dict[str, list[Any]] = {}
    for table, row in session.events():
        by_table.setdefault(table, []).append(row)
    assert set(by_table) == {*TABLES, "book_deltas"}
    tables = {table.name: table for table in PACK.tables}
    for name, made in by_table.items():
        bad: list[Any] = []
        builder = BatchBuilder(tables[name], epoch=1, run_id="run", on_bad=bad.append)
        for _ in builder.add([(row, 1, None, 0) for row in made]):
            pass
        assert bad == []
        assert sum(batch.rows for batch in builder.seal()) == len(made)


def test_order_states_are_those_of_the_table() -> None:
    """The state machine has every status of `orders`, and ends where the vocabulary says it does."""
    assert set(TRANSITIONS) - {"New"} == set(ORDER_STATUSES)
    assert {status for status, following in TRANSITIONS.items() if not following} == set(FINAL_ORDER_STATUSES)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (1, "0.000000001"), (-1, "-0.000000001"), (10**9, "1"), (61_800_200_000_000, "61800.2")],
)
def test_amounts_are_shown_exactly(value: int, shown: str) -> None:
    """Text of a whole number of 1e-9, without trailing zeros."""
    assert nano_text(value) == shown
    assert atto_text(value * 10**9) == shown


def test_quotients_round_half_to_even() -> None:
    """As Decimal does by default, so that a recount in Decimals meets the same digits."""
    assert [rounded_quotient(n, 2) for n in (1, 3, 5, 7)] == [0, 2, 2, 4]
    assert rounded_quotient(2, 3) == 1


def test_a_session_needs_an_end_and_is_read_once() -> None:
    """What cannot be simulated is said before any row."""
    with pytest.raises(ValueError, match="needs an end"):
        Session(1, START_NS)
    with pytest.raises(ValueError, match="different names"):
        Session(1, START_NS, max_rows=1, symbols=("A", "A"))
    session = Session(1, START_NS, max_rows=1)
    list(session.events())
    with pytest.raises(RuntimeError, match="read once"):
        list(session.events())


def test_symbols_and_strategies_are_those_asked_for() -> None:
    """Names of one's own choice work, known or not."""
    session = Session(
        5, START_NS, duration_s=10, symbols=("BTCUSDT", "ZZZ"), strategy_names=("mine",), mix=MIX
    )
    events = list(session.events())
    assert {row.symbol for table, row in events if table == "market_data"} == {"BTCUSDT", "ZZZ"}  # type: ignore[attr-defined]
    assert set(session.truth.fills) == {"mine"}


def test_a_reel_goes_on_without_end_and_shares_nothing_between_laps() -> None:
    """Times only grow from lap to lap, ids never meet, rows are tuples in the order of the row class."""
    reel = pregenerate(2_000, seed=9, start_ns=START_NS)
    tables = {table.name: table for table in PACK.tables}
    laps = list(islice(reel.events(), 3 * len(reel)))
    times = []
    seen: Counter[str] = Counter()
    for table, row in laps:
        columns = [column.name for column in tables[table].columns]
        assert len(row) == len(columns)
        times.append(row[columns.index("ts_local")])
        if table == "risk_decisions":
            seen[row[columns.index("risk_decision_id")]] += 1
    assert times == sorted(times)
    assert set(seen.values()) == {1}
    assert Counter(table for table, _ in laps) == {table: 3 * n for table, n in reel.rows.items()}
    # A row handed out is nobody else's: the next lap does not change it.
    assert laps[0] == next(reel.events())


def test_a_reel_can_be_played_at_another_time() -> None:
    """`rebase_ns` shifts every time of a row by the same amount."""
    reel = pregenerate(200, seed=9, start_ns=START_NS)
    here, there = next(reel.events()), next(reel.events(rebase_ns=START_NS + 10**15))
    fields = {table.name: table for table in PACK.tables}[here[0]].columns
    for column, one, other in zip(fields, here[1], there[1], strict=True):
        shifted = column.name.startswith("ts") and one is not None
        assert other == (one + 10**15 if shifted else one)
    with pytest.raises(ValueError, match="at least one row"):
        Reel([], START_NS)


def test_a_run_hands_over_every_row_and_tells_the_truth() -> None:
    """What the recorder got is what the result counts and what the truth says."""
    memory = Memory()
    result = run_simulation(memory, SimulationOptions(seed=4, minutes=0.2, start_ns=START_NS))
    assert result.complete
    assert Counter(table for table, _ in memory.rows) == result.accepted == result.truth.rows
    assert result.shed == {}
    assert result.start_ns == START_NS
    assert result.end_ns == memory.rows[-1][1].ts_local


def test_a_refused_row_is_counted_as_shed() -> None:
    """Accepted and shed together are the rows of the session."""
    memory = Memory(refuse_each=10)
    result = run_simulation(memory, SimulationOptions(seed=4, rows=3_000, start_ns=START_NS))
    assert sum(result.shed.values()) == memory.refused > 0
    assert Counter(result.accepted) + Counter(result.shed) == result.truth.rows


def test_a_schedule_that_ends_first_leaves_the_session_incomplete() -> None:
    """And the result says so."""
    memory = Memory()
    options = SimulationOptions(seed=4, minutes=5, schedule=Schedule.parse("5k:0.1"), start_ns=START_NS)
    result = run_simulation(memory, options)
    assert not result.complete
    assert len(memory.rows) == 500


def test_progress_is_told_and_ends_with_done() -> None:
    """The last call has all rows."""
    seen: list[tuple[bool, int, float]] = []
    options = SimulationOptions(seed=4, rows=500, start_ns=START_NS)
    result = run_simulation(Memory(), options, lambda p, s: seen.append((p.done, p.rows, s.share)))
    assert seen[-1] == (True, result.rows, 1.0)


@pytest.mark.parametrize(("name", "value"), [("minutes", 0), ("minutes", -1), ("rows", 0)])
def test_senseless_options_are_refused(name: str, value: int) -> None:
    """With the name of the option."""
    with pytest.raises(ValueError, match=name):
        SimulationOptions(**{name: value})  # type: ignore[arg-type]


def test_sessions_end_about_now_unless_told() -> None:
    """So that a simulated session is today's, in today's partition."""
    import time

    session = make_session(SimulationOptions(minutes=1))
    assert abs(session.start_ns + 60 * 10**9 - time.time_ns()) < 10 * 10**9


def test_steady_waits_while_a_queue_is_filling() -> None:
    """Rows go on only when the fullest queue is at most half full."""

    class Filling(Memory):
        looks = 0

        def status(self) -> dict[str, Any]:
            self.looks += 1
            return {
                "tables": {"a": {"queue_usage": 0.1}, "b": {"queue_usage": 0.9 if self.looks < 3 else 0.2}}
            }

    recorder = Filling()
    steady = Steady(recorder)
    for _ in range(4_095):
        steady.record("a", ())
    assert recorder.looks == 0
    steady.record("a", ())
    assert (recorder.looks, len(recorder.rows)) == (3, 4_096)
