"""When a server was started, which tells a restart from a slow clock."""

from __future__ import annotations

START_TOLERANCE_S = 3.0
"""How far a server's uptime and our clock may drift apart between two answers and it is still the same start."""


class Uptime:
    """What a server said of its uptime last, and the start that followed from it."""

    def __init__(self) -> None:
        self._last: tuple[int, float, int] | None = None  # uptime, our clock, start then given

    def started_at_s(self, uptime_s: int, now_s: int, clock_s: float) -> int:
        """The start of a server that has run for `uptime_s` when its wall clock says `now_s` and ours `clock_s`.

        The server's are whole seconds, so their difference jitters, and the wall clock may be set. A server whose
        uptime grew as our monotonic clock did is the same one, and keeps the start it first had.
        """
        start_s = now_s - uptime_s
        if self._last is not None:
            uptime_then_s, clock_then_s, start_then_s = self._last
            drift_s = (uptime_s - uptime_then_s) - (clock_s - clock_then_s)
            if uptime_s >= uptime_then_s and abs(drift_s) < START_TOLERANCE_S:
                start_s = start_then_s
        self._last = (uptime_s, clock_s, start_s)
        return start_s
