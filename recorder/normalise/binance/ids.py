"""Ids that should follow each other: the holes in them, and what comes twice.

An id below the last one is late: it fills a hole, or it is a repeat (a redelivery, an overlapping connection). Only
when nothing but late ids came for a long time has the venue begun to count anew, and the watch begins with it.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

REPEATS_MAX = 1_000
"""Repeats in a row, after which the numbering is taken to have begun anew."""
HOLES_MAX = 64
"""Open holes that are remembered. One more forgets the lowest, and with it that ids below it were seen: rather one
trade twice than one not at all."""


@dataclass(frozen=True)
class Hole:
    """Ids that did not come: `expected` was the next, `got` came, `count` ids lie between (0 after a new numbering)."""

    expected: int
    got: int
    count: int


_NEW: tuple[bool, None] = (True, None)
_REPEATED: tuple[bool, None] = (False, None)


class TradeIds:
    """The trade ids of one stream of one symbol; each is one above the last."""

    __slots__ = ("_first", "_holes", "_last", "_late")

    def __init__(self) -> None:
        self._first = 0
        """Seen are the ids from here to the last one, but for the holes."""
        self._last: int | None = None
        self._holes: list[tuple[int, int]] = []
        """First and last id of each, ascending."""
        self._late = 0

    def follow(self, trade_id: int) -> tuple[bool, Hole | None]:
        """Take the next id: whether it is seen for the first time, and the hole before it, if there is one."""
        last = self._last
        if last is None:
            self._first = self._last = trade_id
            return _NEW
        if trade_id == last + 1:
            self._last = trade_id
            self._late = 0
            return _NEW
        if trade_id > last:
            self._open(last + 1, trade_id - 1)
        elif self._late < REPEATS_MAX:
            self._late += 1
            return _NEW if self._fills(trade_id) else _REPEATED
        else:
            self._first = trade_id
            self._holes.clear()
        self._last = trade_id
        self._late = 0
        return True, Hole(last + 1, trade_id, max(0, trade_id - last - 1))

    def _open(self, begin: int, end: int) -> None:
        self._holes.append((begin, end))
        if len(self._holes) > HOLES_MAX:
            self._first = self._holes.pop(0)[1] + 1

    def _fills(self, trade_id: int) -> bool:
        """Take a late id; whether it was missing until now."""
        if trade_id < self._first:  # from before the watch began
            if trade_id + 1 < self._first and len(self._holes) < HOLES_MAX:
                self._holes.insert(0, (trade_id + 1, self._first - 1))
                self._first = trade_id
            elif trade_id + 1 == self._first:
                self._first = trade_id
            return True
        at = bisect_right(self._holes, trade_id, key=lambda hole: hole[0]) - 1
        if at < 0 or trade_id > self._holes[at][1]:
            return False
        begin, end = self._holes[at]
        self._holes[at : at + 1] = [
            part for part in ((begin, trade_id - 1), (trade_id + 1, end)) if part[0] <= part[1]
        ]
        return True
