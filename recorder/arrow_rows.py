"""Rows that come as Arrow columns: brought to the table's exact types, with the rows that cannot be set apart.

The columns are checked as wholes; a row that fails a check is handed back as a mapping, and goes the way of single
rows, where the one set of rules finds the reason and writes the dead letter.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Set
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from recorder.convert import EARLIEST_TIME_NS, EXACT_FLOAT_INT, BadColumn, converter
from recorder.errors import WrongColumns
from schemas.columns import REQUIRED, Column, Kind
from schemas.table import Table

PINNED_TIMES, PINNED_BYTES = 2, 64 * 1024
"""Rows may keep buffers in memory that are so many times their own size, and so many bytes beside."""


def exact_columns(
    table: Table, data: pa.RecordBatch, *, ignore_unknown: bool = False
) -> tuple[pa.RecordBatch, list[Mapping[str, Any]]]:
    """The good rows in the table's columns, types and order (without identity), and the others as mappings.

    Left-out columns take their defaults; `ts_local` is now where it is left out or 0.

    Raises:
        WrongColumns: a column is unknown, missing without a default, or of a type that has no exact cast.
    """
    given = {name: data.column(position) for position, name in enumerate(data.schema.names)}
    if len(given) < data.num_columns:
        twice = sorted(name for name in given if data.schema.names.count(name) > 1)
        raise WrongColumns(f"{table.name}: column {', '.join(twice[:5])} is there twice")
    known = {column.name for column in table.columns}
    if (unknown := sorted(given.keys() - known)) and not ignore_unknown:
        raise WrongColumns(f"{table.name}: no column {', '.join(unknown[:5])}")
    bad = pa.repeat(False, data.num_rows)
    arrays = []
    for column in table.columns:
        values, refused = _exact(table.name, column, given.get(column.name), data.num_rows)
        arrays.append(values)
        if refused is not None:
            bad = pc.or_(bad, pc.fill_null(refused, False))
    schema = pa.schema([column.arrow_field for column in table.columns])
    good = pa.RecordBatch.from_arrays(arrays, schema=schema)
    if not bad.true_count:
        return good, []
    rows: list[Mapping[str, Any]] = list(_plain(data.filter(bad), known))
    return good.filter(pc.invert(bad)), rows


def own_rows(block: pa.RecordBatch) -> pa.RecordBatch:
    """The same rows; copied where they are a small part of what they would keep in memory while they wait."""
    if block.get_total_buffer_size() <= PINNED_TIMES * block.nbytes + PINNED_BYTES:
        return block
    return block.take(pa.array(range(block.num_rows), pa.int64()))


def _plain(data: pa.RecordBatch, known: Set[str]) -> list[dict[str, Any]]:
    """Rows as a producer would have given them: times as nanoseconds, maps as mappings, no local time where null."""
    names, columns = [], []
    for name, column in zip(data.schema.names, data.columns, strict=True):
        if name in known:
            names.append(name)
            columns.append(_python(column))
    rows = [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]
    for row in rows:
        if row.get("ts_local", 0) is None:
            del row["ts_local"]
    return rows


_NS_PER_UNIT = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}


def _python(column: pa.Array) -> list[Any]:
    if pa.types.is_timestamp(column.type) and column.type.tz is not None:
        # Not by a cast: one that overflows makes another time of it.
        ns = _NS_PER_UNIT[column.type.unit]
        return [None if ticks is None else ticks * ns for ticks in column.cast(pa.int64()).to_pylist()]
    values: list[Any] = column.to_pylist()
    if pa.types.is_map(column.type):
        # A key that is there twice stays visible, and is refused.
        return [pairs if pairs is None or len(dict(pairs)) < len(pairs) else dict(pairs) for pairs in values]
    return values


def _exact(
    table: str, column: Column, values: pa.Array | None, rows: int
) -> tuple[pa.Array, pa.Array | None]:
    """One column in its exact type, and which of its rows are refused."""
    name, arrow, kind = column.name, column.type.arrow, column.type.kind
    if values is None:
        if name == "ts_local":
            return pa.repeat(pa.scalar(time.time_ns(), arrow), rows), None
        if column.default is REQUIRED:
            raise WrongColumns(f"{table}: no column {name}, which has no default")
        default = list(column.default.items()) if kind is Kind.TAGS else column.default
        return pa.repeat(pa.scalar(default, arrow), rows), None
    missing = None if column.nullable else pc.is_null(values)
    try:
        cast = _cast(column, values)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        if not _may_hold(kind, values.type):
            raise WrongColumns(
                f"{table}: column {name} is {values.type}, which does not become {arrow} exactly: {error}"
            ) from error
        return _row_by_row(column, values)
    checks = [missing] if missing is not None and missing.true_count else []
    if kind is Kind.TIME:
        ticks = cast.cast(pa.int64())
        if name == "ts_local":
            zero = pc.fill_null(pc.equal(ticks, 0), True)
            if zero.true_count:
                cast = pc.if_else(zero, pa.scalar(time.time_ns(), arrow), cast)
                ticks, checks = cast.cast(pa.int64()), []
        checks.append(pc.less(ticks, EARLIEST_TIME_NS))
    elif kind is Kind.FLOAT and column.type.finite:
        checks.append(pc.invert(pc.is_finite(cast)))
    elif kind is Kind.FLOATS:
        lists = cast.flatten()
        if not pc.all(pc.is_finite(lists), min_count=0).as_py() or lists.null_count:
            return _row_by_row(column, values)
    elif kind is Kind.TAGS:
        if cast.keys.null_count or cast.items.null_count:
            return _row_by_row(column, values)
    elif kind is Kind.CHOICE:
        names: list[str | None] = [*column.type.choices, *([None] if column.nullable else [])]
        checks.append(pc.invert(pc.is_in(cast, value_set=pa.array(names, pa.string()))))
    refused = None
    for check in checks:
        check = pc.fill_null(check, False)
        refused = check if refused is None else pc.or_(refused, check)
    if missing is not None and cast.null_count:
        cast = pc.fill_null(cast, _filler(column))
    return cast, refused


def _cast(column: Column, values: pa.Array) -> pa.Array:
    kind, arrow = column.type.kind, column.type.arrow
    if values.type == arrow:
        return values
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if not _may_hold(kind, values.type):
        raise pa.ArrowInvalid(
            "numbers, texts and times are not taken for one another, and a time needs its zone: "
            "timestamp('ns', tz='UTC') or int64 nanoseconds"
            if kind is Kind.TIME
            else "numbers, texts and times are not taken for one another"
        )
    if kind is Kind.DECIMAL and not pa.types.is_integer(values.type):
        given = values.type
        if not (
            pa.types.is_decimal(given) and given.precision - given.scale <= arrow.precision - arrow.scale
        ):
            # Not by a cast, which wraps round where a number is far too large.
            try:
                return converter(column)(values.to_pylist())
            except BadColumn as error:
                raise pa.ArrowInvalid(str(error)) from error
    if kind is Kind.FLOAT and pa.types.is_integer(values.type) and values.type.bit_width == 64:
        low, high = pc.min_max(values).values()
        if low.is_valid and not -EXACT_FLOAT_INT <= low.as_py() <= high.as_py() <= EXACT_FLOAT_INT:
            raise pa.ArrowInvalid("an integer has more digits than a Float64 holds")
    return pc.cast(values, arrow, safe=True)


def _may_hold(kind: Kind, given: pa.DataType) -> bool:
    """Whether values of an Arrow type may become a column of that kind, value by value."""
    types = pa.types
    if types.is_null(given):
        return True
    if types.is_dictionary(given):
        given = given.value_type
    texts = types.is_string(given) or types.is_large_string(given) or types.is_string_view(given)
    binary = types.is_binary(given) or types.is_large_binary(given)
    allowed = {
        Kind.TIME: types.is_integer(given) or (types.is_timestamp(given) and given.tz is not None),
        Kind.INT: types.is_integer(given),
        Kind.FLOAT: types.is_floating(given) or types.is_integer(given),
        Kind.DECIMAL: types.is_decimal(given) or types.is_integer(given) or types.is_floating(given) or texts,
        Kind.TEXT: texts,
        Kind.CHOICE: texts,
        Kind.BYTES: texts or binary,
        Kind.BOOL: types.is_boolean(given),
        Kind.FLOATS: (types.is_list(given) or types.is_large_list(given) or types.is_fixed_size_list(given))
        and (types.is_floating(given.value_type) or types.is_integer(given.value_type)),
        Kind.TAGS: types.is_map(given)
        and types.is_string(given.key_type)
        and types.is_string(given.item_type),
    }
    return bool(allowed[kind])


def _row_by_row(column: Column, values: pa.Array) -> tuple[pa.Array, pa.Array]:
    """A column that is not exact as a whole: every row of it goes the way of single rows."""
    filler = pa.repeat(_filler(column), len(values))
    return filler, pa.repeat(True, len(values))


def _filler(column: Column) -> pa.Scalar:
    """Stands in for a refused row's value until the row is filtered out."""
    zero: Any = {
        Kind.TEXT: "",
        Kind.CHOICE: "",
        Kind.BYTES: b"",
        Kind.BOOL: False,
        Kind.FLOATS: [],
        Kind.TAGS: [],
    }.get(column.type.kind, 0)
    return pa.scalar(zero, column.type.arrow)
