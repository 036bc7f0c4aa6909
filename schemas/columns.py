"""What a column is: one type per kind of value, from Python to Arrow to ClickHouse.

A row class names its fields' types with the aliases below (`fill_price: Money`); everything else is derived:
the Arrow schema a batch is built with, the ClickHouse type `recorder migrate check` compares, and the checks
the batch builder makes. The three coerce silently in different ways, so the kind says what is *refused*.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any

import pyarrow as pa

MONEY_PRECISION = 38
MONEY_SCALE = 18


class Kind(enum.Enum):
    """How the batch builder treats a column's values; each kind refuses what it does not name."""

    TIME = "time"  # int, nanoseconds since the epoch, UTC; bool and float refused
    INT = "int"  # int within the width; bool and float refused
    FLOAT = "float"  # int or float; NaN and infinity refused where `finite`
    DECIMAL = (
        "decimal"  # Decimal, int, str or float (a float stands for its repr); refused if a digit were lost
    )
    TEXT = "text"  # str, valid UTF-8
    CHOICE = "choice"  # str, one of `choices`
    BYTES = "bytes"  # bytes or str; kept byte for byte
    BOOL = "bool"  # bool only
    FLOATS = (
        "floats"  # sequence of int or float; empty where there is none (ClickHouse arrays are never NULL)
    )
    TAGS = "tags"  # mapping of str to str


@dataclass(frozen=True)
class ColumnType:
    """One column's type in Python, Arrow and ClickHouse.

    `clickhouse` is the type without `Nullable`; `choices` is set for `Kind.CHOICE`; `bits` and `signed` for
    `Kind.INT`; `finite` for floats that must not be NaN or infinite.
    """

    kind: Kind
    clickhouse: str
    arrow: pa.DataType
    choices: tuple[str, ...] = ()
    bits: int = 0
    signed: bool = False
    finite: bool = True
    unbounded: bool = False
    """True for texts, payloads and lists of any length: the queue counts their bytes one by one."""
    foreign: bool = False
    """True for texts, bytes and tags that may hold what others wrote: secrets are cut out of them before anything keeps
    them."""

    def clickhouse_type(self, *, nullable: bool) -> str:
        """The full ClickHouse type, with `Nullable` where it goes."""
        if not nullable:
            return self.clickhouse
        if self.clickhouse.startswith("LowCardinality("):
            inner = self.clickhouse.removeprefix("LowCardinality(").removesuffix(")")
            return f"LowCardinality(Nullable({inner}))"
        return f"Nullable({self.clickhouse})"


_TIME = ColumnType(Kind.TIME, "DateTime64(9, 'UTC')", pa.timestamp("ns", tz="UTC"))
_MONEY = ColumnType(
    Kind.DECIMAL, f"Decimal({MONEY_PRECISION}, {MONEY_SCALE})", pa.decimal128(MONEY_PRECISION, MONEY_SCALE)
)


def _int(bits: int, *, signed: bool) -> ColumnType:
    name = f"{'Int' if signed else 'UInt'}{bits}"
    return ColumnType(Kind.INT, name, getattr(pa, name.lower())(), bits=bits, signed=signed)


def choice(*names: str) -> ColumnType:
    """An enumeration by name; an unknown name is refused."""
    return ColumnType(Kind.CHOICE, "LowCardinality(String)", pa.string(), choices=names)


TimeNs = Annotated[int, _TIME]
"""Nanoseconds since the epoch, UTC."""
Money = Annotated[Decimal | str | int | float, _MONEY]
"""An exact amount, price or quantity of an audit table."""
Float = Annotated[float, ColumnType(Kind.FLOAT, "Float64", pa.float64())]
"""A finite float of a dense table."""
UInt32 = Annotated[int, _int(32, signed=False)]
UInt64 = Annotated[int, _int(64, signed=False)]
Int64 = Annotated[int, _int(64, signed=True)]
Id = Annotated[str, ColumnType(Kind.TEXT, "String", pa.string())]
"""An identifier as the venue or the system writes it."""
Name = Annotated[str, ColumnType(Kind.TEXT, "LowCardinality(String)", pa.string())]
"""A text with few different values: symbol, strategy, venue."""
Text = Annotated[str, ColumnType(Kind.TEXT, "String", pa.string(), unbounded=True, foreign=True)]
Payload = Annotated[bytes | str, ColumnType(Kind.BYTES, "String", pa.binary(), unbounded=True, foreign=True)]
"""Bytes as they came; every one of the 256 values survives."""
Bool = Annotated[bool, ColumnType(Kind.BOOL, "Bool", pa.bool_())]
Floats = Annotated[tuple[float, ...], ColumnType(Kind.FLOATS, "Array(Float64)", pa.list_(pa.float64()))]
Levels = Annotated[
    tuple[float, ...],
    ColumnType(Kind.FLOATS, "Array(Float64)", pa.list_(pa.float64()), unbounded=True),
]
"""Floats, as many as there are: hundreds in one row."""
Tags = Annotated[
    dict[str, str],
    ColumnType(
        Kind.TAGS,
        "Map(LowCardinality(String), String)",
        pa.map_(pa.string(), pa.string()),
        unbounded=True,
        foreign=True,
    ),
]


class _Required:
    """The default of a column that has none."""

    def __repr__(self) -> str:
        return "REQUIRED"


REQUIRED: Any = _Required()


@dataclass(frozen=True)
class Column:
    """One column of a table, as derived from a field of its row class."""

    name: str
    type: ColumnType
    nullable: bool = False
    default: Any = REQUIRED
    doc: str = ""

    @property
    def clickhouse_type(self) -> str:
        """The type as `system.columns` names it."""
        return self.type.clickhouse_type(nullable=self.nullable)

    @property
    def arrow_field(self) -> pa.Field:
        """The column's field in a batch's Arrow schema."""
        return pa.field(self.name, self.type.arrow, nullable=self.nullable)


LOG_COLUMN = Column(
    "_log", _int(64, signed=False), doc="Epoch or source a row came from; with `_seq` its identity."
)
SEQ_COLUMN = Column("_seq", _int(64, signed=False), doc="Number of the row within `_log`.")
IDENTITY_COLUMNS = (LOG_COLUMN, SEQ_COLUMN)
"""Every table ends with these two; the recorder fills them, a producer never does."""
