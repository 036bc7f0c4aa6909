"""What earlier runs left on a table's log, as cuts for its worker: sealed batches as they were, the rest cut anew."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

import pyarrow as pa

from recorder.batch import Batch, cut_by_partitions, cut_places, local_times_ns, partition_keys
from recorder.build import max_times
from recorder.lane import Cut
from recorder.log_schema import OlderRows, as_current
from recorder.replay_memory import BATCHES, ReplayMemory
from schemas.renames import Renames
from schemas.table import Table
from wal.places import PlaceSet, Range
from wal.replay import Replay, ReplayBatch


class EarlierRows:
    """See the module. All of them are looked up before they are sent: nobody knows what became of them. Rows that are
    none of the table now stay where they are, and cost no others.
    """

    def __init__(
        self,
        table: Table,
        replay: Replay,
        *,
        renames: Renames,
        memory: ReplayMemory,
        left: Callable[[Sequence[Range], str], None],
        ended: Callable[[Replay], None],
    ):
        """`left` is told where rows stay on the log, and why; `ended`, once, what could not be read after all: what is
        lost of it, and what the disk did not give.
        """
        self._table = table
        self._renames = renames
        self._memory = memory
        self._left = left
        self._replay = replay
        self._batches = replay.batches()
        self._ended = ended
        self._ahead: asyncio.Task[ReplayBatch | None] | None = None
        self._given = PlaceSet()
        self._broken = False
        self.rows = replay.rows_to_go
        """Rows not given out yet."""

    async def next(self) -> Cut | None:
        """The next of it, the one before it being done with; None where nothing is left. The one after it is read while
        the worker has this one.

        Cancelled, it loses nothing: the next call gives what this one waited for.

        Raises:
            OSError: of this process and not of a file, such as too many open files. The next call goes on there.
        """
        while True:
            if self._broken:
                self._replay = await asyncio.to_thread(self._replay.without, self._given)
                self._batches, self._broken = self._replay.batches(), False
            self._ahead = self._ahead or self._read()
            try:
                found = await asyncio.shield(self._ahead)
            except Exception:
                self._ahead, self._broken = None, True
                raise
            if found is None:
                self._ended(self._replay)
                return None
            # Alone where it is a sealed one that takes more than a batch may.
            alone = found.rows.nbytes > self._memory.batch_bytes
            self._ahead = None if alone else self._read()
            self._given.update(found.ranges)
            self.rows -= found.rows.num_rows
            try:
                return self._cut(as_current(found.rows, self._table, self._renames), found)
            except OlderRows as error:
                self._left(found.ranges, str(error))

    def _read(self) -> asyncio.Task[ReplayBatch | None]:
        self._replay.memory_bytes_max = (BATCHES - 1) * self._memory.batch_bytes
        return asyncio.create_task(asyncio.to_thread(next, self._batches, None))

    def _cut(self, rows: pa.RecordBatch, found: ReplayBatch) -> Cut:
        ranges = found.ranges
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
        for start, stop in cut_by_partitions(keys, max_times(table.policy))
    ]
