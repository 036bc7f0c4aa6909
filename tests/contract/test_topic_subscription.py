"""The laws of a subscription, on somebody's plain ZeroMQ PUB socket, at most once; and what is its own."""

from __future__ import annotations

import asyncio
import pathlib
import time
from collections.abc import Iterator

import pytest
import zmq
from harness.subscribing import next_messages
from subscription_contract import AtMostOnceContract, started

from recorder.bus.base import Encoding, Guarantee, Subscription
from recorder.bus.errors import BusUrlError
from recorder.bus.open import open_subscription
from recorder.bus.options import BusOptions
from recorder.bus.topics import TopicSubscription

PATIENCE_S = 20.0


class Topics:
    """The bus under test: an XPUB socket, which sees who subscribes, so that the first message waits for that."""

    def __init__(self, path: pathlib.Path):
        self.path = path
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.XPUB)
        self.socket.setsockopt(zmq.XPUB_VERBOSE, 1)
        self.socket.bind(f"ipc://{path}")
        self.subscribed = 0

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        correlation_id: str | None = None,
        encoding: Encoding = Encoding.JSON,
    ) -> bool:
        self.wait_for_somebody()
        self.socket.send_multipart([topic.encode(), payload])
        return True

    def wait_for_somebody(self) -> None:
        """The subscription's socket connects by a thread of ZeroMQ's own: no loop need run meanwhile."""
        end = time.monotonic() + PATIENCE_S
        while not self.subscribed:
            assert time.monotonic() < end
            if self.socket.poll(50):
                self.subscribed += 1 if self.socket.recv()[:1] == b"\x01" else 0

    def subscription(
        self, *, window_messages: int = 8_192, window_bytes: int = 64 * 1024 * 1024
    ) -> Subscription:
        return open_subscription(f"zmq+sub://{self.path}", BusOptions(window_messages, window_bytes))

    def unacknowledged(self) -> int:
        return 0

    def fill_bytes(self) -> int:
        return 0

    def close(self) -> None:
        self.socket.close(linger=0)
        self.context.term()


@pytest.fixture
def bus(tmp_path: pathlib.Path) -> Iterator[Topics]:
    made = Topics(tmp_path / "pub.sock")
    yield made
    made.close()


class TestTopicSubscription(AtMostOnceContract):
    """All laws."""


def test_it_says_that_it_promises_little(bus: Topics) -> None:
    """At most once. The service tells it in the line that says that it has subscribed."""
    assert bus.subscription().guarantee is Guarantee.AT_MOST_ONCE


async def test_only_its_topics_come(bus: Topics) -> None:
    """Topics are prefixes, as ZeroMQ has them; the encoding is the URL's word."""
    url = f"zmq+sub://{bus.path}?topics=orders,fills&encoding=msgpack"
    async with started(open_subscription(url)) as subscription:
        for topic in ("orders", "other", "fills.binance"):
            bus.publish(topic, b"x")
        got = await next_messages(subscription, 2)
    assert [(m.topic, m.encoding) for m in got] == [
        ("orders", Encoding.MSGPACK),
        ("fills.binance", Encoding.MSGPACK),
    ]


async def test_each_subscription_is_another_log(bus: Topics) -> None:
    """Nobody knows what a PUB socket sent before: positions begin anew, under another identity."""
    logs = set()
    for _ in range(2):
        bus.subscribed = 0
        async with started(bus.subscription()) as subscription:
            bus.publish("t", b"x")
            (message,) = await next_messages(subscription, 1)
            assert message.position == 0
            logs.add(message.log)
    assert len(logs) == 2


async def test_little_is_read_ahead(bus: Topics) -> None:
    """While nobody takes what was read it stops reading; when somebody does it goes on, acknowledged or not."""
    async with started(bus.subscription(window_messages=10)) as subscription:
        assert isinstance(subscription, TopicSubscription)
        for number in range(200):
            bus.publish("t", str(number).encode())
        out = await next_messages(subscription, 10)
        # The loop reads whatever it is going to read before it comes back to us with nothing left to do.
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(subscription._window.waiting) <= 10
        got = len(out)
        stream = subscription.messages()
        async with asyncio.timeout(PATIENCE_S):
            while got < 200:
                got += len(await anext(stream))
        await stream.aclose()  # type: ignore[attr-defined]


async def test_what_is_no_message_is_told_with_its_bytes(bus: Topics) -> None:
    """One part, three parts, a topic that is no text."""
    async with started(bus.subscription()) as subscription:
        bus.wait_for_somebody()
        for parts in ([b"one"], [b"a", b"b", b"c"], [b"\xff", b"x"]):
            bus.socket.send_multipart(parts)
        bus.publish("t", b"x")
        await next_messages(subscription, 1)
        notices = subscription.take_notices()
        assert [n.payload for n in notices] == [b"one", b"abc", b"\xffx"]
        assert {n.kind for n in notices} == {"bus_malformed"}


def test_its_url_is_checked() -> None:
    """One line each."""
    for url, says in {
        "zmq+sub://127.0.0.1:1?topic=a": "no such option: topic; there are topics, encoding",
        "zmq+sub://127.0.0.1:1?encoding=xml": "write encoding=json or encoding=msgpack",
        "zmq+sub://127.0.0.1": r"write zmq\+sub://127.0.0.1:5560",
    }.items():
        with pytest.raises(BusUrlError, match=says):
            open_subscription(url)
