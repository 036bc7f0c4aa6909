"""Laws of the watch beside an event loop."""

from __future__ import annotations

import threading
import time

import pytest
from harness.waiting import until

from recorder.loop_watch import Glance, LoopWatch, look

STALL_S = 1.0
EVERY_S = 0.2


def seen(before: Glance, now_s: float, beat_s: float) -> Glance:
    return look(before, now_s=now_s, beat_s=beat_s, every_s=EVERY_S, stall_s=STALL_S)


def test_a_loop_stands_still_once_no_beat_came_for_its_time() -> None:
    """Not before; and it turns again with the next beat, however long that took."""
    glance = Glance(0.0, 0.0)
    for now_s, beat_s, stalled in (
        (0.2, 0.1, False),
        (0.4, 0.3, False),
        (0.6, 0.3, False),
        (0.8, 0.3, False),
        (1.0, 0.3, False),
        (1.2, 0.3, False),
        (1.4, 0.3, True),
        (1.6, 0.3, True),
        (9.0, 0.3, True),
        (9.2, 9.1, False),
        (9.4, 9.3, False),
    ):
        glance = seen(glance, now_s, beat_s)
        assert glance.stalled is stalled, now_s


def test_a_process_that_did_not_run_at_all_is_no_stall() -> None:
    """The watch was stopped with the loop, and gives it its time anew; a loop that stays still is found then."""
    glance = seen(Glance(0.0, 0.0), 0.2, 0.1)
    glance = seen(glance, 3_600.0, 0.1)
    assert not glance.stalled
    for now_s in (3_600.2, 3_600.4, 3_600.6, 3_600.8):
        glance = seen(glance, now_s, 0.1)
        assert not glance.stalled
    assert seen(glance, 3_601.0, 0.1).stalled


async def test_a_loop_that_is_blocked_is_told_once_with_where_it_stands(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """While it stands, from another thread, with the name of what blocks it; then that it turns again, and for how long
    it stood.
    """
    watch = LoopWatch(stall_s=0.5, name="tested")
    told_while_blocked = False

    def what_blocks_it() -> None:
        nonlocal told_while_blocked
        deadline_s = time.monotonic() + 20.0
        while not watch.stalls and time.monotonic() < deadline_s:
            time.sleep(0.005)
        told_while_blocked = watch.stalls == 1
        time.sleep(0.5)  # as long again as it takes to be found: it is told once all the same

    watch.start()
    with caplog.at_level("INFO", logger="recorder"):
        what_blocks_it()
        assert told_while_blocked
        await until(lambda: watch.last_s > 0.0, "that it turns again")
    watch.close()
    stands, turns = caplog.records
    assert stands.levelname == "CRITICAL"
    assert "the event loop stands still" in stands.message
    assert "what_blocks_it" in stands.message
    assert turns.levelname == "WARNING"
    assert watch.last_s >= 1.0
    assert watch.stalls == 1


async def test_a_loop_that_turns_is_left_alone_and_the_watch_leaves_no_thread() -> None:
    """Beats come; after close, which may be repeated, nothing is left of it."""
    watch = LoopWatch(stall_s=5.0, name="tested")
    watch.start()
    first_s = watch._beat_s
    await until(lambda: watch._beat_s > first_s, "a beat")
    watch.close()
    watch.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "watch tested"]
    assert watch._timer is not None
    assert watch._timer.cancelled()
    assert watch.stalls == 0
