"""A table as the rest of the recorder sees it: columns and policy, derived once from a row class."""

from __future__ import annotations

import types
import typing
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec
import pyarrow as pa

from schemas.columns import IDENTITY_COLUMNS, REQUIRED, Column, ColumnType
from schemas.docstrings import field_docs
from schemas.errors import PackError
from schemas.plain_row import PlainRow, plain_row
from schemas.policy import KEEP_DAYS_MAX, SYMBOL, TablePolicy, groups_complaint


class Row(msgspec.Struct, kw_only=True, gc=False):
    """Base of every row class: field names are column names, field types are column types."""


@dataclass(frozen=True)
class Table:
    """One table of a pack.

    `columns` are the row class's fields in order; `all_columns` has `_log` and `_seq` behind them.
    """

    name: str
    row: type[Row]
    policy: TablePolicy
    columns: tuple[Column, ...]
    doc: str = ""

    @property
    def all_columns(self) -> tuple[Column, ...]:
        """The columns as they stand in ClickHouse."""
        return self.columns + IDENTITY_COLUMNS

    @cached_property
    def schema(self) -> pa.Schema:
        """The Arrow schema of a batch of this table."""
        return pa.schema([column.arrow_field for column in self.all_columns])

    @cached_property
    def plain_row(self) -> type[PlainRow]:
        """The class of this table's rows as a decoder makes them that leaves values to the batch builder."""
        return plain_row(f"Plain{self.row.__name__}", self.columns)

    @property
    def has_symbols(self) -> bool:
        """Whether every row has a symbol."""
        return any(column.name == SYMBOL and not column.nullable for column in self.columns)

    def column(self, name: str) -> Column:
        """The column of that name.

        Raises:
            KeyError: the table has none.
        """
        for column in self.all_columns:
            if column.name == name:
                return column
        raise KeyError(name)


def table(name: str, row: type[Row], policy: TablePolicy) -> Table:
    """Derive a table from its row class.

    Raises:
        PackError: a field's type is no column type, the policy names a column that is not there, keeps rows longer
            than a TTL can say, or asks for symbol groups that the table cannot have.
    """
    hints = typing.get_type_hints(row, include_extras=True)
    docs = field_docs(row)
    columns = []
    for field in msgspec.structs.fields(row):
        column_type, nullable = _column_type(name, field.name, hints[field.name])
        default: Any = field.default
        if default is msgspec.NODEFAULT:
            default = REQUIRED if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        columns.append(Column(field.name, column_type, nullable, default, docs.get(field.name, "")))
    names = {column.name for column in columns}
    needed = {policy.partition_column, *policy.conflate_key, "ts_local", "run_id"}
    if missing := sorted(needed - names):
        raise PackError(
            f"table {name}: its policy or the conventions need columns {', '.join(missing)}; "
            f"{row.__name__} has none of that name"
        )
    if policy.keep_days is not None and policy.keep_days > KEEP_DAYS_MAX:
        raise PackError(
            f"table {name}: keep_days {policy.keep_days:,} is more than the {KEEP_DAYS_MAX:,} that a TTL adds up to; "
            "keep less, or None for ever"
        )
    made = Table(name, row, policy, tuple(columns), (row.__doc__ or "").strip())
    if wrong := groups_complaint(policy, policy.symbol_groups, symbols=made.has_symbols):
        raise PackError(f"table {name}: {wrong}")
    return made


def _column_type(table_name: str, field: str, hint: Any) -> tuple[ColumnType, bool]:
    """The column type in a hint, and whether the field may be None."""
    nullable = False
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        parts = typing.get_args(hint)
        rest = [part for part in parts if part is not type(None)]
        nullable = len(rest) < len(parts)
        hint = rest[0] if len(rest) == 1 else hint
    for extra in getattr(hint, "__metadata__", ()):
        if isinstance(extra, ColumnType):
            return extra, nullable
    raise PackError(
        f"table {table_name}: field {field} has type {hint!r}; use one of the types in schemas.columns"
    )
