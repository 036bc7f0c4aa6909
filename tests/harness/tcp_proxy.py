"""A TCP proxy in a thread of its own: what a network does to connections, switchable while they live.

with TcpProxy(("127.0.0.1", server_port)) as proxy:
    client.connect(("127.0.0.1", proxy.port))
    proxy.delay(0.05)                         # every byte arrives so much later, both ways
    proxy.throttle(100_000)                   # bytes a second, each way of each connection
    proxy.cut()                               # RST to both ends of every live connection, at once
    proxy.cut_after(20_000, "to_server")      # the next 20,000 bytes that way pass, then its connection is cut
    proxy.refuse()                            # nobody listens: connection refused
    proxy.black_hole()                        # accepts, and nothing passes either way
    proxy.half_open("server")                 # the server's ends are reset, and the clients are told nothing
    proxy.pass_on()                           # everything as it should be; what a black hole held goes on
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import termios
import threading
from collections.abc import Awaitable, Callable
from typing import Literal, Self, TypeVar

Way = Literal["to_server", "to_client"]
T = TypeVar("T")

CHUNK_BYTES = 65_536
HELD_CHUNKS = 64
"""Chunks under way in one direction; the sender waits beyond that."""
SENT_OUT_S = 5.0
ANSWER_S = 10.0


class TcpProxy:
    """See the module. Its methods may be called from any thread, and return when what they ask for has happened."""

    def __init__(self, server: tuple[str, int]):
        self.server = server
        self.port = 0
        self.accepted = 0
        """Connections ever accepted."""
        self.cuts = 0
        """Connections cut, by `cut` and `cut_after`."""
        self.passed: dict[Way, int] = {"to_server": 0, "to_client": 0}
        """Bytes handed on."""
        self._delay_s = 0.0
        self._bytes_per_s: float | None = None
        self._budget: dict[Way, int | None] = {"to_server": None, "to_client": None}
        self._links: set[_Link] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tcp-proxy", daemon=True)
        self._accepting: asyncio.Task[None] | None = None
        self._flowing = asyncio.Event()
        self._flowing.set()
        # Bound and never listening: nobody else is given the port while we refuse connections.
        self._place = _bound(0)
        self.port = self._place.getsockname()[1]

    @property
    def live(self) -> int:
        """Connections under way."""
        return len(self._links)

    def start(self) -> Self:
        """Listen."""
        self._thread.start()
        self._do(self._listen)
        return self

    def close(self) -> None:
        """Cut everything and let go of the port. Idempotent."""
        if self._loop.is_closed():
            return
        if self._thread.is_alive():
            self._do(self._end)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._loop.close()
        self._place.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- what the network does ----------------------------------------------------------------------------------

    def pass_on(self) -> None:
        """No trouble any more, for live connections and new ones; what was cut or lost stays so."""

        async def do() -> None:
            self._delay_s, self._bytes_per_s = 0.0, None
            self._budget = {"to_server": None, "to_client": None}
            self._flowing.set()
            await self._listen()

        self._do(do)

    def delay(self, seconds: float) -> None:
        """Hand bytes on so much later, each way; the rate stays what it was."""

        async def do() -> None:
            self._delay_s = seconds

        self._do(do)

    def throttle(self, bytes_per_s: float) -> None:
        """Hand on at most so many bytes a second, each way of each connection."""

        async def do() -> None:
            self._bytes_per_s = bytes_per_s

        self._do(do)

    def cut(self) -> int:
        """Reset every live connection at both ends; how many."""

        async def do() -> int:
            links = [link for link in self._links if link.cut()]
            self.cuts += len(links)
            await self._gone(links)
            return len(links)

        return self._do(do)

    def cut_after(self, count: int, way: Way) -> None:
        """Pass the next `count` bytes that go this way, over all connections, then cut the one that goes on. Once."""

        async def do() -> None:
            self._budget[way] = count

        self._do(do)

    def refuse(self) -> None:
        """Stop listening: new connections are refused, live ones go on."""
        self._do(self._deaf)

    def black_hole(self) -> None:
        """Let nothing pass, on live connections and new ones, which are accepted; nobody is told."""

        async def do() -> None:
            self._flowing.clear()

        self._do(do)

    def half_open(self, lose: Literal["server", "client"]) -> int:
        """Reset one end of every live connection and tell the other nothing, which goes on to be read; how many."""

        async def do() -> int:
            links = [link for link in self._links if link.lose(lose)]
            for link in links:
                await link.one_left.wait()
            return len(links)

        return self._do(do)

    # -- on the loop --------------------------------------------------------------------------------------------

    def _do(self, work: Callable[[], Awaitable[T]]) -> T:
        async def run() -> T:
            return await work()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(ANSWER_S)

    async def _listen(self) -> None:
        if self._accepting is None:
            listener = _bound(self.port)
            listener.listen(128)
            listener.setblocking(False)
            self._accepting = asyncio.create_task(self._accept(listener))

    async def _deaf(self) -> None:
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.wait({self._accepting})
            self._accepting = None

    async def _end(self) -> None:
        await self._deaf()
        links = list(self._links)
        for link in links:
            link.cut()
        await self._gone(links)

    async def _gone(self, links: list[_Link]) -> None:
        for link in links:
            await link.closed.wait()

    async def _accept(self, listener: socket.socket) -> None:
        with listener:
            while True:
                client, _ = await self._loop.sock_accept(listener)
                self.accepted += 1
                link = _Link(client)
                self._links.add(link)
                link.carrying = asyncio.create_task(self._both_ways(link))
                link.task = asyncio.create_task(self._serve(link))
                link.task.add_done_callback(lambda _, link=link: self._ended(link))

    async def _serve(self, link: _Link) -> None:
        """One connection from its beginning to its end; sockets are closed where nothing reads them any more."""
        try:
            await asyncio.wait({link.carrying})
            if link.lost is not None:
                _reset(link.lost)
                link.one_left.set()
                await self._swallow(link.client if link.lost is link.server else link.server)
        except OSError:
            link.broken = True
        finally:
            link.carrying.cancel()
            await asyncio.wait({link.carrying})

    def _ended(self, link: _Link) -> None:
        """Nobody serves a connection any more, which may have been cut before anybody did: close its ends."""
        if not link.carrying.done():
            link.carrying.cancel()
            link.carrying.add_done_callback(lambda _: self._ended(link))  # not while somebody reads them
            return
        for end in (link.client, link.server):
            (_reset if link.broken else socket.socket.close)(end)
        self._links.discard(link)
        link.one_left.set()
        link.closed.set()

    async def _both_ways(self, link: _Link) -> None:
        try:
            await self._flowing.wait()
            await self._loop.sock_connect(link.server, self.server)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._carry(link, link.client, link.server, "to_server"))
                both.create_task(self._carry(link, link.server, link.client, "to_client"))
        except* (OSError, _Cut):  # nobody listens, or one end has reset the connection: so the other is reset
            link.broken = True

    async def _carry(self, link: _Link, source: socket.socket, target: socket.socket, way: Way) -> None:
        """Carry bytes one way until their end, which is passed on too."""
        chunks: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(HELD_CHUNKS)

        async def take() -> None:
            chunk = b"-"
            while chunk:
                chunk = await self._loop.sock_recv(source, CHUNK_BYTES)
                await chunks.put((self._loop.time() + self._delay_s, chunk))

        async def give() -> None:
            while True:
                due, chunk = await chunks.get()
                if due > self._loop.time():
                    await asyncio.sleep(due - self._loop.time())
                await self._flowing.wait()
                if not chunk:
                    target.shutdown(socket.SHUT_WR)
                    return
                await self._hand_on(target, chunk, way)

        async with asyncio.TaskGroup() as both:
            both.create_task(take())
            both.create_task(give())

    async def _hand_on(self, target: socket.socket, chunk: bytes, way: Way) -> None:
        rate, budget = self._bytes_per_s, self._budget[way]
        cut = budget is not None and len(chunk) > budget
        if budget is not None:
            chunk = chunk[:budget]
            self._budget[way] = None if cut else budget - len(chunk)
        step = CHUNK_BYTES if rate is None else max(1, int(rate / 100))
        for start in range(0, len(chunk), step):
            piece = chunk[start : start + step]
            await self._loop.sock_sendall(target, piece)
            self.passed[way] += len(piece)
            if rate is not None:
                await asyncio.sleep(len(piece) / rate)
        if cut:
            await _sent_out(target)
            self.cuts += 1
            raise _Cut

    async def _swallow(self, end: socket.socket) -> None:
        while await self._loop.sock_recv(end, CHUNK_BYTES):
            pass


class _Cut(Exception):  # noqa: N818 - what happens to a connection, no fault of the proxy
    """A connection is to be reset."""


class _Link:
    """One connection: its two ends and the tasks that serve it."""

    task: asyncio.Task[None]
    carrying: asyncio.Task[None]

    def __init__(self, client: socket.socket):
        self.client, self.server = client, socket.socket()
        for end in (self.client, self.server):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.broken = False
        self.lost: socket.socket | None = None
        self.one_left = asyncio.Event()
        self.closed = asyncio.Event()

    def cut(self) -> bool:
        """Have both ends reset; False if they are already."""
        if self.broken:
            return False
        self.broken = True
        self.task.cancel()
        return True

    def lose(self, end: str) -> bool:
        """Have one end reset and the other left as it is; False if there are no two ends."""
        if self.broken or self.lost is not None or self.carrying.done():
            return False
        self.lost = self.server if end == "server" else self.client
        self.carrying.cancel()
        return True


def _bound(port: int) -> socket.socket:
    """A socket at this port of loopback, beside others of ours."""
    end = socket.socket()
    end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    end.bind(("127.0.0.1", port))
    return end


def _reset(end: socket.socket) -> None:
    """Close by RST. Nothing of the loop may be reading it."""
    if end.fileno() >= 0:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.close()


async def _sent_out(end: socket.socket) -> None:
    """Wait until the other side's kernel has all that was sent: a reset throws away what has not left."""
    deadline_s = asyncio.get_running_loop().time() + SENT_OUT_S
    while asyncio.get_running_loop().time() < deadline_s:
        if struct.unpack("i", fcntl.ioctl(end, termios.TIOCOUTQ, b"\0" * 4))[0] == 0:
            return
        await asyncio.sleep(0.001)
