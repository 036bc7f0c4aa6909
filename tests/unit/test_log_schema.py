"""Rows of an older version's log: as the table has them now, or refused with what to do; never changed in silence."""

from __future__ import annotations

import math

import pyarrow as pa
import pytest

from recorder.log_schema import OlderRows, as_current
from schemas.core.tables import PACK
from schemas.table import Table

TABLE = PACK.table("fills")


def rows() -> pa.RecordBatch:
    """Two rows as the table has them now."""
    arrays = [
        pa.array([None] * 2, field.type)
        if field.nullable
        else pa.array([b"1", b"2"] if pa.types.is_binary(field.type) else ["1", "2"])
        .cast(pa.string())
        .cast(field.type)
        if pa.types.is_string(field.type)
        else pa.array([1, 2]).cast(field.type)
        for field in TABLE.schema
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=TABLE.schema)


def without(data: pa.RecordBatch, name: str) -> pa.RecordBatch:
    return data.drop_columns([name])


def test_rows_of_this_version_stay_as_they_are() -> None:
    """The very same object."""
    data = rows()
    assert as_current(data, TABLE) is data


def test_a_column_that_was_added_takes_its_default() -> None:
    """In its place among the others, whose values stay."""
    data = rows()
    found = as_current(without(data, "account_id"), TABLE)
    assert found.schema.equals(TABLE.schema)
    assert set(found["account_id"].to_pylist()) == {
        TABLE.columns[TABLE.schema.names.index("account_id")].default
    }
    assert without(found, "account_id").equals(without(data, "account_id"))


def test_a_column_that_was_widened_is_cast() -> None:
    """If every value stays what it is."""
    data = rows()
    at = data.schema.get_field_index("_seq")
    narrow = data.set_column(
        at, pa.field("_seq", pa.uint32(), nullable=False), data["_seq"].cast(pa.uint32())
    )
    assert as_current(narrow, TABLE).equals(data)


def test_a_column_that_was_renamed_keeps_its_values() -> None:
    """Under whatever name it was logged; where the new name is there already, the old one is another column's."""
    data = rows()
    renames = (("ticker", "instrument"), ("instrument", "symbol"))
    for old in ("ticker", "instrument", "symbol"):
        older = data.rename_columns([old if n == "symbol" else n for n in data.schema.names])
        assert as_current(older, TABLE, renames).equals(data)
    both = data.append_column("ticker", pa.array(["x", "y"]))
    with pytest.raises(OlderRows, match="column ticker, which the table does not have"):
        as_current(both, TABLE, (("ticker", "symbol"),))


def test_a_value_that_must_be_there_is_not_made_up() -> None:
    """A column that was nullable and is not any more: rows without a value are refused, others go in."""
    data = rows()
    at = data.schema.get_field_index("symbol")
    loose = data.set_column(at, pa.field("symbol", pa.string()), data["symbol"])
    assert as_current(loose, TABLE).equals(data)
    with pytest.raises(OlderRows, match="column symbol without a value in 1 of 2 rows"):
        as_current(data.set_column(at, pa.field("symbol", pa.string()), pa.array(["x", None])), TABLE)


def with_a_float(value: pa.Array) -> tuple[pa.RecordBatch, Table, str]:
    """A row of a table with a Float64 column, in which this stands; the table, and the column's name."""
    dense = next(t for t in PACK.tables if any(pa.types.is_float64(f.type) for f in t.schema))
    name = next(f.name for f in dense.schema if pa.types.is_float64(f.type))
    columns = [
        pa.array([None], f.type)
        if f.nullable
        else pa.array([b"1"] if pa.types.is_binary(f.type) else ["1"]).cast(f.type)
        if pa.types.is_string(f.type) or pa.types.is_binary(f.type)
        else pa.array([[]], f.type)
        if pa.types.is_nested(f.type)
        else pa.array([1]).cast(f.type)
        for f in dense.schema
    ]
    data = pa.RecordBatch.from_arrays(columns, schema=dense.schema)
    return data.set_column(data.schema.get_field_index(name), name, value), dense, name


def test_a_cast_that_loses_digits_is_refused() -> None:
    """pyarrow would cut them and say nothing."""
    for digits, fits in (("1.5", True), ("0.1234567890123456789", False)):
        data, dense, name = with_a_float(pa.array([digits]).cast(pa.decimal128(38, 19)))
        if fits:
            assert as_current(data, dense)[name].to_pylist() == [1.5]
        else:
            with pytest.raises(OlderRows, match="would change its values"):
                as_current(data, dense)


def test_a_float_that_is_no_number_is_widened_like_others() -> None:
    """It equals nothing, itself neither, and is the same all the same."""
    data, dense, name = with_a_float(pa.array([math.nan], pa.float32()))
    (found,) = as_current(data, dense)[name].to_pylist()
    assert math.isnan(found)


def test_what_cannot_be_guessed_is_refused() -> None:
    """A column that is gone, one without a default, one that would change: each with the way out."""
    data = rows()
    for wrong, says in (
        (data.rename_columns(["old_name" if n == "symbol" else n for n in data.schema.names]), "old_name"),
        (without(data, "symbol"), "no column symbol, which has no default"),
        (
            data.set_column(data.schema.get_field_index("_seq"), "_seq", pa.array([-1, 1])),
            "column _seq as int64",
        ),
    ):
        with pytest.raises(OlderRows, match=says) as caught:
            as_current(wrong, TABLE)
        assert "recorder wal export fills" in str(caught.value)
