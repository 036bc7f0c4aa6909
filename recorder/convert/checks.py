"""What every kind asks of a column's values first, in one pass in C where it can, and how a column refuses."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from schemas.columns import Column

NONE_TYPE = type(None)

Converter = Callable[[Sequence[Any]], pa.Array]
"""Turns a slice's values of one column into an Arrow array, or raises `BadColumn`."""


class BadColumn(ValueError):  # noqa: N818 - a verdict on data, not a failure of the program
    """Values that a column refuses. `reason` is the dead letter's short code."""

    def __init__(self, reason: str, detail: str):
        super().__init__(detail)
        self.reason = reason


def types_of(column: Column, *types: type) -> set[type]:
    """Types of the values that a column takes as they are."""
    return {*types, NONE_TYPE} if column.nullable else {*types}


def shown(value: object) -> str:
    """A value for an error message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def wrong_type(column: Column, values: Sequence[Any], allowed: set[type], wanted: str) -> BadColumn:
    """The first value of a type that the column does not take."""
    for value in values:
        if value is None and not column.nullable:
            return BadColumn("null", f"{column.name}: None, where the column needs {wanted}")
        if type(value) not in allowed:
            kind = type(value).__name__
            return BadColumn(
                "wrong_type", f"{column.name}: {kind} {shown(value)}, where the column needs {wanted}"
            )
    return BadColumn("wrong_type", f"{column.name}: not {wanted}")


def refused(column: Column, reason: str, values: Sequence[Any], why: object) -> BadColumn:
    """Values of the right types that cannot be stored as they are; one alone is shown."""
    return BadColumn(reason, f"{column.name}: {shown(values[0]) if len(values) == 1 else 'a value'}: {why}")


def ints(values: Sequence[Any]) -> Sequence[Any]:
    """Numpy and other integers as Python's; everything else as it is (and refused by the caller)."""
    return [v if isinstance(v, int | NONE_TYPE) else _index(v) for v in values]


def _index(value: Any) -> Any:
    if isinstance(value, np.bool_):  # NumPy before 2.3 takes a truth value for an index
        return value
    try:
        return operator.index(value)
    except TypeError:
        return value


def all_of(kind: type, values: Sequence[Any]) -> bool:
    """Whether every value is of exactly that type."""
    return operator.countOf(map(type, values), kind) == len(values)


def all_none(values: Sequence[Any]) -> bool:
    """Whether every value is None, as most optional columns of most slices are. Cheap where the first is not."""
    return values[0] is None and values.count(None) == len(values)


def all_empty(values: Sequence[Any]) -> bool:
    """Whether every value is the empty tuple, the default of an array column."""
    return type(values[0]) is tuple and not values[0] and values.count(()) == len(values)


def all_one_text(values: Sequence[Any]) -> bool:
    """Whether every value is the same text, as runs, symbols and venues of one slice often are."""
    first = values[0]
    return type(first) is str and values[-1] == first and values.count(first) == len(values)
