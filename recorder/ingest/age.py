"""Rows that their table's TTL would delete at once.

What counts is the TTL the live table has, not the one the settings name: ClickHouse deletes by the former, within
seconds of the insert, and a database may have been made without.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from recorder.ingest.errors import RowsTooOld
from schemas.live import ttl_of

_INTERVAL = re.compile(r"toInterval(Second|Minute|Hour|Day|Week|Month|Quarter|Year)\((\d+)\)")
_SECONDS = {
    "Second": 1, "Minute": 60, "Hour": 3_600, "Day": 86_400, "Week": 604_800,
    "Month": 2_592_000, "Quarter": 7_776_000, "Year": 31_536_000,
}  # fmt: skip
SQL = "SELECT name, engine_full FROM system.tables WHERE database = {db:String} AND engine LIKE '%MergeTree'"


class _Queries(Protocol):
    async def query(
        self, sql: str, parameters: Mapping[str, Any] | None = None
    ) -> Sequence[Sequence[Any]]: ...


def ttl_seconds(ttl: str) -> int | None:
    """How long a TTL expression keeps a row; None where there is none, or one that is not a plain interval."""
    found = _INTERVAL.search(ttl)
    return int(found.group(2)) * _SECONDS[found.group(1)] if found else None


async def live_ttls(sink: _Queries, database: str) -> dict[str, int]:
    """Seconds each table of a database keeps its rows; tables that keep them for ever are left out."""
    ages = {name: ttl_seconds(ttl_of(engine)) for name, engine in await sink.query(SQL, {"db": database})}
    return {name: seconds for name, seconds in ages.items() if seconds is not None}


class OldRows:
    """Which rows are too old. `oldest_ns` has the least `ts_local` each table keeps; `skipped` counts rows left out."""

    def __init__(self, ttls: Mapping[str, int], *, skip: bool, now_ns: int | None = None):
        now = time.time_ns() if now_ns is None else now_ns
        self.oldest_ns = {table: now - seconds * 10**9 for table, seconds in ttls.items()}
        self.skipped: dict[str, int] = {}
        self._days = {table: seconds / 86_400 for table, seconds in ttls.items()}
        self._skip = skip

    def refuse(self, table: str, ts_local: int, where: str) -> None:
        """Count a row that is too old, or end the run.

        Raises:
            RowsTooOld: old rows are not to be skipped.
        """
        if self._skip:
            self.skipped[table] = self.skipped.get(table, 0) + 1
            return
        raise RowsTooOld(
            f"{where}: a row of {table} is from {_day(ts_local)}, and the table keeps {self._days[table]:g} days: "
            f"ClickHouse would delete it at once. {remedy([table])}"
        )


def remedy(tables: Iterable[str]) -> str:
    """What to do about tables whose TTL is in the way."""
    keep = " and ".join(f"RECORDER_TABLES__{name.upper()}__KEEP_DAYS=forever" for name in sorted(tables))
    return (
        "Record it into a database of its own (--data-dir DIR: what ingest creates keeps its rows), or keep the rows "
        f'longer: set {keep} and run "recorder migrate up"; --skip-old records the others'
    )


def _day(ts_ns: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(ts_ns // 10**9))
