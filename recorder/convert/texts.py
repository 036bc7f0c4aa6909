"""Texts, choices, bytes and bools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from recorder.convert.checks import (
    BadColumn,
    Converter,
    all_none,
    all_of,
    all_one_text,
    refused,
    shown,
    types_of,
    wrong_type,
)
from schemas.columns import Column


def plain_texts(column: Column) -> Converter:
    """Texts that are valid UTF-8."""
    nullable = column.nullable
    allowed = types_of(column, str)

    def convert(values: Sequence[Any]) -> pa.Array:
        if nullable and all_none(values):
            return pa.nulls(len(values), pa.string())
        try:
            if all_one_text(values):
                return pa.repeat(values[0], len(values))
            if not all_of(str, values) and not set(map(type, values)) <= allowed:
                values = [str.__str__(v) if isinstance(v, str) else v for v in values]
                if not set(map(type, values)) <= allowed:
                    raise wrong_type(column, values, allowed, "a text")
            return pa.array(values, pa.string())
        except (UnicodeEncodeError, pa.ArrowInvalid) as error:
            raise refused(column, "bad_text", values, f"not valid UTF-8 ({error})") from error

    return convert


def choice_texts(column: Column) -> Converter:
    """One of the column's choices."""
    nullable = column.nullable
    choices = frozenset(column.type.choices) | ({None} if nullable else frozenset())
    allowed = types_of(column, str)
    wanted = f"one of {', '.join(column.type.choices)}"

    def convert(values: Sequence[Any]) -> pa.Array:
        if nullable and all_none(values):
            return pa.nulls(len(values), pa.string())
        if all_one_text(values) and values[0] in choices:
            return pa.repeat(values[0], len(values))
        try:
            known = choices.issuperset(values)
        except TypeError:
            known = False
        if not known:
            values = [str.__str__(v) if isinstance(v, str) else v for v in values]
            if not set(map(type, values)) <= allowed:
                raise wrong_type(column, values, allowed, wanted)
            for value in values:
                if value not in choices:
                    raise BadColumn(
                        "unknown_choice", f"{column.name}: {shown(value)}, where the column needs {wanted}"
                    )
        return pa.array(values, pa.string())

    return convert


def byte_strings(column: Column) -> Converter:
    """Bytes, and texts as UTF-8."""
    nullable = column.nullable
    allowed = types_of(column, bytes)

    def convert(values: Sequence[Any]) -> pa.Array:
        if nullable and all_none(values):
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
                raise refused(column, "bad_text", values, f"not valid UTF-8 ({error})") from error
            if not set(map(type, values)) <= allowed:
                raise wrong_type(column, values, allowed, "bytes or a text")
        return pa.array(values, pa.binary())

    return convert


def bools(column: Column) -> Converter:
    """True and false."""
    allowed = types_of(column, bool)

    def convert(values: Sequence[Any]) -> pa.Array:
        if not set(map(type, values)) <= allowed:
            values = [bool(v) if isinstance(v, np.bool_) else v for v in values]
            if not set(map(type, values)) <= allowed:
                raise wrong_type(column, values, allowed, "a bool")
        return pa.array(values, pa.bool_())

    return convert
