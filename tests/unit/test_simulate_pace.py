"""Pacing is open loop: deadlines are fixed at the start, lateness is measured and never forgiven."""

from __future__ import annotations

from itertools import repeat
from typing import Any

import pytest

from recorder.simulate import Phase, Schedule, drive


class FakeTime:
    """A clock that only sleeping and the rows themselves move."""

    def __init__(self, row_cost_ns: int = 0) -> None:
        self.now_ns = 1_000
        self.row_cost_ns = row_cost_ns
        self.sent_at: list[int] = []

    def clock(self) -> int:
        return self.now_ns

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now_ns += round(seconds * 1e9)

    def record(self, _table: str, _row: Any) -> bool:
        self.sent_at.append(self.now_ns - 1_000)
        self.now_ns += self.row_cost_ns
        return True


ROWS = ("t", ())


def run(time: FakeTime, schedule: Schedule | None, rows: int | None = None, **kwargs: Any) -> Any:
    events = repeat(ROWS) if rows is None else repeat(ROWS, rows)
    last = None
    for progress in drive(events, time.record, schedule, clock_ns=time.clock, sleep=time.sleep, **kwargs):
        last = progress
    assert last is not None
    assert last.done
    return last


def test_a_schedule_sends_exactly_its_rows_at_its_times() -> None:
    """25k rows/s for 2 s, then 50k/s for 1 s: 100,000 rows, each in the step in which it is due."""
    time = FakeTime()
    done = run(time, Schedule.parse("25k:2,50k:1"))
    assert done.rows == 100_000
    assert sum(1 for at in time.sent_at if at < 2e9) == 50_000
    assert max(time.sent_at) < 3e9
    for number, at in enumerate(time.sent_at[:50_000]):
        assert at <= number / 25_000 * 1e9 + 1 <= at + 2_000_001


def test_lateness_is_kept_and_caught_up() -> None:
    """A stall delays the steps after it, each by what is left of it, and no row is left out."""
    time = FakeTime()
    plain = time.record

    def stalling(table: str, row: Any) -> bool:
        if len(time.sent_at) == 100:
            time.now_ns += 10_000_000
        return plain(table, row)

    time.record = stalling  # type: ignore[method-assign]
    done = run(time, Schedule.parse("10k:0.1"), keep_lateness=True, step_s=0.002)
    assert done.rows == 1_000
    assert done.max_lateness_s == pytest.approx(0.008)
    late = [ns for ns in done.lateness_ns if ns]
    assert late == [8_000_000, 6_000_000, 4_000_000, 2_000_000]
    assert len(done.lateness_ns) == 50


def test_full_speed_sends_everything_and_never_sleeps() -> None:
    """Without phases the events' own end is the end."""
    time = FakeTime(row_cost_ns=1_000)
    done = run(time, None, rows=10_000)
    assert done.rows == 10_000
    assert done.elapsed_s == pytest.approx(0.01)
    assert done.lateness_ns == []


def test_events_that_run_out_end_the_drive() -> None:
    """A schedule longer than its events ends with them."""
    done = run(FakeTime(), Schedule.parse("1k"), rows=1_500)
    assert done.rows == 1_500
    assert done.elapsed_s == pytest.approx(1.5, abs=0.01)


def test_phases_are_told_in_progress() -> None:
    """Progress comes in every phase."""
    time = FakeTime()
    phases = {
        progress.phase
        for progress in drive(
            repeat(ROWS), time.record, Schedule.parse("1k:1,2k:1"), clock_ns=time.clock, sleep=time.sleep
        )
    }
    assert phases == {0, 1}


def test_what_record_raises_ends_the_drive() -> None:
    """An unknown table or a closed recorder is the caller's to see."""

    def broken(_table: str, _row: Any) -> bool:
        raise LookupError("no such table")

    with pytest.raises(LookupError):
        list(drive(repeat(ROWS, 3), broken))


@pytest.mark.parametrize(
    ("text", "phases"),
    [
        ("max", ()),
        ("500", (Phase(500, float("inf")),)),
        ("25k:60,50k:5", (Phase(25_000, 60), Phase(50_000, 5))),
        ("1.5M:2", (Phase(1_500_000, 2),)),
    ],
)
def test_schedules_are_read(text: str, phases: tuple[Phase, ...]) -> None:
    """Rates with k and M, durations in seconds."""
    assert Schedule.parse(text).phases == phases


@pytest.mark.parametrize(
    "text", ["", "fast", "-5:1", "0:1", "5:0", "5:-1", "5:1:2", "25k,50k:5", "5:1,", "nan:1"]
)
def test_unreadable_schedules_are_refused(text: str) -> None:
    """With an example of what can be read."""
    with pytest.raises(ValueError, match="rate"):
        Schedule.parse(text)


def test_due_rows_never_fall_and_end_at_the_total() -> None:
    """The due count follows the phases and stays at the total after the end."""
    schedule = Schedule.parse("100:1,1k:0.5")
    assert schedule.total_rows == 600
    assert [schedule.rows_due(s) for s in (0, 0.5, 1, 1.25, 1.5, 9)] == [0, 50, 100, 350, 600, 600]
    assert Schedule.parse("5").total_rows is None
