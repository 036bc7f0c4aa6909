"""Archived rows as a table has them now: renamed columns under their new name, others left to their default. Pure.

What cannot be had without losing or changing a value is refused: a column that the table does not have, a NULL where it
takes none, a type that does not hold every value, an enumeration whose numbers mean something else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.types as kinds

from retention.archive.manifest import Manifest
from retention.archive.pieces import Partition
from retention.archive.target import Target
from retention.errors import ArchiveError
from schemas.renames import Renames, renamed

ELSEWHERE = "restore into another table that has what it needs (--into)"
_NAMED = re.compile(r"'((?:[^'\\]|\\.)*)' = (-?\d+)")


class Adapter:
    """From the rows of one piece to rows of a table.

    Raises:
        ArchiveError: the table has no place for one of the piece's columns.
    """

    def __init__(self, manifest: Manifest, target: Target, renames: Renames):
        self._where = f"{manifest.place}, piece {manifest.piece}"
        self._target = target.name
        self._fields: list[pa.Field] = []
        for old, new in zip(manifest.schema.names, renamed(manifest.schema.names, renames), strict=True):
            if new not in target.schema.names:
                raise ArchiveError(
                    f"{self._where}: has a column {new}, and {target.name} has none; {ELSEWHERE}, or let a migration "
                    f"say what {new} is called now"
                )
            was, now = manifest.columns.get(old, ""), target.columns[new]
            if "Enum" in was and not _numbers(was).items() <= _numbers(now).items():
                raise ArchiveError(
                    f"{self._where}: column {new} is {was}, and in {target.name} {now}: its numbers would mean "
                    f"something else; {ELSEWHERE}"
                )
            self._fields.append(target.schema.field(new))
        self.schema = pa.schema(self._fields)

    def __call__(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """The rows, with the table's names and types.

        Raises:
            ArchiveError: a value is none that the table can have.
        """
        columns = [
            self._cast(column, field) for column, field in zip(rows.columns, self._fields, strict=True)
        ]
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)

    def _cast(self, column: pa.Array, field: pa.Field) -> pa.Array:
        if column.null_count and not field.nullable:
            # ClickHouse would take the NULL for a 0 or an empty text.
            raise self._refused(field, f"has no value in {column.null_count} of {len(column)} rows")
        if column.type == field.type:
            return column
        try:
            cast = column.cast(field.type)
            # A decimal loses digits on its way to a float, and pyarrow does not say so.
            same = _bits(cast.cast(column.type)).equals(_bits(column))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise self._refused(field, f"is {column.type} ({error})") from None
        if not same:
            raise self._refused(field, f"is {column.type}, which {field.type} would change")
        return cast

    def _refused(self, field: pa.Field, what: str) -> ArchiveError:
        return ArchiveError(
            f"{self._where}: column {field.name} {what}, and {self._target} wants {field.type}"
            f"{'' if field.nullable else ' without NULL'}; {ELSEWHERE}"
        )


def _numbers(clickhouse_type: str) -> Mapping[str, str]:
    """The numbers of an enumeration by name."""
    return dict(_NAMED.findall(clickhouse_type))


def _bits(values: pa.Array) -> pa.Array:
    """Floats as the integers they look like: a NaN equals none."""
    if not kinds.is_floating(values.type):
        return values
    return values.view({16: pa.uint16(), 32: pa.uint32(), 64: pa.uint64()}[values.type.bit_width])


def columns_of(known: Partition, renames: Renames) -> dict[str, str]:
    """The columns that a table needs to take all pieces as they are: ClickHouse's types by the names of now."""
    found: dict[str, str] = {}
    for piece in reversed(known.pieces):
        names = piece.manifest.schema.names
        for old, new in zip(names, renamed(names, renames), strict=True):
            found.setdefault(new, piece.manifest.columns.get(old, ""))
    return found
