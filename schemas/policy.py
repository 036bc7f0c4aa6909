"""How one table is kept: durability, overflow, partitions, retention. Values only; others act on them."""

from __future__ import annotations

import enum
from dataclasses import dataclass

KEEP_DAYS_MAX = 20_000
"""Days to which a TTL adds up: its DateTime ends in 2106 and begins anew, so more would delete rows as they come."""


class Durability(enum.StrEnum):
    """Where a table's rows are safe before ClickHouse has them."""

    WAL = "wal"
    SPILL = "spill"
    MEMORY = "memory"


class Overflow(enum.StrEnum):
    """What happens to rows when a table's queue is full."""

    SPILL = "spill"
    DROP_OLDEST = "drop_oldest"
    CONFLATE = "conflate"
    SAMPLE = "sample"
    BLOCK = "block"


class Partition(enum.StrEnum):
    """How a table is cut by local time."""

    DAY = "day"
    MONTH = "month"


@dataclass(frozen=True, kw_only=True)
class TablePolicy:
    """The defaults of one table; settings may override each of them.

    `keep_days` is at most `KEEP_DAYS_MAX`; None keeps rows for ever. Partitions and the time to live go by
    `partition_column`, a local time.
    `conflate_key` names the columns of which `Overflow.CONFLATE` keeps the newest row.
    `enabled` False leaves the table's rows out (counted as filtered) until a setting asks for them.
    """

    durability: Durability
    overflow: Overflow
    partition: Partition
    order_by: tuple[str, ...]
    keep_days: int | None = None
    partition_column: str = "ts_local"
    conflate_key: tuple[str, ...] = ()
    enabled: bool = True

    @property
    def critical(self) -> bool:
        """Whether losing a row of this table is a failure, not a degradation."""
        return self.durability is Durability.WAL
