"""A log for oneself: what changes one does so under its lock, or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from recorder.cli.wal_logs import Log
from wal import names
from wal.errors import FormatError
from wal.files import OS_FILES
from wal.lock import FolderLock
from wal.segment import Segment


@contextlib.contextmanager
def alone(log: Log) -> Iterator[None]:
    """Hold the log's lock, in each of its folders that is there.

    Raises:
        LogLocked: somebody writes to it, who is named.
        OSError: the lock cannot be had.
    """
    with contextlib.ExitStack() as held:
        for folder in log.folders:
            if folder.is_dir():
                held.callback(FolderLock(folder, OS_FILES).release)
        yield


def name_inside(log: Log) -> str:
    """What the log's segments call it: a folder that was copied may have another name."""
    said: set[str] = set()
    for _, path in names.segments(log.folders):
        with contextlib.suppress(OSError, FormatError), Segment.open(path) as segment:
            said.add(segment.preamble.name)
    return log.name if log.name in said or len(said) != 1 else said.pop()
