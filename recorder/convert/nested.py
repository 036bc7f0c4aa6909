"""Columns whose values hold values: lists of floats, and tags."""

from __future__ import annotations

import array
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from recorder.convert.checks import BadColumn, Converter, all_empty, refused, shown, wrong_type
from recorder.convert.numbers import floats
from schemas.columns import Column, Kind


def float_lists(column: Column) -> Converter:
    """Lists of finite floats, from sequences and arrays."""
    inner = floats(
        Column(column.name, column.type.__class__(Kind.FLOAT, "Float64", pa.float64(), finite=True))
    )
    sequences = {tuple, list, np.ndarray}
    empty = pa.scalar([], column.type.arrow)

    def convert(values: Sequence[Any]) -> pa.Array:
        if all_empty(values):
            return pa.repeat(empty, len(values))
        if not set(map(type, values)) <= sequences:
            for value in values:
                if not isinstance(value, tuple | list | np.ndarray):
                    raise wrong_type(column, values, sequences, "a sequence of numbers")
        offsets = array.array("i", itertools.accumulate(map(len, values), initial=0))
        flat = (
            inner(list(itertools.chain.from_iterable(values))) if offsets[-1] else pa.array([], pa.float64())
        )
        return pa.ListArray.from_buffers(
            column.type.arrow, len(values), [None, pa.py_buffer(offsets)], children=[flat]
        )

    return convert


def tags(column: Column) -> Converter:
    """Mappings of texts to texts."""
    arrow = column.type.arrow

    def convert(values: Sequence[Any]) -> pa.Array:
        for value in values:
            if not isinstance(value, Mapping):
                raise wrong_type(column, values, {dict}, "a mapping of texts to texts")
            for key, text in value.items():
                if type(key) is not str or type(text) is not str:
                    raise BadColumn(
                        "wrong_type",
                        f"{column.name}: {shown(key)}: {shown(text)}, where the column needs texts",
                    )
        try:
            return pa.array([list(value.items()) for value in values], arrow)
        except (UnicodeEncodeError, pa.ArrowInvalid) as error:
            raise refused(column, "bad_text", values, f"not valid UTF-8 ({error})") from error

    return convert
