"""Laws of the latency histogram: quantiles within its resolution, merging is adding."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recorder.latency import GROWTH, LEAST_S, LatencyHistogram

DURATIONS = st.lists(st.floats(LEAST_S, 5_000.0), min_size=1, max_size=200)


def _of(values: list[float]) -> LatencyHistogram:
    histogram = LatencyHistogram()
    for value in values:
        histogram.add(value)
    return histogram


@settings(deadline=None)
@given(DURATIONS, st.sampled_from([0.0, 0.5, 0.9, 0.99, 1.0]))
def test_quantiles_are_within_the_resolution(values: list[float], share: float) -> None:
    """A quantile is within half a bucket of the value of that rank."""
    true = sorted(values)[max(1, math.ceil(share * len(values))) - 1]
    assert _of(values).quantile(share) == pytest.approx(true, rel=GROWTH**0.5 - 1 + 1e-9)


@settings(deadline=None)
@given(DURATIONS, DURATIONS)
def test_merging_is_adding(left: list[float], right: list[float]) -> None:
    """Two histograms merged are the histogram of all values."""
    merged, whole = _of(left).merge(_of(right)), _of(left + right)
    assert merged.count == whole.count
    assert merged.max_s == whole.max_s
    assert merged.mean_s == pytest.approx(whole.mean_s)
    assert [merged.quantile(q / 20) for q in range(21)] == [whole.quantile(q / 20) for q in range(21)]


def test_weights_count() -> None:
    """A value added with a count stands for so many values."""
    histogram = LatencyHistogram()
    histogram.add(0.001, 990)
    histogram.add(1.0, 10)
    assert histogram.count == 1_000
    assert histogram.quantile(0.98) == pytest.approx(0.001, rel=0.02)
    assert histogram.quantile(0.995) == pytest.approx(1.0, rel=0.02)


def test_extremes_and_nothing() -> None:
    """Values outside the range fall into its ends; a clock that stepped back counts as zero; empty answers zero."""
    empty = LatencyHistogram()
    assert (empty.quantile(0.5), empty.mean_s, empty.count) == (0.0, 0.0, 0)
    histogram = _of([-1.0, 0.0, 1e9])
    assert histogram.count == 3
    assert histogram.quantile(0.1) <= LEAST_S
    assert histogram.summary()["max_s"] == 1e9
    with pytest.raises(ValueError, match="outside 0 to 1"):
        histogram.quantile(1.5)
