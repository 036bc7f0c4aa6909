"""Laws of when retention is due."""

from __future__ import annotations

import datetime
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recorder.retaining.schedule import LATE_S, Schedule, begun, looked

S = 1_000_000_000
NIGHTLY = Schedule("0 2 * * *")
NOON_NS = int(datetime.datetime(2026, 11, 22, 12, tzinfo=datetime.UTC).timestamp()) * S
SCHEDULES = st.sampled_from(
    ["0 2 * * *", "*/5 * * * *", "30 3 * * 6", "0 0 29 2 *", "59 23 31 * *", "0 2 * * 1-5", "15 */6 L * *"]
).map(Schedule)
MOMENTS = st.integers(0, 5_000_000_000 * S)


def _utc(ns: int) -> str:
    return datetime.datetime.fromtimestamp(ns / S, datetime.UTC).isoformat()


def test_the_next_time_is_the_calendar_s() -> None:
    """In UTC; strictly later than now; in March and October too, when elsewhere hours are left out or come twice."""
    assert _utc(NIGHTLY.after_ns(NOON_NS)) == "2026-11-23T02:00:00+00:00"
    assert NIGHTLY.after_ns(NIGHTLY.after_ns(NOON_NS)) == NIGHTLY.second_after_ns(NOON_NS)
    for day in (28, 29, 30):
        at_ns = int(datetime.datetime(2026, 3, day, 1, 59, 59, tzinfo=datetime.UTC).timestamp()) * S
        assert NIGHTLY.after_ns(at_ns) - at_ns == S
    assert _utc(Schedule("30 3 * * 6").after_ns(NOON_NS)) == "2026-11-28T03:30:00+00:00"


@settings(deadline=None)
@given(SCHEDULES, MOMENTS)
def test_times_are_in_order_and_none_is_between(schedule: Schedule, now_ns: int) -> None:
    """From anywhere before a time, also from right before it, that time is the next one."""
    first = schedule.after_ns(now_ns)
    assert now_ns < first < schedule.second_after_ns(now_ns)
    assert schedule.after_ns(first - 1) == first
    assert schedule.after_ns((now_ns + first) // 2) == first


@settings(deadline=None)
@given(SCHEDULES, MOMENTS, st.lists(st.integers(1, int(LATE_S) * S), max_size=60))
def test_who_looks_often_enough_misses_nothing(schedule: Schedule, now_ns: int, steps: list[int]) -> None:
    """Each time that the clock passes has its turn, once and in order, if no two lie within one step."""
    turns, came = begun(schedule, now_ns), []
    for at_ns in itertools.accumulate(steps, initial=now_ns):
        turns, turn = looked(schedule, turns, at_ns)
        if turn is not None:
            assert not turn.missed
            came.append(turn.at_ns)
        assert turns.next_ns == schedule.after_ns(at_ns)
    assert came == sorted(set(came))
    if came:
        assert came[0] == schedule.after_ns(now_ns)


@settings(deadline=None)
@given(SCHEDULES, MOMENTS, st.lists(st.integers(-90_000 * S, 90_000 * S), max_size=60))
def test_however_the_clock_jumps(schedule: Schedule, now_ns: int, jumps: list[int]) -> None:
    """No time has its turn twice in a row, none before it has come, and the next one is as near as it should be."""
    turns, last_ns = begun(schedule, now_ns), 0
    at_ns = now_ns
    for jump in jumps:
        at_ns = max(0, at_ns + jump)
        turns, turn = looked(schedule, turns, at_ns)
        if turn is not None:
            assert turn.at_ns != last_ns
            assert turn.at_ns <= at_ns
            assert turn.missed == (at_ns - turn.at_ns > LATE_S * S)
            last_ns = turn.at_ns
        assert at_ns < turns.next_ns <= schedule.second_after_ns(at_ns)


def test_a_night_that_was_slept_through_is_missed_and_the_next_one_is_not() -> None:
    """It is told, and not made up for; one that is a little late is on time."""
    turns = begun(NIGHTLY, NOON_NS)
    two = NIGHTLY.after_ns(NOON_NS)
    assert looked(NIGHTLY, turns, two + 1_800 * S)[1] == (two, False)
    turns, turn = looked(NIGHTLY, turns, two + 6 * 3_600 * S)
    assert turn == (two, True)
    assert turns.next_ns == two + 86_400 * S


def test_a_clock_that_is_set_back_repeats_no_time() -> None:
    """Over the time that has just had its turn; set back by years, the next one is tomorrow's and not then's."""
    turns = begun(NIGHTLY, NOON_NS)
    two = NIGHTLY.after_ns(NOON_NS)
    turns, _ = looked(NIGHTLY, turns, two)
    turns, turn = looked(NIGHTLY, turns, two - 60 * S)
    assert turn is None
    assert turns.next_ns == two + 86_400 * S
    turns, _ = looked(NIGHTLY, turns, NOON_NS - 1_000 * 86_400 * S)
    assert turns.next_ns == two - 1_000 * 86_400 * S


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "2 o'clock",
        "@daily",
        "0 2 * *",
        "0 0 2 * * *",
        "61 2 * * *",
        "0 2 30 2 *",
        "0 2 * * 9",
        "* * * * L",
    ],
)
def test_what_is_no_schedule_is_refused_with_an_example(wrong: str) -> None:
    """Also one that no day ever is."""
    with pytest.raises(ValueError, match=r'such as "0 2 \* \* \*"'):
        Schedule(wrong)


@settings(deadline=None)
@given(st.text(max_size=30) | st.lists(st.text("0123456789*/-,#LW", max_size=5), max_size=6).map(" ".join))
def test_any_text_is_a_schedule_or_is_refused(text: str) -> None:
    """With one kind of error, whatever it is; and a schedule has a next time."""
    try:
        schedule = Schedule(text)
    except ValueError:
        return
    assert schedule.after_ns(NOON_NS) > NOON_NS
