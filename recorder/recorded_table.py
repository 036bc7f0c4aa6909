"""One table of a running recorder: the parts that its rows pass through, and what is kept beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from recorder.door import Door
from recorder.flush_worker import FlushWorker
from recorder.latency import LatencyHistogram
from recorder.pipeline import TablePipeline
from schemas.table import Table


@dataclass
class RecordedTable:
    """The parts of one table. `lag` is of its rows so far; all else stays what it is."""

    door: Door
    pipeline: TablePipeline
    worker: FlushWorker
    lag: LatencyHistogram = field(default_factory=LatencyHistogram)

    @property
    def table(self) -> Table:
        """Its definition."""
        return self.door.table


RecordedTables = Mapping[str, RecordedTable]
"""By name, in the order of the packs."""


def enabled(tables: RecordedTables) -> list[Table]:
    """The definitions of the tables that take rows."""
    return [recorded.table for recorded in tables.values() if recorded.door.enabled]
