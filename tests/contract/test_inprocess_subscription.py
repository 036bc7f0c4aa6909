"""The laws of a subscription, on the bus inside the process; and what is its own."""

from __future__ import annotations

import asyncio
import sys
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from harness.subscribing import next_messages
from harness.waiting import until
from subscription_contract import AtLeastOnceContract, started

from recorder.bus import inprocess
from recorder.bus.base import Encoding, Subscription
from recorder.bus.errors import BusUnavailable, BusUrlError
from recorder.bus.inprocess import InProcessBus
from recorder.bus.open import open_subscription
from recorder.bus.options import BusOptions

BUFFER_BYTES = 4_000_000


class InProcess:
    """The bus under test."""

    def __init__(self) -> None:
        self.bus = InProcessBus("contract", buffer_bytes=BUFFER_BYTES)

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        correlation_id: str | None = None,
        encoding: Encoding = Encoding.JSON,
    ) -> bool:
        return self.bus.publish(topic, payload, encoding, correlation_id=correlation_id)

    def subscription(
        self, *, window_messages: int = 8_192, window_bytes: int = 64 * 1024 * 1024
    ) -> Subscription:
        return open_subscription("inproc://contract", BusOptions(window_messages, window_bytes))

    def unacknowledged(self) -> int:
        return self.bus.waiting

    def fill_bytes(self) -> int:
        return BUFFER_BYTES * 2

    def close(self) -> None:
        self.bus.close()


@pytest.fixture
def bus() -> Iterator[InProcess]:
    made = InProcess()
    yield made
    made.close()


class TestInProcessSubscription(AtLeastOnceContract):
    """All laws."""


async def test_many_threads_publish_and_nothing_is_lost_or_doubled(bus: InProcess) -> None:
    """Publishing is safe from any thread; each thread's own messages keep their order."""

    def publish(thread: int) -> None:
        for number in range(2_000):
            assert bus.publish(str(thread), str(number).encode())

    async with started(bus.subscription()) as subscription:
        threads = [threading.Thread(target=publish, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        got = await next_messages(subscription, 8_000)
        for thread in threads:
            thread.join()
    assert [message.position for message in got] == list(range(8_000))
    for thread_ in range(4):
        own = [int(message.payload) for message in got if message.topic == str(thread_)]
        assert own == list(range(2_000))


async def test_one_subscription_at_a_time(bus: InProcess) -> None:
    """A second one is refused in one line; a closed one is not started again."""
    async with started(bus.subscription()) as first:
        with pytest.raises(BusUnavailable, match="has a subscription"):
            await bus.subscription().start()
    with pytest.raises(BusUnavailable, match="was closed"):
        await first.start()
    async with started(bus.subscription()):
        pass


async def test_publishing_goes_on_when_the_subscribers_loop_has_ended(bus: InProcess) -> None:
    """A loop that ended without closing its subscription is no error of the publisher's."""
    subscription = bus.subscription()
    thread = threading.Thread(target=lambda: asyncio.run(subscription.start()))
    thread.start()
    await asyncio.to_thread(thread.join)
    assert bus.publish("t", b"1")
    await until(lambda: bus.unacknowledged() == 1)


def test_a_name_nobody_has_made_is_refused() -> None:
    """A URL of no bus says what to do, and a name is taken once."""
    with pytest.raises(BusUrlError, match="no InProcessBus of that name; make one first"):
        open_subscription("inproc://nobody")
    with pytest.raises(BusUrlError, match="begins with one of inproc://"):
        open_subscription("carrier-pigeon://x")
    held = InProcessBus("once")
    with pytest.raises(ValueError, match="there is a bus inproc://once"):
        InProcessBus("once")
    del held
    InProcessBus("once")


async def test_a_signal_handler_that_publishes_in_the_middle_of_a_call_doubles_no_position(
    bus: InProcess,
) -> None:
    """Wherever it interrupts what its own thread does on the bus: every message is somebody, and comes."""
    left = handled = 0

    def interrupt(frame: types.FrameType, event: str, _argument: object) -> Any:
        nonlocal left, handled
        if frame.f_code.co_filename != inprocess.__file__:
            return None
        if event == "line":
            left -= 1
            if left == 0:  # its own lines come after that
                handled += 1
                bus.publish("t", b"handler")
        return interrupt

    def interrupted(call: Callable[[], Any]) -> Any:
        """The call, with a signal at some line of it; then at the next one, until it has no more lines."""
        nonlocal left
        found: list[Any] = []
        while left <= 0:
            left = len(found) + 1
            sys.settrace(interrupt)
            try:
                found.append(call())
            finally:
                sys.settrace(None)
        left = 0
        return found

    published = len(interrupted(lambda: bus.bus.publish("t", b"own")))
    got = [message for some in interrupted(bus.bus._take) for message in some]
    got += bus.bus._take()
    assert handled > 20
    assert [message.position for message in got] == list(range(published + handled))
    assert [message.payload for message in got].count(b"handler") == handled
    before = bus.unacknowledged()
    handled = 0
    calls = len(interrupted(lambda: bus.bus._let_go(got[:1])))
    assert bus.unacknowledged() == before - calls + handled
