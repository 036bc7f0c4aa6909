"""A publisher's side of the protocol (`recorder.bus.wire`): what waits, what is out, what is safe. Pure.

Records are numbered in order. Those that the window lets out are each kept until it is resolved, and sent again,
flagged, when the recorder asks or turns out to be another. One caller at a time.
"""

from __future__ import annotations

from collections import deque

from recorder.bus import wire
from recorder.bus.ranges import Ranges

FRAME_RECORDS = 256
FRAME_BYTES = 64 * 1024
"""A frame has at most so much, or one record: building one stays a matter of microseconds, and what malloc gives for
it comes from its heap rather than from fresh pages."""
RECORD_COST = 100
"""What a record counts in the window beside its bytes: about what its objects take at the recorder."""


class Outbox:
    """Messages of one publisher, from `put` to resolved.

    With `first` and `sent_to` it goes on for one that has ended: everything below the one was let go of, and what is
    put until the other may have been sent.
    """

    def __init__(self, epoch: int, name: str, *, first: int = 0, sent_to: int = 0):
        self.epoch = epoch
        self.name = name
        self.shed = 0
        """Messages that were dropped before they came here."""
        self.shed_seen = 0
        self.run: int | None = None
        self.welcome = False
        self.accepted = first
        self.sent_to = first
        self.resolved = Ranges()
        self.resolved.add(0, first)
        self.window_messages = 0
        self.window_bytes = 0
        self._sent_before = max(first, sent_to)
        self._waiting: deque[bytes | memoryview] = deque()
        self._out: dict[int, bytes | memoryview] = {}
        """By position: what was sent and is not resolved."""
        self._out_bytes = 0
        self._apart: dict[int, bytes] = {}
        """The same, of copies: whatever is out below `_apart_below`."""
        self._apart_below = first
        self._told_before: frozenset[tuple[int, int]] = frozenset()
        """The ranges of the last answer: the next one says most of them again."""
        self._follows = first
        self.cursor = first
        """Everything below that is not resolved was sent to this run of the recorder, or is lost on the way."""
        self.restarts = 0

    def put(self, record: bytes | memoryview) -> None:
        """Take a record. Where it lies in the memory of somebody else, that stays as it is until it is resolved."""
        position = self.accepted
        self.accepted += 1
        if position < self._sent_before:
            self._out[position] = record
            self._out_bytes += len(record) + RECORD_COST
            self.sent_to = self.accepted
        else:
            self._waiting.append(record)

    @property
    def waiting(self) -> int:
        """Messages that were never sent."""
        return len(self._waiting)

    @property
    def unresolved(self) -> int:
        """Messages that were taken and are not safe yet."""
        return self.accepted - self.resolved.total

    @property
    def base(self) -> int:
        """Everything below is resolved."""
        return self.resolved.end_of_run(0)

    @property
    def out_messages(self) -> int:
        """Messages that were sent and are not resolved."""
        return self.sent_to - self.resolved.total

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
        records: list[bytes | memoryview] = []
        size = 0
        for position in range(first, min(stop, first + FRAME_RECORDS)):
            record = self._records_at(position)[position]
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
        records: list[bytes | memoryview] = []
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

    def _pack(self, redelivered: bool, first: int, records: list[bytes | memoryview]) -> bytes:
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
        """Believe what the recorder says, of what was sent."""
        if isinstance(answer, wire.Unknown):
            self.forget()
            return
        if answer.run != self.run and not answer.welcome:
            self.forget()
            return
        self._resolve(0, answer.resolved)
        # Only what is new: with each table flushed by itself an answer says hundreds of ranges, most of them again.
        told = frozenset(answer.ranges)
        for start, end in told - self._told_before:
            self._resolve(start, end)
        self._told_before = told
        self.window_messages = answer.window_messages
        self.window_bytes = answer.window_bytes
        self.shed_seen = max(self.shed_seen, min(answer.shed_seen, self.shed))
        another = answer.run != self.run
        if answer.welcome and (another or not self.welcome):
            self.run = answer.run
            self.welcome = True
            self._rewind(answer.expected)
        elif answer.resend and answer.expected < self.cursor:
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

    def _resolve(self, start: int, end: int) -> None:
        for first, stop in self.resolved.add(start, min(end, self.sent_to)):
            for position in range(first, stop):
                self._out_bytes -= len(self._records_at(position).pop(position)) + RECORD_COST

    def _records_at(self, position: int) -> dict[int, bytes] | dict[int, bytes | memoryview]:
        return self._apart if position < self._apart_below else self._out

    # -- records that lie in the memory of somebody else ------------------------------------------------------------

    @property
    def apart(self) -> int:
        """Messages that are out and of which there is only the copy here."""
        return len(self._apart)

    def keep_apart(self, below: int) -> None:
        """Copy what is out below a position, so that nothing below it is needed any more; but only if most of what is
        below, and was not looked at before, is resolved: else little would be gained."""
        below = min(below, self.sent_to)
        missing = list(self.resolved.missing(self._apart_below, below))
        if 2 * sum(stop - first for first, stop in missing) > below - self._apart_below:
            return
        for first, stop in missing:
            for position in range(first, stop):
                self._apart[position] = bytes(self._out.pop(position))
        self._apart_below = below

    @property
    def needed_from(self) -> int:
        """Below this, nothing of what was put is needed any more."""
        return max(self._apart_below, self.base)
