"""Whether a disk has room, and from when on what was written to it is in doubt.

While it has room, nothing that was written can have failed for want of it. From the moment it was seen short it is in
doubt, back to when it was last seen with room, until somebody who checked what was written meanwhile says so.
"""

from __future__ import annotations

import os
import pathlib
import threading
import time

LEAST_ROOM_BYTES = 4 << 20
"""With less than this free the disk is short, however little the engine was told to keep free."""


class DiskDoubt:
    """The disk of one folder. Its methods may be called from any thread; with room, none takes a lock."""

    def __init__(self, path: pathlib.Path):
        self.since_s: float | None = None
        """Files changed after this time (of the wall clock, as files have it) are in doubt; None for none."""
        self.last_room_s = time.time()
        """When it was last seen with room, and not in doubt; of the wall clock."""
        self.last_short_s = 0.0
        """When it was last seen short; monotonic."""
        self._path = path
        self._enough_bytes = LEAST_ROOM_BYTES
        self._lock = threading.Lock()  # never held while something is asked

    def expect(self, keep_free_bytes: int) -> None:
        """Take less than half of what the engine keeps free as short: it begins no write that would leave so little,
        so until then nothing but other programs can have used up the other half."""
        self._enough_bytes = max(self._enough_bytes, keep_free_bytes // 2)

    def look(self) -> bool:
        """Whether the disk has room and is not in doubt."""
        now_s = time.time()
        try:
            short = self.free_bytes() < self._enough_bytes
        except OSError:
            short = True
        if short:
            self.begin(self.last_room_s)
        elif self.since_s is None:
            self.last_room_s = now_s
        return self.since_s is None

    def free_bytes(self) -> int:
        """What the disk has free for the engine's user."""
        disk = os.statvfs(self._path)
        return disk.f_bavail * disk.f_frsize

    def begin(self, since_s: float) -> None:
        """It was seen short just now: doubt what was written since then."""
        with self._lock:
            earlier = self.since_s
            self.last_short_s = time.monotonic()
            self.since_s = since_s if earlier is None else min(earlier, since_s)

    def end(self, began_s: float, began_at_s: float) -> bool:
        """All was checked, from a check on that began at `began_s` (monotonic; `began_at_s` of the wall clock). False
        if the disk was seen short since, and stays in doubt.
        """
        with self._lock:
            if self.last_short_s >= began_s:
                return False
            self.since_s = None
            self.last_room_s = began_at_s
            return True
