"""What was shed: totals for ever, and the window that becomes the next gap rows.

A reader of a table must see its holes, so every shed row is counted here with its reason and time, and each window
of losses (`gap_window_s`) is written to `recorder_gaps` as one row per reason.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, replace

HOLES_MAX = 100
"""Gaps of a window that are told one by one; more become one, as long as they all."""


@dataclass(frozen=True)
class Gap:
    """Rows of one table shed for one reason; the first was accepted at `first_ns`, the last shed at `last_ns`."""

    reason: str
    first_ns: int
    last_ns: int
    rows: int
    detail: str = ""
    """More, for people."""

    def joined(self, later: Gap) -> Gap:
        """Both as one."""
        details = dict.fromkeys(detail for detail in (self.detail, later.detail) if detail)
        return Gap(
            self.reason,
            min(self.first_ns, later.first_ns),
            max(self.last_ns, later.last_ns),
            self.rows + later.rows,
            "; ".join(details),
        )


class ShedLedger:
    """Counts one table's shed rows. Any thread adds; the recorder's housekeeping takes the windows."""

    def __init__(self) -> None:
        self.totals: Counter[str] = Counter()
        self._window: dict[str, Gap] = {}
        self._holes: list[Gap] = []
        self._lock = threading.Lock()

    @property
    def rows(self) -> int:
        """Rows ever shed."""
        return sum(self.totals.values())

    def add(self, reason: str, rows: int, *, accepted_ns: int | None = None, detail: str = "") -> None:
        """Count rows shed now, of which the first was accepted at `accepted_ns` (monotonic), or just now."""
        first_ns = last_ns = time.time_ns()
        if accepted_ns is not None:
            first_ns -= max(0, time.monotonic_ns() - accepted_ns)
        with self._lock:
            self.totals[reason] += rows
            gap = self._window.get(reason)
            if gap is None:
                self._window[reason] = Gap(reason, first_ns, last_ns, rows, detail)
            elif detail or first_ns < gap.first_ns:
                self._window[reason] = gap.joined(Gap(reason, first_ns, last_ns, rows, detail))
            else:
                self._window[reason] = Gap(reason, gap.first_ns, last_ns, gap.rows + rows, gap.detail)

    def add_hole(self, gap: Gap) -> None:
        """Count rows whose times are known: a gap by itself, if there are not too many."""
        with self._lock:
            self.totals[gap.reason] += gap.rows
            if len(self._holes) < HOLES_MAX:
                self._holes.append(gap)
            else:
                self._holes[-1] = self._holes[-1].joined(replace(gap, detail=""))

    def take(self) -> list[Gap]:
        """The losses since the last call, one a reason, and the holes."""
        if not (self._window or self._holes):
            return []
        with self._lock:
            window, self._window = self._window, {}
            holes, self._holes = self._holes, []
        return [*window.values(), *holes]

    def put_back(self, gaps: list[Gap]) -> None:
        """Return windows whose gap rows could not be handed over, so that they are tried again."""
        with self._lock:
            for gap in gaps:
                later = self._window.get(gap.reason)
                self._window[gap.reason] = gap if later is None else gap.joined(later)
