"""Rows as a decoder makes them where it need not look at their values: an object with a field a column. Pure.

A message is nearly always rows of one table, and each value one that the column's kind could take. Such a row is
decoded straight into the columns' order, which spares what a mapping costs: its names, filling in what it leaves out,
looking each column up. Whether a value suits its column stays for the batch builder to say, by the same rules for rows
of all shapes; so the types here are wide, and nothing is changed on the way. What does not fit them is decoded the
general way.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from typing import Any, cast

import msgspec

from schemas.columns import REQUIRED, Column, Kind

Plain = bool | int | float | str | None

_TYPES: dict[Kind, Any] = {
    Kind.BYTES: bytes | None,
    Kind.FLOATS: tuple[int | float | None, ...] | None,
    Kind.TAGS: dict[str, Plain] | None,
}
"""Of columns that hold more than one plain value. An integer stays one, which `float` alone would not leave it; a tuple
takes a third less time than a list, and the garbage collector soon leaves it alone."""


class PlainRow(msgspec.Struct, kw_only=True, gc=False, forbid_unknown_fields=True):
    """Base of such rows. Whoever decodes one owns it."""


def plain_row(name: str, columns: Sequence[Column]) -> type[PlainRow]:
    """A class of plain rows: the columns in their order, with their defaults, required ones without."""
    fields = [_field(column) for column in columns]
    made = msgspec.defstruct(name, fields, bases=(PlainRow,), module=__name__, kw_only=True)
    return cast(type[PlainRow], made)


def given(row: PlainRow) -> dict[str, Any]:
    """What a row says, without what it leaves to its defaults."""
    fields = msgspec.structs.fields(row)
    values = ((field, getattr(row, field.name)) for field in fields)
    return {field.name: value for field, value in values if not _is_default(field, value)}


def _field(column: Column) -> tuple[str, Any] | tuple[str, Any, Any]:
    kind = _TYPES.get(column.type.kind, Plain)
    default = column.default
    if default is REQUIRED:
        return column.name, kind
    if isinstance(default, list | dict | set):
        return column.name, kind, msgspec.field(default_factory=functools.partial(copy.copy, default))
    return column.name, kind, default


def _is_default(field: msgspec.structs.FieldInfo, value: Any) -> bool:
    default = field.default
    if default is msgspec.NODEFAULT and field.default_factory is not msgspec.NODEFAULT:
        default = field.default_factory()
    return type(value) is type(default) and bool(value == default)
