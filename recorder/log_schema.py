"""Rows that were logged under an older schema, as the table has them now. Pure.

A column that was added since takes its default; one whose type was widened is cast, if that changes no value. What else
differs cannot be guessed: who holds such rows keeps them, and says so.
"""

from __future__ import annotations

import pyarrow as pa

from recorder.convert import converter
from schemas.columns import REQUIRED
from schemas.table import Table


class OlderRows(ValueError):  # noqa: N818 - says what they are
    """Rows of an older schema that are no rows of the table now."""


def as_current(data: pa.RecordBatch, table: Table) -> pa.RecordBatch:
    """The same rows with the table's columns, in its order.

    Raises:
        OlderRows: a column is gone, has no default, or cannot be cast without a change.
    """
    if data.schema.equals(table.schema):
        return data
    defaults = {column.name: column for column in table.columns}
    gone = [name for name in data.schema.names if name not in table.schema.names]
    if gone:
        raise _refused(table, f"column {gone[0]}, which the table has no more")
    arrays = []
    for field in table.schema:
        if field.name in data.schema.names:
            found = data[field.name]
            try:
                arrays.append(found if found.type == field.type else found.cast(field.type))
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise _refused(table, f"column {field.name} as {found.type}: {error}") from None
            continue
        column = defaults[field.name]
        if column.default is REQUIRED:
            raise _refused(table, f"no column {field.name}, which has no default")
        arrays.append(converter(column)([column.default] * data.num_rows))
    return pa.RecordBatch.from_arrays(arrays, schema=table.schema)


def _refused(table: Table, what: str) -> OlderRows:
    return OlderRows(
        f"{table.name}: the log has rows of an older version with {what}; start that version once more to send them, "
        f"or take them out: recorder wal export {table.name}"
    )
