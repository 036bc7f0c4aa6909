"""A publisher's side of the protocol (`recorder.bus.wire`): what waits, what is out, what is safe. Pure.

Records wait in order. Those that the window lets out become chunks, numbered; a chunk is kept until all of it is
resolved, and sent again, flagged, when the recorder asks or turns out to be another. `put` is for any thread;
everything else has one caller at a time.
"""

from __future__ import annotations

import threading
from collections import deque

from recorder.bus import wire
from recorder.bus.ranges import Ranges

CHUNK_RECORDS = 256
CHUNK_BYTES = 256 * 1024
"""A frame has at most so much, or one record: building one stays a matter of microseconds."""
RECORD_COST = 100
"""What a record is counted for beside its bytes: about what its objects take."""


class Chunk:
    """Records that were numbered together. A resolved one is None."""

    __slots__ = ("bytes", "first", "records", "unresolved")

    def __init__(self, first: int, records: list[bytes | None], bytes_: int):
        self.first = first
        self.records = records
        self.bytes = bytes_
        self.unresolved = len(records)

    @property
    def end(self) -> int:
        """The position after its last one."""
        return self.first + len(self.records)

    def drop(self) -> int:
        """All of it is resolved; the bytes that are free now."""
        freed, self.bytes, self.unresolved = self.bytes, 0, 0
        return freed

    def resolve(self, start: int, end: int) -> int:
        """Let go of the records at these positions, all in it and unresolved; the bytes that are free now."""
        freed = 0
        for n in range(start - self.first, end - self.first):
            freed += len(self.records[n] or b"") + RECORD_COST
            self.records[n] = None
        self.unresolved -= end - start
        self.bytes -= freed
        return freed


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
        self._out: deque[Chunk] = deque()
        self._out_bytes = 0
        self._again: deque[tuple[Chunk, int, int]] = deque()
        self._follows = 0
        self.restarts = 0

    # -- any thread --------------------------------------------------------------------------------------------

    def put(self, record: bytes) -> bool:
        """Take a record; False if there is no room and it was shed."""
        with self._lock:
            if self._counting:
                # A signal handler, in the middle of the thread's own call: its record is counted at the end of that.
                self._late.append(record)
                return True
            self._counting = True
            try:
                taken = self._count(record)
                while self._late:
                    self._count(self._late.popleft())
                return taken
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
    def waiting(self) -> int:
        """Messages that were not sent yet."""
        return len(self._waiting)

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
    def cursor(self) -> int:
        """Everything below that is not resolved was sent to this run of the recorder, or is lost on the way."""
        return self._again[0][1] if self._again else self.sent_to

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
        while self._again:
            chunk, start, end = self._again.popleft()
            frame = self._frame_again(chunk, start, end)
            if frame is not None:
                return frame
        return self._frame_of_new()

    def _frame_again(self, chunk: Chunk, start: int, end: int) -> bytes | None:
        """What is unresolved of a part of a chunk, up to the first that is; the rest is put back."""
        run = next(self.resolved.missing(start, end), None)
        if run is None:
            return None
        first, stop = run
        if stop < end:
            self._again.appendleft((chunk, stop, end))
        records = chunk.records[first - chunk.first : stop - chunk.first]
        return self._pack(True, first, [record for record in records if record is not None])

    def _frame_of_new(self) -> bytes | None:
        waiting = self._waiting
        # With nothing out, one message always may be, whatever its size.
        least = 1 if self.out_messages == 0 else 0
        room = min(CHUNK_RECORDS, max(least, self.window_messages - self.out_messages), len(waiting))
        room_bytes = self.window_bytes - self._out_bytes
        records: list[bytes] = []
        size = 0
        while len(records) < room:
            more = len(waiting[0]) + RECORD_COST
            too_large = size + more > (min(room_bytes, CHUNK_BYTES) if records else room_bytes)
            if too_large and (records or not least):
                break
            records.append(waiting.popleft())
            size += more
        if not records:
            return None
        chunk = Chunk(self.sent_to, list(records), size)
        self._out.append(chunk)
        self._out_bytes += size
        self.sent_to = chunk.end
        return self._pack(False, chunk.first, records)

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
        """What the recorder says."""
        if isinstance(answer, wire.Unknown):
            self.forget()
            return
        if answer.run != self.run and not answer.welcome:
            self.forget()
            return
        self._resolve(answer)
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
        self._again = deque(
            (chunk, max(chunk.first, expected), chunk.end)
            for chunk in self._out
            if chunk.end > expected and chunk.unresolved
        )

    def _resolve(self, ack: wire.Ack) -> None:
        # Never beyond what was sent, whatever the answer says.
        fresh = self.resolved.add(0, min(ack.resolved, self.sent_to))
        for start, end in ack.ranges:
            fresh += self.resolved.add(start, min(end, self.sent_to))
        if not fresh:
            return
        freed = self._let_go_of_the_first()
        if self._out and max(fresh)[1] > self._out[0].first:
            freed += self._let_go_of(fresh)
        self._out_bytes -= freed
        self._freed_bytes += freed

    def _let_go_of_the_first(self) -> int:
        """Whole chunks, from the first on; the bytes that are free now."""
        out, base, freed = self._out, self.base, 0
        while out and out[0].end <= base:
            freed += out.popleft().drop()
        return freed

    def _let_go_of(self, ranges: list[tuple[int, int]]) -> int:
        """Single records, where a chunk is resolved in part; the bytes that are free now."""
        ranges = sorted(ranges)
        freed = at = 0
        for chunk in self._out:
            first, end = chunk.first, chunk.end
            while at < len(ranges) and ranges[at][0] < end:
                start, stop = ranges[at]
                if stop > first:
                    freed += chunk.resolve(max(start, first), min(stop, end))
                if stop > end:
                    break
                at += 1
            if at == len(ranges):
                break
        return freed
