"""What earlier runs left on a table's log, as cuts for its worker: sealed batches as they were, the rest cut anew."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

import pyarrow as pa

from recorder.batch import Batch, cut_by_partitions, cut_places, local_times_ns, partition_keys
from recorder.build import MAX_PARTITIONS
from recorder.lane import Cut
from recorder.log_schema import as_current
from schemas.table import Table
from wal.places import Range
from wal.replay import Replay, ReplayBatch


class EarlierRows:
    """See the module. All of them are looked up before they are sent: nobody knows what became of them."""

    def __init__(self, table: Table, replay: Replay, ended: Callable[[Sequence[Range]], None]):
        """`ended` is told, once, what could not be read after all."""
        self._table = table
        self._replay = replay
        self._batches = replay.batches()
        self._ended = ended
        self._ahead: asyncio.Task[ReplayBatch | None] | None = None
        self.rows = replay.rows_to_go
        """Rows not given out yet."""

    async def next(self) -> Cut | None:
        """The next of it; None where nothing is left. The one after it is read while the worker has this one.

        Cancelled, it loses nothing: the next call gives what this one waited for.
        """
        self._ahead = self._ahead or self._read()
        found = await asyncio.shield(self._ahead)
        if found is None:
            self._ended(self._replay.lost)
            return None
        cut = self._cut(found)  # what cannot be made one now is tried again by the next call
        self._ahead = self._read()
        self.rows -= cut.rows
        return cut

    def _read(self) -> asyncio.Task[ReplayBatch | None]:
        return asyncio.create_task(asyncio.to_thread(next, self._batches, None))

    def _cut(self, found: ReplayBatch) -> Cut:
        rows, ranges = as_current(found.rows, self._table), found.ranges
        if found.seal is None:
            batches = batches_of(self._table, rows, ranges, from_source=True)
        else:
            batches = [
                Batch(
                    self._table.name, rows, time.monotonic_ns(), True, token=found.seal.token, places=ranges
                )
            ]
        return Cut(
            batches, 0, rows.num_rows, (), ranges, from_source=True, sent_before=found.seal is not None
        )


def batches_of(table: Table, data: pa.RecordBatch, places: Sequence[Range], from_source: bool) -> list[Batch]:
    """Rows that were read from the log as batches, none of which touches too many partitions."""
    keys = partition_keys(local_times_ns(data), table.policy.partition)
    now_ns = time.monotonic_ns()
    return [
        Batch(
            table.name,
            data.slice(start, stop - start),
            now_ns,
            from_source,
            places=cut_places(places, start, stop),
        )
        for start, stop in cut_by_partitions(keys, MAX_PARTITIONS)
    ]
