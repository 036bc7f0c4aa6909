"""When to read less of a bus that keeps what is not read. Pure.

Rows of tables that must not lose any (overflow `spill` or `block`) are better kept by their publisher than shed here.
So reading pauses while the queue of such a table is half full: its database is slower than its publishers, or away. But
one table that is stuck must not stop the others:

- A full table whose rows move is waited for.
- Where every full table is stuck (held, or full without a row moved for `PATIENCE_S`), and another one's rows move,
  they are waited for no longer; their overflow policies decide.
- Where nobody's rows move, one message now and then shows whether anybody's would; none where no table flows.
"""

from __future__ import annotations

from collections.abc import Mapping

from recorder.flush_worker import WorkerState
from recorder.pipeline import Load

FULL = 0.5
"""Of a queue; the other half is for what comes before the pause is felt."""
PATIENCE_S = 5.0
PROBE_S = 1.0
MANY = 32
"""Messages that may be taken before it is asked again."""


class Brake:
    """See the module. One for each subscription."""

    def __init__(self) -> None:
        self._moved: dict[str, tuple[int, float]] = {}
        self._full_since_s: dict[str, float] = {}
        self._probed_s = 0.0

    def allows(self, loads: Mapping[str, Load], now_s: float) -> int:
        """How many messages may be taken now; `loads` are of the tables that the bus has rows for."""
        for name, load in loads.items():
            if name not in self._moved or self._moved[name][0] != load.moved:
                self._moved[name] = (load.moved, now_s)
        full = {name for name, load in loads.items() if load.keeps and load.usage >= FULL}
        # A table that had nothing to do did not move either: its patience begins when it is full.
        self._full_since_s = {name: self._full_since_s.get(name, now_s) for name in full}
        if not full:
            return MANY
        if all(load.state is not WorkerState.FLOWING for load in loads.values()):
            return 0
        if not all(self._is_stuck(name, loads[name], now_s) for name in full):
            return 0
        if not all(self._is_stuck(name, loads[name], now_s) for name in loads.keys() - full):
            return MANY
        if now_s - self._probed_s < PROBE_S:
            return 0
        self._probed_s = now_s
        return 1

    def _is_stuck(self, name: str, load: Load, now_s: float) -> bool:
        since_s = max(self._moved[name][1], self._full_since_s.get(name, self._moved[name][1]))
        return load.state is WorkerState.HELD or now_s - since_s >= PATIENCE_S
