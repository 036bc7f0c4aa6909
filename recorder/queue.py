"""The door of one table: a bounded deque that any thread may put into and the recorder's loop drains.

`put` is the producer's whole cost, so in the common case it takes no lock: deques append and pop atomically under
the GIL, and every row that left the deque is counted by the one who took it. Only when the queue is full does a
producer take the door's lock, to shed by the table's overflow policy.

Invariants
- At most `max_rows` rows and about `max_bytes` bytes wait here. A row counts `ROW_BYTES + COLUMN_BYTES x columns`,
  plus the length of its unbounded texts and payloads.
- `received = taken + shed_at_door + waiting`, exactly, whenever no `put` is under way.
- Rows leave in the order they came (`conflate` keeps the newest of each key, in the order of their last coming).
- The consumer is woken once, by the first row after it went to sleep.
- A closed queue stays armed for ever, which sends a `put` that overlapped the closing to see whether its row was
  left behind: every row that was ever accepted is in a count.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable

from recorder.backlog import Backlog, KeyOf, QueueLimits
from recorder.entries import ArrowBlock, Block, Entry, Waiting, rows_in
from recorder.shed import ShedLedger


class TableQueue(Backlog):
    """See the module. `wake` is called, from any thread, when the first row arrives at a sleeping consumer.

    It is a backlog, and does not have one, so that `put` looks at its state without asking another object.
    """

    def __init__(
        self, limits: QueueLimits, *, columns: int, wake: Callable[[], None], shed: ShedLedger, key_of: KeyOf
    ):
        super().__init__(limits, columns=columns, shed=shed, key_of=key_of)
        self.taken_rows = 0
        """Rows that left towards the builder."""
        self.drained_upto = 0
        """All rows up to this position have left; `conflate` displaces rows from the middle, which say nothing."""
        self._wake = wake
        self._armed = False

    # -- the producer's side ----------------------------------------------------------------------------------

    def put(self, entry: Entry) -> bool:
        """Hand a row over; False if this row was shed. Never blocks but under `Overflow.BLOCK`."""
        if entry[3]:
            return self._put_wide(entry)
        if len(self._rows) >= self._open_entries:
            return self._put_full(entry)
        self._rows.append(entry)
        if self._armed:
            return self._rouse(entry)
        return True

    def _put_wide(self, entry: Entry) -> bool:
        """Hand a row with long texts over, whose bytes count beside its number."""
        rows = len(self._rows)
        bytes_then = (rows + self._block_rows) * self.row_bytes + self._wide_bytes + entry[3]
        if rows >= self._open_entries or bytes_then > self._soft_bytes:
            return self._put_full(entry)
        self._rows.append(entry)
        # Not atomic, and need not be: the interpreter switches threads at calls and jumps only, and what a lost
        # update would leave is wiped out whenever the queue runs empty.
        self._wide_bytes += entry[3]
        self._reckon()
        if self._armed:
            return self._rouse(entry)
        return True

    def _put_full(self, entry: Entry) -> bool:
        with self._lock:
            accepted = self._overflow(entry, self.limits.overflow)
            self._reckon()
        if accepted and self._armed and not self._closed:
            self._armed = False
            self._wake()
        return accepted

    def _rouse(self, entry: Entry) -> bool:
        """After a row was let in: wake the consumer; where it is gone for good, take back what it left."""
        if not self._closed:
            self._armed = False  # no call since the check above, so `close` cannot have come between
            self._wake()
            return True
        accepted = True
        with self._lock, contextlib.suppress(IndexError):
            while True:
                left = self._rows.popleft()
                accepted = accepted and left is not entry
                rows = self._forget(left)
                self.refused_rows += rows
                self.shed.add("shutdown", rows)
        return accepted

    def put_block(self, block: Block | ArrowBlock, *, wait: bool, timeout_s: float | None = None) -> int:
        """Hand over rows that came together; the number accepted, all or none.

        With `wait` the caller waits for room, at most `timeout_s`: for files, which can wait. Without, the overflow
        policy decides: a block is not taken apart, so `conflate` and `sample` displace the oldest rows for it, as
        `drop_oldest` does. A block larger than the queue is let in alone, when the queue is empty.
        """
        rows = len(block.rows)
        if not rows:
            return 0
        with self._room:
            fits = self._fits(rows, block.wide_bytes)
            if not fits and wait:
                fits = self._await_room(rows, block.wide_bytes, timeout_s)
            elif not fits:
                fits = self._make_room(rows, block.wide_bytes)
            if not fits or self._closed:
                self.refused_rows += rows
                self.shed.add("shutdown" if self._closed else "full", rows)
                return 0
            self._rows.append(block)
            self._block_rows += rows - 1
            self._wide_bytes += block.wide_bytes
            self._reckon()
        if self._armed and not self._closed:
            self._armed = False
            self._wake()
        return rows

    def refuse(self, rows: int, reason: str) -> None:
        """Shed rows at the door that are not to come in."""
        with self._lock:
            self.refused_rows += rows
        self.shed.add(reason, rows)

    # -- the consumer's side ----------------------------------------------------------------------------------

    def arm(self) -> bool:
        """Ask to be woken by the next row; False if rows are waiting already, and nothing was armed."""
        self._armed = True
        if self._rows or self._newest:
            self._armed = False
            return False
        return True

    def drain(self, max_rows: int) -> list[Waiting]:
        """Take what waits: about `max_rows` rows (a block is never cut). One consumer only."""
        displaced: int | None = self.displaced_rows
        taken, rows, wide_bytes = self._popped(max_rows)
        if self._newest and rows >= max_rows:
            displaced = None
        elif self._newest:
            with self._lock:
                # All at once, so that a row that comes now cannot overtake an older one of its key.
                newest, self._newest = self._newest, {}
                self._reckon()
                displaced = self.displaced_rows
            taken += newest.values()
            rows += len(newest)
            wide_bytes += sum(entry[3] for entry in newest.values())
        self.taken_rows += rows
        if displaced is not None:
            self.drained_upto = self.taken_rows + displaced
        if wide_bytes or self._wide_bytes or rows > len(taken) or self._waiting:
            self._left(rows - len(taken), wide_bytes)
        return taken

    def _popped(self, max_rows: int) -> tuple[list[Waiting], int, int]:
        """What the deque has, to about `max_rows` rows; how many rows that is, and the bytes of their long texts."""
        taken: list[Waiting] = []
        rows = wide_bytes = 0
        pop = self._rows.popleft
        try:
            if self._block_rows or self._wide_bytes:
                while rows < max_rows:
                    entry = pop()
                    taken.append(entry)
                    if isinstance(entry, tuple):
                        rows += 1
                        wide_bytes += entry[3]
                    else:
                        rows += len(entry.rows)
                        wide_bytes += entry.wide_bytes
            else:
                # Plain rows. What else comes meanwhile is counted below, once a drain and not once a row.
                append = taken.append
                for _ in itertools.repeat(None, max_rows):
                    append(pop())
        except IndexError:
            pass
        if not rows and taken:
            rows = rows_in(taken)
            wide_bytes = sum(entry[3] if isinstance(entry, tuple) else entry.wide_bytes for entry in taken)
        return taken, rows, wide_bytes

    def _left(self, block_rows: int, wide_bytes: int) -> None:
        """Account for what a drain took, and tell who waits for room."""
        with self._room:
            self._block_rows -= block_rows
            self._wide_bytes -= wide_bytes
            if not self._rows and not self._newest:
                self._wide_bytes = self._block_rows = 0
            self._reckon()
            if self._waiting and self.usage() <= self.limits.low_watermark:
                self._room.notify_all()

    def position(self) -> int:
        """The number of rows ever let in: the position of the last one. For the consumer's thread."""
        with self._lock:  # or a row being displaced just now would be missing
            return self.taken_rows + self.displaced_rows + self.waiting_rows

    def close(self) -> None:
        """Turn away whoever waits for room, and whoever still comes: nobody will take their rows."""
        with self._room:
            self._closed = True
            self._armed = True  # for ever: see `_rouse`
            self._soft_rows = 0  # sends every `put` to the lock, where it is refused and counted
            self._reckon()
            self._room.notify_all()
