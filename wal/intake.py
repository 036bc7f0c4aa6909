"""What a log has taken in, between those who append and the thread that writes: bounds, sequences, marks and counts.

Every call takes one lock for a moment and does no I/O. `put_*` and `wait` are for whoever appends, the rest for the one
thread that writes.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence

import pyarrow as pa

from wal.errors import LogClosed, LogFull, NotDurable
from wal.format import Kind
from wal.options import LogOptions, Sync
from wal.pending import Backlog, Item, Ready

ITEM_BYTES = 512
"""What a batch costs in memory besides its data, and `COLUMN_BYTES` a column."""
COLUMN_BYTES = 256


class Intake:
    """Of one log, named `name`, whose batches have so many columns."""

    def __init__(self, name: str, columns: int, options: LogOptions):
        self._name = name
        self._cost_bytes = ITEM_BYTES + COLUMN_BYTES * columns
        self._options = options
        self._lock = threading.Lock()
        self._reached = threading.Condition(self._lock)
        self._waiting: deque[Item] = deque()
        self._told = False
        """Whether the thread that writes knows of what waits."""
        self._closed = ""
        self._ended = False
        self.items: deque[Item] = deque()
        """What the thread that writes has taken, and not encoded yet."""
        self.backlog = Backlog()
        self._written_since_s: float | None = None
        """When the oldest part of what was written and not synced was appended."""
        self._mark = 0
        self._written_mark = 0
        self._written_stop = 0
        self.held_mark = 0
        """Everything with a mark up to it is on disk."""
        self.held_s = 0.0
        """Since when, of the monotonic clock."""
        self.synced_rows = 0
        """Rows with sequences below it are on disk."""
        self.rows = 0
        self.bytes_appended = 0
        self.bytes_written = 0
        self.bytes_synced = 0
        self.pending_bytes = 0
        self.recovering = ""
        """Why nothing can be written; empty while it can."""

    # -- for those who append ------------------------------------------------------------------------------------

    def put_rows(self, parts: Sequence[pa.RecordBatch], nbytes: int) -> tuple[int, int, bool]:
        """Take rows, `nbytes` of data in all: sequence of the first, mark, whether the writing thread must be told.

        Raises:
            LogClosed, LogFull: see `wal.errors`.
        """
        now_s = time.monotonic()
        with self._lock:
            self._check(nbytes + self._cost_bytes * len(parts))
            first = self.rows
            mark = self._mark
            last = len(parts) - 1
            for n, part in enumerate(parts):
                if n == last:  # with the others not all of it is there
                    mark += 1
                part_bytes = nbytes if last == 0 else part.nbytes
                charge = part_bytes + self._cost_bytes
                self._waiting.append(Item(Kind.ROWS, part, b"", part_bytes, charge, self.rows, mark, now_s))
                self.rows += part.num_rows
                self.pending_bytes += charge
            return first, self._put(mark, nbytes), self._tell()

    def put_note(self, kind: Kind, payload: bytes) -> tuple[int, bool]:
        """Take a frame without rows: its mark, and whether the writing thread must be told.

        Raises:
            LogClosed, LogFull: see `wal.errors`.
        """
        now_s = time.monotonic()
        with self._lock:
            charge = len(payload) + ITEM_BYTES
            self._check(charge)
            mark = self._mark + 1
            self._waiting.append(Item(kind, None, payload, len(payload), charge, self.rows, mark, now_s))
            self.pending_bytes += charge
            return self._put(mark, len(payload)), self._tell()

    def _check(self, charge: int) -> None:
        if self._closed:
            raise LogClosed(self._closed)
        if self.pending_bytes + charge > self._options.pending_bytes_max:
            why = (
                f"nothing can be written: {self.recovering}"
                if self.recovering
                else "the disk does not keep up"
            )
            raise LogFull(
                f"{self._name}: {self.pending_bytes} bytes wait to be written, {charge} more would pass "
                f"pending_bytes_max={self._options.pending_bytes_max}; {why}"
            )

    def _put(self, mark: int, nbytes: int) -> int:
        self._mark = mark
        self.bytes_appended += nbytes
        return mark

    def _tell(self) -> bool:
        told, self._told = self._told, True
        return not told

    @property
    def mark(self) -> int:
        """The last one that was given."""
        return self._mark

    @property
    def synced_mark(self) -> int:
        """Everything with a mark up to it is on disk; written, where nothing is synced."""
        return max(self.held_mark, self._written_mark if self._options.sync is Sync.OFF else 0)

    def wait(self, mark: int, timeout_s: float) -> None:
        """Return when everything with a mark up to this one is on disk.

        Raises:
            NotDurable: it is not, in time, or never will be.
        """
        off = self._options.sync is Sync.OFF
        with self._reached:
            self._reached.wait_for(lambda: self.held_mark >= mark or self._ended or off, timeout_s)
            if self.held_mark >= mark:
                return
            if self._ended:
                why = "the log was closed before it could be written"
            elif off:
                why = "this log is not synced (sync=off)"
            elif self.recovering:
                why = f"not within {timeout_s:g} s: nothing can be written: {self.recovering}"
            else:
                why = f"not within {timeout_s:g} s"
            raise NotDurable(f"{self._name}: mark {mark} is not on disk, {self.held_mark} is: {why}")

    def wait_for_end(self, timeout_s: float) -> bool:
        """Wait until nothing more is written; whether that came in time."""
        with self._reached:
            return self._reached.wait_for(lambda: self._ended, timeout_s)

    def close(self, why: str) -> None:
        """From now on nothing is taken, for this reason."""
        with self._lock:
            self._closed = self._closed or why

    # -- for the thread that writes ------------------------------------------------------------------------------

    def take(self) -> None:
        """What waits goes over to `items`."""
        with self._lock:
            self._told = False
            waiting, self._waiting = self._waiting, deque()
            if self.items:  # could not be encoded the last time
                self.items.extend(waiting)
            else:
                self.items = waiting

    def encoded(self, group: Sequence[Item], frame: Ready) -> None:
        """The first of `items` have become a frame."""
        with self._lock:
            for item in group:
                assert self.items.popleft() is item
            self.backlog.add(frame)
            self.pending_bytes += frame.nbytes - sum(item.charge for item in group)

    def wrote(self, frames: Sequence[Ready], nbytes: int) -> None:
        """The next frames were written."""
        with self._lock:
            self.bytes_written += nbytes
            self.backlog.wrote(len(frames))
            self._written_mark = frames[-1].mark
            self._written_stop = frames[-1].stop
            if self._written_since_s is None:
                self._written_since_s = frames[0].at_s
            if self._options.sync is Sync.OFF:
                self._release()

    def synced(self) -> bool:
        """Everything that was written is on disk; whether that is more than before."""
        with self._reached:
            self._release()
            self.bytes_synced = self.bytes_written
            self._written_since_s = None
            self.synced_rows = self._written_stop
            more = self._written_mark > self.held_mark
            self.held_mark = self._written_mark
            self.held_s = time.monotonic()
            self._reached.notify_all()
            return more

    def again(self) -> int:
        """What was written and not synced must be written again; how many frames."""
        with self._lock:
            if self._options.sync is not Sync.OFF:  # where nothing is kept, nothing is written again
                self._written_mark, self._written_stop = self.held_mark, self.synced_rows
            self._written_since_s = None
            return self.backlog.again()

    def end(self) -> None:
        """Nothing more is written."""
        with self._reached:
            self._ended = True
            self._reached.notify_all()

    def _release(self) -> None:
        self.pending_bytes -= sum(frame.nbytes for frame in self.backlog.release())

    # -- for whoever asks ----------------------------------------------------------------------------------------

    @property
    def written_rows(self) -> int:
        """Rows with sequences below it were written."""
        return self._written_stop

    @property
    def all_held(self) -> bool:
        """Whether everything that was taken is on disk."""
        with self._lock:
            return self.held_mark == self._mark

    def oldest_s(self) -> float | None:
        """When the oldest part of what is not on disk was appended."""
        with self._lock:
            if self._written_since_s is not None:
                return self._written_since_s
            heads = (self.backlog.head, self.items[0] if self.items else None)
            for head in (*heads, self._waiting[0] if self._waiting else None):
                if head is not None:
                    return head.at_s
            return None
