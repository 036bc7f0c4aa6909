"""What is asked of one table: how long its rows stay, whether an archive and bars come first, when they move.

Values and their contradictions. What follows for a partition at a given time is `retention.due`.
"""

from __future__ import annotations

from dataclasses import dataclass

from retention.errors import PolicyError
from schemas.policy import Partition

DAY_NS = 86_400_000_000_000
TIER_PREFIX = "archived_"
"""Before the name of a table: the table that its partitions move to."""


def complaint(
    *, keep_days: int | None, archive_after_days: int | None, bars: bool, tier_after_days: int | None
) -> str | None:
    """Why these do not go together; None when they do. `keep_days` None keeps rows for ever."""
    if keep_days is not None and archive_after_days is not None and archive_after_days > keep_days:
        return (
            f"archive_after_days {archive_after_days} must not be above keep_days {keep_days}: "
            "rows would have to go before they are archived; raise keep_days or archive earlier"
        )
    if keep_days is not None and tier_after_days is not None and tier_after_days >= keep_days:
        return (
            f"tier_after_days {tier_after_days} must be below keep_days {keep_days}: "
            "rows would be gone before they move; raise keep_days or move them earlier"
        )
    if tier_after_days is not None and (archive_after_days is not None or bars):
        # A partition would lie in two tables, and a receipt speaks of the rows of one.
        other = "bars" if archive_after_days is None else "archive_after_days"
        return f"tier_after_days and {other} exclude each other; set one of them to never (bars: false)"
    return None


@dataclass(frozen=True, kw_only=True)
class RetentionPolicy:
    """What is asked of one table.

    Days count from a row's local time. `keep_days` None keeps rows for ever, `archive_after_days` and
    `tier_after_days` None never do it. `bars` asks that the bars of a partition are verified before it goes.
    `native_ttl` is the TTL as the server writes it where the server itself is to delete, empty for none. `logical` is
    the table that holds and receipts speak of, where this one only has its older partitions. A day is parted into
    `symbol_groups` partitions at most.

    Raises:
        PolicyError: they do not go together.
    """

    table: str
    partition: Partition
    keep_days: int | None = None
    archive_after_days: int | None = None
    bars: bool = False
    tier_after_days: int | None = None
    native_ttl: str = ""
    logical: str = ""
    symbol_groups: int = 1

    def __post_init__(self) -> None:
        wrong = complaint(
            keep_days=self.keep_days,
            archive_after_days=self.archive_after_days,
            bars=self.bars,
            tier_after_days=self.tier_after_days,
        )
        if wrong:
            raise PolicyError(f"{self.table}: {wrong}")
        if not self.logical:
            object.__setattr__(self, "logical", self.table)

    @property
    def proof_first(self) -> bool:
        """Whether rows go only with a proof: then the recorder drops, and the table carries no TTL."""
        return self.archive_after_days is not None or self.bars

    def of_tier(self) -> RetentionPolicy | None:
        """What is asked of the table that partitions move to; None where none move."""
        if self.tier_after_days is None:
            return None
        return RetentionPolicy(
            table=TIER_PREFIX + self.table,
            partition=self.partition,
            keep_days=self.keep_days,
            native_ttl=self.native_ttl,
            logical=self.logical,
            symbol_groups=self.symbol_groups,
        )


def older_than(newest_ns: int, days: int | None, now_ns: int) -> bool:
    """Whether the newest row is older than so many days, with the day of None never over."""
    return days is not None and newest_ns + days * DAY_NS < now_ns
