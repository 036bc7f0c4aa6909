"""Which days of both tables were found to have the same rows, and whether that still holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from recorder.copying.digest import Digest
from recorder.repartition.pair import Pair


class Alike:
    """What was compared since one of the tables was made; on_rows is told of the rows that were found equal."""

    def __init__(self, pair: Pair, on_rows: Callable[[int], None] = lambda _: None):
        self._pair, self._on_rows = pair, on_rows
        self._parts: dict[str, frozenset[frozenset[str]]] = {}
        """Of each day that was found equal: the parts that both tables had before."""
        self.digests: dict[str, Digest] = {}
        """What these days come to."""

    def still(self, day: str) -> bool:
        """Whether the day was found equal, and no part of it is new since."""
        return self._parts.get(day) == self._pair.parts(day)

    def find(self, day: str, columns: Mapping[str, str]) -> bool:
        """Whether both tables have the same rows of a day; compared again only where a part is new."""
        pair = self._pair
        parts = pair.parts(day)
        if self._parts.get(day) == parts:
            return True
        if pair.count(pair.table, day) != pair.count(pair.beside, day):
            return False
        here, there = (pair.digest(table, day, columns) for table in (pair.table, pair.beside))
        if here == there:
            self._on_rows(here.rows)
            self._parts[day], self.digests[day] = parts, here
        return here == there
