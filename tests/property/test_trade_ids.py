"""Laws of the watch over trade ids."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from recorder.normalise.binance.ids import HOLES_MAX, TradeIds


@given(st.lists(st.integers(0, 60), max_size=200))
def test_an_id_is_new_exactly_once(ids: list[int]) -> None:
    """In whatever order ids come, each is new the first time and a repeat from then on."""
    watch, seen = TradeIds(), set[int]()
    for number in ids:
        new, _ = watch.follow(number)
        assert new == (number not in seen)
        seen.add(number)


@given(st.lists(st.integers(0, 10_000), max_size=400))
def test_no_id_is_taken_for_a_repeat_that_is_none(ids: list[int]) -> None:
    """With more holes than are remembered a repeat may pass, but what comes for the first time never counts as one."""
    watch, seen = TradeIds(), set[int]()
    for number in ids:
        new, _ = watch.follow(number)
        assert new or number in seen
        seen.add(number)
        assert len(watch._holes) <= HOLES_MAX


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40))
def test_holes_count_every_id_between(steps: list[int]) -> None:
    """With rising ids, what the holes say is missing and what came are together all there were."""
    watch, at, missing = TradeIds(), 0, 0
    watch.follow(0)
    for step in steps:
        at += step
        _, hole = watch.follow(at)
        missing += hole.count if hole else 0
    assert missing + len(steps) == at
