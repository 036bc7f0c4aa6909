"""What waits at a table's door, counted against its bounds, and what becomes of a row that finds no room.

The state behind a `TableQueue`, which hands rows over: here is what is decided under its lock. What is asked of it
without the lock (`waiting_rows`, `usage`) is right but for what is under way.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from recorder.entries import Block, Entry, Waiting, Watched, rows_in
from recorder.shed import ShedLedger
from schemas.policy import Overflow

ROW_BYTES = 120
COLUMN_BYTES = 56
"""What a Python row costs in memory beside its unbounded texts: the tuple or dict, and an object a field."""


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


class Backlog:
    """See the module. `shed` is told of every row that is turned away or displaced."""

    def __init__(self, limits: QueueLimits, *, columns: int, shed: ShedLedger, key_of: KeyOf):
        self.limits = limits
        self.shed = shed
        self.row_bytes = ROW_BYTES + COLUMN_BYTES * columns
        self.displaced_rows = 0
        """Rows that waited here and were shed."""
        self.refused_rows = 0
        """Rows that were shed at the door."""
        self._rows: deque[Waiting] = deque()
        self._newest: dict[Any, Entry] = {}
        self._block_rows = 0  # rows of waiting blocks, less one each: `len(deque)` counts a block as one
        self._wide_bytes = 0
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

    def usage(self) -> float:
        """How full the queue is, 0 to 1, by rows or bytes, whichever is nearer its bound."""
        return max(self.waiting_rows / self._max_rows, self.waiting_bytes / self.limits.max_bytes)

    # -- where there is no room -------------------------------------------------------------------------------

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
        # `spill`: what is on the log has left memory; the log takes nothing, so the row is shed, counted and alarmed.
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
        if self._block_for_room(1, entry[3]):
            return self._append(entry)
        return self._overflow(entry, self.limits.overflow_second)

    def _block_for_room(self, rows: int, wide_bytes: int) -> bool:
        """Wait for room as `block` does, but never on a thread that runs an event loop. Under the lock."""
        on_loop = asyncio._get_running_loop() is not None
        return not on_loop and self._await_room(rows, wide_bytes, self.limits.block_timeout_s)

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
            if self._block_for_room(rows, wide_bytes):
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
