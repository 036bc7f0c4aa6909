"""How many rows a table refuses lately: so many, and it is the table that is wrong, not the rows. Pure."""

from __future__ import annotations

from collections import deque

DEAD_LETTER_MIN_ROWS = 20
"""There must be at least so many dead letters before their ratio can hold the table."""
DEAD_LETTER_WINDOW_ROWS = 1_000
"""Their ratio is taken over the last batches of at least so many rows, so that small batches are judged together."""


class Refusals:
    """The dead letters of the last batches, against the ratio that holds their table.

    A batch counts with all its rows as soon as it is begun: what is refused first says nothing of the rest.
    """

    def __init__(self, ratio: float):
        self._ratio = ratio
        self._batches: deque[list[int]] = deque()  # [rows, refused]
        self.rows = 0
        self.count = 0

    def begin(self, rows: int) -> None:
        """A batch of so many rows is next; forget those that are too long ago."""
        self._batches.append([rows, 0])
        self.rows += rows
        while self.rows - self._batches[0][0] >= DEAD_LETTER_WINDOW_ROWS:
            gone, refused = self._batches.popleft()
            self.rows -= gone
            self.count -= refused

    def add(self) -> None:
        """A row was refused."""
        self._batches[-1][1] += 1
        self.count += 1

    def too_many(self) -> bool:
        """Whether one more dead letter would say that the table is to blame."""
        return self.count + 1 > max(DEAD_LETTER_MIN_ROWS, self._ratio * self.rows)

    def forgive(self) -> None:
        """The table was mended: count anew."""
        self.count = 0
        for batch in self._batches:
            batch[1] = 0
