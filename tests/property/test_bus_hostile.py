"""Whatever comes in at the recorder's end of a ZeroMQ bus: it goes on, it does not grow, and nobody else is harmed.

Frames are given to a real subscription as its socket gives them, and what it answers is taken from it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recorder.bus import notices, wire, zeromq
from recorder.bus.base import BusMessage
from recorder.bus.endpoint import parse_zmq_url
from recorder.bus.options import BusOptions
from recorder.bus.outbox import Outbox
from recorder.bus.zeromq import ZmqSubscription

HONEST = 7
WINDOW = 20
U64 = st.integers(0, 2**64 - 1) | st.integers(0, 60) | st.just(wire.MAX_POSITION)
EPOCHS = st.integers(100, 104) | U64.filter(lambda epoch: epoch != HONEST)
anything = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=9) | st.binary(max_size=9)
)
good = st.builds(
    wire.record,
    st.integers(0, 2**63 - 1), st.text(max_size=9), st.integers(0, 1), st.none() | st.text(max_size=9),
    st.binary(max_size=40),
)  # fmt: skip
odd = st.lists(anything, max_size=7).map(msgspec.msgpack.encode) | anything.map(msgspec.msgpack.encode)
not_utf_8 = st.just(b"\x95\x01\xa2\xff\xfe\x00\xc0\xc4\x01x")
"""A record whose topic is no text."""


def data(epoch: int, follows: int, first: int, shed: int, records: list[bytes], claim: int | None) -> bytes:
    frame = wire.pack_data(
        epoch, redelivered=bool(shed % 2), follows=follows, first=first, shed=shed, records=records
    )
    if claim is not None:  # another count in the head, or in the array, than there are
        at = 12 + 17 if claim % 2 else 12 + 29 + 1
        size, order = (4, "little") if claim % 2 else (4, "big")
        frame = frame[:at] + claim.to_bytes(size, order) + frame[at + size :]  # type: ignore[arg-type]
    return frame


frames = st.one_of(
    st.builds(
        lambda epoch, *said: wire.pack_hello(epoch, wire.Hello(*said)), EPOCHS, U64, U64, U64, U64, st.text(max_size=9)
    ),
    st.builds(
        lambda epoch, sent, shed, name: wire.pack_hello(epoch, wire.Hello(0, sent, shed, 0, name)),
        EPOCHS, st.integers(0, 50), U64, st.text(max_size=9),
    ),
    st.builds(
        data, EPOCHS, st.integers(0, 40), U64, U64, st.lists(good | odd | not_utf_8, max_size=30),
        st.none() | st.integers(0, 2**32 - 1),
    ),
    st.builds(data, EPOCHS, st.just(0), st.just(0), st.just(0), st.lists(good, min_size=1, max_size=30), st.none()),
    st.builds(wire.pack_ping, EPOCHS, U64, U64),
    st.builds(wire.pack_bye, EPOCHS),
    st.builds(lambda kind, epoch, rest: b"CR\x01" + bytes([kind]) + epoch.to_bytes(8, "little") + rest,
              st.integers(0, 20), EPOCHS, st.binary(max_size=60)),
    st.binary(max_size=60),
)  # fmt: skip
parts = frames.map(lambda frame: [frame]) | st.lists(st.binary(max_size=9), max_size=4)


class Answers:
    """The subscription's socket, as far as it sends: what it says to the honest publisher."""

    closed = False

    def __init__(self) -> None:
        self.honest: list[bytes] = []

    def send_multipart(self, sent: tuple[bytes, bytes], _flags: int) -> None:
        route, frame = sent
        wire.unpack_from_recorder(frame)  # every answer is a frame
        if route == b"honest":
            self.honest.append(frame)

    def close(self, linger: int) -> None:
        """Nothing to let go of."""


@contextlib.asynccontextmanager
async def subscribed() -> AsyncIterator[tuple[ZmqSubscription, Answers]]:
    subscription = ZmqSubscription(parse_zmq_url("zmq:///never.sock"), BusOptions(WINDOW, 4_000))
    subscription._socket = answers = Answers()
    subscription._context = type("Context", (), {"term": staticmethod(lambda: None)})
    try:
        yield subscription, answers
    finally:
        await subscription.close()


def assert_bounded(subscription: ZmqSubscription) -> None:
    """Everything that frames can put there has a bound."""
    window = subscription._window
    assert len(window.out) <= WINDOW
    assert len(window.waiting) <= WINDOW + wire.MAX_MESSAGES
    assert len(subscription._peers) == len(subscription._by_log) <= zeromq.MAX_PUBLISHERS
    known = set(subscription._peers)
    assert subscription._stalled <= known
    assert subscription._dirty <= known
    assert all(len(peer.stream.resolved) <= peer.stream.in_hand + 1 for peer in subscription._peers.values())
    told = subscription._notices
    assert len(told._malformed) <= notices.KEPT
    assert max(map(len, (told._shed, told._refused, told._unreadable))) <= notices.KEPT + 1


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.tuples(st.binary(max_size=2), parts) | st.integers(0, 30), max_size=40), st.integers(1, 60)
)
def test_hostile_frames_harm_nobody(arriving: list[Any], count: int) -> None:
    """Between them an honest publisher's messages come, all, each once and in order, and all is told as frames."""

    async def main() -> None:
        errors: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: errors.append(context))
        box = Outbox(HONEST, "honest")
        for number in range(count):
            box.put(wire.record(1, "t", 0, None, str(number).encode()))
        async with subscribed() as (subscription, answers):
            got: list[int] = []

            def speak() -> None:
                """One turn of the honest publisher."""
                subscription._take_parts([b"honest", box.ping() if box.welcome else box.hello()])
                while answers.honest:
                    box.take(wire.unpack_from_recorder(answers.honest.pop(0))[1])
                if (frame := box.next_frame()) is not None:
                    subscription._take_parts([b"honest", frame])

            async def deliver() -> None:
                some: list[BusMessage] = list(subscription._window.take())
                subscription._ask_the_stalled()
                got.extend(int(message.payload) for message in some if message.log == own)
                await subscription.ack(some)
                subscription._tell()

            speak()
            own = subscription._peers[HONEST].stream.log
            for one in arriving:
                if isinstance(one, int):
                    speak()
                    if one % 3 == 0:
                        await deliver()
                else:
                    route, frame = one
                    subscription._take_parts([b"x" + route, *frame])
                assert_bounded(subscription)
            for _ in range(60 + 4 * count):
                if not box.unresolved:
                    break
                for peer in subscription._peers.values():
                    peer.asked_s = 0.0  # the pause between two requests is over
                speak()
                await deliver()
            assert got == list(range(count))
            assert box.unresolved == 0
            subscription.take_notices()
        assert not errors

    asyncio.run(main())


async def test_ten_thousand_publishers_that_never_say_goodbye_are_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who is known is bounded, those silent longest are forgotten first; what they had sent comes, once each."""
    publishers = 10_000
    monkeypatch.setattr(zeromq, "MAX_PUBLISHERS", 128)
    async with subscribed() as (subscription, answers):
        got: list[tuple[int, int]] = []
        honest = Outbox(HONEST, "honest")
        honest.put(wire.record(1, "t", 0, None, b"held"))
        subscription._take_parts([b"honest", honest.hello()])
        honest.take(wire.unpack_from_recorder(answers.honest.pop())[1])
        subscription._take_parts([b"honest", honest.next_frame() or b""])
        (held,) = subscription._window.take()
        for number in range(publishers):
            epoch = 1_000 + number
            subscription._take_parts([b"h", wire.pack_hello(epoch, wire.Hello(0, 0, 0, 0, "short-lived"))])
            subscription._take_parts(
                [b"h", data(epoch, 0, 0, 0, [wire.record(1, "t", 0, None, b"x")] * 2, None)]
            )
            some = subscription._window.take()
            got += [(message.log, message.position) for message in some]
            await subscription.ack(some)
            if number % 500 == 0:
                assert_bounded(subscription)
        assert_bounded(subscription)
        assert len(set(got)) == len(got) == 2 * publishers
        assert len(subscription._peers) == zeromq.MAX_PUBLISHERS
        assert HONEST in subscription._peers, "who has a message in hand is not forgotten"
        await subscription.ack([held])
        answers.honest.clear()
        subscription._tell()
        for frame in answers.honest:
            honest.take(wire.unpack_from_recorder(frame)[1])
        assert honest.unresolved == 0


async def test_a_forgotten_publishers_messages_come_again_marked() -> None:
    """Of one that did not hear its acknowledgements: what it sends again says that it may be there already."""
    async with subscribed() as (subscription, answers):
        box = Outbox(HONEST, "honest")
        for number in range(3):
            box.put(wire.record(1, "t", 0, None, str(number).encode()))
        first: list[BusMessage] = []
        for again in (False, True):
            subscription._take_parts([b"honest", box.hello()])
            box.take(wire.unpack_from_recorder(answers.honest.pop())[1])
            subscription._take_parts([b"honest", box.next_frame() or b""])
            some = list(subscription._window.take())
            assert [message.redelivered for message in some] == [again] * 3
            first = first or some
            assert [message._replace(redelivered=False) for message in some] == first
            await subscription.ack(some)
            subscription._forget(subscription._peers[HONEST])
            answers.honest.clear()  # lost on the way
            box.forget()


async def test_publishers_that_find_no_room_and_go_leave_nothing_behind() -> None:
    """Who was to be asked again is forgotten with all else of it."""
    async with subscribed() as (subscription, _):
        one = [wire.record(1, "t", 0, None, b"x")]
        stalled = 0
        for epoch in range(100, 200):
            subscription._take_parts([b"h", wire.pack_hello(epoch, wire.Hello(0, 0, 0, 0, ""))])
            subscription._take_parts([b"h", data(epoch, 0, 0, 0, one, None)])
            stalled += epoch in subscription._stalled
            subscription._take_parts([b"h", wire.pack_bye(epoch)])
        assert stalled > 50
        assert len(subscription._peers) == 100 - stalled
        assert_bounded(subscription)
