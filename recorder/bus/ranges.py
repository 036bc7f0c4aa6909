"""A set of positions, kept as ranges: what is resolved of a stream. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator


class Ranges:
    """Whole numbers in disjoint ranges `[start, end)`, in order, none touching another."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        self.total = 0

    def add(self, start: int, end: int) -> list[tuple[int, int]]:
        """Take a range in. The parts of it that were not there, in order."""
        if start >= end:
            return []
        starts, ends = self._starts, self._ends
        first = bisect_left(ends, start)  # the first range that touches or lies behind
        last = bisect_right(starts, end)  # behind the last that touches
        fresh = []
        at = start
        for n in range(first, last):
            if at < starts[n]:
                fresh.append((at, starts[n]))
            at = max(at, ends[n])
        if at < end:
            fresh.append((at, end))
        if first < last:
            start, end = min(start, starts[first]), max(end, ends[last - 1])
        starts[first:last] = [start]
        ends[first:last] = [end]
        self.total += sum(b - a for a, b in fresh)
        return fresh

    def end_of_run(self, position: int) -> int:
        """The first position from `position` on that is not there."""
        n = bisect_right(self._starts, position) - 1
        return max(position, self._ends[n]) if n >= 0 else position

    def __contains__(self, position: int) -> bool:
        return self.end_of_run(position) > position

    def covers(self, start: int, end: int) -> bool:
        """Whether all of `[start, end)` is there."""
        return start >= end or self.end_of_run(start) >= end

    def missing(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The parts of `[start, end)` that are not there, in order."""
        at = self.end_of_run(start)
        n = bisect_right(self._starts, at)
        while at < end:
            stop = self._starts[n] if n < len(self._starts) else end
            yield at, min(stop, end)
            at = self._ends[n] if n < len(self._ends) else end
            n += 1

    def above(self, position: int, most: int) -> list[tuple[int, int]]:
        """At most so many ranges that begin above a position."""
        n = bisect_right(self._starts, position)
        return list(zip(self._starts[n : n + most], self._ends[n : n + most], strict=True))

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._starts, self._ends, strict=True)

    def __len__(self) -> int:
        return len(self._starts)
