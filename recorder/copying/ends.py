"""What is asked of either database; both are asked the same questions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import pyarrow as pa

from schemas.executor import SqlExecutor
from schemas.quote import quote_name


class Side(Protocol):
    """A database that rows are copied from or to. Its calls block, and take as long as they take."""

    name: str
    """What it is called in errors: its URL, without a password."""
    database: str
    executor: SqlExecutor
    """For questions about its schema."""

    def rows(self, sql: str) -> Sequence[Sequence[Any]]:
        """A small answer. 64-bit integers are ints, or texts of them."""

    def arrow(self, sql: str) -> Iterator[pa.RecordBatch]:
        """An answer as Arrow, batch by batch; whoever leaves it early closes the iterator."""


def full_name(side: Side, table: str) -> str:
    """A table of a side as SQL."""
    return f"{quote_name(side.database)}.{quote_name(table)}"
