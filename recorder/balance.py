"""The balance of a table (promise P4): every received row is somewhere, at any moment."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True, kw_only=True)
class Balance:
    """Where one table's rows of this run are. All counts are rows."""

    received: int
    inserted: int
    pending: int
    shed: int
    dead_lettered: int
    duplicates_skipped: int
    expired: int

    @property
    def exact(self) -> bool:
        """Whether every received row is accounted for."""
        return self.received == (
            self.inserted
            + self.pending
            + self.shed
            + self.dead_lettered
            + self.duplicates_skipped
            + self.expired
        )

    def as_dict(self) -> dict[str, int]:
        """The counts by name, in the order of the equation."""
        return asdict(self)
