"""Rows made beforehand and replayed without end, at a cost per row that a load test can afford.

A session makes a row in about ten microseconds; a reel hands one out in well under one. It holds positional
tuples in the order of the row class's fields. In every lap all times are shifted by the reel's length, the
venue's running numbers go on, and ids get the lap as a suffix, so that no two laps share an order, a fill or
a chain; positions and accounts begin anew with each lap.

`rebase_ns` moves the first lap to another start, so that a reel recorded at a fixed time can be played as
today.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec

from recorder.simulate.session import Mix, Session
from schemas.table import Row

_ID_COLUMNS = frozenset(
    {
        "correlation_id",
        "client_order_id",
        "broker_order_id",
        "intent_id",
        "approved_id",
        "risk_decision_id",
        "fill_id",
    }
)
_NUMBER_COLUMNS = frozenset({"trade_id", "update_id", "first_update_id", "last_update_id"})
_NUMBER_STRIDE = 10**9  # above what a lap can use up, so that the numbers of two laps never meet

LOAD_MIX = Mix(
    quotes_per_s=25.0,
    trades_per_s=8.0,
    book_deltas_per_s=4.0,
    orders_per_s=15.0,
    guardrails_per_min=12.0,
    system_events_per_min=240.0,
    metrics_every_s=0.25,
    marks_every_s=1.0,
)
"""All tables busy, as a load test wants them: about half of the rows are trading rows."""


class Reel:
    """A closed loop of rows. Any number of readers may play it, each with its own `events()`."""

    def __init__(self, frames: list[tuple[str, Row]], start_ns: int) -> None:
        if not frames:
            raise ValueError("a reel needs at least one row")
        fields = {type(row): row.__struct_fields__ for _, row in frames}
        self._frames = [
            (table, msgspec.structs.astuple(row), *_patches(fields[type(row)], row)) for table, row in frames
        ]
        self._length_ns = max(getattr(row, "ts_local", start_ns) for _, row in frames) - start_ns + 1_000_000
        self.start_ns = start_ns
        self.rows = Counter(table for table, _ in frames)
        """Rows of one lap, per table."""

    def __len__(self) -> int:
        return len(self._frames)

    def events(self, rebase_ns: int | None = None) -> Iterator[tuple[str, tuple[Any, ...]]]:
        """(table, tuple in field order), without end."""
        shift = 0 if rebase_ns is None else rebase_ns - self.start_ns
        lap = 0
        while True:
            numbers_shift, suffix = lap * _NUMBER_STRIDE, f"~{lap}" if lap else ""
            for table, row, times, numbers, ids in self._frames:
                copy = list(row)
                for index in times:
                    copy[index] += shift
                if lap:
                    for index in numbers:
                        copy[index] += numbers_shift
                    for index in ids:
                        copy[index] += suffix
                yield table, tuple(copy)
            lap += 1
            shift += self._length_ns


def _patches(fields: tuple[str, ...], row: Row) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Indices of the times, running numbers and ids that this row has."""
    times, numbers, ids = [], [], []
    for index, name in enumerate(fields):
        if getattr(row, name) is None:
            continue
        if name.startswith("ts"):
            times.append(index)
        elif name in _NUMBER_COLUMNS:
            numbers.append(index)
        elif name in _ID_COLUMNS:
            ids.append(index)
    return tuple(times), tuple(numbers), tuple(ids)


def pregenerate(
    rows: int, *, seed: int = 1, start_ns: int = 0, mix: Mix = LOAD_MIX, run_id: str = ""
) -> Reel:
    """A reel of at least that many rows of a session; about 1 kB of memory and 10 us of work a row.

    Raises:
        ValueError: fewer than one row asked for.
    """
    if rows < 1:
        raise ValueError(f"a reel needs at least one row, asked for {rows}")
    session = Session(seed, start_ns, max_rows=rows, mix=mix, run_id=run_id)
    return Reel(list(session.events()), start_ns)
