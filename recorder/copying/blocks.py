"""A run's rows as blocks, each for one insert: bounded in rows and bytes, in order of time and identity.

The order makes a block's look-up narrow: its range of time and sequence holds hardly any rows but its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa

from recorder.copying.ends import Side, full_name
from recorder.copying.tables import IDENTITY, TIME, CopyTable
from schemas.quote import quote_name

BLOCK_ROWS = 65_536
BLOCK_BYTES = 32 << 20
_SETTINGS = (
    "output_format_arrow_string_as_string = 0, output_format_arrow_low_cardinality_as_dictionary = 0, "
    "output_format_arrow_date_as_uint16 = 0, max_block_size = 16384, max_bytes_before_external_sort = 268435456"
)
"""Strings as the bytes they are. What is sorted is a run, small but where many rows are of one moment."""


def blocks_of(side: Side, table: CopyTable, where: str) -> Iterator[pa.RecordBatch]:
    """All stored columns of the rows that `where` chooses. Close it where it is left early."""
    columns = ", ".join(map(quote_name, table.columns))
    order = ", ".join((TIME, *IDENTITY))
    return bounded(
        side.arrow(
            f"SELECT {columns} FROM {full_name(side, table.name)} WHERE {where} ORDER BY {order} SETTINGS {_SETTINGS}"
        )
    )


def bounded(
    batches: Iterable[pa.RecordBatch], rows: int = BLOCK_ROWS, nbytes: int = BLOCK_BYTES
) -> Iterator[pa.RecordBatch]:
    """The same rows in the same order, put together or cut to at most `rows`, and about `nbytes`, a block."""
    held: list[pa.RecordBatch] = []
    held_rows = held_bytes = 0
    for batch in batches:
        for part in _cut(batch, rows, nbytes):
            if held and (held_rows + part.num_rows > rows or held_bytes + part.nbytes > nbytes):
                yield _together(held)
                held, held_rows, held_bytes = [], 0, 0
            held.append(part)
            held_rows, held_bytes = held_rows + part.num_rows, held_bytes + part.nbytes
    if held:
        yield _together(held)


def _cut(batch: pa.RecordBatch, rows: int, nbytes: int) -> Iterator[pa.RecordBatch]:
    if not batch.num_rows:
        return
    step = max(1, min(rows, batch.num_rows * nbytes // max(1, batch.nbytes)))
    for start in range(0, batch.num_rows, step):
        yield batch.slice(start, step)


def _together(parts: list[pa.RecordBatch]) -> pa.RecordBatch:
    if len(parts) == 1:
        return parts[0]
    (whole,) = pa.Table.from_batches(parts).combine_chunks().to_batches()
    return whole
