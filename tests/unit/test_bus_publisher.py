"""The publisher in its process: what it costs to import, what it takes and refuses, and how it ends."""

from __future__ import annotations

import asyncio
import gc
import os
import pathlib
import threading
import time

import msgspec
import psutil
import pytest
import zmq
from harness.running_code import run
from harness.subscribing import next_messages
from harness.waiting import PATIENCE_S, until

from recorder import Publisher, correlated
from recorder.bus.base import BusMessage, Encoding
from recorder.bus.decode import rows_of_message
from recorder.bus.errors import BusUnavailable, BusUrlError
from recorder.bus.inprocess import InProcessBus
from recorder.bus.open import open_subscription
from recorder.bus.wire import MAGIC
from recorder.errors import RecorderClosed, RecorderForked
from recorder.normalise.base import BadMessage


@pytest.fixture
def url(tmp_path: pathlib.Path) -> str:
    return f"zmq://{tmp_path}/bus.sock"


def test_a_trading_process_loads_nothing_heavy(url: str) -> None:
    """No Arrow, no engine, no ClickHouse client, no settings: the publisher's own needs alone."""
    done = run(
        """
        import sys
        from recorder import Publisher
        publisher = Publisher(sys.argv[1], name="p", outlive_s=0)
        assert publisher.publish("t", {"a": 1})
        publisher.close(0)
        heavy = ("pyarrow", "chdb", "clickhouse_connect", "pydantic", "numpy", "aiohttp", "structlog", "uvloop", "zmq")
        print([name for name in heavy if name in sys.modules])
        """,
        url,
    )
    assert (done.stdout.strip(), done.stderr, done.returncode) == ("[]", "", 0)


async def test_rows_arrive_as_they_were_when_they_were_published(url: str) -> None:
    """The row is encoded in the call; its owner may change it afterwards. The chain's id goes with it."""
    subscription = open_subscription(url)
    await subscription.start()
    try:
        with Publisher(url, name="p") as publisher:
            row = {"price": "1.10", "levels": [1, 2]}
            with correlated("chain"):
                publisher.publish("orders", row)
            row["price"] = "2"
            row["levels"].append(3)  # type: ignore[attr-defined]
            publisher.publish("orders", [row, row], correlation_id="own")
            publisher.publish_raw("raw", b'{"a":1}', Encoding.JSON)
            first, second, third = await next_messages(subscription, 3)
            assert [r.row for r in rows_of_message(first)] == [{"price": "1.10", "levels": [1, 2]}]
            assert [r.row for r in rows_of_message(second)] == [{"price": "2", "levels": [1, 2, 3]}] * 2
            assert (first.correlation_id, second.correlation_id, third.correlation_id) == (
                "chain",
                "own",
                None,
            )
            assert (third.topic, third.payload, third.encoding) == ("raw", b'{"a":1}', Encoding.JSON)
            await subscription.ack([first, second, third])
            assert await asyncio.to_thread(publisher.flush, PATIENCE_S)
            stats = publisher.stats()
            assert (stats.accepted, stats.sent, stats.acked, stats.waiting, stats.shed) == (3, 3, 3, 0, 0)
            assert stats.waiting_bytes == 0
    finally:
        await subscription.close()


async def test_publishing_inside_an_event_loop_never_waits(url: str) -> None:
    """A coroutine publishes while the recorder's end, on the same loop, gets to run only between its steps."""
    subscription = open_subscription(url)
    with Publisher(url, name="p") as publisher:
        for number in range(1_000):  # nobody is there yet, and nobody is waited for
            assert publisher.publish("t", {"n": number})
        await subscription.start()
        taking = asyncio.create_task(next_messages(subscription, 2_000))
        for number in range(1_000):
            assert publisher.publish("t", {"n": number})
            await asyncio.sleep(0)
        messages = await taking
        assert [m.position for m in messages] == list(range(2_000))
        await subscription.ack(messages)
        assert await asyncio.to_thread(publisher.flush, PATIENCE_S)
    await subscription.close()


def test_no_load_makes_it_raise_or_wait(url: str) -> None:
    """With nobody there its buffer fills and it sheds, from many threads; the counts are exact and its bound holds."""
    results: list[bool] = []
    with Publisher(url, name="p", buffer_bytes=1_000_000, close_timeout_s=0, outlive_s=0) as publisher:

        def publish() -> None:
            own = [publisher.publish_raw("t", bytes(1_000)) for _ in range(1_000)]
            results.extend(own)

        threads = [threading.Thread(target=publish) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        stats = publisher.stats()
        assert stats.accepted == results.count(True)
        assert stats.shed == results.count(False) > 2_900
        assert (stats.waiting, stats.sent) == (stats.accepted, 0)
        assert 900_000 < stats.waiting_bytes <= 1_000_000
        began = time.monotonic()
        assert not publisher.flush(0.2)
        assert not publisher.close(0.2)
        assert time.monotonic() - began < 5
        assert publisher.stats() == stats
        assert not publisher.close()


def test_it_says_what_it_cannot_be(url: str, tmp_path: pathlib.Path) -> None:
    """One line each: what, and what to do."""
    for wrong, says in {
        "tcp://127.0.0.1:1": "speaks zmq://host:port",
        "zmq+sub://127.0.0.1:1": "speaks zmq://host:port",
        "zmq://": "names neither host and port nor a socket's path; write zmq://127.0.0.1:5560",
        "zmq://127.0.0.1": "names no host and port",
        "zmq://127.0.0.1:port": "write zmq://127.0.0.1:5560",
        "zmq://127.0.0.1:1/x": "names no host and port",
        "zmq://127.0.0.1:1?x=1": "no such option: x",
        "zmq://u:secret@127.0.0.1:1": "user or password means nothing",
        "zmq:///run/": "names neither host and port",
        f"zmq:///{'x' * 120}": "has 121 bytes; at most 107 fit",
    }.items():
        with pytest.raises(BusUrlError, match=says.replace("+", r"\+")) as caught:
            Publisher(wrong)
        assert "\n" not in str(caught.value)
        assert "secret" not in str(caught.value)
    with Publisher(url, name="p", close_timeout_s=0, outlive_s=0) as publisher:
        for arguments, error in (
            (("t", object()), TypeError),
            (("x" * 256, {}), ValueError),
            (("t", {}, "c" * 1_025), ValueError),
            (("t", {"a": bytes(4 * 1024 * 1024)}), ValueError),
        ):
            with pytest.raises(error):
                publisher.publish(*arguments)  # type: ignore[arg-type]
        assert publisher.stats().accepted == publisher.stats().shed == 0
        assert "p to zmq://" in repr(publisher)
    with pytest.raises(RecorderClosed, match="is closed; make another one"):
        publisher.publish("t", {})
    with pytest.raises(RecorderClosed):
        publisher.flush(1)
    publisher.close()


def test_without_zeromq_it_says_how_to_get_it() -> None:
    """An extra that is missing is named with its remedy, for publisher and subscription alike."""
    done = run(
        """
        import sys
        sys.modules["zmq"] = None
        from recorder import Publisher
        from recorder.bus.errors import BusUnavailable
        from recorder.bus.open import open_subscription
        for opener in (Publisher, open_subscription):
            for url in ("zmq://127.0.0.1:1",):
                try:
                    opener(url)
                except BusUnavailable as error:
                    print(error)
        """
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 2, done.stderr
    assert all(line.startswith("ZeroMQ is not installed") for line in lines)
    assert all(line.endswith("; pip install 'coldpath-recorder[zmq]'") for line in lines)


def test_a_forked_child_is_told_and_the_parent_goes_on(url: str) -> None:
    """The child must not use the parent's socket; it closes nothing of the parent's, and may have its own."""

    async def check() -> None:
        subscription = open_subscription(url)
        await subscription.start()
        with Publisher(url, name="p") as publisher:
            publisher.publish("t", {"who": "parent"})
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    try:
                        publisher.publish("t", {})
                    except RecorderForked:
                        publisher.close()
                        own = Publisher(url, name="child")
                        own.publish("t", {"who": "child"})
                        code = 0 if own.close(PATIENCE_S) else 2
                finally:
                    os._exit(code)
            got = []
            while len(got) < 2:
                more = await next_messages(subscription, 1)
                await subscription.ack(more)
                got += more
            _, status = await asyncio.to_thread(os.waitpid, pid, 0)
            assert os.waitstatus_to_exitcode(status) == 0
            publisher.publish("t", {"who": "parent"})
            more = await next_messages(subscription, 1)
            await subscription.ack(more)
            assert len({m.log for m in got}) == 2
            assert await asyncio.to_thread(publisher.flush, PATIENCE_S)
        await subscription.close()

    asyncio.run(check())


async def test_a_program_that_just_ends_delivers_what_it_published(url: str) -> None:
    """At exit a publisher that nobody closed waits for its acknowledgements, for a bounded time."""
    subscription = open_subscription(url)
    await subscription.start()
    code = """
        import sys
        from recorder import Publisher
        publisher = Publisher(sys.argv[1], name="p", close_timeout_s=20)
        for number in range(5_000):
            assert publisher.publish("t", {"n": number})
        """
    running = asyncio.create_task(asyncio.to_thread(run, code, url))
    got: list[BusMessage] = []
    while len(got) < 5_000:
        more = await next_messages(subscription, 1)
        await subscription.ack(more)
        got += more
    done = await running
    assert (done.returncode, done.stderr) == (0, "")
    assert [m.position for m in got] == list(range(5_000))
    await subscription.close()


def test_a_program_ends_in_bounded_time_with_nobody_there(url: str) -> None:
    """`close_timeout_s` bounds the exit."""
    began = time.monotonic()
    done = run(
        """
        import sys
        from recorder import Publisher
        publisher = Publisher(sys.argv[1], name="p", close_timeout_s=0.2, outlive_s=0)
        publisher.publish("t", {})
        """,
        url,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert time.monotonic() - began < 20


async def test_threads_and_descriptors_are_given_back(url: str) -> None:
    """Ten publishers, one after the other, leave nothing behind, and no process."""

    def count() -> tuple[int, int, int]:
        gc.collect()
        children = len(psutil.Process().children())
        return threading.active_count(), len(os.listdir("/proc/self/fd")), children

    Publisher(url, outlive_s=0).close(0)
    before = count()
    for _ in range(10):
        publisher = Publisher(url, outlive_s=0)
        publisher.publish("t", {})
        publisher.close(0)
    await until(
        lambda: all(now <= then for now, then in zip(count(), before, strict=True)), "the end of the last one"
    )


async def test_frames_of_strangers_are_told_with_their_bytes_and_harm_nobody(url: str) -> None:
    """Whatever is sent to the recorder's end: a notice each, bounded, and the others' messages go on."""
    subscription = open_subscription(url)
    await subscription.start()
    context = zmq.Context()
    stranger = context.socket(zmq.DEALER)
    stranger.connect(url.replace("zmq://", "ipc://"))
    try:
        for frame in (b"", b"nonsense", MAGIC + b"\x09" + bytes(9)):
            stranger.send(frame)
        stranger.send_multipart([b"two", b"parts"])
        with Publisher(url, name="p") as publisher:
            publisher.publish("t", {})
            messages = await next_messages(subscription, 1)
            await subscription.ack(messages)
            notices = []
            async with asyncio.timeout(PATIENCE_S):
                while len(notices) < 4:
                    notices += subscription.take_notices()
                    await asyncio.sleep(0.01)
        assert {n.kind for n in notices} == {"bus_malformed"}
        assert [n.payload for n in notices] == [b"", b"nonsense", MAGIC + b"\x09" + bytes(9), b"twoparts"]
        for number in range(2_000):
            stranger.send(b"nonsense")
            # Its queue full and nobody reading, the recorder's end sees no heartbeat and ends the connection after 8 s;
            # a stranger sends nothing again.
            if number % 100 == 99:
                await asyncio.sleep(0.01)
        async with asyncio.timeout(PATIENCE_S):
            count = 0
            while count < 2_000:
                found = subscription.take_notices()
                assert len(found) <= 257
                count += sum(n.messages for n in found)
                await asyncio.sleep(0.01)
    finally:
        stranger.close(linger=0)
        context.term()
        await subscription.close()


async def test_unreadable_messages_of_a_publisher_are_told_and_it_goes_on(url: str) -> None:
    """A body that is none costs that frame, whose bytes are in a notice; the publisher's next messages arrive."""
    subscription = open_subscription(url)
    with Publisher(url, name="p") as publisher:
        publisher._ring.put(b"\xc1 no record")
        publisher.publish("t", {"n": 1})
        await subscription.start()
        # All that is published before there is a welcome goes in one frame.
        assert await asyncio.to_thread(publisher.flush, PATIENCE_S)
        publisher.publish("t", {"n": 2})
        messages = await next_messages(subscription, 1)
        assert [m.position for m in messages] == [2]
        await subscription.ack(messages)
        (notice,) = subscription.take_notices()
        assert notice.kind == "bus_malformed"
        assert b"\xc1 no record" in notice.payload
        assert await asyncio.to_thread(publisher.flush, PATIENCE_S)
    await subscription.close()


@pytest.mark.parametrize(
    ("topic", "payload", "correlation_id", "says"),
    [
        ("orders", "text", None, r"orders: a payload is bytes, and this is of type str; .* by \.encode\(\)"),
        ("orders", {"a": 1}, None, "a payload is bytes, and this is of type dict"),
        ("orders", 5, None, "a payload is bytes, and this is of type int"),
        ("orders", None, None, "a payload is bytes, and this is of type NoneType"),
        (b"orders", b"{}", None, r"a topic is a text, and this is of type bytes; .* by \.decode\(\)"),
        (None, b"{}", None, "a topic is a text, and this is of type NoneType"),
        ("orders", b"{}", b"c", "a correlation id is a text, and this is of type bytes"),
        ("orders", b"{}", 7, "a correlation id is a text, and this is of type int"),
    ],
)
def test_what_is_no_message_is_refused_in_the_call(
    url: str, topic: str, payload: bytes, correlation_id: str, says: str
) -> None:
    """Of a wrong type: the recorder could not read it, and nobody would be told who can mend it."""
    with Publisher(url, name="p", close_timeout_s=0, outlive_s=0) as publisher:
        with pytest.raises(TypeError, match=says):
            publisher.publish_raw(topic, payload, Encoding.JSON, correlation_id)
        assert publisher.stats().accepted == 0
    bus = InProcessBus()
    with pytest.raises(TypeError, match=says):
        bus.publish(topic, payload, correlation_id=correlation_id)
    assert bus.waiting == 0


async def test_what_is_like_bytes_or_text_is_sent_as_such(url: str) -> None:
    """A bytearray, a view of any kind, a text of a class of its own."""

    class Name(str):
        __slots__ = ()

    subscription = open_subscription(url)
    await subscription.start()
    with Publisher(url, name="p") as publisher:
        view = memoryview(b"a-b-c-")[::2]
        for payload in (bytearray(b"abc"), view):
            publisher.publish_raw(Name("orders"), payload, Encoding.JSON, Name("c"))
        messages = await next_messages(subscription, 2)
        assert [(m.topic, m.payload, m.correlation_id) for m in messages] == [("orders", b"abc", "c")] * 2
        await subscription.ack(messages)
        assert await asyncio.to_thread(publisher.flush, PATIENCE_S)
    await subscription.close()


async def test_one_wrong_record_costs_itself_and_not_its_frame(url: str) -> None:
    """Those beside it are delivered; its bytes come as a message that no table takes, and wait for their receipt."""
    subscription = open_subscription(url)
    wrong = msgspec.msgpack.encode((1_000, "orders", 0, "c", '{"a":1}'))
    with Publisher(url, name="p") as publisher:
        # All that is published before there is a welcome goes in one frame.
        publisher.publish("t", {"n": 0})
        publisher._ring.put(wrong)
        publisher.publish("t", {"n": 2})
        await subscription.start()
        messages = await next_messages(subscription, 3)
        assert [m.position for m in messages] == [0, 1, 2]
        assert [rows_of_message(m)[0].row for m in (messages[0], messages[2])] == [{"n": 0}, {"n": 2}]
        bad = messages[1]
        assert (bad.payload, bad.topic, bad.ts_ns, bad.correlation_id) == (wrong, "orders", 1_000, "c")
        with pytest.raises(BadMessage):
            rows_of_message(bad)
        (notice,) = subscription.take_notices()
        assert (notice.kind, notice.messages, notice.payload) == ("bus_malformed", 1, b"")
        assert "1 messages cannot be read: Expected `bytes`, got `str`" in notice.text
        await subscription.ack([messages[0], messages[2]])
        await until(lambda: publisher.stats().acked == 2)
        await subscription.ack([bad])
        assert await asyncio.to_thread(publisher.flush, PATIENCE_S)
    await subscription.close()


def test_the_error_for_a_missing_extra_is_an_error_of_buses() -> None:
    """Who opens a bus catches one class."""
    from recorder.bus.errors import BusError

    assert issubclass(BusUnavailable, BusError)
    assert issubclass(BusUrlError, BusError)


def test_a_signal_handler_may_publish_and_close(url: str) -> None:
    """It interrupts calls of `publish` of its own thread anywhere; nothing hangs, and every message is counted."""
    done = run(
        """
        import signal, sys
        from recorder import Publisher
        publisher = Publisher(sys.argv[1], name="p", close_timeout_s=0, outlive_s=0)
        offered = interruptions = 0
        def handle(*_):
            global interruptions
            interruptions += 1
            publisher.publish("t", {"n": 1})
        signal.signal(signal.SIGALRM, handle)
        signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
        while interruptions < 2_000:
            publisher.publish("t", {"n": 1})
            offered += 1
        signal.setitimer(signal.ITIMER_REAL, 0)
        publisher.publish("t", {"n": 1})
        stats = publisher.stats()
        assert stats.accepted + stats.shed == offered + interruptions + 1, (stats, offered, interruptions)
        class End(Exception):
            pass
        def close(*_):
            publisher.close(0)
            raise End
        signal.signal(signal.SIGALRM, close)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        try:
            while True:
                publisher.publish("t", {"n": 1})
        except End:
            print("ended")
        """,
        url,
    )
    assert (done.stdout.strip(), done.stderr, done.returncode) == ("ended", "", 0)
