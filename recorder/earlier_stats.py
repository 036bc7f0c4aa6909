"""What became of the rows that earlier runs left on a table's log. Plain values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class EarlierCounts:
    """Rows of earlier runs, resolved so far. Its account counts in it."""

    inserted: int = 0
    there: int = 0
    """The table had them when it was asked, or they had left it: they have moved, or are archived."""
    dead_lettered: int = 0
    expired: int = 0
    """The table's TTL has taken them, or would take them at once."""

    @property
    def resolved(self) -> int:
        """All of them."""
        return self.inserted + self.there + self.dead_lettered + self.expired


@dataclass(frozen=True, kw_only=True)
class EarlierStats:
    """How far one table's have come. All counts are rows."""

    inserted: int
    there: int
    dead_lettered: int
    expired: int
    restored: int
    """Confirmed before, lost by the database since, and put back."""
    kept: int
    """They stay on the log: they are no rows of the table now, or the disk does not give them."""
    kept_why: str
    unread: str
    """Where the disk does not give what is on the log, so that more rows may be there than are known; or empty."""
    unsettled: int
    """Of earlier runs, and confirmed: looked up again if the database is started anew."""
    done: bool
    """Nothing of earlier runs waits any more."""
    why: str
    """Why it does not flow: held, retried, or a task of it has died of late; empty while it does."""

    @property
    def resolved(self) -> int:
        """Those that need nothing more."""
        return self.inserted + self.there + self.dead_lettered + self.expired
