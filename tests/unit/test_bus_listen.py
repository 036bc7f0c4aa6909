"""Opening the recorder's end: who may reach it, what stands in the way, and that each says so in one line."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import socket
import stat
from collections.abc import AsyncIterator

import pytest

from recorder import Publisher
from recorder.bus import zeromq
from recorder.bus.base import Subscription
from recorder.bus.errors import BusUnavailable, BusUrlError
from recorder.bus.open import open_subscription
from recorder.bus.options import BusOptions

PATIENCE_S = 20.0


async def refusal(url: str, options: BusOptions | None = None) -> str:
    """Why a subscription does not start, in one line."""
    subscription = open_subscription(url, options)
    with pytest.raises(BusUnavailable) as caught:
        await subscription.start()
    await subscription.close()
    line = str(caught.value)
    assert "\n" not in line
    return line


async def test_a_port_in_use_is_one_line(tmp_path: pathlib.Path) -> None:
    """Over tcp and over a socket's file; the one that is there goes on."""
    for url in ("zmq://127.0.0.1:0", f"zmq://{tmp_path}/bus.sock"):
        first = open_subscription(url)
        await first.start()
        try:
            assert await refusal(first.name) == (
                f"bus {first.name}: already in use; stop what listens there, or choose another address"
            )
            if "sock" in url:
                with socket.socket(socket.AF_UNIX) as probe:
                    probe.connect(str(tmp_path / "bus.sock"))
        finally:
            await first.close()


@pytest.mark.parametrize("host", ["0.0.0.0", "*", "192.0.2.1", "[::]", "some.name"])
async def test_an_address_that_others_reach_needs_to_be_allowed(host: str) -> None:
    """There is no authentication: only loopback is opened unless the settings say otherwise, which is told at once."""
    with pytest.raises(BusUnavailable) as caught:
        open_subscription(f"zmq://{host}:5560")
    line = str(caught.value)
    assert "other machines would reach it and it has no authentication; use zmq://127.0.0.1:5560" in line
    assert "bus_allow_remote = true" in line


async def test_allowed_it_opens_or_says_why_not() -> None:
    """`allow_remote` opens any address of this machine, and one of another is refused in one line."""
    for host in ("0.0.0.0", "*"):
        subscription = open_subscription(f"zmq://{host}:0", BusOptions(allow_remote=True))
        await subscription.start()
        assert subscription.name.startswith("zmq://0.0.0.0:")
        await subscription.close()
    line = await refusal("zmq://192.0.2.1:5560", BusOptions(allow_remote=True))
    assert line == "bus zmq://192.0.2.1:5560: no address of this machine; use zmq://127.0.0.1:5560"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
async def test_loopback_needs_no_leave(host: str) -> None:
    """By name, version 4 and version 6; port 0 takes a free one and the name says which."""
    if host == "[::1]":
        with socket.socket(socket.AF_INET6) as probe:
            try:
                probe.bind(("::1", 0))
            except OSError as error:
                pytest.skip(f"no loopback of version 6 here: {error}")
    subscription = open_subscription(f"zmq://{host}:0")
    await subscription.start()
    assert int(subscription.name.rpartition(":")[2]) > 0
    await subscription.close()


async def test_a_sockets_file_is_its_users_alone_and_gone_afterwards(tmp_path: pathlib.Path) -> None:
    """Others of the machine cannot publish, whatever the umask; closing removes the file."""
    path = tmp_path / "bus.sock"
    mask = os.umask(0)
    try:
        subscription = open_subscription(f"zmq://{path}")
        await subscription.start()
        assert os.umask(0) == 0
    finally:
        os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    await subscription.close()
    assert not path.exists()


async def test_a_file_that_a_killed_recorder_left_is_replaced(tmp_path: pathlib.Path) -> None:
    """Nobody listens at it: it is in nobody's use."""
    path = tmp_path / "bus.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    assert path.exists()
    subscription = open_subscription(f"zmq://{path}")
    await subscription.start()
    with socket.socket(socket.AF_UNIX) as probe:
        probe.connect(str(path))
    await subscription.close()


async def test_other_files_are_left_alone(tmp_path: pathlib.Path) -> None:
    """What is no socket is not removed, and a folder that is not there is not made."""
    path = tmp_path / "data"
    path.write_text("precious")
    assert await refusal(f"zmq://{path}") == (
        f"bus zmq://{path}: there is a file that is no socket; choose another path"
    )
    assert path.read_text() == "precious"
    assert "there is no folder" in await refusal(f"zmq://{tmp_path}/none/bus.sock")
    link = tmp_path / "link"
    link.symlink_to(path)
    assert "no socket" in await refusal(f"zmq://{link}")


def test_a_path_that_is_too_long_says_how_long_it_may_be() -> None:
    """A Unix domain socket's path has 107 bytes at most."""
    with pytest.raises(BusUrlError, match="has 201 bytes; at most 107 fit, choose a shorter one"):
        open_subscription("zmq:///" + "x" * 200)


async def test_a_subscription_is_used_once(tmp_path: pathlib.Path) -> None:
    """Started twice or after closing, it says to open another one."""
    subscription = open_subscription(f"zmq://{tmp_path}/bus.sock")
    await subscription.start()
    with pytest.raises(BusUnavailable, match="open another one"):
        await subscription.start()
    await subscription.close()
    with pytest.raises(BusUnavailable, match="open another one"):
        await subscription.start()


def test_a_window_lets_something_through() -> None:
    """Bounds of nothing are refused."""
    with pytest.raises(ValueError, match="lets nothing through"):
        BusOptions(window_messages=0)


def reaches(path: pathlib.Path) -> bool:
    """Whether somebody listens at the socket's file."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


@contextlib.asynccontextmanager
async def started(path: pathlib.Path) -> AsyncIterator[Subscription]:
    subscription = open_subscription(f"zmq://{path}")
    await subscription.start()
    try:
        async with asyncio.timeout(PATIENCE_S):
            yield subscription
    finally:
        await subscription.close()


async def take(subscription: Subscription, count: int) -> list[bytes]:
    """The next payloads, acknowledged."""
    got: list[bytes] = []
    async with contextlib.aclosing(subscription.messages()) as stream:  # type: ignore[type-var]
        while len(got) < count:
            some = await anext(stream)
            await subscription.ack(some)
            got += [message.payload for message in some]
    return got


async def test_a_file_that_was_removed_is_made_again(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Publishers that come later find the recorder, those that are there go on, and it is told."""
    monkeypatch.setattr(zeromq, "TICK_S", 0.02)
    path = tmp_path / "bus.sock"
    url = f"zmq://{path}"
    async with started(path) as subscription:
        with Publisher(url, name="before", close_timeout_s=0) as before:
            before.publish_raw("t", b"1")
            got = await take(subscription, 1)
            for _ in range(3):
                path.unlink()
                while not path.exists():  # noqa: ASYNC110 - the file is made by the subscription's own timer
                    await asyncio.sleep(0.005)
            before.publish_raw("t", b"2")
            with Publisher(url, name="after", close_timeout_s=0) as after:
                after.publish_raw("t", b"3")
                got += await take(subscription, 2)
                assert await asyncio.to_thread(after.flush, PATIENCE_S)
            assert await asyncio.to_thread(before.flush, PATIENCE_S)
        assert sorted(got) == [b"1", b"2", b"3"]
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert {(n.kind, n.text) for n in subscription.take_notices()} == {
            ("bus_address", f"{url}: the socket's file was removed; it was made again")
        }
    assert not path.exists()


async def test_the_file_of_another_recorder_is_left_to_it(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that took the address after the file was removed keeps it, also when the first one closes; told once."""
    monkeypatch.setattr(zeromq, "TICK_S", 0.02)
    path = tmp_path / "bus.sock"
    async with started(path) as first:
        path.unlink()
        async with started(path) as second:
            await asyncio.sleep(0.2)  # ten looks
            (notice,) = first.take_notices()
            assert "was removed, and cannot be made again" in notice.text
            assert "already in use" in notice.text
            await first.close()
            assert reaches(path)
            with Publisher(f"zmq://{path}", name="p", close_timeout_s=0) as publisher:
                publisher.publish_raw("t", b"1")
                assert await take(second, 1) == [b"1"]
    assert not path.exists()


async def test_a_recorder_that_waits_for_the_address_has_it_once_the_other_closes(
    tmp_path: pathlib.Path,
) -> None:
    """However closely it follows: closing removes the closed one's file alone. The publisher goes on to it."""
    path = tmp_path / "bus.sock"
    async with contextlib.AsyncExitStack() as stack:
        publisher = stack.enter_context(Publisher(f"zmq://{path}", name="p", close_timeout_s=0))
        leaving = await stack.enter_async_context(started(path))
        for turn in range(5):
            closing = asyncio.ensure_future(leaving.close())
            while True:
                try:
                    following = await stack.enter_async_context(started(path))
                    break
                except BusUnavailable:
                    await asyncio.sleep(0)
            await closing
            assert reaches(path)
            publisher.publish_raw("t", str(turn).encode())
            assert await take(following, 1) == [str(turn).encode()]
            assert await asyncio.to_thread(publisher.flush, PATIENCE_S)
            leaving = following
