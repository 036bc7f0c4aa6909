"""Decimals: through their exact text, with those that pyarrow may wrap round compared afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recorder.convert.checks import NONE_TYPE, Converter, all_none, all_of, refused, types_of, wrong_type
from schemas.columns import Column

_TEXTS = {str}


def exact_decimals(column: Column) -> Converter:
    """Decimals of the column's precision, from texts, integers, decimals, and the shortest text of floats."""
    arrow, nullable = column.type.arrow, column.nullable
    allowed = types_of(column, str)
    wanted = f"a decimal with at most {arrow.precision - arrow.scale} digits before the point and {arrow.scale} behind"
    longest_safe = arrow.precision - arrow.scale

    def convert(values: Sequence[Any]) -> pa.Array:
        if nullable and all_none(values):
            return pa.nulls(len(values), arrow)
        types = set(map(type, values)) if not all_of(str, values) else _TEXTS
        if not types <= allowed:
            if bool in types:
                raise wrong_type(column, values, {str, int, float, Decimal, NONE_TYPE}, wanted)
            values = [_decimal_text(v) for v in values]
            if not set(map(type, values)) <= allowed:
                raise wrong_type(column, values, allowed, wanted)
        try:
            cast = pc.cast(pa.array(values, pa.string()), arrow)
        except (pa.ArrowInvalid, UnicodeEncodeError) as error:
            raise refused(column, "bad_decimal", values, f"{wanted} is needed") from error
        # pyarrow wraps round where a text has many digits or a large exponent: 1e30 came out as
        # 18960114910927365649.47, 1E-247 as 0. Such texts are compared with what they became, the usual ones not.
        texts = [v for v in values if v is not None]
        joined = "".join(texts)
        suspects = "e" in joined or "E" in joined or max(map(len, texts), default=0) > longest_safe
        if suspects and not _same_decimals(texts, cast):
            raise refused(column, "bad_decimal", values, f"{wanted} is needed")
        return cast

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


def _same_decimals(texts: Sequence[str], cast: pa.Array) -> bool:
    """Whether decimals are exactly what their texts say; nulls of `cast` have no text."""
    try:
        return [Decimal(text) for text in texts] == [value for value in cast.to_pylist() if value is not None]
    except ArithmeticError:
        return False
