"""What restoring needs of whoever takes the rows: one table, the identities that it has, and inserts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol

import pyarrow as pa


class Times(NamedTuple):
    """Local times in ns since the epoch, UTC, both included. Rows outside of them are none of the partition."""

    first_ns: int
    last_ns: int


class Target(Protocol):
    """One table that nobody else restores into meanwhile.

    Answers are of rows within `times`, where these are known. An earlier run may have been killed while its insert went
    on: no question is answered before such inserts have ended.
    """

    name: str
    """As messages call it."""
    schema: pa.Schema
    """Columns that rows can be inserted into, with types and NULLs as answers of the table have them."""
    columns: Mapping[str, str]
    """ClickHouse's types by name."""

    def sums(self, times: Times | None) -> tuple[int, int]:
        """How many rows there are, and the sum of the hashes of their identities."""

    def identities(self, times: Times | None, number: int, of: int) -> Iterator[pa.RecordBatch]:
        """`_log` and `_seq` of the rows of one portion, as `identities.portion` tells them, in any order."""

    def insert(self, rows: pa.RecordBatch, token: str) -> None:
        """Insert rows, each once whatever happens on the way; they are durable when this returns.

        A column that they lack takes its default. The same rows under the same token add nothing.
        """
