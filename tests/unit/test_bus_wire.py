"""Frames of the bus protocol, and both sides' answers to what no well-behaved peer sends."""

from __future__ import annotations

import contextlib
import struct
import tracemalloc

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorder.bus import wire
from recorder.bus.base import Encoding
from recorder.bus.outbox import Outbox
from recorder.bus.salvage import salvage
from recorder.bus.stream import PublisherStream

EPOCH = 2**64 - 3


def record(n: int) -> bytes:
    return wire.record(1_000 + n, "t", n % 2, f"c{n}" if n % 3 else None, bytes([n]))


def data(first: int, count: int, *, follows: int | None = None, redelivered: bool = False) -> wire.Data:
    frame = wire.pack_data(
        EPOCH,
        redelivered=redelivered,
        follows=first if follows is None else follows,
        first=first,
        shed=0,
        records=[record(n) for n in range(first, first + count)],
    )
    content = wire.unpack_from_publisher(frame)[1]
    assert isinstance(content, wire.Data)
    return content


def stream(base: int = 0) -> PublisherStream:
    return PublisherStream(EPOCH, wire.Hello(base, base, 0, 0, "p"))


def test_every_frame_comes_back_as_it_was() -> None:
    """What one side packs the other unpacks."""
    hello = wire.Hello(1, 2, 5, 4, "näme")
    assert wire.unpack_from_publisher(wire.pack_hello(EPOCH, hello)) == (EPOCH, hello)
    long = wire.unpack_from_publisher(wire.pack_hello(EPOCH, hello._replace(name="ä" * 200)))[1]
    assert long == hello._replace(name="ä" * 127)
    assert wire.unpack_from_publisher(wire.pack_ping(EPOCH, 7, 8)) == (EPOCH, wire.Ping(7, 8))
    assert wire.unpack_from_publisher(wire.pack_bye(EPOCH)) == (EPOCH, wire.Bye())
    assert wire.unpack_from_recorder(wire.pack_unknown(EPOCH, 9)) == (EPOCH, wire.Unknown(9))
    for welcome, resend in ((False, True), (True, False)):
        ack = wire.Ack(welcome, resend, 1, 2, 3, 4, 5, 6, [(7, 8), (9, 2**63)])
        assert wire.unpack_from_recorder(wire.pack_ack(EPOCH, ack)) == (EPOCH, ack)
    content = data(5, 3, redelivered=True)
    assert content[:5] == (True, 5, 5, 3, 0)
    assert wire.unpack_records(content) == [
        (1_000 + n, "t", n % 2, f"c{n}" if n % 3 else None, bytes([n])) for n in range(5, 8)
    ]


def test_the_layout_is_the_one_that_is_written_down() -> None:
    """Two versions of this package speak to each other: bytes, not names, are the contract."""
    assert wire.pack_ping(1, 2, 3) == b"CR\x01\x03" + struct.pack("<QQQ", 1, 2, 3)
    assert (
        wire.pack_hello(1, wire.Hello(2, 3, 4, 4, "p"))
        == b"CR\x01\x01" + struct.pack("<5Q", 1, 2, 3, 4, 4) + b"p"
    )
    one = wire.pack_data(
        1, redelivered=True, follows=2, first=3, shed=4, records=[b"\x95\x01\xa1t\x00\xc0\xc4\x00"]
    )
    assert (
        one
        == b"CR\x01\x02"
        + struct.pack("<QBQQIQ", 1, 1, 2, 3, 1, 4)
        + b"\xdd\0\0\0\1\x95\x01\xa1t\x00\xc0\xc4\x00"
    )
    assert wire.record(1, "t", 0, None, b"") == b"\x95\x01\xa1t\x00\xc0\xc4\x00"
    assert wire.pack_unknown(1, 2) == b"CR\x01\x12" + struct.pack("<QQ", 1, 2)
    ack = wire.pack_ack(1, wire.Ack(True, True, 2, 3, 4, 5, 6, 7, [(8, 9)]))
    assert ack == b"CR\x01\x11" + struct.pack("<QBQQQQIQIQQ", 1, 3, 2, 3, 4, 5, 6, 7, 1, 8, 9)


anything = st.binary(max_size=80)
almost = st.builds(lambda kind, rest: b"CR\x01" + bytes([kind]) + rest, st.integers(0, 20), anything)


@given(anything | almost)
def test_no_bytes_are_more_than_a_wire_error(frame: bytes) -> None:
    """Whatever comes, it is a frame or a `WireError`."""
    for unpack in (wire.unpack_from_publisher, wire.unpack_from_recorder):
        with contextlib.suppress(wire.WireError):
            _, content = unpack(frame)
            if isinstance(content, wire.Data):
                wire.unpack_records(content)


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (b"", "0 bytes"),
        (b"XX" + bytes(10), "begins with b'XX'"),
        (b"CR\x02" + bytes(9), "version 2; this one speaks version 1"),
        (b"CR\x01\x11" + bytes(60), "kind 17; a publisher sends none such"),
        (b"CR\x01\x02" + bytes(12), "DATA: unpack_from requires"),
        (wire.pack_hello(1, wire.Hello(5, 4, 0, 0, "p")), "sent 4 from 5 on"),
        (wire.pack_hello(1, wire.Hello(0, 0, 0, 0, ""))[:-1], "HELLO"),
        (wire.pack_hello(1, wire.Hello(0, 0, 0, 0, "")) + b"\xff", "HELLO"),
        (wire.pack_hello(1, wire.Hello(0, 0, 0, 0, "")) + b"x" * 256, "a name of 256 bytes"),
        (wire.pack_data(1, redelivered=False, follows=3, first=2, shed=0, records=[b"x"]), "1 messages from 2"),
        (wire.pack_data(1, redelivered=False, follows=0, first=0, shed=0, records=[]), "0 messages"),
        (wire.pack_data(1, redelivered=False, follows=0, first=0, shed=0, records=[b""] * 4_097), "4097 messages"),
        (wire.pack_data(1, redelivered=False, follows=0, first=2**51, shed=0, records=[b"x"]), "1 messages"),
    ],
)  # fmt: skip
def test_an_error_says_what_is_wrong(frame: bytes, says: str) -> None:
    """In one line, for a dead letter's reason."""
    with pytest.raises(wire.WireError, match=says.replace("(", r"\(")):
        wire.unpack_from_publisher(frame)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xdd\0\0\0\2" + record(0),
        b"\xdd\0\0\0\1\x90",
        b"\x91" + msgspec.msgpack.encode([1, "t", 2, None, b""]),
        b"\x91" + msgspec.msgpack.encode([-1, "t", 0, None, b""]),
        b"\x91" + msgspec.msgpack.encode([1, "t", 0, None, "text"]),
        b"\x91" + msgspec.msgpack.encode([1, "t" * 256, 0, None, b""]),
        b"\x92" + record(0) + record(1),
    ],
)
def test_a_body_is_as_many_messages_as_it_says(body: bytes) -> None:
    """Anything else is an error, of whatever part."""
    with pytest.raises(wire.WireError, match="DATA: "):
        wire.unpack_records(wire.Data(False, 0, 0, 1, 0, memoryview(body)))


def test_a_body_of_millions_is_not_decoded_to_be_refused() -> None:
    """One frame of small records would cost hundreds of megabytes and half a second of the loop."""
    one = record(0)
    count = wire.MAX_FRAME_BYTES // len(one)
    body = b"\xdd" + count.to_bytes(4, "big") + one * count
    data = wire.Data(False, 0, 0, 1, 0, memoryview(body))
    tracemalloc.start()
    try:
        with pytest.raises(wire.WireError, match=f"DATA: {count} messages, said to be 1"):
            wire.unpack_records(data)
        assert salvage(data) is None
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_frame_that_is_partly_known_gives_the_rest() -> None:
    """What lies below the expected position is dropped and counted, message by message."""
    own = stream()
    assert [m.position for m in own.take(data(0, 5), wire.unpack_records(data(0, 5)))] == [0, 1, 2, 3, 4]
    overlap = data(3, 5)
    assert not own.hole(overlap)
    assert not own.repeated(overlap)
    fresh = own.take(overlap, wire.unpack_records(overlap))
    assert [(m.position, m.payload) for m in fresh] == [(5, b"\5"), (6, b"\6"), (7, b"\7")]
    assert own.repeats == 2
    assert own.repeated(data(2, 6))
    assert own.repeats == 8
    assert own.hole(data(9, 1))
    assert fresh[0].encoding is Encoding.MSGPACK
    assert fresh[0].ts_ns == 1_005


def test_what_a_frame_leaves_out_is_resolved() -> None:
    """A publisher sends nothing again that is safe: the hole is said to be none."""
    own = stream(5)
    assert own.in_hand == 0
    later = data(9, 2, follows=5)
    assert not own.hole(later)
    assert [m.position for m in own.take(later, wire.unpack_records(later))] == [9, 10]
    assert list(own.resolved) == [(0, 9)]
    own.resolve([10, 10, 50, 3])
    assert list(own.resolved) == [(0, 9), (10, 11)]
    _, ack = wire.unpack_from_recorder(own.ack(1, 2, 3))
    assert isinstance(ack, wire.Ack)
    assert (ack.resolved, ack.expected, ack.ranges) == (9, 11, [(10, 11)])


def test_unreadable_messages_are_given_up_and_the_stream_goes_on() -> None:
    """Their positions count as dealt with."""
    own = stream()
    own.give_up(data(0, 3))
    assert (own.expected, own.in_hand) == (3, 0)
    assert not own.hole(data(3, 1))


def test_a_name_is_printable_wherever_it_is_shown() -> None:
    """Nobody forges a log line by his name; which log it is does depend on every character."""
    own = PublisherStream(1, wire.Hello(0, 0, 0, 0, "a\nb\x1b[0m"))
    assert own.name == "a?b?[0m"
    assert own.log != PublisherStream(1, wire.Hello(0, 0, 0, 0, own.name)).log


def test_the_same_publisher_and_epoch_are_the_same_log() -> None:
    """At any recorder; another epoch or name is another log."""
    hello = wire.Hello(0, 0, 0, 0, "p")
    assert PublisherStream(1, hello).log == PublisherStream(1, hello._replace(base=3, sent_to=9)).log
    assert len({PublisherStream(e, hello._replace(name=n)).log for e in (1, 2) for n in "pq"}) == 4


def test_an_answer_beyond_what_was_sent_resolves_nothing() -> None:
    """A publisher believes no acknowledgement of what it has not sent, from whoever it comes."""
    box = Outbox(EPOCH, "p")
    for n in range(10):
        box.put(record(n))
    welcome = wire.Ack(True, False, 1, 0, 0, 0, 4, 10_000, [])
    box.take(welcome)
    assert box.next_frame() is not None
    assert box.next_frame() is None
    assert box.sent_to == 4
    too_much = welcome._replace(resolved=10**9, ranges=[(7, 10**12), (3, 2)], shed_seen=99)
    box.take(too_much._replace(welcome=False))
    frame = box.next_frame()
    assert frame is not None
    assert (box.resolved.total, box.unresolved, box.shed_seen) == (4, 6, 0)
    box.take(welcome._replace(welcome=False, resend=True, expected=10**9))
    assert box.sent_to == 8
    content = wire.unpack_from_publisher(frame)[1]
    assert isinstance(content, wire.Data)
    assert (content.first, content.messages, content.redelivered) == (4, 4, False)


def test_what_is_larger_than_the_window_goes_alone() -> None:
    """One message may always be out, whatever the window says."""
    box = Outbox(EPOCH, "p")
    for size in (10, 500_000, 10, 500_000):
        box.put(wire.record(1, "t", 0, None, bytes(size)))
    box.take(wire.Ack(True, False, 1, 0, 0, 0, 0, 0, []))
    for sent in range(1, 5):
        assert box.next_frame() is not None
        assert box.next_frame() is None
        assert box.sent_to == sent
        box.take(wire.Ack(False, False, 1, sent, sent, 0, 0, 0, []))
    assert box.unresolved == 0


def test_an_answer_that_says_again_what_is_known_lets_go_of_what_is_new() -> None:
    """With hundreds of ranges repeated, and one that grew."""
    box = Outbox(EPOCH, "p")
    for n in range(2_000):
        box.put(record(n % 200))
    answer = wire.Ack(True, False, 1, 0, 0, 0, 5_000, 10_000_000, [])
    box.take(answer)
    while box.next_frame() is not None:
        pass
    scattered = [(n, n + 1) for n in range(1, 1_000, 2)]
    for at in range(1_100, 1_900, 8):
        box.take(answer._replace(welcome=False, ranges=[*scattered, (1_100, at + 8)]))
        assert box.resolved.total == len(scattered) + at + 8 - 1_100


def test_a_successor_sends_again_marked_what_may_have_been_sent() -> None:
    """And nothing that the recorder has: the hello says up to where, the answer what came of it."""
    box = Outbox(EPOCH, "p", first=3, sent_to=6)
    for n in range(3, 8):
        box.put(record(n))
    hello = wire.unpack_from_publisher(box.hello())[1]
    assert hello == wire.Hello(3, 6, 0, 0, "p")
    box.take(wire.Ack(True, False, 1, 3, 3, 0, 9, 10_000, [(4, 5)]))
    sent = []
    while (frame := box.next_frame()) is not None:
        content = wire.unpack_from_publisher(frame)[1]
        assert isinstance(content, wire.Data)
        sent.append((content.first, content.messages, content.redelivered))
    assert sent == [(3, 1, True), (5, 1, True), (6, 2, False)]


def test_what_keeps_the_rest_is_copied_where_that_gains_anything() -> None:
    """A few records among many that are safe: their memory is not needed any more, and they are still sent again."""
    memory = bytearray(record(7))
    box = Outbox(EPOCH, "p")
    for _ in range(10):
        box.put(memoryview(memory))
    welcome = wire.Ack(True, False, 1, 0, 0, 0, 10, 10_000, [])
    box.take(welcome)
    box.next_frame()
    box.take(welcome._replace(welcome=False, ranges=[(1, 5)]))
    box.keep_apart(2)
    assert (box.needed_from, box.apart) == (2, 1), "half of what is below is safe"
    box.keep_apart(10)
    assert (box.needed_from, box.apart) == (2, 1), "most of what is below is not"
    box.take(welcome._replace(welcome=False, ranges=[(1, 9)]))
    box.keep_apart(10)
    assert (box.needed_from, box.apart) == (10, 2)
    memory[:] = bytes(len(memory))
    box.take(welcome._replace(run=2))
    frame = box.next_frame()
    assert frame is not None
    content = wire.unpack_from_publisher(frame)[1]
    assert isinstance(content, wire.Data)
    assert [one[4] for one in wire.unpack_records(content)] == [b"\x07"]
    box.take(welcome._replace(run=2, resolved=10))
    assert (box.apart, box.unresolved) == (0, 0)


def test_what_was_copied_before_does_not_keep_more_from_being_copied() -> None:
    """A table that is held for long: all of it is out of the way, up to the window."""
    box = Outbox(EPOCH, "p")
    for n in range(1_000):
        box.put(record(n % 200))
    answer = wire.Ack(True, False, 1, 0, 0, 0, 1_000, 1_000_000, [])
    box.take(answer)
    while box.next_frame() is not None:
        pass
    for held in range(0, 1_000, 4):
        box.take(answer._replace(welcome=False, ranges=[(held + 1, held + 4)]))
        box.keep_apart(held + 4)
        assert (box.needed_from, box.apart) == (held + 4, held // 4 + 1)
    box.take(answer._replace(run=2))
    sent = []
    while (frame := box.next_frame()) is not None:
        content = wire.unpack_from_publisher(frame)[1]
        assert isinstance(content, wire.Data)
        sent += [(content.first, one) for one in wire.unpack_records(content)]
    assert [first for first, _ in sent] == list(range(0, 1_000, 4))
    assert [one[4][0] for _, one in sent] == [n % 200 for n in range(0, 1_000, 4)]
