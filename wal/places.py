"""Places of rows in a log, and sets of them. Pure.

A place is (epoch, sequence). What is confirmed, settled, sealed or lost is many places, nearly all in long runs, so a
set of them keeps runs: what is added in order costs no memory, and O(log n) of n runs.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from typing import NamedTuple


class Range(NamedTuple):
    """Rows of one epoch with consecutive sequences: `first` and those after it, up to but without `stop`."""

    epoch: int
    first: int
    stop: int

    @property
    def rows(self) -> int:
        """How many."""
        return self.stop - self.first

    def as_json(self) -> list[str | int]:
        """Ready for JSON, whose numbers are too small for an epoch."""
        return [f"{self.epoch:016x}", self.first, self.stop]

    def common(self, other: Range) -> Range | None:
        """The rows that are in both, if there are any."""
        first, stop = max(self.first, other.first), min(self.stop, other.stop)
        return Range(self.epoch, first, stop) if self.epoch == other.epoch and first < stop else None


class _Runs:
    """Sequences of one epoch: runs that neither overlap nor touch, in order."""

    __slots__ = ("firsts", "stops")

    def __init__(self, firsts: list[int], stops: list[int]):
        self.firsts = firsts
        self.stops = stops

    def overlapping(self, first: int, stop: int) -> tuple[int, int]:
        """From which to before which run something is in [first, stop), which is not empty."""
        return bisect_right(self.stops, first), bisect_left(self.firsts, stop)


class PlaceSet:
    """A set of places. One owner at a time; a range without rows changes nothing and is nowhere missing."""

    def __init__(self, ranges: Iterable[Range] = ()):
        self._runs: dict[int, _Runs] = {}
        self._rows = 0
        self.update(ranges)

    # -- changing ------------------------------------------------------------------------------------------------

    def add(self, added: Range) -> int:
        """Take a range in; how many of its rows were not there."""
        epoch, first, stop = added
        if first >= stop:
            return 0
        runs = self._runs.setdefault(epoch, _Runs([], []))
        # Touching runs become one, so that what comes in order stays one.
        begin, end = bisect_left(runs.stops, first), bisect_right(runs.firsts, stop)
        before = sum(runs.stops[begin:end]) - sum(runs.firsts[begin:end])
        if begin < end:
            first, stop = min(first, runs.firsts[begin]), max(stop, runs.stops[end - 1])
        runs.firsts[begin:end], runs.stops[begin:end] = [first], [stop]
        fresh = stop - first - before
        self._rows += fresh
        return fresh

    def update(self, ranges: Iterable[Range]) -> None:
        """Take all of these in."""
        for added in ranges:
            self.add(added)

    def remove(self, removed: Range) -> int:
        """Take a range out; how many of its rows were there."""
        epoch, first, stop = removed
        runs = self._runs.get(epoch)
        if runs is None or first >= stop:
            return 0
        begin, end = runs.overlapping(first, stop)
        if begin >= end:
            return 0
        outer_first, outer_stop = runs.firsts[begin], runs.stops[end - 1]
        before = sum(runs.stops[begin:end]) - sum(runs.firsts[begin:end])
        kept = [(a, b) for a, b in ((outer_first, first), (stop, outer_stop)) if a < b]
        runs.firsts[begin:end], runs.stops[begin:end] = [a for a, _ in kept], [b for _, b in kept]
        gone = before - sum(b - a for a, b in kept)
        self._rows -= gone
        if not runs.firsts:
            del self._runs[epoch]
        return gone

    def forget(self, epoch: int) -> None:
        """Take all of an epoch out."""
        runs = self._runs.pop(epoch, None)
        if runs is not None:
            self._rows -= sum(runs.stops) - sum(runs.firsts)

    # -- asking --------------------------------------------------------------------------------------------------

    @property
    def rows(self) -> int:
        """How many places."""
        return self._rows

    def contains(self, epoch: int, sequence: int) -> bool:
        """Whether one place is there."""
        return self.stop_of_run(epoch, sequence) > sequence

    def covers(self, asked: Range) -> bool:
        """Whether all of a range is there."""
        return asked.first >= asked.stop or self.stop_of_run(asked.epoch, asked.first) >= asked.stop

    def common_of(self, asked: Range) -> list[Range]:
        """The parts of a range that are there, in order."""
        epoch, first, stop = asked
        runs = self._runs.get(epoch)
        if runs is None or first >= stop:
            return []
        begin, end = runs.overlapping(first, stop)
        return [
            Range(epoch, max(first, a), min(stop, b))
            for a, b in zip(runs.firsts[begin:end], runs.stops[begin:end], strict=True)
        ]

    def missing_of(self, asked: Range) -> list[Range]:
        """The parts of a range that are not there, in order."""
        epoch, at, stop = asked
        missing = []
        for there in self.common_of(asked):
            if at < there.first:
                missing.append(Range(epoch, at, there.first))
            at = there.stop
        if at < stop:
            missing.append(Range(epoch, at, stop))
        return missing

    def stop_of_run(self, epoch: int, sequence: int) -> int:
        """The first sequence from `sequence` on that is not there; from 0: the watermark below which all are."""
        runs = self._runs.get(epoch)
        if runs is None:
            return sequence
        at = bisect_right(runs.firsts, sequence) - 1
        return max(sequence, runs.stops[at]) if at >= 0 else sequence

    def ranges(self, epoch: int) -> list[Range]:
        """What is there of an epoch, in order, as few ranges as possible."""
        runs = self._runs.get(epoch)
        if runs is None:
            return []
        return [Range(epoch, first, stop) for first, stop in zip(runs.firsts, runs.stops, strict=True)]

    @property
    def epochs(self) -> list[int]:
        """Epochs of which something is there, the smallest number first: which says nothing about their age."""
        return sorted(self._runs)

    def copy(self) -> PlaceSet:
        """Another set of the same places."""
        other = PlaceSet()
        other._runs = {epoch: _Runs(runs.firsts[:], runs.stops[:]) for epoch, runs in self._runs.items()}
        other._rows = self._rows
        return other

    def __iter__(self) -> Iterator[Range]:
        """All ranges, by epoch and sequence."""
        for epoch in self.epochs:
            yield from self.ranges(epoch)

    def __len__(self) -> int:
        """How many ranges: what it costs in memory."""
        return sum(len(runs.firsts) for runs in self._runs.values())

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, PlaceSet) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"PlaceSet({list(self)!r})"
