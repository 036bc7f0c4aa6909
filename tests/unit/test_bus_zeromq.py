"""The recorder's end with several publishers: shares of the window, who is known, and who has to wait."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
from collections.abc import AsyncIterator

import pytest
from harness.subscribing import next_messages
from harness.waiting import PATIENCE_S, until

from recorder import Publisher
from recorder.bus import zeromq
from recorder.bus.base import BusMessage
from recorder.bus.endpoint import parse_zmq_url
from recorder.bus.options import BusOptions
from recorder.bus.zeromq import ZmqSubscription


@pytest.fixture
def url(tmp_path: pathlib.Path) -> str:
    return f"zmq://{tmp_path}/bus.sock"


@contextlib.asynccontextmanager
async def subscribed(url: str, **options: int) -> AsyncIterator[ZmqSubscription]:
    subscription = ZmqSubscription(parse_zmq_url(url), BusOptions(**options))  # type: ignore[arg-type]
    await subscription.start()
    try:
        yield subscription
    finally:
        await subscription.close()


async def test_the_window_is_shared_out(url: str) -> None:
    """However many publish, what was received and is unacknowledged stays within the window; all have a share."""
    async with subscribed(url, window_messages=90) as subscription:
        with contextlib.ExitStack() as stack:
            publishers = [
                stack.enter_context(Publisher(url, name=f"p{n}", close_timeout_s=0)) for n in range(3)
            ]
            await until(lambda: len(subscription._peers) == 3 and subscription._shares == 3)
            # What acknowledges a message says what its share is now.
            for publisher in publishers:
                publisher.publish("t", {})
            await subscription.ack(await next_messages(subscription, 3))
            for publisher in publishers:
                assert await asyncio.to_thread(publisher.flush, PATIENCE_S)
            for _ in range(200):
                for publisher in publishers:
                    publisher.publish("t", {})
            out = await next_messages(subscription, 90)
            assert len(out) == 90
            assert {sum(m.log == log for m in out) for log in {m.log for m in out}} == {30}
            await asyncio.sleep(0.1)
            assert not subscription._window.waiting
            got = len(out)
            await subscription.ack(out)
            while got < 600:
                more = await next_messages(subscription, 1)
                got += len(more)
                await subscription.ack(more)
            for publisher in publishers:
                assert await asyncio.to_thread(publisher.flush, PATIENCE_S)


async def test_what_cannot_be_taken_any_more_is_asked_for_again(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A publisher that sends beyond its window is not followed: the rest comes when there is room, once, in order."""
    monkeypatch.setattr(zeromq.ZmqSubscription, "_share", lambda self: (10_000, 2**30))
    async with subscribed(url, window_messages=20) as subscription:
        with Publisher(url, name="p") as publisher:
            publisher.publish("t", {})
            await subscription.ack(await next_messages(subscription, 1))
            assert await asyncio.to_thread(publisher.flush, PATIENCE_S)
            for number in range(3_000):
                publisher.publish_raw("t", str(number).encode())
            await until(lambda: publisher.stats().sent == 3_001 and bool(subscription._stalled))
            assert len(subscription._window.waiting) <= 20 + 256
            got: list[int] = []
            while len(got) < 3_000:
                more = await next_messages(subscription, 1)
                got += [int(message.payload) for message in more]
                await subscription.ack(more)
            assert got == list(range(3_000))
            assert await asyncio.to_thread(publisher.flush, PATIENCE_S)


async def test_a_silent_publisher_is_forgotten_and_welcome_again(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its state is let go when it has nothing in hand; when it speaks again its messages go on where they were."""
    monkeypatch.setattr(zeromq, "IDLE_S", 0.1)
    monkeypatch.setattr(zeromq, "TICK_S", 0.05)
    async with subscribed(url) as subscription:
        with Publisher(url, name="p") as publisher:
            publisher.publish("t", {})
            (first,) = await next_messages(subscription, 1)
            await asyncio.sleep(0.3)
            assert subscription._peers, "it has a message in hand"
            await subscription.ack([first])
            assert await asyncio.to_thread(publisher.flush, PATIENCE_S)
            await until(lambda: not subscription._peers)
            publisher.publish("t", {})
            (second,) = await next_messages(subscription, 1)
            assert (second.log, second.position) == (first.log, 1)
            await subscription.ack([second])
            assert await asyncio.to_thread(publisher.flush, PATIENCE_S)


async def test_a_publisher_that_says_goodbye_is_forgotten_at_once(url: str) -> None:
    """A thousand short-lived publishers leave no state behind."""
    async with subscribed(url) as subscription:
        taking = asyncio.create_task(take_all(subscription))
        for _ in range(20):
            publisher = Publisher(url, name="p")
            publisher.publish("t", {})
            assert await asyncio.to_thread(publisher.close, PATIENCE_S)
        await until(lambda: not subscription._peers)
        assert not subscription._by_log
        await subscription.close()
        assert len({message.log for message in await taking}) == 20


async def take_all(subscription: ZmqSubscription) -> list[BusMessage]:
    got: list[BusMessage] = []
    async for messages in subscription.messages():
        got += messages
        await subscription.ack(messages)
    return got


async def test_there_is_a_bound_to_who_is_known(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more takes the place of an idle one; with messages of all in hand it waits, and that is told."""
    monkeypatch.setattr(zeromq, "MAX_PUBLISHERS", 2)
    async with subscribed(url) as subscription:
        with contextlib.ExitStack() as stack:
            first, second, third = (
                stack.enter_context(Publisher(url, name=f"p{n}", close_timeout_s=0)) for n in range(3)
            )
            held = []
            for publisher in (first, second):
                publisher.publish("t", {})
                held += await next_messages(subscription, 1)
            third.publish("t", {})
            notices = []

            def refused() -> bool:
                notices.extend(subscription.take_notices())
                return bool(notices)

            await until(refused)
            assert {n.kind for n in notices} == {"bus_refused"}
            assert len(subscription._peers) == 2
            assert third.stats().acked == 0
            await subscription.ack(held)
            (message,) = await next_messages(subscription, 1)
            await subscription.ack([message])
            assert await asyncio.to_thread(third.flush, PATIENCE_S)
            assert len(subscription._peers) == 2


async def test_reading_goes_on_after_an_error_of_who_takes(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One frame that cannot be dealt with does not leave those behind it lying."""
    errors: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: errors.append(context))
    take = ZmqSubscription._take_parts

    def fail_once(self: ZmqSubscription, parts: list[bytes]) -> None:
        if not errors:
            raise RuntimeError("once")
        take(self, parts)

    monkeypatch.setattr(ZmqSubscription, "_take_parts", fail_once)
    async with subscribed(url, window_messages=2**40) as subscription:
        with Publisher(url, name="p") as publisher:
            publisher.publish("t", {})
            await subscription.ack(await next_messages(subscription, 1))
            assert await asyncio.to_thread(publisher.flush, PATIENCE_S)
    assert len(errors) == 1
