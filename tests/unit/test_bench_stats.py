"""Medians, spreads, quantiles, and how numbers are written."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.report import seconds, spread_of_numbers, spread_of_seconds
from benchmarks.stats import Spread, differences, quantiles, ratios, spread


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=30))
def test_a_spread_encloses_its_median(values: list[float]) -> None:
    """Least, median and greatest are in order, and the extremes were measured."""
    found = spread(values)
    assert found.least <= found.median <= found.greatest
    assert {found.least, found.greatest} <= set(values)
    assert found.rounds == len(values)


def test_a_ratio_is_taken_within_a_round() -> None:
    """A machine that is slow for a whole round does not move the ratio, whatever it does to the medians."""
    assert ratios([10.0, 1.0, 20.0], [20.0, 2.0, 40.0]) == Spread(0.5, 0.5, 0.5, 3)
    assert differences([3.0, 30.0], [1.0, 28.0]) == Spread(2.0, 2.0, 2.0, 2)


def test_rounds_must_pair() -> None:
    """Sides that were not measured equally often have no ratio."""
    with pytest.raises(ValueError):
        ratios([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="no measurements"):
        spread([])


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=200))
def test_a_quantile_is_a_measured_value_that_its_share_does_not_exceed(values: list[int]) -> None:
    """No value is made up between two, and at least the share of the values is at or below it."""
    found = quantiles(np.array(values, dtype=np.int64))
    for share, name in ((0.5, "p50"), (0.99, "p99"), (0.999, "p999"), (1.0, "max")):
        assert found[name] in values
        assert sum(value <= found[name] for value in values) >= share * len(values) - 1e-6


def test_one_value_in_a_thousand_is_beyond_p999_and_two_are_not() -> None:
    """The boundary of p99.9."""
    calm = [1] * 999
    assert quantiles(np.array([*calm, 50], dtype=np.int64))["p999"] == 1
    assert quantiles(np.array([*calm[1:], 50, 50], dtype=np.int64))["p999"] == 50


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0 ns"),
        (1.5e-8, "15 ns"),
        (6.71e-7, "671 ns"),
        (1.04e-5, "10.4 µs"),
        (0.9999, "1,000 ms"),
        (0.25, "250 ms"),
        (-0.002, "-2 ms"),
        (61.0, "61 s"),
        (1234.0, "1,234 s"),
    ],
)
def test_durations_are_written_in_their_unit(value: float, text: str) -> None:
    """Three digits, no exponent, the unit that suits the size."""
    assert seconds(value) == text


def test_a_range_is_written_in_the_median_s_unit() -> None:
    """So that its ends can be compared with it at a glance."""
    assert spread_of_seconds(Spread(2e-3, 9e-4, 0.012, 3)) == "2 ms (0.9…12)"
    assert spread_of_seconds(Spread(2e-3, 2e-3, 2e-3, 1)) == "2 ms"
    assert spread_of_numbers(Spread(0.5, 0.25, 1.0, 3)) == "0.50 (0.25…1.00)"
