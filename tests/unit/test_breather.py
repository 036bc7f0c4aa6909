"""Pauses in long work."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorder.breather import HOLD_INTERVALS, NEVER, REST_S, Breather


class Clock:
    """Time that passes when it is told to, and while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.rests: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.rests.append(self.now)


@given(hold=st.floats(1e-5, 1e-2), steps=st.lists(st.floats(0, 5e-3), max_size=60))
def test_work_goes_on_for_no_longer_than_the_hold_and_one_step(hold: float, steps: list[float]) -> None:
    """Between two pauses lie at most `hold_s` of work and the step that was under way; and never less than it."""
    clock = Clock()
    breathe = Breather(hold, clock=clock, sleep=clock.sleep)
    breathe()
    for step in steps:
        before, rested = clock.now - clock.rests[-1], len(clock.rests)
        clock.now += step
        breathe()
        worked = before + step
        if len(clock.rests) > rested:
            assert worked >= hold * (1 - 1e-6)
        else:
            assert worked <= hold * (1 + 1e-6) + 1e-9


def test_without_a_hold_nothing_pauses() -> None:
    """Work that nobody waits for pays nothing."""
    clock = Clock()
    breathe = Breather(None, clock=clock, sleep=clock.sleep)
    for _ in range(10):
        clock.now += 1
        breathe()
    assert clock.rests == []


@pytest.mark.parametrize("interval", [None, 1e-3, 5e-3])
def test_who_did_not_ask_for_short_waits_gets_no_pauses(interval: float | None) -> None:
    """The interpreter's own interval, or one set for throughput, leaves the builder alone."""
    assert Breather.of_switch_interval(interval) is NEVER


def test_the_hold_follows_a_short_switch_interval() -> None:
    """A pause comes after `HOLD_INTERVALS` intervals, and lasts long enough for another thread to wake up."""
    assert Breather.of_switch_interval(1e-4)._hold_s == HOLD_INTERVALS * 1e-4
    assert REST_S >= 2e-5
