"""Rows of a Parquet file, by record batches.

What holds for the whole file is checked before its first row: columns the table lacks, columns it needs, times
without a zone. What holds for a value is the batch builder's business, as for any other row.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from recorder.ingest.errors import FileDamaged, WrongUse
from recorder.ingest.record import Chunk, Record, TableRow
from schemas.columns import IDENTITY_COLUMNS, REQUIRED, Column, Kind
from schemas.table import Table

BATCH_ROWS = 2_048


def parquet_chunks(
    file: BinaryIO, name: str, size_bytes: int, table: Table, *, ignore_unknown: bool
) -> Iterator[Chunk]:
    """The rows of an open Parquet file; a row's position is its number in the file.

    Raises:
        WrongUse: the file's columns are not the table's.
        FileDamaged: it cannot be read to its end.
    """
    position = 0
    try:
        parquet = pq.ParquetFile(file)
        names = _columns(parquet.schema_arrow, name, table, ignore_unknown=ignore_unknown)
        rows = max(1, parquet.metadata.num_rows)
        for batch in parquet.iter_batches(batch_size=BATCH_ROWS, columns=names):
            given = dict(zip(names, batch.columns, strict=True))
            # Tuples of every column: the builder takes them in half the time of mappings.
            plain = [
                _plain(given[column.name], name, column)
                if column.name in given
                else [column.default] * batch.num_rows
                for column in table.columns
            ]
            records: list[Record] = [
                TableRow(number, table.name, values)
                for number, values in enumerate(zip(*plain, strict=True), position)
            ]
            position += batch.num_rows
            yield Chunk(records, size_bytes * position // rows)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise FileDamaged(
            f"{name}: no readable Parquet file beyond row {position:,}: {error}; fetch it again"
        ) from None


def _columns(schema: pa.Schema, name: str, table: Table, *, ignore_unknown: bool) -> list[str]:
    """The file's columns that the table has."""
    known = {column.name: column for column in table.columns}
    if own := sorted({column.name for column in IDENTITY_COLUMNS} & set(schema.names)):
        raise WrongUse(
            f"{name}: columns {', '.join(own)} are the recorder's, and a row from a file gets new ones; "
            f"leave them out: SELECT * EXCEPT ({', '.join(own)}) FROM {table.name}"
        )
    if (unknown := [column for column in schema.names if column not in known]) and not ignore_unknown:
        raise WrongUse(
            f"{name}: {table.name} has no column {', '.join(unknown[:5])}; it has {', '.join(known)}"
        )
    required = [
        column.name for column in table.columns if column.default is REQUIRED or column.name == "ts_local"
    ]
    needed = [column for column in required if column not in schema.names]
    if needed:
        raise WrongUse(
            f"{name}: {table.name} needs column {', '.join(needed)}; the file has {', '.join(schema.names)}"
        )
    for field in schema:
        if pa.types.is_timestamp(field.type) and field.type.tz is None:
            raise WrongUse(
                f"{name}: column {field.name} is a time without a time zone; "
                "write it as timestamp('ns', tz='UTC') or as int64 nanoseconds"
            )
    return [column for column in schema.names if column in known]


def _plain(values: pa.Array, name: str, column: Column) -> list[Any]:
    """The values of a column as a producer would give them."""
    if pa.types.is_timestamp(values.type):
        try:
            values = values.cast(pa.timestamp("ns", tz="UTC")).cast(pa.int64())
        except pa.ArrowInvalid as error:
            raise WrongUse(
                f"{name}: column {column.name} holds times that are none in nanoseconds: {error}"
            ) from None
    plain: list[Any] = values.to_pylist()
    if column.type.kind is Kind.TAGS:
        return [dict(pairs) if isinstance(pairs, list) else pairs for pairs in plain]
    return plain
