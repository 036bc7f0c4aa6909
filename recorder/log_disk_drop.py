"""The emergency policy `drop_oldest`: durable segments are removed, the oldest first, to make room for new rows.

The one named exception to "a durable row is in ClickHouse exactly once" (design, section 3, "Disk"), and off unless
chosen. What it takes is counted as shed and told in a gap row a segment. Rows of such a segment that memory holds, or
that the database has confirmed, are not lost by it. Segments of tables that need no log go before those of critical
ones. Gap rows themselves are never dropped, nor is a segment that is being written, or that an earlier run left while
it is being sent.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from recorder.aside import aside
from recorder.log import get_logger
from recorder.own_rows import GAPS
from recorder.pipeline import TablePipeline
from recorder.table_log import TableLog
from wal.places import Range
from wal.purge import in_order, remove
from wal.recovery import SegmentState

log = get_logger("recorder.log")


async def drop_oldest(pipelines: Mapping[str, TablePipeline], wanted_bytes: int) -> int:
    """Remove segments until so many bytes are free that were not, or there are no more; how many bytes that were."""
    freed_bytes = 0
    for name, state in oldest_first(pipelines):
        if freed_bytes >= wanted_bytes:
            break
        freed_bytes += await _drop(pipelines[name], state)
    return freed_bytes


def oldest_first(pipelines: Mapping[str, TablePipeline]) -> list[tuple[str, SegmentState]]:
    """The segments that may be dropped, in the order in which they are, with their tables."""
    found = []
    for name, pipeline in pipelines.items():
        wal = pipeline.wal
        if wal is None or name == GAPS:
            continue
        made_ns = 0
        for state in _droppable(wal, earlier=not pipeline.reads_earlier):
            made_ns = max(made_ns, state.preamble.created_ns)  # in the log's order, whatever the clock did
            found.append((wal.table.policy.critical, made_ns, name, state.number, state))
    return [(name, state) for *_, name, _, state in sorted(found, key=lambda one: one[:4])]


def _droppable(wal: TableLog, *, earlier: bool) -> Iterator[SegmentState]:
    """Segments that nobody writes to; those of earlier runs only with `earlier`. None of a log with rows that nobody
    has seen: they could not be counted.
    """
    if wal.reading.blind:
        return
    active = wal.writer.active
    for state in in_order(wal.writer.segments()):
        own = state.preamble.epoch == wal.writer.epoch
        # Without an active one, any of its own may be about to become it.
        if earlier if not own else active is not None and state.number < active:
            yield state


async def _drop(pipeline: TablePipeline, state: SegmentState) -> int:
    assert pipeline.wal is not None
    held = Range(state.preamble.epoch, state.preamble.first, state.stop)
    age_ns = max(0, time.time_ns() - state.preamble.created_ns)
    # Counted first: once the file is gone, nobody else would know of its rows.
    lost = pipeline.drop_logged(held, f"log segment {state.number}", time.monotonic_ns() - age_ns)
    await pipeline.wal.done.write()
    removed, nbytes, error = await aside(remove, [state])
    pipeline.wal.writer.removed(one.path for one in removed)
    log.critical(
        "the disk is full: the oldest segment was dropped, as wal_emergency says",
        table=pipeline.table.name,
        segment=state.number,
        lost_rows=lost,
        freed_bytes=nbytes,
        error=error,
    )
    return nbytes
