"""What the settings of one table come to: its own, over those of all tables, over the pack's policy. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recorder.bars.windows import OF_TABLE
from recorder.settings_fields import FOREVER, UnknownFields
from recorder.settings_tables import BUILTIN, NEVER, TableSettings, check_order
from retention.policy import complaint
from schemas.policy import Durability, Overflow, TablePolicy


@dataclass(frozen=True, kw_only=True)
class ResolvedTable:
    """How one table is recorded, every value concrete. `keep_days` None keeps rows for ever, `archive_after_days` and
    `tier_after_days` None never do it."""

    name: str
    enabled: bool
    durability: Durability
    overflow: Overflow
    overflow_second: Overflow | None
    linger_ms: float
    linger_max_ms: float
    batch_rows: int
    batch_bytes: int
    queue_rows: int
    queue_bytes: int
    high_watermark: float
    low_watermark: float
    block_timeout_ms: float
    keep_days: int | None
    archive_after_days: int | None
    bars: bool
    tier_after_days: int | None
    symbol_groups: int
    unknown_fields: UnknownFields

    @property
    def ttl_days(self) -> int | None:
        """`keep_days` where the database itself is to delete; None where rows stay, or go only with a proof."""
        return None if self.bars or self.archive_after_days is not None else self.keep_days


def check_with_defaults(own: TableSettings, defaults: TableSettings) -> None:
    """Refuse a table's watermarks or lingers that are in the wrong order once `defaults` have filled them in.

    Raises:
        ValueError: they are.
    """

    def effective(key: str) -> Any:
        value = _said(own, defaults, key)
        return BUILTIN[key] if value is None else value

    check_order(
        effective("low_watermark"),
        effective("high_watermark"),
        _said(own, defaults, "linger_ms"),
        _said(own, defaults, "linger_max_ms"),
    )


def resolve(
    name: str,
    policy: TablePolicy,
    own: TableSettings,
    defaults: TableSettings,
    unknown_fields: UnknownFields,
) -> ResolvedTable:
    """How a table is recorded: the pack's policy, then `defaults`, then the table's own settings.

    `unknown_fields` is what all tables have where nothing else is said. Whether the values go together is not looked
    at here; see `complaint_of`.
    """
    said = {key: _said(own, defaults, key) for key in TableSettings.model_fields}
    values: dict[str, Any] = {key: BUILTIN[key] if said[key] is None else said[key] for key in BUILTIN}
    values |= {
        key: getattr(policy, key) if said[key] is None else said[key]
        for key in ("enabled", "durability", "overflow")
    }
    keep = said["keep_days"]
    return ResolvedTable(
        name=name,
        overflow_second=said["overflow_second"],
        keep_days=policy.keep_days if keep is None else None if keep == FOREVER else keep,
        archive_after_days=None if said["archive_after_days"] == NEVER else said["archive_after_days"],
        # Said of all tables, it is for those that have bars; said of one that has none, it is a mistake.
        bars=bool(own.bars if name != OF_TABLE else said["bars"]),
        tier_after_days=None if said["tier_after_days"] == NEVER else said["tier_after_days"],
        symbol_groups=said["symbol_groups"] or policy.symbol_groups,
        unknown_fields=said["unknown_fields"] or unknown_fields,
        **(values | _stretched(said, values)),
    )


def _said(own: TableSettings, defaults: TableSettings, key: str) -> Any:
    """What a table's settings or the defaults say of a key; None where neither does."""
    value = getattr(own, key)
    return getattr(defaults, key) if value is None else value


def _stretched(said: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Values that give way because another was set: the longest linger, the batch in a small queue."""
    given: dict[str, Any] = {}
    if said["linger_max_ms"] is None:
        given["linger_max_ms"] = max(values["linger_max_ms"], values["linger_ms"])
    elif said["linger_ms"] is None:
        given["linger_ms"] = min(values["linger_ms"], values["linger_max_ms"])
    for batch, queue in (("batch_rows", "queue_rows"), ("batch_bytes", "queue_bytes")):
        if said[batch] is None:
            given[batch] = min(values[batch], values[queue])
        elif said[queue] is None:
            given[queue] = max(values[queue], values[batch])
    return given


def complaint_of(table: ResolvedTable, conflate_key: tuple[str, ...]) -> str | None:
    """Why a table's settings do not go together with its pack's policy; None when they do."""
    policies = (table.overflow, table.overflow_second)
    if Overflow.SPILL in policies and table.durability is Durability.MEMORY:
        return (
            "overflow spill needs a log, and durability memory has none; "
            "use durability wal or spill, or another overflow"
        )
    if Overflow.CONFLATE in policies and not conflate_key:
        return (
            "overflow conflate keeps the newest row of a key, and the pack names no key for this table; "
            "use drop_oldest"
        )
    if table.overflow is Overflow.BLOCK and table.overflow_second is None:
        return "overflow block needs overflow_second; set it to drop_oldest, conflate, sample or spill"
    if table.batch_rows > table.queue_rows:
        return f"batch_rows {table.batch_rows} must not be above queue_rows {table.queue_rows}"
    if table.batch_bytes > table.queue_bytes:
        return f"batch_bytes {table.batch_bytes} must not be above queue_bytes {table.queue_bytes}"
    if table.bars and table.name != OF_TABLE:
        return (
            f"bars are made of {OF_TABLE} alone, so that with bars true no row of this table would ever go; take it "
            "away, or set archive_after_days where rows are to be archived before they go"
        )
    return complaint(
        keep_days=table.keep_days,
        archive_after_days=table.archive_after_days,
        bars=table.bars,
        tier_after_days=table.tier_after_days,
    )
