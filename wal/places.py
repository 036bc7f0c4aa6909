"""Places of rows in a log."""

from __future__ import annotations

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
