"""Replaying at a multiple of real time."""

from __future__ import annotations


class Pace:
    """When a message is due: the first at once, each later one after its distance in `ts_local` by `speed`."""

    def __init__(self, speed: float):
        self._ns_per_s = 1e9 * speed
        self._first: tuple[int, float] | None = None

    def wait_s(self, ts_local: int, now_s: float) -> float:
        """Seconds from `now_s` (monotonic) until the message is due; 0 if it is, or is older than the first."""
        if self._first is None:
            self._first = (ts_local, now_s)
            return 0.0
        first_ns, started_s = self._first
        return max(0.0, (ts_local - first_ns) / self._ns_per_s - (now_s - started_s))
