"""The rows that benchmarks send: a simulated session's, made beforehand, in the proportions of a trading day.

Most are market data; an order makes a chain of rows over five tables. The session's own clock is stretched so that
its rows come at the benchmark's rate: their times then run with the wall clock, and touch the partitions that real
rows would.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Collection
from typing import Any

from recorder.simulate.reel import Reel
from recorder.simulate.session import TABLES, Mix, Session
from schemas.table import Row

ALL_TABLES = ("market_data", "book_deltas", *TABLES[1:])
MIX = Mix(
    quotes_per_s=25.0,
    trades_per_s=8.0,
    book_deltas_per_s=2.5,
    orders_per_s=4.0,
    guardrails_per_min=12.0,
    system_events_per_min=120.0,
    metrics_every_s=1.0,
    marks_every_s=2.0,
)
"""Three rows of four are market data; a tenth are orders, fills and risk decisions."""

SEED = 20_240_808


def make_reel(tables: Collection[str], rows_per_s: float, rows: int = 40_000) -> Reel:
    """A reel of at least so many rows of a session, its times as if they came at that rate.

    Raises:
        ValueError: the session has no row for these tables.
    """
    start_ns = time.time_ns()
    kept: list[tuple[str, Row]] = []
    session = Session(SEED, start_ns, max_rows=rows, mix=MIX)
    for table, row in session.events():
        if table in tables:
            kept.append((table, row))
    if not kept:
        raise ValueError(f"a session makes no rows for {', '.join(sorted(tables))}")
    length_ns = max(getattr(row, "ts_local", start_ns) for _, row in kept) - start_ns
    stretch = len(kept) / rows_per_s * 1e9 / max(1, length_ns)
    for _, row in kept:
        _stretch(row, start_ns, stretch)
    return Reel(kept, start_ns)


def _stretch(row: Row, start_ns: int, factor: float) -> None:
    for name in row.__struct_fields__:
        if name.startswith("ts") and (value := getattr(row, name)):
            setattr(row, name, start_ns + int((value - start_ns) * factor))


def make_rows(
    tables: Collection[str], rows_per_s: float, rows: int = 20_000
) -> list[tuple[str, tuple[Any, ...]]]:
    """Ready rows in a list, for a loop that replays them at no cost; the ids repeat with every lap."""
    return list(itertools.islice(make_reel(tables, rows_per_s, rows).events(), rows))
