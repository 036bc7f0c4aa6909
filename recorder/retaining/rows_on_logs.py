"""From when the rows are that wait on the logs of a data folder: what retention asks before it drops a partition.

Read from files alone, beside a recorder that runs or without one; it changes nothing. Logs of recorders that are
elsewhere are not seen. What cannot be told counts as of any time, so that a partition rather waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from recorder.batch import local_times_ns
from wal import names
from wal.checkpoint import CheckpointFile
from wal.damage import Harm
from wal.reader import LogReader
from wal.replay import Replay
from wal.segment import listable

READ_BYTES_MAX = 256 * 1_048_576
"""Of waiting rows; where more wait, nobody reads them for this: an outage left them, and they go in first."""
SEEN_S = 5.0
"""For how long an answer is good: a run asks before each thing that it does."""
ANY_TIME_NS = -(2**63)


def oldest_on_log(folders: Sequence[Path], name: str) -> int | None:
    """The oldest local time among rows on a table's log that are not known to be in the database, in ns since 1970.

    None where none wait; `ANY_TIME_NS` where they are too many, or cannot be read.

    Raises:
        OSError: of this process and not of a log, such as too many open files.
    """
    there, unlistable = listable(folders)
    if unlistable:
        return ANY_TIME_NS
    if not names.segments(there):
        return None
    replay = Replay(LogReader(folders, name=name), CheckpointFile(folders[0]).read()[0])
    if _hides_rows(replay) or replay.bytes_to_go > READ_BYTES_MAX:
        return ANY_TIME_NS
    oldest = [int(local_times_ns(batch.rows).min()) for batch in replay.batches()]
    return ANY_TIME_NS if _hides_rows(replay) else min(oldest, default=None)


def _hides_rows(replay: Replay) -> bool:
    """Whether the disk does not give all of it."""
    return bool(replay.unread) or any(one.harm is Harm.UNREAD for one in replay.damage)


class RowsOnLogs:
    """The same of all logs below some folders (`Settings.log_folders`), by table. Of one thread."""

    def __init__(self, roots: Sequence[Path], *, clock: Callable[[], float] = time.monotonic):
        self._roots = roots
        self._clock = clock
        self._seen: dict[str, tuple[float, int | None]] = {}

    def oldest_ns(self, table: str) -> int | None:
        """See `oldest_on_log`; an answer may be `SEEN_S` old."""
        now_s = self._clock()
        seen = self._seen.get(table)
        if seen is None or now_s - seen[0] >= SEEN_S:
            seen = now_s, oldest_on_log([root / table for root in self._roots], table)
            self._seen[table] = seen
        return seen[1]
