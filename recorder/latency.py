"""A histogram of durations for quantiles: fixed logarithmic buckets, so that two of them add up exactly.

Buckets grow by 4 % from 1 µs to about 3 hours; what is below or above falls into the first or the last. A
quantile is therefore within 2 % of the true one. 590 counters, whatever the number of values. Not for
several threads at once.
"""

from __future__ import annotations

import math
from typing import Self

import numpy as np

LEAST_S = 1e-6
GROWTH = 1.04
BUCKETS = 590
_LOG_GROWTH = math.log(GROWTH)


class LatencyHistogram:
    """Counts of durations by bucket; mergeable."""

    __slots__ = ("_counts", "max_s", "sum_s")

    def __init__(self) -> None:
        self._counts = np.zeros(BUCKETS, dtype=np.int64)
        self.max_s = 0.0
        self.sum_s = 0.0

    def add(self, seconds: float, count: int = 1) -> None:
        """`count` values of `seconds`; a negative one (a clock that stepped) counts as zero."""
        seconds = max(0.0, seconds)
        index = 0 if seconds <= LEAST_S else math.ceil(math.log(seconds / LEAST_S) / _LOG_GROWTH)
        self._counts[min(index, BUCKETS - 1)] += count
        self.sum_s += seconds * count
        self.max_s = max(self.max_s, seconds)

    def merge(self, other: LatencyHistogram) -> Self:
        """Add another's values to this one."""
        self._counts += other._counts
        self.sum_s += other.sum_s
        self.max_s = max(self.max_s, other.max_s)
        return self

    @property
    def count(self) -> int:
        """How many values."""
        return int(self._counts.sum())

    @property
    def mean_s(self) -> float:
        """The mean; 0 where there are no values."""
        count = self.count
        return self.sum_s / count if count else 0.0

    def quantile(self, share: float) -> float:
        """The value that `share` (0 to 1) of the values do not exceed, in seconds; 0 where there are none.

        Raises:
            ValueError: the share is outside 0 to 1.
        """
        if not 0 <= share <= 1:
            raise ValueError(f"quantile {share} is outside 0 to 1")
        total = self.count
        if total == 0:
            return 0.0
        rank = max(1, math.ceil(share * total))
        index = int(np.searchsorted(np.cumsum(self._counts), rank))
        if index == 0:
            return min(LEAST_S, self.max_s)
        middle = LEAST_S * GROWTH ** (index - 0.5)
        return float(min(middle, self.max_s))

    def summary(self) -> dict[str, float | int]:
        """Count, mean, p50, p90, p99, p99.9 and greatest, in seconds: for JSON."""
        return {
            "count": self.count,
            "mean_s": self.mean_s,
            "p50_s": self.quantile(0.5),
            "p90_s": self.quantile(0.9),
            "p99_s": self.quantile(0.99),
            "p999_s": self.quantile(0.999),
            "max_s": self.max_s,
        }
