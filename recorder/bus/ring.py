"""A ring of records in memory that two processes share: one writes, one reads, and neither ever waits for the other.

Whoever writes does nothing but copy a record and say how far it has come; there is no call of the system in it. The
records stay until the reader lets go of them, so a reader that comes after one that was killed finds them again.

| bytes | |
|---|---|
| 0 to 4,095 | words of 8 bytes, each alone on its cache line, each written by one side (`Word`) |
| then `capacity` | the ring |
| then | room for one record |

A record that begins in the ring may run over its end; the next one begins behind it, counted from the ring's beginning,
so no record is cut and no place wasted. A record is its number (u64), its length (u32), little-endian, and its bytes.
Offsets only grow; modulo `capacity` they are places.

A word is stored after what it speaks of, by one store of 8 bytes. x86 shows stores in their order; elsewhere
`_fence` sees to it.
"""

from __future__ import annotations

import enum
import fcntl
import mmap
import os
import struct
import tempfile
import threading
from bisect import bisect_left
from collections import deque

HEAD_BYTES = 4_096
MAX_RECORD_BYTES = 4 * 1024 * 1024 + 64 * 1024
"""A record has at most so many."""
_LINE = 8
"""Words of 8 bytes on a cache line."""
_RECORD = struct.Struct("<QI")
_REORDERS = os.uname().machine not in ("x86_64", "amd64", "i686")
"""Whether the processor may show another one a later store before an earlier one."""


class Word(enum.IntEnum):
    """The words, by their place."""

    HEAD = 0 * _LINE
    """Where the next record will begin. The writer's, like the next two."""
    SHED = 1 * _LINE
    """Records that found no room, since the beginning."""
    CLOSING = 2 * _LINE
    """1: no record will come any more."""
    TAIL = 8 * _LINE
    """Where the first record begins that is still there. The reader's, like all that follow."""
    FIRST = 9 * _LINE
    """Its number, or where there is none that of the next one. Stored before TAIL: while they disagree, the record at
    TAIL says it."""
    RESOLVED = 10 * _LINE
    """Records that are safe."""
    SENT_TO = 11 * _LINE
    """The number of the first one that was never sent. Stored before it is."""
    SHED_SEEN = 12 * _LINE
    """Up to which count of SHED a recorder was told."""
    APART = 13 * _LINE
    """Records that are neither safe nor in the ring: the reader alone has them."""


def make_memory(capacity: int) -> int:
    """Memory for a ring of so many bytes, as a descriptor that another process may be given.

    Raises:
        OSError: there is not as much.
    """
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("recorder-publisher", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    try:
        os.ftruncate(fd, _size(capacity))
        if hasattr(os, "posix_fallocate"):  # else memory that is not there is a SIGBUS in some call
            os.posix_fallocate(fd, 0, _size(capacity))
        # Not one of the first three, should these be closed: in another process they are its standard streams.
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(fd)


def _size(capacity: int) -> int:
    return HEAD_BYTES + capacity + MAX_RECORD_BYTES + _RECORD.size


def _map(fd: int, capacity: int, *, populate: bool) -> mmap.mmap:
    flags = mmap.MAP_SHARED
    if populate and hasattr(mmap, "MAP_POPULATE"):
        flags |= mmap.MAP_POPULATE
    return mmap.mmap(fd, _size(capacity), flags=flags)


def _fence() -> None:
    """What was read and stored before it is so for other processors, too, before what is afterwards: a lock that is let
    go of and one that is taken then keep that order."""
    lock = threading.Lock()
    lock.acquire()
    lock.release()
    lock.acquire()


class RingWriter:
    """The side that puts records in, from any thread, and from signal handlers in the middle of it.

    Its memory is there from the beginning: the first record on a page of it costs no more than any other.

    Raises:
        OSError: there is not as much memory.
    """

    def __init__(self, capacity: int):
        self.capacity = capacity
        self.fd = make_memory(capacity)
        try:
            self._view = memoryview(_map(self.fd, capacity, populate=True))
        except BaseException:
            os.close(self.fd)
            raise
        self._words = self._view[:HEAD_BYTES].cast("Q")
        # A signal handler may put a record in the middle of its own thread's call.
        self._lock = threading.RLock()
        self._head_and_next = (0, 0)
        self._ended = False
        self._closed = False
        self.shed = 0

    @property
    def accepted(self) -> int:
        """Records that it took."""
        return self._head_and_next[1]

    @property
    def used_bytes(self) -> int:
        """What records take that the reader has not let go of."""
        return max(0, self.word(Word.HEAD) - self.word(Word.TAIL))

    def word(self, word: Word) -> int:
        """What a word says now; of a closed one, what it said then."""
        value: int = self._words[word]
        return value

    def put(self, record: bytes) -> bool:
        """Take a record of at most `MAX_RECORD_BYTES`; False if there is no room, or it has ended, and it was shed."""
        size = _RECORD.size + len(record)
        with self._lock:
            while not self._ended:
                before = head, number = self._head_and_next
                if head + size - self._words[Word.TAIL] > self.capacity:
                    break
                whole = _RECORD.pack(number, len(record)) + record
                at = HEAD_BYTES + head % self.capacity
                place = slice(at, at + size)
                after = head + size, number + 1
                # What a signal handler, or a finalizer, put meanwhile lies there now. From here on none comes in
                # between: they run after calls, where a loop begins again, and where something is made.
                if self._head_and_next is before and not self._ended:
                    self._view[place] = whole
                    self._head_and_next = after
                    if _REORDERS:
                        _fence()
                    self._words[Word.HEAD] = self._head_and_next[0]
                    return True
            self.shed += 1
            if not self._ended:
                self._words[Word.SHED] = self.shed
            return False

    def end(self) -> None:
        """Take no record any more, and tell the reader so."""
        with self._lock:
            if not self._ended:
                self._ended = True
                # Once more, should a call have been cut off before it did so.
                self._words[Word.HEAD] = self._head_and_next[0]
                self._words[Word.CLOSING] = 1

    def close(self) -> None:
        """End, and let go of the memory; the reader keeps it for as long as it needs it."""
        self.end()
        with self._lock:
            if not self._closed:
                self._closed = True
                self._words = memoryview(bytearray(self._words)).cast("Q")
                self._view = memoryview(b"")  # the memory goes with whoever is about to look at it
                os.close(self.fd)


class RingReader:
    """The side that takes records out, in order, and lets go of them: one thread of one process at a time.

    A reader begins with the first record that the one before it had not let go of.
    """

    def __init__(self, fd: int, capacity: int):
        self.capacity = capacity
        self._memory = _map(fd, capacity, populate=False)
        self._view = memoryview(self._memory)
        self._words = self._view[:HEAD_BYTES].cast("Q")
        self._at = self._tail = self.word(Word.TAIL)
        self._ends: deque[int] = deque()
        """Where each record ends that was read and is still there."""
        self.first = self._number_at(self._at) if self._at < self.word(Word.HEAD) else self.word(Word.FIRST)
        """The number of the first record that is still there."""

    def word(self, word: Word) -> int:
        """What a word says now."""
        value: int = self._words[word]
        return value

    def say(self, word: Word, value: int) -> None:
        """Store a word of the reader's."""
        self._words[word] = value

    @property
    def read_to(self) -> int:
        """The number of the next record to read."""
        return self.first + len(self._ends)

    @property
    def empty(self) -> bool:
        """Whether every record was read."""
        return self._at >= self.word(Word.HEAD)

    def read(self) -> memoryview | None:
        """The next record, where it lies, until it is let go of; None if there is none yet."""
        if self.empty:
            return None
        if _REORDERS:
            _fence()
        at = HEAD_BYTES + self._at % self.capacity
        _, length = _RECORD.unpack_from(self._view, at)
        at += _RECORD.size
        self._at += _RECORD.size + length
        self._ends.append(self._at)
        return self._view[at : at + length]

    def release(self, number: int) -> None:
        """Let go of all records below a number, of those that were read."""
        ends = self._ends
        tail, first = self._tail, self.first
        while ends and first < number:
            tail = ends.popleft()
            first += 1
        if first != self.first:
            self.first, self._tail = first, tail
            self.say(Word.FIRST, first)
            self.say(Word.TAIL, tail)

    def crowded_below(self) -> int:
        """The number up to which records must go for half of the ring to be free; `first` if it is."""
        limit = self.word(Word.HEAD) - self.capacity // 2
        if self._tail >= limit:
            return self.first
        return self.first + min(bisect_left(self._ends, limit) + 1, len(self._ends))

    def _number_at(self, offset: int) -> int:
        number: int = _RECORD.unpack_from(self._view, HEAD_BYTES + offset % self.capacity)[0]
        return number
