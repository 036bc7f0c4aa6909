"""Integers, times and floats: through a buffer of machine numbers, which is exact and the fastest road."""

from __future__ import annotations

import array
import functools
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from recorder.convert.checks import (
    NONE_TYPE,
    BadColumn,
    Converter,
    all_none,
    all_of,
    ints,
    refused,
    types_of,
    wrong_type,
)
from schemas.columns import Column

EARLIEST_TIME_NS = 100_000_000_000_000_000
"""1973-03-03: a smaller time is almost surely in seconds, milliseconds or microseconds, and would be filed under 1970
and deleted by its table's TTL at once."""
EXACT_FLOAT_INT = 2**53
"""The largest integer up to which a float holds every integer."""

_EXACT_FLOATS = (np.float64, np.float32, np.float16)  # not longdouble, which has more digits than a Float64


def integers(column: Column) -> Converter:
    """Integers of the column's width."""
    bits, signed, arrow, nullable = column.type.bits, column.type.signed, column.type.arrow, column.nullable
    code = {8: "b", 16: "h", 32: "i", 64: "q"}[bits]
    code = code if signed else code.upper()
    wanted = f"an integer of {bits} bits, {'signed' if signed else 'unsigned'}"
    allowed = types_of(column, int)

    def convert(values: Sequence[Any]) -> pa.Array:
        if nullable and all_none(values):
            return pa.nulls(len(values), arrow)
        try:
            if not all_of(int, values):
                if not set(map(type, values)) <= allowed:
                    values = ints(values)
                    if not set(map(type, values)) <= allowed:
                        raise wrong_type(column, values, allowed, wanted)
                return pa.array(values, arrow)
            buffer = pa.py_buffer(array.array(code, values))
        except (OverflowError, pa.ArrowInvalid) as error:
            raise refused(column, "out_of_range", values, f"{wanted} is needed") from error
        return pa.Array.from_buffers(arrow, len(values), [None, buffer])

    return convert


def times(column: Column) -> Converter:
    """Nanoseconds since the epoch, 1973 to 2262."""
    nullable, arrow = column.nullable, column.type.arrow
    allowed = types_of(column, int)
    wanted = "nanoseconds since the epoch as an int"

    def convert(values: Sequence[Any]) -> pa.Array:
        if nullable and all_none(values):
            return pa.nulls(len(values), arrow)
        given = values
        if not all_of(int, values):
            if not set(map(type, values)) <= allowed:
                values = ints(values)
                if not set(map(type, values)) <= allowed:
                    raise wrong_type(column, values, allowed, wanted)
            given = [v for v in values if v is not None]
        try:
            ticks = array.array("q", given)
        except OverflowError as error:
            raise refused(column, "out_of_range", values, f"{wanted}, until 2262, are needed") from error
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


def floats(column: Column) -> Converter:
    """Floats, and integers that a float holds exactly; finite ones where the column wants it."""
    nullable, finite, arrow = column.nullable, column.type.finite, column.type.arrow
    allowed = types_of(column, float, int)
    wanted = "a finite number" if finite else "a number"

    def convert(values: Sequence[Any]) -> pa.Array:
        if nullable and all_none(values):
            return pa.nulls(len(values), arrow)
        if not all_of(float, values):
            types = set(map(type, values))
            if not types <= allowed:
                values = [
                    float(v) if isinstance(v, _EXACT_FLOATS) else int(v) if isinstance(v, np.integer) else v
                    for v in values
                ]
                types = set(map(type, values))
                if not types <= allowed:
                    raise wrong_type(column, values, allowed, wanted)
            if int in types:
                for v in values:
                    if type(v) is int and not -EXACT_FLOAT_INT <= v <= EXACT_FLOAT_INT:
                        raise BadColumn(
                            "lost_digits", f"{column.name}: {v} has more digits than a Float64 holds"
                        )
            if NONE_TYPE in types:
                converted = pa.array(values, arrow, from_pandas=False)
                if finite and not np.isfinite(np.frombuffer(converted.buffers()[1], count=len(values))).all():
                    raise refused(column, "not_finite", values, f"{wanted} is needed")
                return converted
        data = _packed(len(values)).pack(*values)
        if finite and not np.isfinite(np.frombuffer(data)).all():
            raise refused(column, "not_finite", values, f"{wanted} is needed")
        return pa.Array.from_buffers(arrow, len(values), [None, pa.py_buffer(data)])

    return convert


@functools.lru_cache(maxsize=1024)
def _packed(count: int) -> struct.Struct:
    """So many doubles: a quarter of what `array.array` costs for floats (for ints it is the other way round)."""
    return struct.Struct(f"={count}d")
