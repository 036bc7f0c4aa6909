"""How one table is kept: durability, overflow, partitions, retention. Values only; others act on them."""

from __future__ import annotations

import enum
from dataclasses import dataclass

SYMBOL = "symbol"
"""The column whose values symbol groups part."""

SYMBOL_GROUPS_MAX = 32
"""More would make more parts of each insert than a query saves; an insert may touch 100 partitions."""

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
    `symbol_groups` above 1 parts each day's rows into so many partitions by a hash of their symbol.
    """

    durability: Durability
    overflow: Overflow
    partition: Partition
    order_by: tuple[str, ...]
    keep_days: int | None = None
    partition_column: str = "ts_local"
    conflate_key: tuple[str, ...] = ()
    enabled: bool = True
    symbol_groups: int = 1

    @property
    def critical(self) -> bool:
        """Whether losing a row of this table is a failure, not a degradation."""
        return self.durability is Durability.WAL


def groups_complaint(policy: TablePolicy, groups: int, *, symbols: bool) -> str | None:
    """Why a table cannot be parted into so many symbol groups, None where it can; `symbols`: each row has one."""
    if groups == 1:
        return None
    if not 1 <= groups <= SYMBOL_GROUPS_MAX:
        return f"symbol_groups is {groups}, expected 1 (none) to {SYMBOL_GROUPS_MAX}"
    if not symbols:
        return (
            f"symbol_groups {groups} parts rows by their {SYMBOL}, which this table has not; leave it unset"
        )
    if policy.partition is not Partition.DAY:
        return (
            f"symbol_groups {groups} is for tables that are partitioned by day, this one is by {policy.partition}; "
            "leave it unset"
        )
    return None
