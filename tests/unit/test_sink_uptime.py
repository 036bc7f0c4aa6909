"""When a server started: it must not seem to restart because clocks jitter, nor seem to run on when it restarted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorder.sink.uptime import START_TOLERANCE_S, Uptime

NOW_S = 1_800_000_000


@given(
    st.lists(
        st.tuples(st.floats(0.0, 100_000.0), st.floats(0.0, 0.999), st.integers(-3_600, 3_600)), min_size=1
    )
)
def test_a_server_that_runs_on_keeps_its_start(looks: list[tuple[float, float, int]]) -> None:
    """Whole seconds that round either way and a wall clock that is set do not make it another start."""
    uptime, clock_s, age_s, said = Uptime(), 50.0, 1_000.0, 1_000
    first = uptime.started_at_s(said, NOW_S, clock_s)
    for passed_s, jitter_s, set_s in looks:
        clock_s += passed_s
        age_s += passed_s
        said = max(said, int(age_s + jitter_s))  # it never goes back
        assert uptime.started_at_s(said, NOW_S + said + set_s, clock_s) == first


@pytest.mark.parametrize(
    ("uptime_s", "passed_s"),
    [(2, 10.0), (1_000, 10.0), (1_000, 1_000 + START_TOLERANCE_S + 1)],
    ids=["began again", "as old as before", "lost time"],
)
def test_a_server_that_restarted_has_another_start(uptime_s: int, passed_s: float) -> None:
    """One whose uptime did not grow as the clock did is not the one it was."""
    uptime = Uptime()
    first = uptime.started_at_s(1_000, NOW_S, 50.0)
    assert uptime.started_at_s(uptime_s, NOW_S + int(passed_s), 50.0 + passed_s) != first
