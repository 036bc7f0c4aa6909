"""When less of a bus is read: nothing is shed for a database that is away, and a stuck table stops nobody."""

from __future__ import annotations

import pytest

from recorder.flush_worker import WorkerState
from recorder.pipeline import Load
from recorder.service.brake import MANY, PATIENCE_S, PROBE_S, Brake

FLOWING, RETRYING, HELD = WorkerState


def load(usage: float, moved: int = 0, state: WorkerState = FLOWING, *, keeps: bool = True) -> Load:
    """A table's load."""
    return Load(usage, moved, state, keeps)


def test_room_is_room() -> None:
    """Nothing waits while the queues of tables that must lose nothing are less than half full."""
    assert Brake().allows({"a": load(0.49), "b": load(1.0, keeps=False)}, 0.0) == MANY


def test_a_table_that_is_slower_than_its_publishers_is_waited_for() -> None:
    """As long as its rows move."""
    brake = Brake()
    for second in range(100):
        loads = {"slow": load(0.6, moved=second), "fast": load(0.0, moved=second)}
        assert brake.allows(loads, float(second)) == 0
    assert brake.allows({"slow": load(0.4, moved=100), "fast": load(0.0, moved=100)}, 100.0) == MANY


@pytest.mark.parametrize("state", [RETRYING, HELD])
def test_nothing_is_read_while_no_table_flows(state: WorkerState) -> None:
    """The database is away: whoever publishes keeps the rows, for however long."""
    brake = Brake()
    for second in range(0, 10_000, 10):
        assert brake.allows({"a": load(0.6, state=state), "b": load(0.0, state=RETRYING)}, float(second)) == 0


def test_a_held_table_stops_nobody_whose_rows_move() -> None:
    """Its own rows are for its overflow policy."""
    brake = Brake()
    for second in range(100):
        assert (
            brake.allows({"held": load(1.0, state=HELD), "b": load(0.0, moved=second)}, float(second)) == MANY
        )


def test_a_table_that_hangs_is_waited_for_no_longer_than_patience_lasts() -> None:
    """Then one message a second shows whether the others would be served; once one is, all is read."""
    brake = Brake()
    hung = load(0.9, moved=7)
    assert brake.allows({"hung": hung, "b": load(0.0, moved=1)}, 0.0) == 0
    assert brake.allows({"hung": hung, "b": load(0.0, moved=1)}, PATIENCE_S - 0.1) == 0
    assert brake.allows({"hung": hung, "b": load(0.0, moved=1)}, PATIENCE_S) == 1
    assert brake.allows({"hung": hung, "b": load(0.1, moved=1)}, PATIENCE_S + PROBE_S / 2) == 0
    assert brake.allows({"hung": hung, "b": load(0.1, moved=1)}, PATIENCE_S + PROBE_S) == 1
    assert brake.allows({"hung": hung, "b": load(0.0, moved=2)}, PATIENCE_S + PROBE_S + 0.1) == MANY
    assert (
        brake.allows({"hung": load(0.9, moved=8), "b": load(0.0, moved=2)}, PATIENCE_S + PROBE_S + 0.2) == 0
    )


def test_a_table_that_was_idle_is_not_stuck_when_a_burst_fills_it() -> None:
    """Having had nothing to do is no trouble: it is waited for as long as any other, however long it was idle."""
    brake = Brake()
    burst_s = 100 * PATIENCE_S
    assert brake.allows({"idle": load(0.0, moved=7), "b": load(0.0, moved=1)}, 0.0) == MANY
    assert brake.allows({"idle": load(0.6, moved=7), "b": load(0.0, moved=2)}, burst_s) == 0
    assert (
        brake.allows({"idle": load(0.6, moved=7), "b": load(0.0, moved=3)}, burst_s + PATIENCE_S - 0.1) == 0
    )
    assert brake.allows({"idle": load(0.6, moved=7), "b": load(0.0, moved=4)}, burst_s + PATIENCE_S) == MANY
