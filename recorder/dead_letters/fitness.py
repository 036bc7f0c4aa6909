"""Which tables take no rows now, by the comparison that holds a table of a running recorder."""

from __future__ import annotations

from collections.abc import Iterable

from recorder.schema_start import BREAKING
from schemas.check import compare
from schemas.executor import SqlExecutor
from schemas.live import read_tables
from schemas.render import RenderContext
from schemas.table import Table

_SHOWN = 3


def unfit_tables(executor: SqlExecutor, database: str, tables: Iterable[Table]) -> dict[str, str]:
    """By table that takes no rows, why: it is not there, or its columns are not those of its pack.

    A row would be inserted with defaults where the table lacks a column, and ClickHouse would say nothing.
    """
    live = read_tables(executor, database)
    context = RenderContext(database=database, cluster=None, ttl=True, keep_days={})
    why: dict[str, list[str]] = {}
    for found in compare(tables, live, context):
        if found.kind in BREAKING:
            said = f"{found.what}: expected {found.expected}, observed {found.observed}; {found.remedy}"
            why.setdefault(found.table, []).append(said)
    return {table: f"{table}: {'; '.join(said[:_SHOWN])}" for table, said in why.items()}
