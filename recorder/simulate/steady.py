"""Full speed without shedding: wait while the recorder's queues are filling, as a reader of files would.

A strategy may never do this; it calls `record` and goes on.
"""

from __future__ import annotations

import time
from typing import Any, Protocol

LOOK_EACH_ROWS = 4_096
HIGH_USAGE = 0.5
WAIT_S = 0.005


class TellsStatus(Protocol):
    """A recorder that also tells how full its queues are."""

    def record(self, table: str, row: Any) -> bool:
        """Take a row; False when it was shed."""

    def status(self) -> dict[str, Any]:
        """`tables`: per table a mapping with `queue_usage`, from 0 to 1."""


class Steady:
    """A recorder's `record` that looks at the queues every few thousand rows, and waits while one is half full."""

    def __init__(self, recorder: TellsStatus) -> None:
        self._recorder = recorder
        self._until_look = LOOK_EACH_ROWS

    def record(self, table: str, row: Any) -> bool:
        """Hand a row over, when there is room."""
        self._until_look -= 1
        if self._until_look == 0:
            self._until_look = LOOK_EACH_ROWS
            while self._fullest() > HIGH_USAGE:
                time.sleep(WAIT_S)
        return self._recorder.record(table, row)

    def _fullest(self) -> float:
        tables = self._recorder.status()["tables"]
        return max((float(table["queue_usage"]) for table in tables.values()), default=0.0)
