"""Rows of an older version's log: as the table has them now, or refused with what to do; never changed in silence."""

from __future__ import annotations

import pyarrow as pa
import pytest

from recorder.log_schema import OlderRows, as_current
from schemas.core.tables import PACK

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
