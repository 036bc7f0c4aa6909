"""The ZeroMQ bus among real processes that die, and connections that break: what was published and not shed arrives."""

from __future__ import annotations

import asyncio
import os
import pathlib
import random
import signal
import threading
import time
from collections import defaultdict
from typing import Self

import psutil
import pytest
from harness.bus_processes import PublisherProcess, SubscriberProcess, Taken, taken, until
from harness.ports import free_port
from harness.tcp_proxy import TcpProxy

from recorder import Publisher
from recorder.bus.open import open_subscription
from recorder.bus.options import BusOptions

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(params=["tcp", "ipc"])
def url(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> str:
    return f"zmq://127.0.0.1:{free_port()}" if request.param == "tcp" else f"zmq://{tmp_path}/bus.sock"


class Numbers:
    """Numbers published from another thread, until `finish`, which waits until all of them are acknowledged."""

    def __init__(self, url: str, rate: float = 4_000.0):
        self.publisher = Publisher(url, name="p")
        self._rate = rate
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._publish)

    def _publish(self) -> None:
        start, number = time.monotonic(), 0
        while not self._ended.is_set():
            while number < (time.monotonic() - start) * self._rate:
                assert self.publisher.publish_raw("t", str(number).encode())
                number += 1
            time.sleep(0.001)

    def finish(self) -> int:
        """How many there were."""
        self._ended.set()
        self._thread.join()
        assert self.publisher.flush(60), self.publisher.stats()
        return self.publisher.stats().accepted

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self.publisher.close(0)


def assert_all_arrived(messages: list[Taken], accepted: int) -> None:
    """Every number arrived, is always the same message, in order within a run; what is there twice says so."""
    identities = defaultdict(set)
    seen: set[int] = set()
    for message in messages:
        identities[message.number].add((message.log, message.position))
        assert message.number not in seen or message.redelivered, f"{message} was there before, unmarked"
        seen.add(message.number)
    assert seen == set(range(accepted))
    assert all(len(who) == 1 for who in identities.values())
    assert all(message.position == message.number for message in messages)


def whole_lines(file: pathlib.Path) -> None:
    """A kill in the middle of a line leaves a torn one, as a log's torn tail: it was not acknowledged."""
    text = file.read_text()
    file.write_text(text[: text.rfind("\n") + 1])


def test_a_recorder_that_is_killed_again_and_again_misses_nothing(url: str, tmp_path: pathlib.Path) -> None:
    """SIGKILL of the recorder's end at random moments: the next one gets all that was not acknowledged, marked."""
    file = tmp_path / "taken"
    rng = random.Random(7)
    with Numbers(url) as numbers:
        for _ in range(5):
            before = len(taken(file))
            with SubscriberProcess(url, file):
                until(lambda before=before: len(taken(file)) > before + 200)
                time.sleep(rng.random() * 0.2)
            whole_lines(file)
        with SubscriberProcess(url, file) as last:
            accepted = numbers.finish()
            last.finish()
    assert_all_arrived(taken(file), accepted)


def test_a_publisher_that_is_killed_loses_nothing_that_was_taken(url: str, tmp_path: pathlib.Path) -> None:
    """What came is a run of its messages without a hole, up to the last that it published; its successor of the same
    name is another log."""
    file = tmp_path / "taken"
    published = []

    def by_log() -> list[list[int]]:
        numbers = defaultdict(list)
        for message in taken(file):
            assert not message.redelivered or message.position == message.number
            numbers[message.log].append(message.number)
        return list(numbers.values())

    with SubscriberProcess(url, file) as subscriber:
        for turn in range(3):
            before = len(taken(file))
            with PublisherProcess(url) as publisher:
                until(lambda before=before: len(taken(file)) > before + 300)
            published.append(publisher.published)
            # One more may have been taken, whose count was cut off.
            until(lambda turn=turn: len(by_log()[turn]) >= published[turn])
        with PublisherProcess(url) as publisher:
            until(lambda: len(by_log()) == 4)
            stats = publisher.finish()
            published.append(publisher.published)
        assert stats["accepted"] == stats["acked"]
        subscriber.finish()
    assert len(by_log()) == 4
    for numbers, least in zip(by_log(), published, strict=True):
        assert numbers == list(range(len(numbers)))
        assert least <= len(numbers) <= least + 1
    assert len(numbers) == stats["accepted"]


def test_connections_that_break_lose_and_double_nothing(tmp_path: pathlib.Path) -> None:
    """Cut at once, cut in the middle of a frame, half open, silent, refused: one run of the recorder sees each message
    once, in order."""
    file = tmp_path / "taken"
    with SubscriberProcess("zmq://127.0.0.1:0", file) as subscriber:
        port = int(subscriber.url.rpartition(":")[2])
        with (
            TcpProxy(("127.0.0.1", port)) as proxy,
            Numbers(f"zmq://127.0.0.1:{proxy.port}", 2_000.0) as numbers,
        ):

            def more() -> None:
                before = len(taken(file))
                until(lambda: len(taken(file)) > before + 100)

            more()
            for turn in range(4):
                proxy.cut()
                more()
                cuts = proxy.cuts
                proxy.cut_after(1_000 + 777 * turn, "to_server" if turn % 2 else "to_client")
                until(lambda cuts=cuts: proxy.cuts > cuts)
                more()
            proxy.refuse()
            proxy.cut()
            time.sleep(0.3)
            proxy.pass_on()
            more()
            proxy.black_hole()
            time.sleep(1.5)
            proxy.pass_on()
            more()
            proxy.half_open("server")
            more()
            accepted = numbers.finish()
            assert proxy.cuts >= 8
        subscriber.finish()
    messages = taken(file)
    assert [message.number for message in messages] == list(range(accepted))
    assert [message.position for message in messages] == list(range(accepted))


async def test_a_subscriber_that_acknowledges_nothing_bounds_memory_and_every_message_is_counted(
    url: str,
) -> None:
    """The publisher sheds beyond its buffer, exactly what it counts and tells; afterwards all the rest arrives."""
    buffer_bytes, size, window = 8 * 1024 * 1024, 10_000, 100
    subscription = open_subscription(url, BusOptions(window_messages=window))
    await subscription.start()
    publisher = Publisher(url, name="p", buffer_bytes=buffer_bytes)
    try:
        stream = subscription.messages()
        publisher.publish_raw("t", bytes(size))
        held = list(await asyncio.wait_for(anext(stream), 20))
        process = psutil.Process()
        before = process.memory_info().rss
        results = [publisher.publish_raw("t", bytes(size)) for _ in range(10_000)]
        stats = publisher.stats()
        assert stats.accepted == 1 + sum(results)
        assert stats.shed == results.count(False)
        assert stats.shed > 8_000
        assert stats.accepted == stats.acked + stats.waiting
        assert stats.waiting_bytes <= buffer_bytes
        # 100 MB were offered.
        assert process.memory_info().rss - before < 4 * buffer_bytes
        got, told = len(held), 0
        await subscription.ack(held)
        async with asyncio.timeout(60):
            while got < stats.accepted:
                some = await anext(stream)
                got += len(some)
                assert len(some) <= window
                await subscription.ack(some)
            while told < stats.shed:
                told += sum(n.messages for n in subscription.take_notices() if n.kind == "bus_overflow")
                await asyncio.sleep(0.01)
        assert (got, told) == (stats.accepted, stats.shed)
        assert await asyncio.to_thread(publisher.flush, 20)
        await stream.aclose()  # type: ignore[attr-defined]
    finally:
        publisher.close(0)
        await subscription.close()


async def test_shed_messages_are_told_to_the_recorder_that_comes_after(tmp_path: pathlib.Path) -> None:
    """What a publisher shed while there was no recorder is told once, also when the recorder then restarts."""
    url = f"zmq://{tmp_path}/bus.sock"
    with Publisher(url, name="p", buffer_bytes=100_000, close_timeout_s=0, outlive_s=0) as publisher:
        for _ in range(50):
            publisher.publish_raw("t", bytes(10_000))
        shed = publisher.stats().shed
        assert shed == 41
        told = []
        for _ in range(2):
            subscription = open_subscription(url)
            await subscription.start()
            try:
                stream = subscription.messages()
                left = publisher.stats().waiting
                while left:
                    some = await asyncio.wait_for(anext(stream), 20)
                    left -= len(some)
                    await subscription.ack(some)
                assert await asyncio.to_thread(publisher.flush, 20)
                await stream.aclose()  # type: ignore[attr-defined]
                told += [n.messages for n in subscription.take_notices() if n.kind == "bus_overflow"]
            finally:
                await subscription.close()
            publisher.publish_raw("t", b"more")
        assert sum(told) == shed


@pytest.mark.slow
def test_a_side_that_stands_still_goes_on_where_it_was(tmp_path: pathlib.Path) -> None:
    """SIGSTOP of either side for longer than the connection lives: afterwards each message is there once, in order."""
    file = tmp_path / "taken"
    with SubscriberProcess("zmq://127.0.0.1:0", file) as subscriber:
        with Numbers(subscriber.url, 1_000.0) as numbers, PublisherProcess(subscriber.url) as other:
            until(lambda: len({message.log for message in taken(file)}) == 2)
            for stopped in (subscriber, other):
                os.kill(stopped.pid, signal.SIGSTOP)
                time.sleep(7.0)
                os.kill(stopped.pid, signal.SIGCONT)
                before = len(taken(file))
                until(lambda before=before: len(taken(file)) > before + 500)
            accepted = [numbers.finish(), other.finish()["accepted"]]
        subscriber.finish()
    by_log = defaultdict(list)
    for message in taken(file):
        by_log[message.log].append(message.number)
    assert sorted(map(len, by_log.values())) == sorted(accepted)
    for numbers_ in by_log.values():
        assert numbers_ == list(range(len(numbers_)))
