"""How long to wait before the next attempt: exponential, capped, full jitter."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Backoff:
    """Waits of `random(0, min(cap, initial x 2^attempt))` seconds; full jitter spreads recorders apart."""

    initial_s: float
    cap_s: float

    def wait_s(self, attempt: int) -> float:
        """The wait before attempt `attempt` (from 0)."""
        ceiling = min(self.cap_s, self.initial_s * 2.0 ** min(attempt, 32))
        return random.uniform(0.0, ceiling)
