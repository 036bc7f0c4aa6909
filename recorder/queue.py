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

import asyncio
import contextlib
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from recorder.shed import ShedLedger
from schemas.policy import Overflow

ROW_BYTES = 120
COLUMN_BYTES = 56
"""What a Python row costs in memory beside its unbounded texts: the tuple or dict, and an object a field."""


Entry = tuple[Any, int, str | None, int]
"""One row as a producer handed it over: row, acceptance (monotonic ns), correlation id, bytes of its unbounded texts.

A plain tuple, because making one is most of what a producer pays.
"""


class Watched(tuple[Any, int, str | None, int]):
    """An entry that somebody waits for: it is told when it is displaced."""

    displaced = False


@dataclass(frozen=True, slots=True)
class Block:
    """Rows that came together with identities of their own, from a file or a bus.

    `fresh` says that nobody ever had them before, so that the table need not be asked for them before their first
    insert. `displaced` is called, under the queue's lock and from any thread, when they are shed while they wait.
    """

    rows: Sequence[Any]
    accepted_ns: int
    log: int
    seqs: Sequence[int]
    wide_bytes: int
    fresh: bool = False
    displaced: Callable[[], None] | None = None


@dataclass(frozen=True, slots=True)
class ArrowBlock:
    """Rows of this process that are columns already, checked, in the table's types and order, without identity."""

    rows: pa.RecordBatch
    accepted_ns: int
    wide_bytes: int


Waiting = Entry | Block | ArrowBlock


def rows_in(entries: Sequence[Waiting]) -> int:
    """How many rows entries hold."""
    if set(map(type, entries)) <= {tuple}:
        return len(entries)
    return sum(1 if isinstance(entry, tuple) else len(entry.rows) for entry in entries)


@dataclass(frozen=True, kw_only=True)
class QueueLimits:
    """Bounds of one queue, and what happens at them. Watermarks are fractions of the bounds."""

    max_rows: int
    max_bytes: int
    high_watermark: float
    low_watermark: float
    overflow: Overflow
    overflow_second: Overflow
    block_timeout_s: float
    conflate_key: tuple[str, ...] = ()


KeyOf = Callable[[Any], Any]
"""The conflation key of a row."""


class TableQueue:
    """See the module. `wake` is called, from any thread, when the first row arrives at a sleeping consumer."""

    def __init__(
        self, limits: QueueLimits, *, columns: int, wake: Callable[[], None], shed: ShedLedger, key_of: KeyOf
    ):
        self.limits = limits
        self.shed = shed
        self.row_bytes = ROW_BYTES + COLUMN_BYTES * columns
        self.taken_rows = 0
        """Rows that left towards the builder."""
        self.displaced_rows = 0
        """Rows that waited here and were shed."""
        self.refused_rows = 0
        """Rows that were shed at the door."""
        self.drained_upto = 0
        """All rows up to this position have left; `conflate` displaces rows from the middle, which say nothing."""
        self._rows: deque[Waiting] = deque()
        self._newest: dict[Any, Entry] = {}
        self._block_rows = 0  # rows of waiting blocks, less one each: `len(deque)` counts a block as one
        self._wide_bytes = 0
        self._wake = wake
        self._armed = False
        self._key_of = key_of
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._waiting = 0
        self._sampled = 0
        self._closed = False
        self._set_bounds()

    def _set_bounds(self) -> None:
        """What follows from the limits."""
        limits = self.limits
        self._max_rows = max(1, min(limits.max_rows, limits.max_bytes // self.row_bytes))
        thinning = limits.overflow in (Overflow.CONFLATE, Overflow.SAMPLE)
        self._soft_rows = max(1, int(self._max_rows * limits.high_watermark)) if thinning else self._max_rows
        self._soft_bytes = int(limits.max_bytes * limits.high_watermark) if thinning else limits.max_bytes
        self._soft_bytes -= self.row_bytes  # of the row that comes
        self._reckon()

    def change(self, limits: QueueLimits) -> None:
        """Use other limits from now on. What waits already stays, also where the new bounds are smaller."""
        with self._room:
            self.limits = limits
            if not self._closed:
                self._set_bounds()
            self._room.notify_all()

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

    def _reckon(self) -> None:
        """Say up to how many entries a `put` of a plain row need not look any further.

        To be called whenever blocks, long texts or conflated rows come or go: everything that counts against the
        bounds beside the number of entries is in this one number, so that the usual `put` compares only it.
        """
        if self._newest:
            self._open_entries = 0
            return
        by_bytes = (self._soft_bytes - self._wide_bytes) // self.row_bytes + 1
        self._open_entries = min(self._soft_rows, by_bytes) - self._block_rows

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

    def _await_room(self, rows: int, wide_bytes: int, timeout_s: float | None) -> bool:
        """Wait for room; False if there is none in time, or the queue was closed. Under the lock."""
        self._waiting += 1
        try:
            self._room.wait_for(lambda: self._closed or self._fits(rows, wide_bytes), timeout_s)
        finally:
            self._waiting -= 1
        return not self._closed and self._fits(rows, wide_bytes)

    def _make_room(self, rows: int, wide_bytes: int) -> bool:
        """Room for a block by the overflow policy; False if it is to be shed. Under the lock."""
        policy = self.limits.overflow
        if policy is Overflow.BLOCK:
            if asyncio._get_running_loop() is None and self._await_room(
                rows, wide_bytes, self.limits.block_timeout_s
            ):
                return True
            policy = self.limits.overflow_second
        if self._closed or policy in (Overflow.SPILL, Overflow.BLOCK):
            return False
        self._displace(rows, wide_bytes)
        return True

    def _fits(self, rows: int, wide_bytes: int) -> bool:
        waiting = self.waiting_rows
        if not waiting:
            return True
        return (
            waiting + rows <= self._max_rows
            and (waiting + rows) * self.row_bytes + self._wide_bytes + wide_bytes <= self.limits.max_bytes
        )

    def _put_full(self, entry: Entry) -> bool:
        with self._lock:
            accepted = self._overflow(entry, self.limits.overflow)
            self._reckon()
        if accepted and self._armed and not self._closed:
            self._armed = False
            self._wake()
        return accepted

    def _overflow(self, entry: Entry, policy: Overflow) -> bool:
        """Take or shed a row by the policy. Under the lock."""
        if self._closed:
            return self._refuse("shutdown")
        if entry[3] > self.limits.max_bytes:
            return self._refuse("too_large")
        if policy is Overflow.CONFLATE:
            return self._conflate(entry)
        if policy is Overflow.SAMPLE:
            return self._sample(entry)
        if self._fits(1, entry[3]):  # the consumer made room meanwhile
            return self._append(entry)
        if policy is Overflow.DROP_OLDEST:
            return self._drop_oldest(entry)
        if policy is Overflow.BLOCK:
            return self._block(entry)
        # `spill`: there is no log to spill to, so a critical row is shed, counted and alarmed.
        return self._refuse("full")

    def _append(self, entry: Entry) -> bool:
        self._rows.append(entry)
        self._wide_bytes += entry[3]
        return True

    def _refuse(self, reason: str) -> bool:
        self.refused_rows += 1
        self.shed.add(reason, 1)
        return False

    def _drop_oldest(self, entry: Entry) -> bool:
        self._displace(1, entry[3])
        return self._append(entry)

    def _displace(self, rows: int, wide_bytes: int) -> None:
        """Shed the oldest rows until so many more fit."""
        while not self._fits(rows, wide_bytes):
            try:
                oldest = self._rows.popleft()
            except IndexError:
                if not self._newest:
                    break
                key = next(iter(self._newest))
                oldest = self._newest.pop(key)
            displaced = self._forget(oldest)
            self.displaced_rows += displaced
            accepted_ns = oldest[1] if isinstance(oldest, tuple) else oldest.accepted_ns
            self.shed.add("drop_oldest", displaced, accepted_ns=accepted_ns)

    def _conflate(self, entry: Entry) -> bool:
        try:
            key = self._key_of(entry[0])
            hash(key)
        except (TypeError, AttributeError, LookupError):
            return self._drop_oldest(entry)  # no key: the builder will say what is wrong with it
        previous = self._newest.pop(key, None)
        if previous is not None:
            self._forget(previous)
            self.displaced_rows += 1
            self.shed.add("conflate", 1, accepted_ns=previous[1])
        if not self._fits(1, entry[3]):  # also for a known key: its newest row may be the larger one
            return self._drop_oldest(entry)
        self._newest[key] = entry
        self._wide_bytes += entry[3]
        return True

    def _sample(self, entry: Entry) -> bool:
        """Keep one row in N; N doubles with every eighth of the way from the high watermark to full."""
        span = max(1e-9, 1.0 - self.limits.high_watermark)
        pressure = max(0.0, min(1.0, (self.usage() - self.limits.high_watermark) / span))
        keep_one_in = 2 << int(pressure * 8)
        self._sampled += 1
        if self._sampled % keep_one_in:
            return self._refuse("sample")
        return self._drop_oldest(entry)

    def _block(self, entry: Entry) -> bool:
        """Wait for room, but never on a thread that runs an event loop."""
        on_loop = asyncio._get_running_loop() is not None
        if not on_loop and self._await_room(1, entry[3], self.limits.block_timeout_s):
            return self._append(entry)
        return self._overflow(entry, self.limits.overflow_second)

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
        taken: list[Waiting] = []
        rows = wide_bytes = 0
        displaced: int | None = self.displaced_rows
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
            with self._room:
                self._block_rows -= rows - len(taken)
                self._wide_bytes -= wide_bytes
                if not self._rows and not self._newest:
                    self._wide_bytes = self._block_rows = 0
                self._reckon()
                if self._waiting and self.usage() <= self.limits.low_watermark:
                    self._room.notify_all()
        return taken

    def _forget(self, entry: Waiting) -> int:
        """Account for an entry that is shed, under the lock; its rows."""
        if type(entry) is Watched:
            entry.displaced = True
        elif type(entry) is Block and entry.displaced is not None:
            entry.displaced()
        self._wide_bytes -= entry[3] if isinstance(entry, tuple) else entry.wide_bytes
        rows = rows_in((entry,))
        self._block_rows -= rows - 1
        return rows

    def close(self) -> None:
        """Turn away whoever waits for room, and whoever still comes: nobody will take their rows."""
        with self._room:
            self._closed = True
            self._armed = True  # for ever: see `_rouse`
            self._soft_rows = 0  # sends every `put` to the lock, where it is refused and counted
            self._reckon()
            self._room.notify_all()

    # -- what it holds ----------------------------------------------------------------------------------------

    @property
    def waiting_rows(self) -> int:
        """Rows in the queue."""
        return len(self._rows) + self._block_rows + len(self._newest)

    def oldest_ns(self) -> int | None:
        """Acceptance of the row that waits longest; None where none does."""
        try:
            entry = self._rows[0]
        except IndexError:
            newest = next(iter(list(self._newest.values())), None)
            return newest[1] if newest else None
        return entry[1] if isinstance(entry, tuple) else entry.accepted_ns

    @property
    def waiting_bytes(self) -> int:
        """Bytes of the rows in the queue, as they are counted against `max_bytes`."""
        return self.waiting_rows * self.row_bytes + self._wide_bytes

    def position(self) -> int:
        """The number of rows ever let in: the position of the last one. For the consumer's thread."""
        with self._lock:  # or a row being displaced just now would be missing
            return self.taken_rows + self.displaced_rows + self.waiting_rows

    def usage(self) -> float:
        """How full the queue is, 0 to 1, by rows or bytes, whichever is nearer its bound."""
        return max(self.waiting_rows / self._max_rows, self.waiting_bytes / self.limits.max_bytes)


def monotonic_ns() -> int:
    """The clock of acceptance times."""
    return time.monotonic_ns()
