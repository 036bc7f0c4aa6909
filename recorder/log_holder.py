"""Who writes to a log, without touching its lock: a reader that took it, however briefly, could keep a writer from
starting.

Linux lists the locks of all processes that the asker can see. Who is in another container, or on another machine that
shares the disk, is not in it; for these the text of the file LOCK is all there is, and that text outlives them.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from wal import names
from wal.damage import Damage, Harm
from wal.errors import FormatError
from wal.frames import Hole
from wal.segment import Segment, listable

LOCKS = Path("/proc/locks")
_TEXT_BYTES = 1_024


def holder(folder: Path) -> str | None:
    """Who holds the lock of a log's folder, in its own words; None if nobody that can be seen does."""
    path = folder / names.LOCK
    try:
        found = path.stat()
    except OSError:
        return None
    try:
        locks = LOCKS.read_text().splitlines()
    except OSError:
        return f"unknown, there is no {LOCKS} here; last {_text(path) or 'nobody that left a name'}"
    # 1: FLOCK  ADVISORY  WRITE 4711 fd:01:1234567 0 EOF; one that waits has "->" before FLOCK.
    fields = [line.split() for line in locks]
    pids = {
        line[4]
        for line in fields
        if len(line) > 5 and line[1] == "FLOCK" and line[5].rpartition(":")[2] == str(found.st_ino)
        and (_same_disk(line[5], found.st_dev) or _named(path, line[4]))
    }  # fmt: skip
    if not pids:
        return None
    return _text(path) or f"process {', '.join(sorted(pids))}"


def torn_tail(folders: Sequence[Path]) -> list[Damage]:
    """What is unfinished at the end of a log that nobody writes. Readers take it for what is being written, and are
    silent about it; whoever wants all of a dead log must know."""
    segments = names.segments(listable(folders)[0])
    if not segments or holder(folders[0]) is not None:
        return []
    path = segments[-1][1]
    try:
        with Segment.open(path) as segment:
            last = deque(segment.scan(), maxlen=1)
            epoch = segment.preamble.epoch
    except (OSError, FormatError):
        return []  # which every reader tells
    if not last or not isinstance(last[0], Hole):
        return []
    begin, end, _ = last[0]
    return [Damage(Harm.TORN_TAIL, str(path), begin, end - begin, epoch, rows=None)]


def _same_disk(place: str, device: int) -> bool:
    major, minor, _ = place.split(":")
    return (int(major, 16), int(minor, 16)) == (os.major(device), os.minor(device))


def _named(path: Path, pid: str) -> bool:
    """Whether the file names this process: some file systems give a file another device than its lock."""
    return _text(path).startswith(f"process {pid} ")


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_TEXT_BYTES).decode(errors="replace").strip()
    except OSError:
        return ""
