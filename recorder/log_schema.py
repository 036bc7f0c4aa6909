"""Rows that were logged under another version's schema, as the table has them now. Pure.

A column that was renamed (`schemas.renames`) is found under its old name, one that was added since takes its default,
one whose type was widened is cast, if that changes no value. What else differs cannot be guessed: who holds such rows
keeps them, and says so.
"""

from __future__ import annotations

import pyarrow as pa

from recorder.convert import converter
from schemas.columns import REQUIRED
from schemas.renames import Renames, renamed
from schemas.table import Table


class OlderRows(ValueError):  # noqa: N818 - says what they are
    """Rows of another schema that are no rows of the table now."""

    logged: pa.RecordBatch | None = None
    """Those rows as they were logged, where one can ask for them by their identities all the same."""


def as_current(data: pa.RecordBatch, table: Table, renames: Renames = ()) -> pa.RecordBatch:
    """The same rows with the table's columns, in its order.

    Raises:
        OlderRows: a column is gone, has no default or no value, or cannot be cast without a change.
    """
    if data.schema.equals(table.schema):
        return data
    there = dict(zip(renamed(data.schema.names, renames), data.columns, strict=True))
    if gone := [name for name in there if name not in table.schema.names]:
        raise _refused(table, f"column {gone[0]}, which the table does not have")
    arrays = []
    for field in table.schema:
        if field.name in there:
            arrays.append(_cast(there[field.name], field, table))
            continue
        column = table.column(field.name)
        if column.default is REQUIRED:
            raise _refused(table, f"no column {field.name}, which has no default")
        arrays.append(converter(column)([column.default] * data.num_rows))
    return pa.RecordBatch.from_arrays(arrays, schema=table.schema)


def _cast(found: pa.Array, field: pa.Field, table: Table) -> pa.Array:
    """A column's values in its type now: the same values, or none at all."""
    if found.null_count and not field.nullable:
        # ClickHouse would take the NULL for a 0 or an empty text.
        raise _refused(
            table, f"column {field.name} without a value in {found.null_count} of {len(found)} rows"
        )
    if found.type == field.type:
        return found
    try:
        cast = found.cast(field.type)
        # A decimal loses digits on its way to a float, and pyarrow does not say so.
        same = _bits(cast.cast(found.type)).equals(_bits(found))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise _refused(table, f"column {field.name} as {found.type}: {error}") from None
    if not same:
        raise _refused(table, f"column {field.name} as {found.type}: {field.type} would change its values")
    return cast


def _bits(values: pa.Array) -> pa.Array:
    """Floats as the integers they look like: a NaN equals none."""
    if not pa.types.is_floating(values.type):
        return values
    return values.view({16: pa.uint16(), 32: pa.uint32(), 64: pa.uint64()}[values.type.bit_width])


def _refused(table: Table, what: str) -> OlderRows:
    return OlderRows(
        f"{table.name}: the log has rows of another version with {what}; start that version once more, while the "
        f"table fits it, to send them; or keep them elsewhere (recorder wal export {table.name}) and let the log go of "
        f"them (recorder wal drop {table.name} --upto … --even-unsettled): it is not purged while they are there"
    )
