"""Python values to Arrow arrays, one column of one slice at a time, refusing every silent change.

pyarrow cuts floats to ints, takes bools for numbers and wraps integers; ClickHouse turns NULL into 0 behind it. So
each kind checks the *types* of the values first (one pass in C: `set(map(type, values))`), then converts by the
fastest road that is exact for those types. A column that cannot be converted raises `BadColumn`; which row is to
blame is found by converting the column's values one by one (`bad_values`), so that there is one set of rules.
"""

from __future__ import annotations

import array
import functools
import itertools
import operator
import struct
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.columns import Column, Kind

EARLIEST_TIME_NS = 100_000_000_000_000_000
"""1973-03-03: a smaller time is almost surely in seconds, milliseconds or microseconds, and would be filed under 1970
and deleted by its table's TTL at once."""
EXACT_FLOAT_INT = 2**53
"""The largest integer up to which a float holds every integer."""

NONE_TYPE = type(None)
_TEXTS = {str}
_EXACT_FLOATS = (np.float64, np.float32, np.float16)  # not longdouble, which has more digits than a Float64

Converter = Callable[[Sequence[Any]], pa.Array]


class BadColumn(ValueError):  # noqa: N818 - a verdict on data, not a failure of the program
    """Values that a column refuses. `reason` is the dead letter's short code."""

    def __init__(self, reason: str, detail: str):
        super().__init__(detail)
        self.reason = reason


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


def _types(column: Column, *types: type) -> set[type]:
    """Types of the values that a column takes as they are."""
    return {*types, NONE_TYPE} if column.nullable else {*types}


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _wrong_type(column: Column, values: Sequence[Any], allowed: set[type], wanted: str) -> BadColumn:
    """The first value of a type that the column does not take."""
    for value in values:
        if value is None and not column.nullable:
            return BadColumn("null", f"{column.name}: None, where the column needs {wanted}")
        if type(value) not in allowed:
            kind = type(value).__name__
            return BadColumn(
                "wrong_type", f"{column.name}: {kind} {_shown(value)}, where the column needs {wanted}"
            )
    return BadColumn("wrong_type", f"{column.name}: not {wanted}")


def _refused(column: Column, reason: str, values: Sequence[Any], why: object) -> BadColumn:
    return BadColumn(reason, f"{column.name}: {_shown(values[0]) if len(values) == 1 else 'a value'}: {why}")


def _ints(values: Sequence[Any]) -> Sequence[Any]:
    """Numpy and other integers as Python's; everything else as it is (and refused by the caller)."""
    return [v if isinstance(v, int | NONE_TYPE) else _index(v) for v in values]


def _index(value: Any) -> Any:
    try:
        return operator.index(value)
    except TypeError:
        return value


def _all_of(kind: type, values: Sequence[Any]) -> bool:
    """Whether every value is of exactly that type."""
    return operator.countOf(map(type, values), kind) == len(values)


@functools.lru_cache(maxsize=1024)
def _packed(count: int) -> struct.Struct:
    """So many doubles: a quarter of what `array.array` costs for floats (for ints it is the other way round)."""
    return struct.Struct(f"={count}d")


def _all_none(values: Sequence[Any]) -> bool:
    """Whether every value is None, as most optional columns of most slices are. Cheap where the first is not."""
    return values[0] is None and values.count(None) == len(values)


def _all_empty(values: Sequence[Any]) -> bool:
    """Whether every value is the empty tuple, the default of an array column."""
    return type(values[0]) is tuple and not values[0] and values.count(()) == len(values)


def _all_one_text(values: Sequence[Any]) -> bool:
    """Whether every value is the same text, as runs, symbols and venues of one slice often are."""
    first = values[0]
    return type(first) is str and values[-1] == first and values.count(first) == len(values)


def _integer(column: Column) -> Converter:
    bits, signed, arrow, nullable = column.type.bits, column.type.signed, column.type.arrow, column.nullable
    code = {8: "b", 16: "h", 32: "i", 64: "q"}[bits]
    code = code if signed else code.upper()
    wanted = f"an integer of {bits} bits, {'signed' if signed else 'unsigned'}"
    allowed = _types(column, int)

    def convert(values: Sequence[Any]) -> pa.Array:
        if nullable and _all_none(values):
            return pa.nulls(len(values), arrow)
        try:
            if not _all_of(int, values):
                if not set(map(type, values)) <= allowed:
                    values = _ints(values)
                    if not set(map(type, values)) <= allowed:
                        raise _wrong_type(column, values, allowed, wanted)
                return pa.array(values, arrow)
            buffer = pa.py_buffer(array.array(code, values))
        except (OverflowError, pa.ArrowInvalid) as error:
            raise _refused(column, "out_of_range", values, f"{wanted} is needed") from error
        return pa.Array.from_buffers(arrow, len(values), [None, buffer])

    return convert


def _time(column: Column) -> Converter:
    nullable, arrow = column.nullable, column.type.arrow
    allowed = _types(column, int)
    wanted = "nanoseconds since the epoch as an int"

    def convert(values: Sequence[Any]) -> pa.Array:
        if nullable and _all_none(values):
            return pa.nulls(len(values), arrow)
        given = values
        if not _all_of(int, values):
            if not set(map(type, values)) <= allowed:
                values = _ints(values)
                if not set(map(type, values)) <= allowed:
                    raise _wrong_type(column, values, allowed, wanted)
            given = [v for v in values if v is not None]
        try:
            ticks = array.array("q", given)
        except OverflowError as error:
            raise _refused(column, "out_of_range", values, f"{wanted}, until 2262, are needed") from error
        earliest = int(np.frombuffer(ticks, dtype=np.int64).min())
        if earliest < EARLIEST_TIME_NS:
            raise BadColumn(
                "out_of_range",
                f"{column.name}: {earliest} is before 1973, where {wanted} are needed; "
                f"is it in {_unit_of(earliest)}?",
            )
        if len(given) < len(values):
            return pa.array(values, arrow)
        return pa.Array.from_buffers(arrow, len(values), [None, pa.py_buffer(ticks)])

    return convert


def _unit_of(value: int) -> str:
    if value < 10**11:
        return "seconds"
    return "milliseconds" if value < 10**14 else "microseconds"


def _float(column: Column) -> Converter:
    nullable, finite, arrow = column.nullable, column.type.finite, column.type.arrow
    allowed = _types(column, float, int)
    wanted = "a finite number" if finite else "a number"

    def convert(values: Sequence[Any]) -> pa.Array:
        if nullable and _all_none(values):
            return pa.nulls(len(values), arrow)
        if not _all_of(float, values):
            types = set(map(type, values))
            if not types <= allowed:
                values = [
                    float(v) if isinstance(v, _EXACT_FLOATS) else int(v) if isinstance(v, np.integer) else v
                    for v in values
                ]
                types = set(map(type, values))
                if not types <= allowed:
                    raise _wrong_type(column, values, allowed, wanted)
            if int in types:
                for v in values:
                    if type(v) is int and not -EXACT_FLOAT_INT <= v <= EXACT_FLOAT_INT:
                        raise BadColumn(
                            "lost_digits", f"{column.name}: {v} has more digits than a Float64 holds"
                        )
            if NONE_TYPE in types:
                converted = pa.array(values, arrow, from_pandas=False)
                if finite and not np.isfinite(np.frombuffer(converted.buffers()[1], count=len(values))).all():
                    raise _refused(column, "not_finite", values, f"{wanted} is needed")
                return converted
        data = _packed(len(values)).pack(*values)
        if finite and not np.isfinite(np.frombuffer(data)).all():
            raise _refused(column, "not_finite", values, f"{wanted} is needed")
        return pa.Array.from_buffers(arrow, len(values), [None, pa.py_buffer(data)])

    return convert


def _decimal_text(value: Any) -> Any:
    """The exact text of a number; a float stands for its shortest text, `repr`. Anything else as it is."""
    kind = type(value)
    if kind is str or value is None:
        return value
    if kind is float:
        return repr(value)
    if kind is int or kind is Decimal:
        return str(value)
    if isinstance(value, np.integer | np.floating):
        return repr(value.item())
    return value


def _decimal(column: Column) -> Converter:
    arrow, nullable = column.type.arrow, column.nullable
    allowed = _types(column, str)
    wanted = f"a decimal with at most {arrow.precision - arrow.scale} digits before the point and {arrow.scale} behind"
    longest_safe = arrow.precision - arrow.scale

    def convert(values: Sequence[Any]) -> pa.Array:
        if nullable and _all_none(values):
            return pa.nulls(len(values), arrow)
        types = set(map(type, values)) if not _all_of(str, values) else _TEXTS
        if not types <= allowed:
            if bool in types:
                raise _wrong_type(column, values, {str, int, float, Decimal, NONE_TYPE}, wanted)
            values = [_decimal_text(v) for v in values]
            if not set(map(type, values)) <= allowed:
                raise _wrong_type(column, values, allowed, wanted)
        try:
            cast = pc.cast(pa.array(values, pa.string()), arrow)
        except (pa.ArrowInvalid, UnicodeEncodeError) as error:
            raise _refused(column, "bad_decimal", values, f"{wanted} is needed") from error
        # pyarrow wraps round where a text has many digits or a large exponent: 1e30 came out as
        # 18960114910927365649.47, 1E-247 as 0. Such texts are compared with what they became, the usual ones not.
        texts = [v for v in values if v is not None]
        joined = "".join(texts)
        suspects = "e" in joined or "E" in joined or max(map(len, texts), default=0) > longest_safe
        if suspects and not _same_decimals(texts, cast):
            raise _refused(column, "bad_decimal", values, f"{wanted} is needed")
        return cast

    return convert


def _same_decimals(texts: Sequence[str], cast: pa.Array) -> bool:
    """Whether decimals are exactly what their texts say; nulls of `cast` have no text."""
    try:
        return [Decimal(text) for text in texts] == [value for value in cast.to_pylist() if value is not None]
    except ArithmeticError:
        return False


def _text(column: Column) -> Converter:
    nullable = column.nullable
    allowed = _types(column, str)

    def convert(values: Sequence[Any]) -> pa.Array:
        if nullable and _all_none(values):
            return pa.nulls(len(values), pa.string())
        try:
            if _all_one_text(values):
                return pa.repeat(values[0], len(values))
            if not _all_of(str, values) and not set(map(type, values)) <= allowed:
                values = [str.__str__(v) if isinstance(v, str) else v for v in values]
                if not set(map(type, values)) <= allowed:
                    raise _wrong_type(column, values, allowed, "a text")
            return pa.array(values, pa.string())
        except (UnicodeEncodeError, pa.ArrowInvalid) as error:
            raise _refused(column, "bad_text", values, f"not valid UTF-8 ({error})") from error

    return convert


def _choice(column: Column) -> Converter:
    nullable = column.nullable
    choices = frozenset(column.type.choices) | ({None} if nullable else frozenset())
    allowed = _types(column, str)
    wanted = f"one of {', '.join(column.type.choices)}"

    def convert(values: Sequence[Any]) -> pa.Array:
        if nullable and _all_none(values):
            return pa.nulls(len(values), pa.string())
        if _all_one_text(values) and values[0] in choices:
            return pa.repeat(values[0], len(values))
        try:
            known = choices.issuperset(values)
        except TypeError:
            known = False
        if not known:
            values = [str.__str__(v) if isinstance(v, str) else v for v in values]
            if not set(map(type, values)) <= allowed:
                raise _wrong_type(column, values, allowed, wanted)
            for value in values:
                if value not in choices:
                    raise BadColumn(
                        "unknown_choice", f"{column.name}: {_shown(value)}, where the column needs {wanted}"
                    )
        return pa.array(values, pa.string())

    return convert


def _bytes(column: Column) -> Converter:
    nullable = column.nullable
    allowed = _types(column, bytes)

    def convert(values: Sequence[Any]) -> pa.Array:
        if nullable and _all_none(values):
            return pa.nulls(len(values), pa.binary())
        if not set(map(type, values)) <= allowed:
            try:
                values = [
                    v.encode()
                    if isinstance(v, str)
                    else bytes(v)
                    if isinstance(v, bytearray | memoryview)
                    else v
                    for v in values
                ]
            except UnicodeEncodeError as error:
                raise _refused(column, "bad_text", values, f"not valid UTF-8 ({error})") from error
            if not set(map(type, values)) <= allowed:
                raise _wrong_type(column, values, allowed, "bytes or a text")
        return pa.array(values, pa.binary())

    return convert


def _bool(column: Column) -> Converter:
    allowed = _types(column, bool)

    def convert(values: Sequence[Any]) -> pa.Array:
        if not set(map(type, values)) <= allowed:
            values = [bool(v) if isinstance(v, np.bool_) else v for v in values]
            if not set(map(type, values)) <= allowed:
                raise _wrong_type(column, values, allowed, "a bool")
        return pa.array(values, pa.bool_())

    return convert


def _floats(column: Column) -> Converter:
    inner = _float(
        Column(column.name, column.type.__class__(Kind.FLOAT, "Float64", pa.float64(), finite=True))
    )
    sequences = {tuple, list, np.ndarray}
    empty = pa.scalar([], column.type.arrow)

    def convert(values: Sequence[Any]) -> pa.Array:
        if _all_empty(values):
            return pa.repeat(empty, len(values))
        if not set(map(type, values)) <= sequences:
            for value in values:
                if not isinstance(value, tuple | list | np.ndarray):
                    raise _wrong_type(column, values, sequences, "a sequence of numbers")
        offsets = array.array("i", itertools.accumulate(map(len, values), initial=0))
        flat = (
            inner(list(itertools.chain.from_iterable(values))) if offsets[-1] else pa.array([], pa.float64())
        )
        return pa.ListArray.from_buffers(
            column.type.arrow, len(values), [None, pa.py_buffer(offsets)], children=[flat]
        )

    return convert


def _tags(column: Column) -> Converter:
    arrow = column.type.arrow

    def convert(values: Sequence[Any]) -> pa.Array:
        for value in values:
            if not isinstance(value, Mapping):
                raise _wrong_type(column, values, {dict}, "a mapping of texts to texts")
            for key, text in value.items():
                if type(key) is not str or type(text) is not str:
                    raise BadColumn(
                        "wrong_type",
                        f"{column.name}: {_shown(key)}: {_shown(text)}, where the column needs texts",
                    )
        try:
            return pa.array([list(value.items()) for value in values], arrow)
        except (UnicodeEncodeError, pa.ArrowInvalid) as error:
            raise _refused(column, "bad_text", values, f"not valid UTF-8 ({error})") from error

    return convert


_CONVERTERS: dict[Kind, Callable[[Column], Converter]] = {
    Kind.TIME: _time,
    Kind.INT: _integer,
    Kind.FLOAT: _float,
    Kind.DECIMAL: _decimal,
    Kind.TEXT: _text,
    Kind.CHOICE: _choice,
    Kind.BYTES: _bytes,
    Kind.BOOL: _bool,
    Kind.FLOATS: _floats,
    Kind.TAGS: _tags,
}
