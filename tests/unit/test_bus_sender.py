"""The process that sends for a publisher: what starts it and ends it, what it outlives, and who goes on after it."""

from __future__ import annotations

import asyncio
import math
import os
import pathlib
import shutil
import signal
import time
from multiprocessing import spawn

import psutil
import pytest
import zmq
from harness.running_code import run
from harness.subscribing import acknowledged_messages, next_messages
from harness.waiting import PATIENCE_S, until

from recorder import Publisher
from recorder.bus import wire
from recorder.bus.base import BusMessage
from recorder.bus.decode import rows_of_message
from recorder.bus.errors import BusUnavailable
from recorder.bus.open import open_subscription
from recorder.bus.ring import RingWriter, Word
from recorder.bus.sender import Config, Sender


@pytest.fixture
def url(tmp_path: pathlib.Path) -> str:
    return f"zmq://{tmp_path}/bus.sock"


def test_its_sender_keeps_off_the_cores_of_a_pinned_thread(url: str) -> None:
    """What is pinned to a core names others for the sender; its own cores stay as they were."""
    before = os.sched_getaffinity(0)
    cores = {max(before)}
    with Publisher(url, name="p", cpus=cores, close_timeout_s=0, outlive_s=0) as publisher:
        assert os.sched_getaffinity(0) == before
        threads = list(map(int, os.listdir(f"/proc/{publisher.sender_pid}/task")))
        assert threads
        assert all(os.sched_getaffinity(thread) == cores for thread in threads)
    with pytest.raises(ValueError, match=r"cpus \[4095\]: Invalid argument"):
        Publisher(url, cpus=[4_095])
    assert os.sched_getaffinity(0) == before


def test_a_publisher_that_cannot_be_made_leaves_nothing_open(url: str) -> None:
    """However often somebody tries."""
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with pytest.raises(ValueError, match="cpus"):
            Publisher(url, cpus=[4_095])
    assert len(set(os.listdir("/proc/self/fd"))) <= len(before)


def test_a_sender_that_does_not_start_is_said_with_its_reason(url: str, tmp_path: pathlib.Path) -> None:
    """An interpreter that is none, one that ends at once: no publisher, and nothing left open."""
    before = set(os.listdir("/proc/self/fd"))
    real = spawn.get_executable()
    try:
        spawn.set_executable(shutil.which("false"))
        with pytest.raises(BusUnavailable, match="its sender did not start: code 1"):
            Publisher(url, name="p")
        spawn.set_executable(str(tmp_path / "none"))
        with pytest.raises(FileNotFoundError):
            Publisher(url, name="p")
    finally:
        spawn.set_executable(real)
    with pytest.raises(ValueError, match="a buffer of 0 bytes"):
        Publisher(url, buffer_bytes=0)
    for what in ("linger_ms", "outlive_s", "close_timeout_s"):
        for wrong in (-1, math.nan, math.inf):
            if (what, wrong) != ("close_timeout_s", math.inf):
                with pytest.raises(ValueError, match=f"{what}={wrong}; it is from 0 to "):
                    Publisher(url, **{what: wrong})  # type: ignore[arg-type]
    assert set(os.listdir("/proc/self/fd")) == before


def test_nothing_in_the_working_directory_is_taken_for_a_module(
    url: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trading process may be started anywhere."""
    for name in ("zmq", "recorder", "msgspec", "signal"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(7)")
    monkeypatch.chdir(tmp_path)
    with Publisher(url, name="p", close_timeout_s=0, outlive_s=0) as publisher:
        assert publisher.publish("t", {})


async def test_a_killed_sender_has_a_successor_that_goes_on(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever it had in hand: each message comes once to this run of the recorder, in order; and it is logged."""
    subscription = open_subscription(url)
    await subscription.start()
    got: list[BusMessage] = []
    with Publisher(url, name="p") as publisher:
        for kill in range(3):
            for number in range(2_000):
                assert publisher.publish("t", {"n": number})
            got += await acknowledged_messages(subscription, 500)
            pid = publisher.sender_pid
            os.kill(pid, signal.SIGKILL)
            for number in range(1_000):
                assert publisher.publish("t", {"n": number})
            got += await acknowledged_messages(subscription, 3_000 * (kill + 1) - len(got))
            assert await asyncio.to_thread(publisher.flush, PATIENCE_S)
            assert publisher.sender_pid != pid
        stats = publisher.stats()
        assert (stats.accepted, stats.acked, stats.waiting_bytes) == (9_000, 9_000, 0)
    assert [m.position for m in got] == list(range(9_000))
    assert len({m.log for m in got}) == 1
    assert "its sender ended by itself: SIGKILL; another one goes on" in caplog.text
    await subscription.close()


def test_a_sender_says_what_it_sends_before_it_does(url: str) -> None:
    """Killed in between, its successor sends that again and marks it; and what the socket does not take, later."""
    ring = RingWriter(1_000_000)
    sender = Sender(Config(url, 1, "p", ring.fd, ring.capacity, os.getppid(), 0, 0))
    frames: list[bytes] = []
    answers: list[bytes] = []

    class Socket:
        full = False

        def send(self, frame: bytes, _flags: int) -> None:
            if self.full:
                raise zmq.Again
            frames.append(frame)
            content = wire.unpack_from_publisher(frame)[1]
            if isinstance(content, wire.Data):
                assert ring.word(Word.SENT_TO) >= content.first + content.messages

        def recv(self, _flags: int) -> bytes:
            if not answers:
                raise zmq.Again
            return answers.pop(0)

    def sent() -> list[tuple[int, int, bool]]:
        """What was sent, since it was asked last."""
        contents = [wire.unpack_from_publisher(frame)[1] for frame in frames]
        frames.clear()
        return [(c.first, c.messages, c.redelivered) for c in contents if isinstance(c, wire.Data)]

    sender._socket.close()
    socket = Socket()
    sender._socket = socket
    answer = wire.Ack(True, False, 1, 0, 0, 0, 10_000, 10**9, [])

    def turn(*told: wire.Ack) -> list[tuple[int, int, bool]]:
        answers.extend(wire.pack_ack(1, ack) for ack in told)
        for _ in range(2):
            sender._turn(time.monotonic_ns())
        return sent()

    try:
        for _ in range(300):
            ring.put(wire.record(1, "t", 0, None, b""))
        assert turn(answer) == [(0, 256, False), (256, 44, False)]
        socket.full = True
        ring.put(wire.record(1, "t", 0, None, b""))
        assert turn() == []
        socket.full = False
        assert turn() == [(300, 1, False)], "the frame that waited"
        socket.full = True
        ring.put(wire.record(1, "t", 0, None, b""))
        assert turn() == []
        resend = answer._replace(welcome=False, resend=True, resolved=290, expected=290)
        answers.append(wire.pack_ack(1, resend))
        socket.full = False
        assert turn() == [(290, 12, True)], "not first the frame that waited, behind a hole"
    finally:
        sender._context.term()
        ring.close()


async def test_what_a_killed_process_had_published_arrives(url: str) -> None:
    """SIGKILL takes the trading process; what it published its sender still delivers, and then ends."""
    code = """
        import os, signal, sys
        from recorder import Publisher
        publisher = Publisher(sys.argv[1], name="p", outlive_s=60)
        for number in range(5_000):
            assert publisher.publish("t", {"n": number})
        print(publisher.sender_pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        """
    done = await asyncio.to_thread(run, code, url)
    assert done.returncode == -signal.SIGKILL
    sender = psutil.Process(int(done.stdout))
    subscription = open_subscription(url)
    await subscription.start()
    got = await acknowledged_messages(subscription, 5_000)
    assert [rows_of_message(m)[0].row["n"] for m in got] == list(range(5_000))
    await until(lambda: not sender.is_running() or sender.status() == psutil.STATUS_ZOMBIE)
    assert not subscription.take_notices()
    await subscription.close()


async def test_what_is_not_acknowledged_when_it_is_closed_is_still_sent(url: str) -> None:
    """For `outlive_s`; closing says that it is not there yet."""
    publisher = Publisher(url, name="p", outlive_s=60)
    sender = psutil.Process(publisher.sender_pid)
    for number in range(3_000):
        assert publisher.publish("t", {"n": number})
    assert not publisher.close(0)
    assert publisher.stats().waiting == 3_000
    subscription = open_subscription(url)
    await subscription.start()
    assert len(await acknowledged_messages(subscription, 3_000)) == 3_000
    await until(lambda: not sender.is_running())
    await subscription.close()


async def test_what_was_shed_is_told_before_the_end(url: str) -> None:
    """Though every message was sent before, and no frame comes any more that would say it."""
    subscription = open_subscription(url)
    await subscription.start()
    publisher = Publisher(url, name="p", buffer_bytes=100_000)
    while publisher.publish_raw("t", bytes(1_000)):
        pass
    messages = await next_messages(subscription, publisher.stats().accepted)
    for _ in range(10):
        assert not publisher.publish_raw("t", bytes(1_000))
    await subscription.ack(messages)
    assert await asyncio.to_thread(publisher.close, PATIENCE_S)
    notices = subscription.take_notices()
    assert {n.kind for n in notices} == {"bus_overflow"}
    assert sum(n.messages for n in notices) == publisher.stats().shed >= 11
    await subscription.close()


def test_a_sender_lives_no_longer_than_it_may(url: str) -> None:
    """With nobody there: of a closed publisher, and of a process that was killed."""
    publisher = Publisher(url, name="p", outlive_s=0.3)
    sender = psutil.Process(publisher.sender_pid)
    publisher.publish("t", {})
    began = time.monotonic()
    assert not publisher.close(0)
    sender.wait(PATIENCE_S)
    assert time.monotonic() - began >= 0.3


async def test_a_publisher_closed_while_its_sender_is_gone_still_has_one_that_sends(url: str) -> None:
    """What it had taken is in the ring; another one delivers it, and then ends."""
    publisher = Publisher(url, name="p", outlive_s=60)
    for number in range(3_000):
        assert publisher.publish("t", {"n": number})
    os.kill(publisher.sender_pid, signal.SIGKILL)
    assert not publisher.close(0)
    subscription = open_subscription(url)
    await subscription.start()
    assert [m.position for m in await acknowledged_messages(subscription, 3_000)] == list(range(3_000))
    await until(lambda: not publisher._thread.is_alive())
    assert not psutil.pid_exists(publisher.sender_pid)
    stats = publisher.stats()
    assert (stats.accepted, stats.acked, stats.waiting) == (3_000, 3_000, 0)
    assert publisher.close()
    await subscription.close()


async def test_a_sender_that_cannot_be_started_again_is_told_and_tried_again(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Until it can; publishing goes on meanwhile."""
    subscription = open_subscription(url)
    await subscription.start()
    real = spawn.get_executable()
    with Publisher(url, name="p") as publisher:
        try:
            spawn.set_executable(shutil.which("false"))
            os.kill(publisher.sender_pid, signal.SIGKILL)
            await until(lambda: "trying again: publisher p: its sender did not start: code 1" in caplog.text)
            assert publisher.publish("t", {})
        finally:
            spawn.set_executable(real)
        assert await acknowledged_messages(subscription, 1)
        assert await asyncio.to_thread(publisher.flush, PATIENCE_S)
    await subscription.close()


def test_a_process_without_standard_streams_may_publish(url: str) -> None:
    """As a daemon has none: the ring's descriptor is none of theirs."""
    done = run(
        """
        import os, sys
        os.dup2(1, 20)
        for fd in (0, 1, 2):
            os.close(fd)
        from recorder import Publisher
        with Publisher(sys.argv[1], name="p", close_timeout_s=0, outlive_s=0) as publisher:
            os.write(20, b"%d" % publisher.publish("t", {}))
        """,
        url,
    )
    assert (done.stdout, done.returncode) == ("1", 0)


def test_the_sender_of_a_process_that_runs_another_program_ends(url: str) -> None:
    """It is the same process, and has no publisher any more."""
    done = run(
        """
        import os, sys
        from recorder import Publisher
        publisher = Publisher(sys.argv[1], name="p", outlive_s=0)
        wait = "import os, sys; os.waitpid(int(sys.argv[1]), 0); print('ended')"
        os.execv(sys.executable, [sys.executable, "-c", wait, str(publisher.sender_pid)])
        """,
        url,
    )
    assert (done.stdout.strip(), done.returncode) == ("ended", 0), done.stderr


def test_a_process_whose_folder_was_removed_may_publish(url: str, tmp_path: pathlib.Path) -> None:
    """Though some of where it finds modules is relative to that."""
    done = run(
        """
        import os, sys
        from recorder import Publisher
        os.mkdir(sys.argv[2])
        os.chdir(sys.argv[2])
        os.rmdir(sys.argv[2])
        with Publisher(sys.argv[1], name="p", close_timeout_s=0, outlive_s=0) as publisher:
            print(publisher.publish("t", {}))
        """,
        url,
        str(tmp_path / "gone"),
    )
    assert (done.stdout.strip(), done.stderr) == ("True", "")


def test_a_publisher_whose_making_is_cut_off_leaves_no_process(url: str) -> None:
    """Ctrl-C, while its sender starts."""
    done = run(
        """
        import os, signal, sys
        from multiprocessing import spawn
        from recorder import Publisher
        spawn.set_executable("/bin/cat")  # with these arguments it ends by an error, if it is let
        def cut_off(*_):
            raise KeyboardInterrupt
        real = os.read
        signal.signal(signal.SIGALRM, cut_off)
        import select
        class Slow:
            def register(self, *_): pass
            def poll(self, _):
                os.kill(os.getpid(), signal.SIGALRM)
        select.poll = Slow
        before = set(os.listdir("/proc/self/fd"))
        try:
            Publisher(sys.argv[1], name="p")
        except KeyboardInterrupt:
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                print(set(os.listdir("/proc/self/fd")) == before)
        """,
        url,
    )
    assert (done.stdout.strip(), done.stderr) == ("True", "")


def test_what_ends_its_process_group_does_not_end_a_sender(url: str) -> None:
    """Ctrl-C, or the end of a service, is sent to all at once: who publishes says when its sender ends."""
    with Publisher(url, name="p", close_timeout_s=0, outlive_s=0) as publisher:
        pid = publisher.sender_pid
        assert os.getpgid(pid) != os.getpgid(0)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(pid, number)
        publisher.publish("t", {})
        time.sleep(0.2)
        assert publisher.sender_pid == pid
        assert psutil.pid_exists(pid)


def test_a_sender_that_stands_still_costs_its_process_nothing(url: str) -> None:
    """Publishing goes on until the buffer is full, and then sheds; closing ends it all the same."""
    publisher = Publisher(url, name="p", buffer_bytes=100_000, close_timeout_s=0, outlive_s=0)
    os.kill(publisher.sender_pid, signal.SIGSTOP)
    taken = sum(publisher.publish_raw("t", bytes(1_000)) for _ in range(1_000))
    assert 90 <= taken <= 100
    stats = publisher.stats()
    assert (stats.accepted, stats.shed) == (taken, 1_000 - taken)
    assert not publisher.close()
    assert not psutil.pid_exists(publisher.sender_pid)
