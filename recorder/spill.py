"""Rows of a table whose log is for need alone (durability `spill`): when they go to it, and which.

In the good case nothing is written. Rows go to the log

- while the database is away or the table held: each cut as it is made, and what memory held already;
- while the worker cannot keep up: memory has as many cuts as it may, and the queue has passed its high watermark;
- at shutdown: what could not be inserted in the time.

A row's place and its identity are two numbers, and here they differ: `_seq` counts the rows of the run, places those
that were spilled. What was sent, and nobody knows what became of it, goes there with a seal: whoever sends it again
does so under its token. What the log does not take waits in memory, and then in the queue, up to its bounds; it goes
there when there is room for all of it.
"""

from __future__ import annotations

from recorder.backlog import QueueLimits
from recorder.batch import Batch
from recorder.flush_worker import FlushWorker, WorkerState
from recorder.lane import Cut, Lane, joined_places
from recorder.queue import TableQueue
from recorder.table_log import TableLog
from schemas.policy import Overflow
from wal.places import Range


def presses(usage: float, limits: QueueLimits) -> bool:
    """Whether a queue is so full that rows go to the log, where the worker does not keep up. Pure."""
    thins = limits.overflow in (Overflow.CONFLATE, Overflow.SAMPLE)
    # Those shed from the high watermark on: what the log can take is to have left by then.
    return usage >= (limits.low_watermark if thins else limits.high_watermark)


class Spill:
    """One table's. Used on the recorder's loop."""

    def __init__(self, wal: TableLog, lane: Lane, queue: TableQueue):
        self._wal = wal
        self._lane = lane
        self._queue = queue
        self._late: list[Range] = []
        self._refused: Cut | None = None

    def takes(self, cut: Cut, state: WorkerState, worker: FlushWorker | None) -> bool:
        """Put a new cut on the log if it is to go there; whether it is on it. May be asked again."""
        if cut.stand.mark is not None:
            return True
        away = state is not WorkerState.FLOWING
        if not away and not (self._lane.full and presses(self._queue.usage(), self._queue.limits)):
            return False
        if away:
            self.memory(worker)
        if self._put(cut):
            return True
        if cut is not self._refused:
            self._refused = cut
            self._wal.refused_rows += sum(batch.rows for batch in cut.batches if not batch.places)
        return False

    def memory(self, worker: FlushWorker | None) -> None:
        """Put on the log what memory holds of the cuts that are not resolved, also of the batch under way."""
        for cut in self._lane.unresolved():
            if cut.batches and worker is not None and worker.began(cut.batches[0]):
                worker.place(self._late_on_log)
                on_log = all(batch.places for batch in worker.left())
                cut.batches[1:] = map(self._wal.spill, cut.batches[1:])
                if on_log and cut.stand.mark is None and all(batch.places for batch in cut.batches[1:]):
                    cut.stand.mark = self._wal.mark
            elif cut.batches:
                self._put(cut)

    def late_places(self) -> tuple[Range, ...]:
        """Where rows stand that went to the log after the worker had begun with their batch; told once."""
        late, self._late = tuple(self._late), []
        return late

    def _put(self, cut: Cut) -> bool:
        cut.batches[:] = map(self._wal.spill, cut.batches)
        if not all(batch.places for batch in cut.batches):
            return False
        if cut.stand.mark is None:
            cut.stand.mark = self._wal.mark
            cut.places = joined_places(cut.batches)
        return True

    def _late_on_log(self, batch: Batch, sent: bool) -> Batch:
        placed = self._wal.spill(batch, sent=sent)
        if placed is not batch:
            self._late += placed.places
        return placed
