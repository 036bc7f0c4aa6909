"""A cut that stands on the log alone, back in memory: its rows as batches, as far as they can be had.

What cannot be read is told and counted as lost, once; what cannot be sent any more, since the table has changed, stays
on the log, but for what the table was found to have. It sends nothing. On the recorder's loop, by the task of the
table's worker, while no flush is under way; the reading itself is in another thread (`recorder.table_log`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from recorder.account import TableAccount
from recorder.batch import Batch
from recorder.flush_worker import FlushWorker
from recorder.lane import Cut
from recorder.log import get_logger
from recorder.log_schema import OlderRows
from recorder.table_log import TableLog
from wal.places import Range

logger = get_logger("recorder.pipeline")


async def read_back(cut: Cut, log: TableLog, worker: FlushWorker, account: TableAccount) -> list[Batch]:
    """The rows of a cut that stand on the log alone, as far as they can be had. The `worker` asks the table, and the
    `account` counts what is lost.
    """
    try:
        try:
            return await log.reading.batches(cut.places, cut.from_source)
        except LookupError as error:
            return await _rescued(cut, log, account, error)
    except OlderRows as error:  # of an earlier version, confirmed, and to be looked up again
        if left := await _not_there(cut, log, worker, error):
            log.reading.leave(left, str(error))
        return []


async def _not_there(cut: Cut, log: TableLog, worker: FlushWorker, older: OlderRows) -> Sequence[Range]:
    """Of rows that were confirmed, and cannot be sent any more, those that the table has not. The others are confirmed
    by the server that is there now: they need not be sent.
    """
    if older.logged is None or not cut.recheck:
        return cut.places
    server = log.done.server
    batch = Batch(log.table.name, older.logged, time.monotonic_ns(), True, places=cut.places)
    present = await worker.present(batch)
    there = np.fromiter((one in present for one in batch.identities()), dtype=bool, count=batch.rows)
    log.confirm(batch.only(there).places, server, letters=False)
    return batch.only(~there).places


async def _rescued(cut: Cut, log: TableLog, account: TableAccount, error: LookupError) -> list[Batch]:
    """Of rows that stood on the log alone some cannot be had any more: nobody has them. The others."""
    batches, lost = await log.reading.rescue(cut.places, cut.from_source)
    if not lost:
        return batches
    logger.critical(
        "rows cannot be read back from the log",
        table=log.table.name,
        rows=sum(place.rows for place in lost),
        of=cut.rows,
        why=str(error),
    )
    if cut.recheck:  # they are counted already, and nobody can tell whether the database lost them
        log.done.resolve(lost)
    else:
        log.reading.lose(lost, account, counted=True)
    return batches
