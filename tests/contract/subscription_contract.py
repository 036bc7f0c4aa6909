"""What every subscription must do. A test module makes a subclass and gives it a `bus` fixture: a `BusUnderTest`.

Each test states a law that the service builds on.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

import pytest
from harness.subscribing import next_messages
from harness.waiting import PATIENCE_S, until

from recorder.bus.base import BusMessage, Encoding, Guarantee, Subscription
from recorder.bus.errors import BusUnavailable


class BusUnderTest(Protocol):
    """A bus, and somebody to publish on it."""

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        correlation_id: str | None = None,
        encoding: Encoding = Encoding.JSON,
    ) -> bool:
        """Publish; False if it was shed. A bus whose encoding is its URL's ignores that of the message."""

    def subscription(
        self, *, window_messages: int = 8_192, window_bytes: int = 64 * 1024 * 1024
    ) -> Subscription:
        """A new subscription to it, not started. One that was started before is closed."""

    def unacknowledged(self) -> int:
        """Messages that were published, not shed, and of which no acknowledgement has come back."""

    def fill_bytes(self) -> int:
        """Bytes that are surely too many for what it buffers."""

    def close(self) -> None:
        """Let go of everything."""


@contextlib.asynccontextmanager
async def started(subscription: Subscription) -> AsyncIterator[Subscription]:
    """A subscription between `start` and `close`."""
    await subscription.start()
    try:
        yield subscription
    finally:
        await subscription.close()


def identities(messages: Sequence[BusMessage]) -> list[tuple[int, int]]:
    return [(message.log, message.position) for message in messages]


class SubscriptionContract:
    """The laws of every bus."""

    async def test_a_message_comes_as_it_was_published(self, bus: BusUnderTest) -> None:
        """Topic, every byte of the payload, encoding and correlation id are the publisher's; the time is of then."""
        payload = bytes(range(256))
        async with started(bus.subscription()) as subscription:
            before = time.time_ns()
            assert bus.publish("orders", payload, correlation_id="c-1")
            assert bus.publish("fills", b"")
            first, second = await next_messages(subscription, 2)
        assert (first.topic, first.payload, first.encoding) == ("orders", payload, Encoding.JSON)
        assert (second.topic, second.payload) == ("fills", b"")
        if subscription.guarantee is Guarantee.AT_LEAST_ONCE:
            assert (first.correlation_id, second.correlation_id) == ("c-1", None)
        assert before <= first.ts_ns <= second.ts_ns <= time.time_ns()
        assert not first.redelivered

    async def test_messages_of_a_log_come_in_order_and_each_is_somebody(self, bus: BusUnderTest) -> None:
        """Within one log positions rise by one from 0, in the order of publishing."""
        async with started(bus.subscription()) as subscription:
            for number in range(1_000):
                assert bus.publish("t", str(number).encode())
            got = await next_messages(subscription, 1_000)
            assert [message.payload for message in got] == [str(number).encode() for number in range(1_000)]
            assert len({message.log for message in got}) == 1
            assert [message.position for message in got] == list(range(1_000))

    async def test_a_closed_subscription_is_not_started_again(self, bus: BusUnderTest) -> None:
        """It says so as of a bus that cannot be had; nor does it tell anything, before or after."""
        subscription = bus.subscription()
        assert not subscription.take_notices()
        await subscription.start()
        await subscription.close()
        with pytest.raises(BusUnavailable, match="open another one"):
            await subscription.start()
        await subscription.close()
        assert not subscription.take_notices()

    async def test_unknown_acknowledgements_are_ignored(self, bus: BusUnderTest) -> None:
        """Of a message of nobody's, of one not delivered, twice, of none: nothing happens."""
        async with started(bus.subscription()) as subscription:
            bus.publish("t", b"1")
            (message,) = await next_messages(subscription, 1)
            await subscription.ack([message._replace(log=message.log ^ 1), message._replace(position=2**51)])
            await subscription.ack([])
            await subscription.ack([message, message])
            await subscription.ack([message])
            bus.publish("t", b"2")
            (second,) = await next_messages(subscription, 1)
            assert second.payload == b"2"

    async def test_close_ends_the_messages_and_may_be_called_again(self, bus: BusUnderTest) -> None:
        """A consumer that waits for messages is let go; closing again, or before starting, does nothing."""
        subscription = bus.subscription()
        await subscription.start()
        waiting = asyncio.ensure_future(anext(subscription.messages(), None))
        await asyncio.sleep(0)
        await subscription.close()
        assert await asyncio.wait_for(waiting, PATIENCE_S) is None
        await subscription.close()
        assert await anext(subscription.messages(), None) is None
        await subscription.ack([])
        assert subscription.take_notices() is not None
        await bus.subscription().close()

    async def test_it_says_its_name_and_its_guarantee(self, bus: BusUnderTest) -> None:
        """A name for logs, on one line, and one of the guarantees."""
        subscription = bus.subscription()
        assert "://" in subscription.name
        assert "\n" not in subscription.name
        assert isinstance(subscription.guarantee, Guarantee)


class AtLeastOnceContract(SubscriptionContract):
    """The laws of a bus that delivers again what was not acknowledged."""

    async def test_no_more_than_a_window_is_out(self, bus: BusUnderTest) -> None:
        """What is delivered and unacknowledged never exceeds the window, and an acknowledgement lets more come."""
        async with started(bus.subscription(window_messages=10)) as subscription:
            for number in range(25):
                assert bus.publish("t", str(number).encode())
            out = await next_messages(subscription, 10)
            assert len(out) == 10
            stream = subscription.messages()
            more = asyncio.ensure_future(anext(stream))
            done, _ = await asyncio.wait([more], timeout=0.2)
            assert not done, "messages beyond the window"
            await subscription.ack(out[:4])
            got = list(await asyncio.wait_for(more, PATIENCE_S))
            assert 1 <= len(got) <= 4
            await subscription.ack([*out[4:], *got])
            async with asyncio.timeout(PATIENCE_S):
                while len(got) < 15:
                    some = await anext(stream)
                    await subscription.ack(some)
                    got += some
            await stream.aclose()  # type: ignore[attr-defined]
            assert [message.position for message in got] == list(range(10, 25))

    async def test_no_more_than_a_window_of_bytes_is_out(self, bus: BusUnderTest) -> None:
        """The bound in bytes holds as the one in messages does, also of what comes together."""
        size, window = 10_000, 45_000
        async with started(bus.subscription(window_bytes=window)) as subscription:
            for _ in range(30):
                assert bus.publish("t", bytes(size))
            async with contextlib.aclosing(subscription.messages()) as stream:  # type: ignore[type-var]
                got = list(await asyncio.wait_for(anext(stream), PATIENCE_S))
                more = asyncio.ensure_future(anext(stream))
                while not (await asyncio.wait([more], timeout=0.2))[1]:
                    got += more.result()
                    more = asyncio.ensure_future(anext(stream))
                assert 1 <= len(got) <= window // size
                await subscription.ack(got)
                async with asyncio.timeout(PATIENCE_S):
                    some = await more
                    while len(got) + len(some) < 30:
                        assert 1 <= len(some) <= window // size
                        await subscription.ack(some)
                        got += some
                        some = await anext(stream)
            assert [message.position for message in [*got, *some]] == list(range(30))

    async def test_only_what_is_named_and_was_delivered_is_acknowledged(self, bus: BusUnderTest) -> None:
        """Neither the same position of another log, nor what has not been delivered, nor what came before it."""
        async with started(bus.subscription(window_messages=3)) as first:
            for number in range(6):
                assert bus.publish("t", str(number).encode())
            got = await next_messages(first, 3)
            await first.ack([message._replace(log=message.log ^ 1) for message in got])
            await first.ack([got[2]._replace(position=position) for position in range(3, 6)])
            await first.ack([got[1]])
            await until(lambda: bus.unacknowledged() == 5)
            for _ in range(20):  # by now there is room for the next one, which may have been received
                await first.ack([got[2]._replace(position=3)])
                await asyncio.sleep(0.01)
            assert [message.position for message in await next_messages(first, 1)] == [3]
        async with started(bus.subscription()) as second:
            again = await next_messages(second, 5)
            assert [message.position for message in again] == [0, 2, 3, 4, 5]
            assert [message.redelivered for message in again[:3]] == [True] * 3
            assert bus.unacknowledged() == 5

    async def test_what_waits_when_it_closes_is_the_next_ones(self, bus: BusUnderTest) -> None:
        """After closing nothing is delivered, though it had been received; it comes to the next one, in order."""
        subscription = bus.subscription(window_messages=5)
        async with started(subscription):
            for number in range(12):
                assert bus.publish("t", str(number).encode())
            stream = subscription.messages()
            async with asyncio.timeout(PATIENCE_S):
                got = list(await anext(stream))
                await subscription.ack(got)
                got += await anext(stream)
            await subscription.close()
            assert await asyncio.wait_for(anext(stream, None), PATIENCE_S) is None
            assert await anext(subscription.messages(), None) is None
        async with started(bus.subscription()) as following:
            left = bus.unacknowledged()
            assert 7 <= left <= 12
            after = await next_messages(following, left)
            assert [message.position for message in after] == list(range(12 - left, 12))
            await following.ack(after)
            await until(lambda: bus.unacknowledged() == 0)

    async def test_within_a_subscription_each_comes_once(self, bus: BusUnderTest) -> None:
        """However long it stays unacknowledged, and whatever is acknowledged around it."""
        async with started(bus.subscription(window_messages=50)) as subscription:
            held: list[BusMessage] = []
            got: list[BusMessage] = []
            async with (
                asyncio.timeout(PATIENCE_S),
                contextlib.aclosing(subscription.messages()) as stream,  # type: ignore[type-var]
            ):
                while len(got) < 400:
                    for _ in range(40):
                        assert bus.publish("t", b"x")
                    due = len(got) + 40
                    while len(got) < due:
                        some = await anext(stream)
                        got += some
                        held += some[:1]
                        await subscription.ack(some[1:])
                        if len(held) > 20:
                            await subscription.ack([held.pop(7)])
            assert [message.position for message in got] == list(range(400))
            assert not any(message.redelivered for message in got)
            await until(lambda: bus.unacknowledged() == len(held))

    async def test_an_encoding_is_the_publishers(self, bus: BusUnderTest) -> None:
        """Message by message, and at a second delivery too."""
        for _ in range(2):
            async with started(bus.subscription()) as subscription:
                if not bus.unacknowledged():
                    assert bus.publish("t", b"{}")
                    assert bus.publish("t", b"\x80", encoding=Encoding.MSGPACK)
                got = await next_messages(subscription, 2)
            assert [message.encoding for message in got] == [Encoding.JSON, Encoding.MSGPACK]

    async def test_what_was_not_acknowledged_comes_again_and_says_so(self, bus: BusUnderTest) -> None:
        """A new subscription gets it with the same identity, content and time, in order, and marked."""
        async with started(bus.subscription()) as first:
            for number in range(100):
                bus.publish("t", str(number).encode(), correlation_id=str(number))
            before = await next_messages(first, 100)
            await first.ack(before[:30])
            await first.ack(before[50:60])
            await until(lambda: bus.unacknowledged() == 60)
        async with started(bus.subscription()) as second:
            bus.publish("t", b"new")
            after = await next_messages(second, 61)
            expected = [*before[30:50], *before[60:]]
            assert [message._replace(redelivered=False) for message in after[:-1]] == expected
            assert all(message.redelivered for message in after[:-1])
            assert after[-1].position == 100
            bus.publish("t", b"newer")
            (newer,) = await next_messages(second, 1)
            assert (newer.position, newer.redelivered) == (101, False)
            await second.ack([*after, newer])
            await until(lambda: bus.unacknowledged() == 0)

    async def test_what_was_acknowledged_never_comes_again(self, bus: BusUnderTest) -> None:
        """Through any number of subscriptions, once its acknowledgement is back with the publisher."""
        seen: list[int] = []
        for turn in range(4):
            async with started(bus.subscription()) as subscription:
                for _ in range(10):
                    bus.publish("t", b"x")
                before = bus.unacknowledged()
                got = await next_messages(subscription, before)
                assert not set(seen) & {message.position for message in got}
                done = got[turn % 2 :: 2]
                await subscription.ack(done)
                seen += [message.position for message in done]
                left = before - len(done)
                await until(functools.partial(lambda left: bus.unacknowledged() == left, left))

    async def test_acknowledgements_of_a_closed_subscription_change_nothing(self, bus: BusUnderTest) -> None:
        """What it left unacknowledged belongs to the next one."""
        async with started(bus.subscription()) as first:
            bus.publish("t", b"1")
            got = await next_messages(first, 1)
        await first.ack(got)
        async with started(bus.subscription()) as second:
            again = await next_messages(second, 1)
            assert identities(again) == identities(got)
            assert bus.unacknowledged() == 1

    async def test_what_waits_for_a_first_subscription_comes(self, bus: BusUnderTest) -> None:
        """Messages published before there is a recorder are delivered when there is one."""
        for number in range(10):
            assert bus.publish("t", str(number).encode())
        async with started(bus.subscription()) as subscription:
            got = await next_messages(subscription, 10)
            assert [message.payload for message in got] == [str(number).encode() for number in range(10)]

    async def test_a_full_buffer_sheds_and_every_shed_message_is_told(self, bus: BusUnderTest) -> None:
        """Without acknowledgements the publisher sheds at its bound; what it kept comes, what it shed is told."""
        async with started(bus.subscription()) as subscription:
            size = 64 * 1024
            offered = bus.fill_bytes() // size + 1
            kept = sum(bus.publish("t", bytes(size)) for _ in range(offered))
            assert kept < offered
            told = 0
            got = 0
            stream = subscription.messages()
            async with asyncio.timeout(PATIENCE_S):
                while got < kept:
                    some = await anext(stream)
                    got += len(some)
                    await subscription.ack(some)
                    told += sum(n.messages for n in subscription.take_notices() if n.kind == "bus_overflow")
                while told < offered - kept:
                    told += sum(n.messages for n in subscription.take_notices() if n.kind == "bus_overflow")
                    await asyncio.sleep(0.01)
            await stream.aclose()  # type: ignore[attr-defined]
            assert (got, told) == (kept, offered - kept)
            assert not subscription.take_notices(), "each is told once"
            await until(lambda: bus.unacknowledged() == 0)
            assert bus.publish("t", b"room again")

    async def test_one_message_larger_than_the_window_comes_alone(self, bus: BusUnderTest) -> None:
        """A window in bytes never stops the bus for good."""
        async with started(bus.subscription(window_bytes=20_000)) as subscription:
            bus.publish("t", bytes(100_000))
            bus.publish("t", b"small")
            (big,) = await next_messages(subscription, 1)
            assert len(big.payload) == 100_000
            await subscription.ack([big])
            (small,) = await next_messages(subscription, 1)
            assert small.payload == b"small"


class AtMostOnceContract(SubscriptionContract):
    """The laws of a bus that delivers nothing again."""

    async def test_nothing_waits_for_an_acknowledgement(self, bus: BusUnderTest) -> None:
        """Many windows come without one, in order, at most a window at a time; one that comes late changes nothing."""
        async with started(bus.subscription(window_messages=10)) as subscription:
            for number in range(250):
                assert bus.publish("t", str(number).encode())
            got: list[BusMessage] = []
            stream = subscription.messages()
            async with asyncio.timeout(PATIENCE_S):
                while len(got) < 250:
                    some = await anext(stream)
                    assert 1 <= len(some) <= 10
                    got += some
            await stream.aclose()  # type: ignore[attr-defined]
            assert [message.position for message in got] == list(range(250))
            await subscription.ack(got)
            assert bus.publish("t", b"last")
            (last,) = await next_messages(subscription, 1)
            assert last.payload == b"last"
