"""The ring that a publisher and its sender share: order, bounds, and what a killed side leaves to the next."""

from __future__ import annotations

import contextlib
import dis
import errno
import itertools
import os
import random
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recorder.bus import ring as ring_module
from recorder.bus import wire
from recorder.bus.feed import Feed
from recorder.bus.ring import MAX_RECORD_BYTES, RingReader, RingWriter, Word

CAPACITY = 1_000
HEADER = 12


@pytest.fixture
def ring() -> Iterator[RingWriter]:
    writer = RingWriter(CAPACITY)
    yield writer
    writer.close()


def read_all(reader: RingReader) -> list[bytes]:
    found = []
    while (record := reader.read()) is not None:
        found.append(bytes(record))
    return found


def test_where_stores_are_seen_in_another_order_all_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left out there."""
    monkeypatch.setattr(ring_module, "_REORDERS", True)
    test_records_come_out_as_they_went_in()


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 4), st.booleans()), max_size=60))
def test_records_come_out_as_they_went_in(steps: list[tuple[int, int, bool]]) -> None:
    """In order, whole, numbered from 0, wherever they begin in the ring; a reader in the place of another begins with
    the first that was not let go of; what is held never exceeds the capacity."""
    writer = RingWriter(CAPACITY)
    reader = RingReader(writer.fd, CAPACITY)
    there: list[bytes] = []
    kept: dict[int, memoryview] = {}
    shed = 0
    for number, (size, release, replaced) in enumerate(steps):
        record = bytes([number]) * size
        fits = writer.used_bytes + HEADER + size <= CAPACITY
        assert writer.put(record) == fits
        if fits:
            there.append(record)
        else:
            shed += 1
        if replaced:
            kept.clear()
            reader = RingReader(writer.fd, CAPACITY)
        while (found := reader.read()) is not None:
            kept[reader.read_to - 1] = found
        assert reader.empty
        assert {n: bytes(record) for n, record in kept.items()} == dict(
            enumerate(there[reader.first :], reader.first)
        )
        let_go = min(reader.first + release, reader.read_to)
        kept = {n: record for n, record in kept.items() if n >= let_go}
        reader.release(let_go)
        held = [HEADER + len(record) for record in there[let_go:]]
        assert reader.first == writer.word(Word.FIRST) == let_go or not let_go
        assert writer.used_bytes == sum(held) <= CAPACITY
    assert (writer.accepted, writer.shed, writer.word(Word.SHED)) == (len(there), shed, shed)
    kept.clear()
    writer.close()


def test_a_record_may_be_as_large_as_a_message(ring: RingWriter) -> None:
    """Whether it begins at the ring's beginning or at its very end."""
    writer = RingWriter(MAX_RECORD_BYTES + HEADER)
    reader = RingReader(writer.fd, MAX_RECORD_BYTES + HEADER)
    for first in (b"", bytes(MAX_RECORD_BYTES - 1), b"x"):
        large = os.urandom(1_024) * (MAX_RECORD_BYTES // 1_024)
        assert writer.put(first)
        assert read_all(reader) == [first]
        reader.release(reader.read_to)
        assert writer.put(large)
        assert read_all(reader) == [large]
        reader.release(reader.read_to)
    writer.close()


@pytest.mark.parametrize("let_go", [1, 3, 4])
def test_a_reader_killed_while_it_lets_go_leaves_a_sound_ring(ring: RingWriter, let_go: int) -> None:
    """After each word that it stores: whoever comes finds the records by their numbers."""
    found: list[tuple[int, list[bytes]]] = []

    class Watched(RingReader):
        def say(self, word: Word, value: int) -> None:
            super().say(word, value)
            successor = RingReader(ring.fd, CAPACITY)
            found.append((successor.first, read_all(successor)))

    reader = Watched(ring.fd, CAPACITY)
    for n in range(4):
        ring.put(bytes([n]) * 10)
    read_all(reader)
    reader.release(let_go)
    assert [first for first, _ in found] == [0, let_go]
    for first, records in found:
        assert records == [bytes([n]) * 10 for n in range(first, 4)]


def test_an_empty_ring_says_the_number_of_what_comes_next(ring: RingWriter) -> None:
    """To whoever comes after a reader that had let go of everything."""
    reader = RingReader(ring.fd, CAPACITY)
    for _ in range(3):
        ring.put(b"x")
    read_all(reader)
    reader.release(3)
    successor = RingReader(ring.fd, CAPACITY)
    assert (successor.first, successor.read_to, successor.empty) == (3, 3, True)
    ring.put(b"y")
    assert read_all(successor) == [b"y"]
    assert successor.read_to == 4


def test_what_keeps_half_of_it_is_told(ring: RingWriter) -> None:
    """Up to which record it must go, and no further."""
    reader = RingReader(ring.fd, CAPACITY)
    for _ in range(5):
        assert reader.crowded_below() == 0
        ring.put(bytes(100 - HEADER))
        read_all(reader)
    for n in range(1, 6):
        ring.put(bytes(100 - HEADER))
        read_all(reader)
        assert reader.crowded_below() == n
    assert not ring.put(b"")
    reader.release(5)
    assert reader.crowded_below() == 5
    assert ring.used_bytes == CAPACITY // 2


def test_what_is_held_does_not_keep_the_ring_from_being_used_again() -> None:
    """One message of ten that is not safe for long: nothing is shed, until these are as many as the window."""
    capacity = 100 * 40
    writer = RingWriter(capacity)
    feed = Feed(RingReader(writer.fd, capacity), 1, "p")
    answer = wire.Ack(True, False, 1, 0, 0, 0, 60, 10**9, [])
    feed.outbox.take(answer)
    for n in range(550):
        assert writer.put(wire.record(1, "t", 0, None, n.to_bytes(8, "big")))
        feed.fill()
        feed.outbox.next_frame()
        if n % 10:
            feed.outbox.take(answer._replace(welcome=False, ranges=[(n, n + 1)]))
        feed.tell()
        assert writer.word(Word.APART) == feed.outbox.apart <= 55
    assert writer.word(Word.RESOLVED) == 550 - 55
    feed.outbox.take(answer._replace(welcome=False, resolved=550))
    feed.tell()
    assert (feed.done, writer.word(Word.APART), writer.used_bytes) == (True, 0, 0)
    writer.close()


def test_what_is_put_into_an_ended_one_is_shed() -> None:
    """A thread that was about to, when another one closed it; what the words said then they say ever after."""
    writer = RingWriter(CAPACITY)
    reader = RingReader(writer.fd, CAPACITY)
    assert writer.put(b"x")
    writer.end()
    assert reader.word(Word.CLOSING) == 1
    assert not writer.put(b"y")
    writer.close()
    writer.close()
    assert not writer.put(b"z")
    assert (writer.accepted, writer.shed, writer.used_bytes) == (1, 2, HEADER + 1)
    assert read_all(reader) == [b"x"]


def test_memory_that_is_not_there_is_an_error_and_leaves_nothing_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """When it is made, not in the call that would come to it."""

    def none_left(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr(os, "posix_fallocate", none_left)
    with pytest.raises(OSError, match="No space left"):
        RingWriter(CAPACITY)
    assert os.listdir("/proc/self/fd") == before


def interrupt(writer: RingWriter, moment: int, handler: Callable[[], None]) -> tuple[bool | None, bool]:
    """Put a record, and call something at one of the moments when a signal handler may run: after a call, and where a
    function or a loop begins. What came of it, None if it was cut off, and whether it had so many moments."""
    code = RingWriter.put.__code__
    steps = {step.offset: step.opname for step in dis.get_instructions(code)}
    moments = itertools.count(1)
    last = ""

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal last
        if frame.f_code is not code:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            may = "CALL" in last or "BACKWARD" in last or last in ("RESUME", "BEFORE_WITH")
            last = steps[frame.f_lasti]
            if may and next(moments) == moment:
                sys.settrace(None)
                handler()
        return trace

    taken = None
    sys.settrace(trace)
    try:
        taken = writer.put(b"\0")
    except Interrupt:
        pass
    finally:
        sys.settrace(None)
    return taken, next(moments) > moment


class Interrupt(Exception):  # noqa: N818 - what it is
    """What a signal handler raises."""


def test_what_handlers_put_in_the_middle_of_a_call_is_taken_at_once() -> None:
    """Whenever they interrupt it; whole, in the order in which they came, and counted as all are."""
    for moment in itertools.count(1):
        writer = RingWriter(CAPACITY)
        reader = RingReader(writer.fd, CAPACITY)
        ready: list[bool] = []

        def handler(
            writer: RingWriter = writer, reader: RingReader = reader, ready: list[bool] = ready
        ) -> None:
            assert writer.put(b"\1")
            assert writer.put(b"\2")
            ready.append(not reader.empty)

        taken, interrupted = interrupt(writer, moment, handler)
        assert taken
        assert all(ready)
        found = read_all(reader)
        assert [record for record in found if record != b"\0"] == ([b"\1", b"\2"] if interrupted else [])
        assert sorted(found) == ([b"\0", b"\1", b"\2"] if interrupted else [b"\0"])
        assert writer.accepted == reader.read_to == len(found)
        writer.close()
        if not interrupted:
            break
    assert moment > 5


def test_what_is_told_to_be_taken_is_there_when_a_handler_closes() -> None:
    """In the middle of a call, whenever: what is not is shed. The same if it also raises, as one that exits does."""
    for raises, puts in itertools.product((False, True), repeat=2):
        for moment in itertools.count(1):
            writer = RingWriter(CAPACITY)
            reader = RingReader(writer.fd, CAPACITY)

            def handler(writer: RingWriter = writer, raises: bool = raises, puts: bool = puts) -> None:
                assert not puts or writer.put(b"\1")
                writer.end()
                writer.close()
                if raises:
                    raise Interrupt

            taken, interrupted = interrupt(writer, moment, handler)
            found = read_all(reader)
            assert len(found) == writer.accepted == reader.word(Word.HEAD) // (HEADER + 1)
            if not interrupted:
                assert found == [b"\0"]
                break
            assert (b"\1" in found) == puts
            assert reader.word(Word.CLOSING) == 1
            if taken is not None:
                assert taken == (b"\0" in found)
                assert writer.shed == (not taken)
            writer.close()
        assert moment > 5
        writer.close()


def test_an_exception_at_any_moment_leaves_a_sound_ring() -> None:
    """The record is in it or not, as the words say, and the next one comes behind it."""

    def handler() -> None:
        raise Interrupt

    for moment in itertools.count(1):
        writer = RingWriter(CAPACITY)
        reader = RingReader(writer.fd, CAPACITY)
        taken, interrupted = interrupt(writer, moment, handler)
        assert writer.put(b"\1")
        found = read_all(reader)
        assert found in ([b"\1"], [b"\0", b"\1"])
        assert writer.accepted == len(found)
        writer.close()
        if not interrupted:
            assert taken
            break
    assert moment > 5


def test_an_exception_in_the_middle_of_a_call_leaves_a_sound_ring() -> None:
    """Such as Ctrl-C: the record is in it, or not, and what comes afterwards is whole and in order."""

    def cut_off(*_: object) -> None:
        raise Interrupt

    chance = random.Random(5)
    writer = RingWriter(CAPACITY)
    reader = RingReader(writer.fd, CAPACITY)
    found: list[int] = []

    def take() -> None:
        found.extend(int(record) for record in read_all(reader))
        reader.release(reader.read_to)

    before = signal.signal(signal.SIGALRM, cut_off)
    try:
        for offered in range(0, 400_000, 1_000):
            with contextlib.suppress(Interrupt):
                signal.setitimer(signal.ITIMER_REAL, chance.uniform(20e-6, 200e-6))
                for number in itertools.count(offered):
                    writer.put(b"%d" % number)
            assert writer.put(b"%d" % (offered + 999)) or writer.used_bytes > CAPACITY - 100
            take()
            assert writer.accepted == reader.read_to == len(found)
            assert (writer.used_bytes, writer.word(Word.SHED)) == (0, writer.shed)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        writer.close()
    assert found == sorted(set(found))
