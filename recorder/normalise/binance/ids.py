"""Ids that should follow each other, and the holes in them.

An id at or below the last one is a repeat (a redelivery, an overlapping connection), no hole. Only when nothing but
repeats came for a long time has the venue begun to count anew, and the watch begins with it.
"""

from __future__ import annotations

from dataclasses import dataclass

REPEATS_MAX = 1_000
"""Repeats in a row, after which the numbering is taken to have begun anew."""


@dataclass(frozen=True)
class Hole:
    """Ids that did not come: `expected` was the next, `got` came, `count` ids lie between (0 after a new numbering)."""

    expected: int
    got: int
    count: int


class TradeIds:
    """The trade ids of one stream of one symbol; each is one above the last."""

    __slots__ = ("_last", "_repeats")

    def __init__(self) -> None:
        self._last: int | None = None
        self._repeats = 0

    def follow(self, trade_id: int) -> Hole | None:
        """Take the next id; the hole before it, if there is one."""
        last = self._last
        if last is None or trade_id == last + 1:
            self._last = trade_id
            self._repeats = 0
            return None
        if trade_id <= last and self._repeats < REPEATS_MAX:
            self._repeats += 1
            return None
        self._last = trade_id
        self._repeats = 0
        return Hole(last + 1, trade_id, max(0, trade_id - last - 1))
