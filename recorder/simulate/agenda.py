"""What is still to come in a session: calls in order of time, and of entry where times are equal."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

from schemas.table import Row

TableRow = tuple[str, Row]
"""A table's name and a row for it."""
Call = Callable[[int, Any], TableRow | None]
"""A step at a time (ns): it makes one row, or none. One row at most, so that what is known and what was
handed out never differ."""


class Agenda:
    """A queue of steps. Its time only moves forward."""

    def __init__(self, start_ns: int) -> None:
        self.now_ns = start_ns
        self._heap: list[tuple[int, int, Call, Any]] = []
        self._entered = 0

    def at(self, time_ns: int, call: Call, argument: Any = None) -> None:
        """Do `call(time_ns, argument)` at that time; a time that is past means now."""
        self._entered += 1
        heapq.heappush(self._heap, (max(time_ns, self.now_ns), self._entered, call, argument))

    def step(self) -> TableRow | None:
        """Do the next step.

        Raises:
            IndexError: nothing is left.
        """
        self.now_ns, _, call, argument = heapq.heappop(self._heap)
        return call(self.now_ns, argument)

    def __len__(self) -> int:
        return len(self._heap)
