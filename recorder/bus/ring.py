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

A word is stored after what it speaks of, by one store of 8 bytes: on x86 nobody sees these in another order, and
elsewhere the lock that a writer takes and lets go of for each record orders them.
"""

from __future__ import annotations

import enum
import mmap
import os
import struct
import tempfile
import threading
from collections import deque

HEAD_BYTES = 4_096
MAX_RECORD_BYTES = 4 * 1024 * 1024 + 64 * 1024
"""A record has at most so many."""
_LINE = 8
"""Words of 8 bytes on a cache line."""
_RECORD = struct.Struct("<QI")


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
    """Memory for a ring of so many bytes, as a descriptor for `map_memory`.

    Raises:
        OSError: there is not as much.
    """
    size = _size(capacity)
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("recorder-publisher", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    try:
        os.ftruncate(fd, size)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _size(capacity: int) -> int:
    return HEAD_BYTES + capacity + MAX_RECORD_BYTES + _RECORD.size


def _map(fd: int, capacity: int, *, populate: bool) -> mmap.mmap:
    flags = mmap.MAP_SHARED
    if populate and hasattr(mmap, "MAP_POPULATE"):
        flags |= mmap.MAP_POPULATE
    return mmap.mmap(fd, _size(capacity), flags=flags)


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
            self._memory = _map(self.fd, capacity, populate=True)
        except BaseException:
            os.close(self.fd)
            raise
        self._view = memoryview(self._memory)
        self._words = self._view[:HEAD_BYTES].cast("Q")
        self._lock = threading.RLock()
        self._late: deque[bytes] = deque()
        # In one value, so that an exception out of a signal handler finds both as they were, or both as they are.
        self._head_and_next = (0, 0)
        self._closed = False
        self.shed = 0

    @property
    def accepted(self) -> int:
        """Records that it took."""
        return self._head_and_next[1]

    @property
    def used_bytes(self) -> int:
        """What records take that the reader has not let go of."""
        return self._head_and_next[0] - self.word(Word.TAIL)

    def word(self, word: Word) -> int:
        """What a word says now."""
        value: int = self._words[word]
        return value

    def put(self, record: bytes) -> bool:
        """Take a record of at most `MAX_RECORD_BYTES`; False if there is no room and it was shed."""
        if self._inside():
            self._late.append(record)
            return True
        with self._lock:
            self._write_late()
            taken = self._write(record)
        while self._late:  # also of one that came in at the very end
            with self._lock:
                self._write_late()
        return taken

    def _inside(self) -> bool:
        """Whether a signal handler asks, in the middle of its own thread's call: what it puts is written at the end of
        that, and nothing is taken from under its hands."""
        inside: bool = self._lock._is_owned()  # type: ignore[attr-defined]
        return inside

    def _write_late(self) -> None:
        while self._late:
            self._write(self._late.popleft())

    def _write(self, record: bytes) -> bool:
        head, number = self._head_and_next
        end = head + _RECORD.size + len(record)
        if self._closed or end - self._words[Word.TAIL] > self.capacity:
            self.shed += 1
            if not self._closed:
                self._words[Word.SHED] = self.shed
            return False
        at = HEAD_BYTES + head % self.capacity
        _RECORD.pack_into(self._view, at, number, len(record))
        at += _RECORD.size
        self._view[at : at + len(record)] = record
        self._head_and_next = end, number + 1
        self._words[Word.HEAD] = end
        return True

    def tell(self) -> None:
        """Say again how far it has come, should an exception have cut off the call that was about to."""
        inside = self._inside()
        with self._lock:
            if not inside:
                self._write_late()
            self._words[Word.HEAD] = self._head_and_next[0]
            self._words[Word.SHED] = self.shed

    def end(self) -> None:
        """Tell the reader that no record will come any more."""
        self.tell()
        self._words[Word.CLOSING] = 1

    def close(self) -> None:
        """Let go of the memory; the reader keeps it for as long as it needs it. What is put afterwards is shed, and
        nothing else may be asked."""
        os.close(self.fd)
        inside = self._inside()
        with self._lock:
            self._closed = True
            if not inside:  # else the memory goes with the object
                self._words.release()
                self._view.release()
                self._memory.close()


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
        number = self.first
        if self._tail >= limit:
            return number
        for end in self._ends:
            number += 1
            if end >= limit:
                break
        return number

    def _number_at(self, offset: int) -> int:
        number: int = _RECORD.unpack_from(self._view, HEAD_BYTES + offset % self.capacity)[0]
        return number
