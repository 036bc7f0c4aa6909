"""Python values to Arrow arrays, one column of one slice at a time, refusing every silent change.

pyarrow cuts floats to ints, takes bools for numbers and wraps integers; ClickHouse turns NULL into 0 behind it. So
each kind checks the *types* of the values first (one pass in C: `set(map(type, values))`), then converts by the
fastest road that is exact for those types. A column that cannot be converted raises `BadColumn`; which row is to
blame is found by converting the column's values one by one (`bad_values`), so that there is one set of rules.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from recorder.convert import decimals, nested, numbers, texts
from recorder.convert.checks import BadColumn, Converter
from recorder.convert.numbers import EARLIEST_TIME_NS, EXACT_FLOAT_INT
from schemas.columns import Column, Kind

__all__ = ["EARLIEST_TIME_NS", "EXACT_FLOAT_INT", "BadColumn", "Converter", "bad_values", "converter"]

_CONVERTERS: dict[Kind, Callable[[Column], Converter]] = {
    Kind.TIME: numbers.times,
    Kind.INT: numbers.integers,
    Kind.FLOAT: numbers.floats,
    Kind.DECIMAL: decimals.exact_decimals,
    Kind.TEXT: texts.plain_texts,
    Kind.CHOICE: texts.choice_texts,
    Kind.BYTES: texts.byte_strings,
    Kind.BOOL: texts.bools,
    Kind.FLOATS: nested.float_lists,
    Kind.TAGS: nested.tags,
}


def converter(column: Column) -> Converter:
    """The function that turns a slice's values of this column into an Arrow array.

    It raises `BadColumn` if a single value cannot be stored exactly as it is.
    """
    return _CONVERTERS[column.type.kind](column)


def bad_values(convert: Converter, values: Sequence[Any]) -> list[tuple[int, BadColumn]]:
    """The positions of the values that the column refuses, each with its reason."""
    bad = []
    for position, value in enumerate(values):
        try:
            convert((value,))
        except BadColumn as error:
            bad.append((position, error))
    return bad
