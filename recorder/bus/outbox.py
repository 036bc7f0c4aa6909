"""A publisher's side of the protocol (`recorder.bus.wire`): what waits, what is out, what is safe. Pure.

Records wait in order. Those that the window lets out are numbered, and each is kept until it is resolved, and sent
again, flagged, when the recorder asks or turns out to be another. `put` is for any thread; everything else has one
caller at a time.

An answer of the recorder may resolve thousands of records at once, in hundreds of ranges, since each table is flushed
by itself. Letting go of them takes a millisecond, and the caller may be a trading thread in a call of `publish`: so
`take` only notes what the recorder said, and `settle` does as much of it as its caller has time for.
"""

from __future__ import annotations

import sys
import threading
from collections import deque

from recorder.bus import wire
from recorder.bus.ranges import Ranges

FRAME_RECORDS = 256
FRAME_BYTES = 64 * 1024
"""A frame has at most so much, or one record: building one stays a matter of microseconds, and what malloc gives for
it comes from its heap rather than from fresh pages."""
RECORD_COST = 100
"""What a record is counted for beside its bytes: about what its objects take."""


class Outbox:
    """Messages of one publisher, from `put` to resolved. Bounded by `buffer_bytes`; beyond it they are shed."""

    def __init__(self, epoch: int, name: str, buffer_bytes: int):
        self.epoch = epoch
        self.name = name
        self.buffer_bytes = buffer_bytes
        self.shed = 0
        self.accepted = 0
        self.run: int | None = None
        self.welcome = False
        self.sent_to = 0
        self.resolved = Ranges()
        self.window_messages = 0
        self.window_bytes = 0
        self.shed_seen = 0
        self._lock = threading.RLock()
        self._counting = False
        self._late: deque[bytes] = deque()
        self._waiting: deque[bytes] = deque()
        self._accepted_bytes = 0
        self._freed_bytes = 0
        self._out: dict[int, bytes] = {}
        """By position: what was sent and is not resolved."""
        self._out_bytes = 0
        self._told: deque[tuple[int, int]] = deque()
        """What the recorder said is resolved, and is not settled yet."""
        self._told_before: frozenset[tuple[int, int]] = frozenset()
        """The ranges of the last answer: the next one says most of them again."""
        self._told_end = 0
        """It is believed of what had been sent by then, whatever it says."""
        self._follows = 0
        self.cursor = 0
        """Everything below that is not resolved was sent to this run of the recorder, or is lost on the way."""
        self.restarts = 0

    # -- any thread --------------------------------------------------------------------------------------------

    def put(self, record: bytes) -> bool:
        """Take a record; False if there is no room and it was shed."""
        with self._lock:
            if self._counting:
                # A signal handler, in the middle of the thread's own call: its record is counted at the end of that.
                self._late.append(record)
                return True
            self._count_late()
            self._counting = True
            try:
                taken = self._count(record)
            finally:
                self._counting = False
            self._count_late()
            return taken

    def _count_late(self) -> None:
        """What handlers left; once more where another one came in at the very end."""
        while self._late:
            self._counting = True
            try:
                while self._late:
                    self._count(self._late.popleft())
            finally:
                self._counting = False

    def _count(self, record: bytes) -> bool:
        size = len(record) + RECORD_COST
        if self._accepted_bytes - self._freed_bytes + size > self.buffer_bytes:
            self.shed += 1
            return False
        self._accepted_bytes += size
        self.accepted += 1
        self._waiting.append(record)
        return True

    @property
    def held_bytes(self) -> int:
        """What is in it, in bytes."""
        return self._accepted_bytes - self._freed_bytes

    @property
    def fills_a_frame(self) -> bool:
        """Whether what was not sent yet is more than a frame holds."""
        return len(self._waiting) >= FRAME_RECORDS or self.held_bytes - self._out_bytes >= FRAME_BYTES

    @property
    def unresolved(self) -> int:
        """Messages that were taken and are not safe yet."""
        return self.accepted - self.resolved.total

    # -- the one that sends -------------------------------------------------------------------------------------

    @property
    def base(self) -> int:
        """Everything below is resolved."""
        return self.resolved.end_of_run(0)

    @property
    def out_messages(self) -> int:
        """Messages that were sent and are not resolved."""
        return self.sent_to - self.resolved.total

    @property
    def unsettled(self) -> bool:
        """Whether the recorder said more than is settled."""
        return bool(self._told)

    def hello(self) -> bytes:
        """The frame that opens the epoch."""
        return wire.pack_hello(
            self.epoch, wire.Hello(self.base, self.sent_to, self.shed, self.shed_seen, self.name)
        )

    def ping(self) -> bytes:
        """A heartbeat."""
        return wire.pack_ping(self.epoch, self.cursor, self.shed)

    def next_frame(self) -> bytes | None:
        """The next frame of messages, None if there is nothing to send or the window is full."""
        if not self.welcome:
            return None
        return self._frame_again() or self._frame_of_new()

    def _frame_again(self) -> bytes | None:
        """What comes next of all that was sent before and is unresolved, up to the first that is resolved."""
        first, stop = next(self.resolved.missing(self.cursor, self.sent_to), (self.sent_to, self.sent_to))
        records: list[bytes] = []
        size = 0
        for position in range(first, min(stop, first + FRAME_RECORDS)):
            record = self._out[position]
            size += len(record) + RECORD_COST
            if records and size > FRAME_BYTES:
                break
            records.append(record)
        self.cursor = first + len(records)
        return self._pack(True, first, records) if records else None

    def _frame_of_new(self) -> bytes | None:
        waiting = self._waiting
        # With nothing out, one message always may be, whatever its size.
        least = 1 if self.out_messages == 0 else 0
        room = min(FRAME_RECORDS, max(least, self.window_messages - self.out_messages), len(waiting))
        room_bytes = self.window_bytes - self._out_bytes
        records: list[bytes] = []
        size = 0
        while len(records) < room:
            more = len(waiting[0]) + RECORD_COST
            too_large = size + more > (min(room_bytes, FRAME_BYTES) if records else room_bytes)
            if too_large and (records or not least):
                break
            records.append(waiting.popleft())
            size += more
        if not records:
            return None
        first = self.sent_to
        self._out.update(enumerate(records, first))
        self._out_bytes += size
        self.cursor = self.sent_to = first + len(records)
        return self._pack(False, first, records)

    def _pack(self, redelivered: bool, first: int, records: list[bytes]) -> bytes:
        follows, self._follows = self._follows, first + len(records)
        return wire.pack_data(
            self.epoch,
            redelivered=redelivered,
            follows=follows,
            first=first,
            shed=self.shed,
            records=records,
        )

    def take(self, answer: wire.FromRecorder) -> None:
        """Note what the recorder says; what is resolved by it is let go of by `settle`."""
        if isinstance(answer, wire.Unknown):
            self.forget()
            return
        if answer.run != self.run and not answer.welcome:
            self.forget()
            return
        self.settle()
        self._told.append((0, answer.resolved))
        # Only what is new: looking at hundreds of ranges again with each answer would leave the calls behind for good.
        told = frozenset(answer.ranges)
        self._told.extend(told - self._told_before)
        self._told_before = told
        self._told_end = self.sent_to
        self.window_messages = answer.window_messages
        self.window_bytes = answer.window_bytes
        self.shed_seen = max(self.shed_seen, min(answer.shed_seen, self.shed))
        another = answer.run != self.run
        if answer.welcome and (another or not self.welcome):
            self.run = answer.run
            self.welcome = True
            self.settle()
            self._rewind(answer.expected)
        elif answer.resend and answer.expected < self.cursor:
            self.settle()
            self._rewind(answer.expected)

    def forget(self) -> None:
        """Nobody may be there who knows the epoch: say hello before anything else is sent."""
        self.welcome = False
        self.restarts += 1

    def _rewind(self, expected: int) -> None:
        """Send again what is unresolved from a position on."""
        expected = min(expected, self.sent_to)
        self.restarts += 1
        self._follows = expected
        self.cursor = expected

    def settle(self, most: int = sys.maxsize) -> None:
        """Let go of what the recorder said is resolved: of at most so many records."""
        told, resolved = self._told, self.resolved
        while told and most > 0:
            start, end = told.popleft()
            end = min(end, self._told_end)
            start = resolved.end_of_run(start)
            stop = min(end, start + most)
            if start >= stop:
                most -= 1  # to find that it is known takes about as long as to let go of one
                continue
            if stop < end:
                told.appendleft((stop, end))
            most -= stop - start
            self._let_go(resolved.add(start, stop))

    def _let_go(self, ranges: list[tuple[int, int]]) -> None:
        out = self._out
        freed = 0
        for start, end in ranges:
            for position in range(start, end):
                freed += len(out.pop(position)) + RECORD_COST
        self._out_bytes -= freed
        self._freed_bytes += freed
