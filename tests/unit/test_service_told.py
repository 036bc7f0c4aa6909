"""What is told of tables that do not flow, of rows at the end, and of snapshots: one line a cause, each row once."""

from __future__ import annotations

import asyncio
import types
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from recorder.flush_worker import WorkerState
from recorder.given_up import GivenUp, given_up
from recorder.observer import Observer
from recorder.reasons import as_sentences, by_reason
from recorder.service.rows import MessageRows
from recorder.service.topics import Route


def test_reasons_that_differ_in_their_tables_name_alone_are_one() -> None:
    """In the order of the tables; whose reason is its own stands alone, with its words."""
    reasons = {"orders": "orders: not migrated", "fills": "fills: not migrated", "quotes": "no column bid"}
    assert by_reason(reasons) == {"not migrated": ["orders", "fills"], "no column bid": ["quotes"]}
    assert as_sentences("held", reasons) == [
        "orders, fills are held: not migrated",
        "quotes is held: no column bid",
    ]


@pytest.mark.parametrize(
    ("rows", "again", "no_more", "expected"),
    [
        (10, 0, 0, GivenUp(lost=10, again=0)),  # of nobody's bus
        (10, 20, 0, GivenUp(lost=0, again=10)),  # of a message some rows of which were in
        (10, 4, 0, GivenUp(lost=6, again=4)),
        (10, 20, 3, GivenUp(lost=3, again=7)),  # any of those three may be among the ten
        (10, 20, 30, GivenUp(lost=10, again=0)),
    ],
)
def test_what_may_be_lost_counts_as_lost(rows: int, again: int, no_more: int, expected: GivenUp) -> None:
    """And nothing is counted twice."""
    assert given_up(rows, comes_again=again, comes_no_more=no_more) == expected


def observer(glance: Callable[[], None] = lambda: None) -> Observer:
    """One that has a log alone."""
    nobody: Any = types.SimpleNamespace(glance=glance)
    return Observer({}, nobody, nobody, nobody)


async def test_one_cause_that_stops_many_tables_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """Of all that happens at one time, and what is told at the end is told once; of a held table the alarm tells."""
    one = observer()
    with caplog.at_level("INFO", logger="recorder"):
        for table in ("a", "b", "c"):
            one.worker_state(table, WorkerState.RETRYING, f"{table}: reset")
        one.worker_state("d", WorkerState.HELD, "not migrated")
        one.worker_state("d", WorkerState.RETRYING, "reset")
        assert not caplog.records
        one.tell()
        assert caplog.messages == ["inserts fail, retrying tables=['a', 'b', 'c'] why='reset'"]
        caplog.clear()
        for table in ("a", "b", "c", "d"):
            one.worker_state(table, WorkerState.FLOWING, "")
        async with asyncio.timeout(30):
            while not caplog.records:  # noqa: ASYNC110 - a timer ends it
                await asyncio.sleep(0.01)
        assert caplog.messages == ["inserts go through again tables=['a', 'b', 'c', 'd']"]
        one.tell()
        assert len(caplog.records) == 1


async def test_a_table_that_is_held_is_looked_at_at_once() -> None:
    """It may be mended before the next look, and is an alarm all the same; retrying and flowing can wait."""
    looks: list[int] = []
    one = observer(lambda: looks.append(1))
    one.worker_state("a", WorkerState.RETRYING, "reset")
    assert len(looks) == 0
    one.worker_state("a", WorkerState.HELD, "gone")
    assert len(looks) == 1
    one.worker_state("a", WorkerState.FLOWING, "")
    assert len(looks) == 1
    one.tell()


def test_snapshots_go_on_though_the_clock_is_set_back() -> None:
    """By an hour, or forward: at the next look, and then every so often as before."""
    rows = MessageRows({}, "bus", "run", open_normaliser=lambda name: pytest.fail(name))
    taken: list[int] = []

    class Normaliser:
        snapshot_interval_s = 5.0
        filtered: Counter[str] = Counter()
        ignored: Counter[str] = Counter()

        def snapshots(self, now_ns: int) -> list[Any]:
            taken.append(now_ns // 10**9)
            return []

    rows.normalisers[Route("x", normaliser="n")] = Normaliser()  # type: ignore[assignment]
    for second in (10_000, 10_004, 10_005, 6_405, 6_406, 6_410, 99_000, 99_001):
        rows.snapshots(second * 10**9)
    assert taken == [10_000, 10_005, 6_405, 6_410, 99_000]
