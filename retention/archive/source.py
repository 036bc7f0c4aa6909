"""What the archive needs of whoever has the rows: one partition of a table, as Arrow, sorted, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

import pyarrow as pa

from retention.archive.layout import Place


class Source(Protocol):
    """One partition. Each call asks anew, and answers with the rows of one moment."""

    database: str
    place: Place
    order_by: str
    """The table's own order, as SQL: rows come in it, and then by `_log`, `_seq`."""
    columns: Mapping[str, str]
    """ClickHouse's types by name, which Arrow does not know: Enum8 is an int8 there."""

    def batches(self) -> Iterator[pa.RecordBatch]:
        """All columns of all rows, sorted. Times in ns, decimals exact, `String` as bytes; all of one schema."""

    def identities(self) -> Iterator[pa.RecordBatch]:
        """`_log` and `_seq` of all rows, in any order."""
