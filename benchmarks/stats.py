"""Medians, spreads and ratios of repeated measurements. Pure.

Sides of a comparison run in turn (A B C, A B C, …), and a ratio is taken within a round: what the machine did
meanwhile then hits both sides alike. A median of few rounds says little without its spread, so they go together.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

Nanoseconds = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Spread:
    """What repeated measurements of one thing gave."""

    median: float
    least: float
    greatest: float
    rounds: int

    def as_dict(self) -> dict[str, float | int]:
        """For JSON."""
        return asdict(self)


def spread(values: Iterable[float]) -> Spread:
    """Median, least and greatest.

    Raises:
        ValueError: there are no values.
    """
    given = [float(value) for value in values]
    if not given:
        raise ValueError("no measurements to take a median of")
    return Spread(statistics.median(given), min(given), max(given), len(given))


def ratios(numerators: Sequence[float], denominators: Sequence[float]) -> Spread:
    """The spread of the ratios of values measured in the same round.

    Raises:
        ValueError: the two have not the same number of rounds.
    """
    return spread(a / b for a, b in zip(numerators, denominators, strict=True))


def differences(minuends: Sequence[float], subtrahends: Sequence[float]) -> Spread:
    """The spread of the differences of values measured in the same round.

    Raises:
        ValueError: the two have not the same number of rounds.
    """
    return spread(a - b for a, b in zip(minuends, subtrahends, strict=True))


QUANTILES = {"p50": 0.5, "p99": 0.99, "p999": 0.999, "max": 1.0}


def quantiles(values_ns: Nanoseconds) -> dict[str, float]:
    """p50, p99, p99.9 and the greatest; each is a value that was measured, never one between two.

    Raises:
        ValueError: there are no values.
    """
    if not len(values_ns):
        raise ValueError("no values to take quantiles of")
    found = np.quantile(values_ns, list(QUANTILES.values()), method="inverted_cdf")
    return dict(zip(QUANTILES, map(float, found), strict=True))
