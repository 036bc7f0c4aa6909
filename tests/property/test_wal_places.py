"""A set of places is a set of (epoch, sequence), and stays small for what comes in order."""

from __future__ import annotations

import itertools
import time

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from wal.places import PlaceSet, Range

EPOCHS = st.sampled_from([1, 7, 2**64 - 1])
RANGES = st.builds(
    lambda epoch, first, rows: Range(epoch, first, first + rows),
    EPOCHS,
    st.integers(0, 60),
    st.integers(-2, 20),
)


def places(ranges: Range | list[Range]) -> set[tuple[int, int]]:
    listed = [ranges] if isinstance(ranges, Range) else ranges
    return {(epoch, sequence) for epoch, first, stop in listed for sequence in range(first, stop)}


def in_order(ranges: list[Range]) -> bool:
    """Each with rows, none touching the next of its epoch."""
    return all(one.rows > 0 for one in ranges) and all(
        (left.epoch, left.stop) < (right.epoch, right.first) for left, right in itertools.pairwise(ranges)
    )


class PlacesModel(RuleBasedStateMachine):
    """Whatever is added, removed and forgotten: the same as a plain set, in as few ranges as can be."""

    def __init__(self) -> None:
        super().__init__()
        self.set = PlaceSet()
        self.model: set[tuple[int, int]] = set()

    @rule(added=RANGES)
    def add(self, added: Range) -> None:
        assert self.set.add(added) == len(places(added) - self.model)
        self.model |= places(added)

    @rule(removed=RANGES)
    def remove(self, removed: Range) -> None:
        assert self.set.remove(removed) == len(places(removed) & self.model)
        self.model -= places(removed)

    @rule(epoch=EPOCHS)
    def forget(self, epoch: int) -> None:
        self.set.forget(epoch)
        self.model = {place for place in self.model if place[0] != epoch}

    @rule(asked=RANGES)
    def ask(self, asked: Range) -> None:
        wanted = places(asked)
        assert self.set.contains(asked.epoch, asked.first) == ((asked.epoch, asked.first) in self.model)
        assert self.set.covers(asked) == (wanted <= self.model)
        common, missing = self.set.common_of(asked), self.set.missing_of(asked)
        assert places(common) == wanted & self.model
        assert places(missing) == wanted - self.model
        assert in_order(common)
        assert in_order(missing)
        stop = self.set.stop_of_run(asked.epoch, asked.first)
        assert (asked.epoch, stop) not in self.model
        assert places(Range(asked.epoch, asked.first, stop)) <= self.model

    @rule(added=RANGES)
    def copy(self, added: Range) -> None:
        """A copy is another set."""
        other = self.set.copy()
        assert other == self.set
        other.add(added)
        other.remove(Range(added.epoch, 0, 100))

    @invariant()
    def same(self) -> None:
        ranges = list(self.set)
        assert places(ranges) == self.model
        assert in_order(ranges)
        assert self.set.rows == len(self.model)
        assert len(self.set) == len(ranges)
        assert self.set.epochs == sorted({epoch for epoch, _ in self.model})
        assert ranges == [one for epoch in self.set.epochs for one in self.set.ranges(epoch)]
        assert PlaceSet(ranges) == self.set


TestPlacesModel = PlacesModel.TestCase
TestPlacesModel.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)


@given(RANGES, RANGES)
def test_what_two_ranges_have_in_common(left: Range, right: Range) -> None:
    """Either way round, and None where there is nothing."""
    common = left.common(right)
    assert common == right.common(left)
    assert (places(common) if common else set()) == places(left) & places(right)


def test_what_comes_in_order_takes_no_memory() -> None:
    """Confirmations in order are one range; out of order within a window, no more ranges than the window has."""
    in_turn = PlaceSet()
    for first in range(0, 100_000, 10):
        in_turn.add(Range(5, first, first + 10))
        assert len(in_turn) == 1
    assert in_turn.stop_of_run(5, 0) == in_turn.rows == 100_000
    shuffled = PlaceSet()
    for block in range(0, 100_000, 100):
        for part in (70, 10, 90, 30, 50, 0, 60, 20, 80, 40):
            shuffled.add(Range(5, block + part, block + part + 10))
            assert len(shuffled) <= 6
    assert shuffled == in_turn


def test_many_holes_do_not_make_it_slow() -> None:
    """With 100,000 ranges in the way, 10,000 more in order take no longer than a linear search of each would."""
    holed = PlaceSet(Range(5, first, first + 1) for first in range(0, 200_000, 2))
    started_s = time.perf_counter()
    for first in range(200_000, 210_000):
        holed.add(Range(5, first, first + 1))
        assert holed.covers(Range(5, first, first + 1))
    assert time.perf_counter() - started_s < 5
