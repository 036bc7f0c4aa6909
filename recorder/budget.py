"""The insert budget that all tables share: who is active, and how many full batches went lately."""

from __future__ import annotations

from collections import deque

from recorder.flush_policy import NS_PER_S, FlushPolicy, linger_ns

WINDOW_NS = 2 * NS_PER_S


class InsertBudget:
    """Owned by the recorder's loop. `per_s` is the number of inserts a second of all tables together."""

    def __init__(self, per_s: float):
        self.per_s = per_s
        self._last_row_ns: dict[str, int] = {}
        self._full_ns: deque[int] = deque(maxlen=4_096)

    def saw_rows(self, table: str, now_ns: int) -> None:
        """A table has rows coming."""
        self._last_row_ns[table] = now_ns

    def sent_full(self, now_ns: int) -> None:
        """A full batch went, whatever the budget."""
        self._full_ns.append(now_ns)

    def linger_ns(self, policy: FlushPolicy, now_ns: int) -> int:
        """How long a table's rows wait for company, now."""
        since_ns = now_ns - WINDOW_NS
        active = sum(1 for last_ns in self._last_row_ns.values() if last_ns >= since_ns)
        while self._full_ns and self._full_ns[0] < since_ns:
            self._full_ns.popleft()
        return linger_ns(
            policy,
            active_tables=active,
            full_batches_per_s=len(self._full_ns) / (WINDOW_NS / NS_PER_S),
            budget_per_s=self.per_s,
        )
