"""Rows of a log as JSON lines: the values that a table would get, readable for whoever gets the line.

Times are integers, nanoseconds since 1970, or ISO where that is asked for; decimals are texts with all their digits;
bytes are the text they are in UTF-8, others `{"base64": …}`, as in dead letters; floats that JSON has not are texts.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

NUMBER = "n"
_NS = pa.timestamp("ns")


def json_rows(rows: pa.RecordBatch, *, iso: bool = False) -> Iterator[dict[str, Any]]:
    """Each row as a mapping that JSON can hold."""
    columns = [_values(rows.column(position), iso=iso) for position in range(rows.num_columns)]
    for values in zip(*columns, strict=True):
        yield dict(zip(rows.schema.names, values, strict=True))


def json_line(value: Mapping[str, Any]) -> bytes:
    """One line."""
    return orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS)


def _values(column: pa.Array, *, iso: bool) -> list[Any]:
    kind = column.type
    if iso and pa.types.is_timestamp(kind):
        # numpy writes nanoseconds, which Python's own times have not.
        times = column.cast(_NS).to_numpy(zero_copy_only=False)
        return [None if np.isnat(one) else f"{np.datetime_as_string(one, unit='ns')}Z" for one in times]
    plain = _plain_type(kind)
    values: list[Any] = (column if plain == kind else _plain_times(column).cast(plain)).to_pylist()
    if _is_plain(plain):
        return values
    return [_json(value, kind) for value in values]


def _plain_times(column: pa.Array) -> pa.Array:
    """Times in nanoseconds, whatever their unit was."""
    if not pa.types.is_timestamp(column.type):
        return column
    return column.cast(pa.timestamp("ns", tz=column.type.tz))


def _plain_type(kind: pa.DataType) -> pa.DataType:
    """The type with integers in the place of times, which Python's own cannot hold to the nanosecond."""
    if pa.types.is_timestamp(kind) or pa.types.is_duration(kind) or pa.types.is_time64(kind):
        return pa.int64()
    if pa.types.is_list(kind):
        return pa.list_(_plain_type(kind.value_type))
    if pa.types.is_large_list(kind):
        return pa.large_list(_plain_type(kind.value_type))
    if pa.types.is_map(kind):
        return pa.map_(kind.key_type, _plain_type(kind.item_type))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_plain_type(field.type)) for field in kind])
    return kind


def _is_plain(kind: pa.DataType) -> bool:
    """Whether JSON takes every value of it as it is."""
    tests = (pa.types.is_integer, pa.types.is_string, pa.types.is_large_string, pa.types.is_boolean)
    return any(test(kind) for test in tests)


def _json(value: Any, kind: pa.DataType | None = None) -> Any:
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Decimal):
        return decimal_text(value)
    if isinstance(value, bytes):
        return _text(value)
    if kind is not None and pa.types.is_map(kind):
        return {str(_json(key)): _json(item, kind.item_type) for key, item in value}
    if isinstance(value, list | tuple):
        inner = kind.value_type if kind is not None and hasattr(kind, "value_type") else None
        return [_json(one, inner) for one in value]
    if isinstance(value, dict):
        return {name: _json(one) for name, one in value.items()}
    return str(value)


def _text(value: bytes) -> str | dict[str, str]:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}


def decimal_text(value: Decimal) -> str:
    """All digits that count, no exponent: as ClickHouse writes it."""
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
