"""Legal holds: a table or a time that nothing may drop until it is lifted. Values; where they are kept is elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from retention.errors import PolicyError
from retention.partitions import Span

FIRST_NS = -(2**63)
LAST_NS = 2**63 - 1


@dataclass(frozen=True, kw_only=True)
class Hold:
    """Rows of `table` (None: of every table) whose local time is `since_ns` or later and before `until_ns` stay.

    None leaves an end open.

    Raises:
        PolicyError: the time is empty.
    """

    name: str
    table: str | None = None
    since_ns: int | None = None
    until_ns: int | None = None
    reason: str = ""

    def __post_init__(self) -> None:
        if self.since_ns is not None and self.until_ns is not None and self.since_ns >= self.until_ns:
            raise PolicyError(
                f"hold {self.name}: its time from {self.since_ns} to before {self.until_ns} is empty and would hold "
                "nothing; give a later end"
            )

    def concerns(self, table: str) -> bool:
        """Whether it holds rows of this table, at any time."""
        return self.table is None or self.table == table

    def holds(self, table: str, span: Span) -> bool:
        """Whether it holds rows of this table within this time."""
        since = FIRST_NS if self.since_ns is None else self.since_ns
        until = LAST_NS if self.until_ns is None else self.until_ns
        return self.concerns(table) and span.overlaps(Span(since, until))


def holding(holds: Iterable[Hold], table: str, span: Span) -> Hold | None:
    """The first hold by name over a partition, None for none.

    A partition goes whole or not at all, so it is held by any moment of its span, with rows there or without: a late
    row may still come.
    """
    return min((hold for hold in holds if hold.holds(table, span)), key=lambda hold: hold.name, default=None)
