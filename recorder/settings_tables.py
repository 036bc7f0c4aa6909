"""Settings of one table and of one normaliser, as they are written down."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from recorder.settings_fields import Count, Millis, Ratio, Size, UnknownFields, keep_days, number, off_at_zero
from schemas.policy import SYMBOL_GROUPS_MAX, Durability, Overflow

MIB = 1 << 20
NEVER: Literal["never"] = "never"


def days_or_never(value: Any) -> Any:
    """Days, or `never`; None is not said."""
    if value is None or (isinstance(value, str) and value.strip().lower() == NEVER):
        return value and NEVER
    days = number(value)
    try:
        days = int(days) if not isinstance(days, float) or days.is_integer() else days
    except ValueError:
        raise ValueError(f'must be a number of days or "{NEVER}"') from None
    if not isinstance(days, int) or days <= 0:
        raise ValueError(f'must be a whole number of days above 0, or "{NEVER}"')
    return days


DaysOrNever = Annotated[int | Literal["never"] | None, BeforeValidator(days_or_never)]


class TableSettings(BaseModel):
    """How one table is recorded, as far as a setting says; None leaves it to `defaults`, then to the pack."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    enabled: bool | None = Field(
        default=None, description="Whether the table is recorded; else its rows are counted as filtered."
    )
    durability: Durability | None = Field(
        default=None,
        description="`wal` makes a table critical: the database syncs every insert, and a lost row raises an alarm; "
        "`spill` uses the log only while the database is away or too slow, and at shutdown; `memory` never does, and "
        "rules out overflow `spill`.",
    )
    overflow: Overflow | None = Field(
        default=None,
        description="What happens to rows when the queue is full: `spill`, `drop_oldest`, `conflate`, "
        "`sample` or `block`.",
    )
    overflow_second: Overflow | None = Field(
        default=None, description="The policy that follows when `block` has waited `block_timeout_ms`."
    )
    linger_ms: Millis | None = Field(
        default=None, description="The longest a row waits for company before an insert."
    )
    linger_max_ms: Millis | None = Field(
        default=None, description="How far the linger stretches to stay within `insert_budget_per_s`."
    )
    batch_rows: Count | None = Field(default=None, description="Rows at which a batch goes at once.")
    batch_bytes: Size | None = Field(
        default=None, description='Bytes at which a batch goes at once; units as in "16 MiB" are understood.'
    )
    queue_rows: Count | None = Field(default=None, description="Rows the queue holds at most.")
    queue_bytes: Size | None = Field(default=None, description="Bytes the queue holds at most.")
    high_watermark: Ratio | None = Field(
        default=None,
        description="Share of the queue at which `conflate` and `sample` begin to thin; the other policies act when "
        "the queue is full.",
    )
    low_watermark: Ratio | None = Field(
        default=None,
        description="Share of the queue from which rows no longer wait for company, and down to which those wait "
        "that wait for room (`block`, files).",
    )
    block_timeout_ms: Millis | None = Field(default=None, description="How long `block` waits.")
    keep_days: Annotated[
        int | Literal["forever"] | None,
        BeforeValidator(lambda value: None if value is None else keep_days(value)),
    ] = Field(default=None, description='Days a row is kept, or "forever".')
    archive_after_days: DaysOrNever = Field(
        default=None,
        description="Days after which a closed partition is to be archived, or `never` (as if unset). The "
        "table then carries no TTL: its rows go only with a receipt of the archive.",
    )
    bars: bool | None = Field(
        default=None,
        description="Whether a partition goes only when bars of its trades and quotes are made and verified; off if "
        "unset. The table then carries no TTL. Of `market_data` alone: other tables leave out what `defaults` say, and "
        "refuse it of their own.",
    )
    tier_after_days: DaysOrNever = Field(
        default=None,
        description="Days after which a closed partition is to move to the table `archived_<name>`, or `never` (as if "
        "unset). Not with `archive_after_days` or `bars`.",
    )
    symbol_groups: Annotated[
        Annotated[int, Field(ge=1, le=SYMBOL_GROUPS_MAX)] | None,
        BeforeValidator(lambda value: None if value is None else number(value)),
    ] = Field(
        default=None,
        description=f"Partitions that a day is cut into by a hash of the symbol, 2 to {SYMBOL_GROUPS_MAX}; 1 is one a "
        "day. For tables by day with a symbol. A table that is there changes by `recorder migrate repartition`.",
    )
    unknown_fields: UnknownFields | None = Field(
        default=None,
        description="What a field the table lacks does to its row: `dead_letter`, or `ignore` (counted).",
    )

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        check_order(self.low_watermark, self.high_watermark, self.linger_ms, self.linger_max_ms)
        if self.overflow is Overflow.BLOCK and self.overflow_second is None:
            raise ValueError(
                "overflow block needs overflow_second, the policy after block_timeout_ms; "
                "set it to drop_oldest, conflate, sample or spill"
            )
        if self.overflow_second is Overflow.BLOCK:
            raise ValueError(
                "overflow_second cannot be block again; use drop_oldest, conflate, sample or spill"
            )
        return self


def check_order(
    low: float | None, high: float | None, linger: float | None, linger_max: float | None
) -> None:
    """Refuse watermarks or lingers in the wrong order; None is not said."""
    if low is not None and high is not None and low >= high:
        raise ValueError(f"low_watermark {low:g} must be below high_watermark {high:g}")
    if linger is not None and linger_max is not None and linger > linger_max:
        raise ValueError(f"linger_ms {linger:g} must not be above linger_max_ms {linger_max:g}")


BUILTIN: Mapping[str, Any] = {
    "linger_ms": 250.0,
    "linger_max_ms": 1_000.0,
    "batch_rows": 10_000,
    "batch_bytes": 16 * MIB,
    "queue_rows": 100_000,
    "queue_bytes": 64 * MIB,
    "high_watermark": 0.8,
    "low_watermark": 0.5,
    "block_timeout_ms": 100.0,
}
"""What a table has where neither the pack nor a setting says."""


class BinanceSettings(BaseModel):
    """What the Binance normaliser records."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    quotes: Literal["price_or_size", "price"] = Field(
        default="price_or_size", description="Which change of the best bid or ask makes a quote row."
    )
    sample_ms: Annotated[Annotated[int, Field(ge=10, le=50)] | None, BeforeValidator(off_at_zero)] = Field(
        default=None, description="Also a row of the last state every 10 to 50 ms; 0 or unset is off."
    )
    depth_levels: Annotated[int, BeforeValidator(number), Field(ge=1, le=20)] = Field(
        default=5, description="Levels of the maintained book in `market_data` rows, 1 to 20."
    )
    account_id: str = Field(
        default="",
        description="Account of the private streams, which do not name it: that of your own order rows.",
    )
    venue: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        description="Venue of the rows of private streams; unset says `binance.spot`, `binance.usdm` or "
        "`binance.coinm`. For a source of one market only.",
    )
    snapshot_interval_s: Annotated[float, BeforeValidator(number), Field(ge=1, le=5)] = Field(
        default=5.0,
        description="How often open positions and balances are recorded again while a bus is recorded, 1 to 5 s.",
    )


class NormaliserSettings(BaseModel):
    """Settings of the normalisers. A normaliser of your own finds its table in `of(name)`."""

    model_config = ConfigDict(frozen=True, extra="allow", hide_input_in_errors=True)
    __pydantic_extra__: dict[str, dict[str, Any]] = Field(init=False)

    binance: BinanceSettings = Field(default_factory=BinanceSettings)

    def of(self, name: str) -> dict[str, Any]:
        """The settings of a normaliser by name; empty where there are none."""
        if name in type(self).model_fields:
            return dict(getattr(self, name).model_dump())
        return dict((self.__pydantic_extra__ or {}).get(name, {}))
