"""When a batch is due. Pure: values in, a verdict out.

A batch goes when it is full (rows or bytes) or its oldest row has waited for the linger. Inserts, not rows, are what
an engine pays for, so the linger stretches while all tables together would make more inserts than the budget; full
batches go at once, whatever the budget.
"""

from __future__ import annotations

from dataclasses import dataclass

NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000


@dataclass(frozen=True, kw_only=True)
class FlushPolicy:
    """The triggers of one table."""

    batch_rows: int
    batch_bytes: int
    linger_ms: float
    linger_max_ms: float


def is_full(policy: FlushPolicy, rows: int, nbytes: int) -> bool:
    """Whether a batch of that size goes at once."""
    return rows >= policy.batch_rows or nbytes >= policy.batch_bytes


def is_due(
    policy: FlushPolicy, rows: int, nbytes: int, oldest_ns: int | None, now_ns: int, linger_ns: int
) -> bool:
    """Whether a batch goes now. `oldest_ns` is its oldest row's acceptance, on the clock of `now_ns`."""
    if not rows or oldest_ns is None:
        return False
    return is_full(policy, rows, nbytes) or now_ns - oldest_ns >= linger_ns


def linger_ns(
    policy: FlushPolicy, *, active_tables: int, full_batches_per_s: float, budget_per_s: float
) -> int:
    """The linger that keeps all tables together within the insert budget.

    What full batches take of the budget is gone; the rest is shared by the tables that have rows coming. The linger
    is never shorter than `linger_ms` nor longer than `linger_max_ms`.
    """
    left_per_s = budget_per_s - full_batches_per_s
    if left_per_s <= 0:
        return int(policy.linger_max_ms * NS_PER_MS)
    wanted_ms = active_tables / left_per_s * 1_000
    longest_ms = max(policy.linger_max_ms, policy.linger_ms)
    return int(min(max(wanted_ms, policy.linger_ms), longest_ms) * NS_PER_MS)
