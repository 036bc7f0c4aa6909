"""An open-loop producer: steps with absolute deadlines, each timed.

A step does what a trading loop does with one event: it waits for the event's moment, and hands one row over. Step n is
due at `start + n / rate`, however late the step before it was: a stall makes all steps late that fell into it, as it
would make a trading loop late. Two numbers a step: how long the hand-over took, and how long after its deadline the
step was finished (its *lateness*). The second is what counts: a thread that cannot get the interpreter's lock is late
without a call of it being slow.

How a step waits decides what its rivals for the lock may do meanwhile:

- `spin` never lets go of the lock: others get it only when the interpreter takes it away (`sys.setswitchinterval`).
- `poll` lets go of it while it waits, as a loop around `epoll` or a socket does.
"""

from __future__ import annotations

import os
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from benchmarks.gcstate import GcState
from benchmarks.stats import Nanoseconds

Record = Callable[[str, Any], object]
Make = Callable[[Any], Any]
Wait = Literal["spin", "poll"]
WAITS: tuple[Wait, ...] = ("spin", "poll")
LEAD_NS = 5_000_000
"""The first deadline lies so far ahead."""


@dataclass(frozen=True)
class Steps:
    """What the steps took, in ns. `costs` still has the timer's own cost in it."""

    costs: Nanoseconds
    lateness: Nanoseconds


@dataclass(frozen=True)
class Producer:
    """What a producer hands over, how many rows/s, how it waits, and the state of the garbage collector meanwhile.

    `make` makes what is handed over out of what is in `rows`, before its moment has come.
    """

    rows: Sequence[tuple[str, Any]]
    rate: float
    wait: Wait
    collector: GcState
    make: Make | None = None

    def take(self, record: Record, *, steps: int, skip: int = 0) -> Steps:
        """Its steps; see `take_steps`."""
        return take_steps(
            record, self.rows, rate=self.rate, steps=steps, skip=skip, wait=self.wait, make=self.make
        )


def take_steps(
    record: Record,
    rows: Sequence[tuple[str, Any]],
    *,
    rate: float,
    steps: int,
    skip: int = 0,
    wait: Wait = "spin",
    make: Make | None = None,
) -> Steps:
    """Hand `steps` rows over, one a step, going through `rows` again and again; the first `skip` are not reported."""
    costs, lateness = array("q", bytes(8 * steps)), array("q", bytes(8 * steps))
    now, pause = time.perf_counter_ns, _pause(wait)
    length = len(rows)
    period = 1e9 / rate
    start = now() + LEAD_NS
    for step in range(steps):
        table, row = rows[step % length]
        if make is not None:
            row = make(row)
        deadline = start + int(step * period)
        if pause is None:
            while now() < deadline:
                pass
        else:
            while now() < deadline:
                pause()
        before = now()
        record(table, row)
        after = now()
        costs[step] = after - before
        lateness[step] = after - deadline
    return Steps(np.array(costs[skip:], dtype=np.int64), np.array(lateness[skip:], dtype=np.int64))


def _pause(wait: Wait) -> Callable[[], None] | None:
    """What lets others have the interpreter's lock for a moment."""
    return os.sched_yield if wait == "poll" else None


def no_recorder(table: str, row: Any) -> bool:
    """What stands in for `record` on the side without a recorder."""
    return True


def timer_cost_ns(pairs: int = 200_000) -> float:
    """What two readings of the clock, one after the other, show: the median."""
    found = array("q", bytes(8 * pairs))
    now = time.perf_counter_ns
    for pair in range(pairs):
        before = now()
        after = now()
        found[pair] = after - before
    return float(np.median(np.array(found)))


def without_timer(costs: Nanoseconds, timer_ns: float) -> Nanoseconds:
    """What the calls took beside the clock readings around them."""
    return (costs - int(timer_ns)).clip(min=0)
