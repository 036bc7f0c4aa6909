"""One partition of a table as the archive takes it: sorted Arrow, exact, block by block, from either kind of database.

Only reads. Of the answer no more is held than a block, but for what the engine itself sorts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import orjson
import pyarrow as pa

from recorder.failure import Failure
from retention.archive import Place
from retention.archive.rowhash import LOG, SEQ
from schemas.quote import quote_name, quote_text

BLOCK_ROWS, BLOCK_BYTES = 32_768, 16 * 2**20
SETTINGS = (
    "output_format_arrow_string_as_string = 0, output_format_arrow_low_cardinality_as_dictionary = 0, "
    "output_format_arrow_date_as_uint16 = 0, output_format_arrow_compression_method = 'none', "
    f"max_block_size = {BLOCK_ROWS}, preferred_block_size_bytes = {BLOCK_BYTES}, optimize_read_in_order = 1"
)
"""Strings as the bytes they are, not compressed for a way that ends here, and blocks that are read in the table's order
instead of being sorted whole."""
DERIVED = ("ALIAS", "EPHEMERAL", "MATERIALIZED")
ROWS = "JSONCompactEachRow"


class Answers(Protocol):
    """What is asked of a database; a `Reader` is one."""

    def arrow(self, sql: str) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        """The rows of a statement, batch by batch."""

    def stream(self, sql: str, clickhouse_format: str) -> Iterator[bytes]:
        """The answer in the given format, piece by piece."""


class TableSource:
    """One partition of a table; see `retention.archive.Source`."""

    def __init__(self, answers: Answers, database: str, place: Place):
        self.database, self.place, self._answers = database, place, answers
        of_database, table = f"database = {quote_text(database)}", quote_text(place.table)
        where = f"{of_database} AND table = {table}"
        named = _small(
            answers, f"SELECT sorting_key FROM system.tables WHERE {of_database} AND name = {table}"
        )
        if not named:
            raise Failure(f"{database} has no table {place.table}; see \"recorder query 'SHOW TABLES'\"")
        self.order_by: str = named[0][0]
        columns = _small(
            answers,
            f"SELECT name, type FROM system.columns WHERE {where} AND default_kind NOT IN {DERIVED} ORDER BY position",
        )
        self.columns: Mapping[str, str] = dict(columns)
        if lacking := [name for name in (LOG, SEQ) if name not in self.columns]:
            raise Failure(
                f"{place.table} has no column {lacking[0]}, by which its rows are told apart; "
                "only tables of a pack can be archived"
            )
        parts = _small(
            answers,
            f"SELECT partition_id, toInt64(sum(rows)) FROM system.parts WHERE {where} AND active "
            "GROUP BY partition_id ORDER BY partition_id",
        )
        mine = [part for part in parts if part[0] == place.id or part[0].startswith(f"{place.id}-")]
        if not mine:
            there = f"{parts[0][0]} to {parts[-1][0]}, {len(parts)} in all" if parts else "none"
            if len(parts) == 1:
                there = parts[0][0]
            raise Failure(f"{place.table} has no partition {place.partition}; it has: {there}")
        self.rows = sum(int(part[1]) for part in mine)
        ids = ", ".join(quote_text(part[0]) for part in mine)
        self._from = f"FROM {quote_name(database)}.{quote_name(place.table)} WHERE _partition_id IN ({ids})"

    @property
    def rows_sql(self) -> str:
        """Its rows as what follows on SELECT."""
        return self._from

    def schema(self) -> pa.Schema:
        """That of its batches."""
        columns = ", ".join(map(quote_name, self.columns))
        schema, batches = self._answers.arrow(f"SELECT {columns} {self._from} LIMIT 0 SETTINGS {SETTINGS}")
        for _ in batches:
            pass  # to the end, which frees the connection
        return schema.remove_metadata()

    def batches(self) -> Iterator[pa.RecordBatch]:
        """See `Source`."""
        order = ", ".join(part for part in (self.order_by, "_log", "_seq") if part)
        columns = ", ".join(map(quote_name, self.columns))
        return self._arrow(f"SELECT {columns} {self._from} ORDER BY {order} SETTINGS {SETTINGS}")

    def identities(self) -> Iterator[pa.RecordBatch]:
        """See `Source`."""
        return self._arrow(f"SELECT _log, _seq {self._from} SETTINGS {SETTINGS}")

    def _arrow(self, sql: str) -> Iterator[pa.RecordBatch]:
        # Asked when the first batch is wanted, not when the iterator is made.
        yield from self._answers.arrow(sql)[1]


def _small(answers: Answers, sql: str) -> list[list[Any]]:
    """The rows of a small answer."""
    return [orjson.loads(line) for line in b"".join(answers.stream(sql, ROWS)).splitlines() if line]
