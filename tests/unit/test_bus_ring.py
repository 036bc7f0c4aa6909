"""The ring that a publisher and its sender share: order, bounds, and what a killed side leaves to the next."""

from __future__ import annotations

import contextlib
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


@pytest.mark.parametrize("tail_said", [False, True])
def test_a_reader_killed_while_it_lets_go_leaves_a_sound_ring(ring: RingWriter, tail_said: bool) -> None:
    """Between the two words that it stores."""
    reader = RingReader(ring.fd, CAPACITY)
    for n in range(4):
        ring.put(bytes([n]) * 10)
    read_all(reader)
    tail = ring.word(Word.TAIL)
    reader.release(3)
    if not tail_said:
        reader.say(Word.TAIL, tail)
    successor = RingReader(ring.fd, CAPACITY)
    first = 3 if tail_said else 0
    assert successor.first == first
    assert read_all(successor) == [bytes([n]) * 10 for n in range(first, 4)]


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


def test_what_is_put_into_a_closed_one_is_shed() -> None:
    """A thread that was about to, when another one closed it."""
    writer = RingWriter(CAPACITY)
    reader = RingReader(writer.fd, CAPACITY)
    assert writer.put(b"x")
    writer.end()
    writer.close()
    assert not writer.put(b"y")
    assert (writer.accepted, writer.shed) == (1, 1)
    assert read_all(reader) == [b"x"]
    assert reader.word(Word.CLOSING) == 1


def interrupt(writer: RingWriter, moment: int, handler: Callable[[], None]) -> bool:
    """Put a record, and call something in between two steps of it; whether it had so many."""
    put = RingWriter.put.__code__, RingWriter._write_late.__code__, RingWriter._write.__code__
    steps = itertools.count(1)

    def trace(frame: FrameType, _event: str, _argument: object) -> Any:
        if frame.f_code in put and next(steps) == moment:
            sys.settrace(None)
            handler()
        return trace

    sys.settrace(trace)
    try:
        writer.put(b"\0")
    finally:
        sys.settrace(None)
    return next(steps) > moment


def test_what_handlers_put_in_the_middle_of_a_call_is_taken_by_its_end() -> None:
    """Whichever step of it they interrupt; in the order in which they came, and counted as all are."""
    for moment in range(1, 40):
        writer = RingWriter(CAPACITY)
        reader = RingReader(writer.fd, CAPACITY)

        def handler(writer: RingWriter = writer) -> None:
            writer.put(b"\1")
            writer.put(b"\2")

        interrupted = interrupt(writer, moment, handler)
        assert writer.accepted == (3 if interrupted else 1)
        found = read_all(reader)
        if interrupted:
            assert found.index(b"\1") < found.index(b"\2")
        assert sorted(found) == [b"\0", b"\1", b"\2"][: len(found)]
        assert len(found) == writer.accepted
        writer.close()
    assert not interrupted, "all steps were interrupted"


def test_an_exception_in_the_middle_of_a_call_leaves_a_sound_ring() -> None:
    """Such as Ctrl-C: the record is in it, or not, and what comes afterwards is whole and in order."""

    class Interrupt(Exception):  # noqa: N818 - what it is
        pass

    def interrupt(*_: object) -> None:
        raise Interrupt

    chance = random.Random(5)
    writer = RingWriter(CAPACITY)
    reader = RingReader(writer.fd, CAPACITY)
    found: list[int] = []

    def take() -> None:
        found.extend(int(record) for record in read_all(reader))
        reader.release(reader.read_to)

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for offered in range(0, 400_000, 1_000):
            with contextlib.suppress(Interrupt):
                signal.setitimer(signal.ITIMER_REAL, chance.uniform(20e-6, 200e-6))
                for number in itertools.count(offered):
                    writer.put(b"%d" % number)
            writer.tell()
            assert writer.put(b"%d" % (offered + 999)) or writer.used_bytes > CAPACITY - 100
            take()
            assert writer.accepted == reader.read_to == len(found)
            assert (writer.used_bytes, writer.word(Word.SHED)) == (0, writer.shed)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        writer.close()
    assert found == sorted(set(found))
