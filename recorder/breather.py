"""Letting producers have the interpreter's lock in the middle of long work.

The interpreter takes the lock away from a thread that has held it for a switch interval *if somebody waited for all
of that time*. Whoever waits begins anew each time the lock is let go, and code that calls into Arrow lets go of it,
for less than a microsecond, every few columns: the waiter is woken, finds the lock taken again, and its interval starts
from the beginning. So a slice's conversion keeps the lock from a producer from end to end, however short the interval
(`docs/threads.md`). Only a pause longer than a thread takes to wake up lets the producer have it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

REST_S = 50e-6
"""How long a pause asks to sleep; with the system's timer slack about twice that passes."""
SHORT_INTERVAL_S = 5e-4
"""A switch interval up to here is set for producers that must not wait; a longer one is for throughput."""
HOLD_INTERVALS = 2
"""Work goes on for so many switch intervals between two pauses: each pause is two changes of thread."""


class Breather:
    """Called between the steps of long work; pauses when the last pause is `hold_s` seconds ago. On one thread.

    `hold_s` None never pauses: where nobody asked for short waits, pauses would only make the work slower. `clock`
    and `sleep` are in seconds.
    """

    __slots__ = ("_clock", "_hold_s", "_sleep", "_until_s")

    def __init__(
        self,
        hold_s: float | None,
        *,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
    ):
        self._hold_s = hold_s
        self._clock = clock
        self._sleep = sleep
        self._until_s = 0.0

    @classmethod
    def of_switch_interval(cls, switch_interval_s: float | None) -> Breather:
        """One that suits a switch interval in seconds, None where it was left alone: it pauses for a short one only."""
        if switch_interval_s is None or switch_interval_s > SHORT_INTERVAL_S:
            return NEVER
        return cls(HOLD_INTERVALS * switch_interval_s)

    def __call__(self) -> None:
        """Pause, if it is time to."""
        if self._hold_s is None or self._clock() < self._until_s:
            return
        self._sleep(REST_S)
        self._until_s = self._clock() + self._hold_s


NEVER = Breather(None)
