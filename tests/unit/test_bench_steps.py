"""The open-loop producer, and the state of the collector it runs under."""

from __future__ import annotations

import gc
import time
from typing import Any

import pytest

from benchmarks.gcstate import gc_state
from benchmarks.rows import ALL_TABLES, make_rows
from benchmarks.steps import WAITS, Wait, take_steps
from schemas.core.tables import PACK

ROWS = [("a", (1,)), ("b", (2,)), ("c", (3,))]


@pytest.mark.parametrize("wait", WAITS)
def test_every_step_hands_one_row_over_in_turn(wait: Wait) -> None:
    """Rows go round, each step is reported, and no step is finished before it is due."""
    seen: list[Any] = []
    taken = take_steps(
        lambda table, row: seen.append((table, row)), ROWS, rate=20_000, steps=100, skip=10, wait=wait
    )
    assert seen == [ROWS[step % 3] for step in range(100)]
    assert len(taken.costs) == len(taken.lateness) == 90
    assert (taken.lateness >= 0).all()
    assert (taken.costs > 0).all()


def test_a_stall_makes_every_step_late_that_fell_into_it() -> None:
    """Deadlines are absolute: after a stall of 20 ms the steps owed are late by what was left of it, one after another.

    A closed loop, which waits for a step before it sets the next deadline, would show one late step.
    """
    calls = 0

    def stalls(table: str, row: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 50:
            time.sleep(0.02)

    taken = take_steps(stalls, ROWS, rate=10_000, steps=400)
    late = taken.lateness > 5_000_000
    assert late[49:150].all()  # 15 ms of steps at 100 µs each are still 5 ms late
    assert taken.costs[49] >= 20_000_000


def test_frozen_objects_thaw_and_a_collector_turned_off_comes_back() -> None:
    """The process is left as it was found."""
    with gc_state("freeze"):
        assert gc.get_freeze_count() > 0
    assert gc.get_freeze_count() == 0
    with gc_state("off"):
        assert not gc.isenabled()
    assert gc.isenabled()


def test_ready_rows_are_rows_of_their_tables() -> None:
    """Every table has rows, each as long as its table is wide, at times that come at the rate asked for."""
    rows = make_rows(ALL_TABLES, 10_000, 20_000)
    tables = {table.name: table for table in PACK.tables}
    assert {name for name, _ in rows} == set(ALL_TABLES)
    assert all(len(row) == len(tables[name].columns) for name, row in rows)
    at = {name: [column.name for column in table.columns].index("ts_local") for name, table in tables.items()}
    times = [row[at[name]] for name, row in rows]
    assert 1.8 < (max(times) - min(times)) / 1e9 < 2.2
    share = sum(name == "market_data" for name, _ in rows) / len(rows)
    assert 0.6 < share < 0.9
