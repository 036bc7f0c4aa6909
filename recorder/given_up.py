"""What a recorder gave up as it closed: what is lost, and what its bus delivers again. Pure."""

from __future__ import annotations

from typing import NamedTuple


class GivenUp(NamedTuple):
    """Rows of one table that memory held at the end and that are not in the table."""

    lost: int = 0
    """Nobody has them any more."""
    again: int = 0
    """Of messages that were not acknowledged, by a bus that delivers them until they are."""


def given_up(rows: int, *, comes_again: int, comes_no_more: int) -> GivenUp:
    """Tell lost rows from others. Of `rows` given up at most `comes_again` are of messages that come again, and at
    most `comes_no_more` of messages that do not; where it could be either, it counts as lost.
    """
    lost = min(rows, max(rows - comes_again, comes_no_more))
    return GivenUp(lost, rows - lost)
