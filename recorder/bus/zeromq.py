"""`zmq://`: the recorder's end of the ZeroMQ bus, at least once. The protocol is in `recorder.bus.wire`.

Publishers connect to an address of the recorder's. The window is shared out among them, so that what was received and
is not acknowledged stays within it, however many there are; nothing is read ahead of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from recorder.bus import wire
from recorder.bus.base import BusMessage, BusNotice, Guarantee
from recorder.bus.endpoint import ZmqEndpoint, import_zmq, parse_zmq_url, prepare
from recorder.bus.errors import BusUnavailable
from recorder.bus.listen import SocketFile, bind
from recorder.bus.notices import Notices
from recorder.bus.options import BusOptions
from recorder.bus.reader import SocketReader
from recorder.bus.salvage import salvage
from recorder.bus.stream import PublisherStream
from recorder.bus.window import DeliveryWindow
from recorder.identity import new_epoch

ACK_LINGER_S = 0.02
"""Acknowledgements wait so long for company: each one costs the publisher's process a moment."""
TICK_S = 1.0
ACTIVE_S = 10.0
"""A publisher that was silent for longer has no share of the window, unless it has messages in hand."""
IDLE_S = 600.0
"""One that was silent for longer, with nothing in hand, is forgotten."""
MAX_PUBLISHERS = 1_024
"""At most so many are known; one more takes the place of the one that was silent longest, with nothing in hand."""
RESEND_PAUSE_S = 0.1
"""The same hole is asked for again after this at the earliest."""
CLOSE_LINGER_MS = 500
"""The last acknowledgements have so long to leave."""


class _Peer:
    """A stream, the way to its publisher, and when it was heard."""

    __slots__ = ("asked_for", "asked_s", "heard_s", "route", "stream")

    def __init__(self, stream: PublisherStream, route: bytes, now_s: float):
        self.stream = stream
        self.route = route
        self.heard_s = now_s
        self.asked_for = -1
        self.asked_s = 0.0


class ZmqSubscription:
    """Messages of all publishers that connect to an address. Used on one event loop."""

    guarantee = Guarantee.AT_LEAST_ONCE

    def __init__(self, endpoint: ZmqEndpoint, options: BusOptions):
        self.endpoint = endpoint
        self.run = new_epoch()
        self._options = options
        self._window = DeliveryWindow(options.window_messages, options.window_bytes)
        self._notices = Notices(endpoint.url)
        self._peers: dict[int, _Peer] = {}
        self._by_log: dict[int, _Peer] = {}
        self._shares = 1
        self._dirty: set[int] = set()
        self._stalled: set[int] = set()
        self._wake = asyncio.Event()
        self._closed = False
        self._context: Any = None
        self._socket: Any = None
        self._file: SocketFile | None = None
        self._file_why = ""
        self._reader: SocketReader | None = None
        self._ack_timer: asyncio.TimerHandle | None = None
        self._tick_timer: asyncio.TimerHandle | None = None

    @property
    def name(self) -> str:
        """Its URL; once it is started, with the port it has."""
        return self.endpoint.url

    @property
    def repeats(self) -> int:
        """Messages that came again and were dropped, of the publishers that are known."""
        return sum(peer.stream.repeats for peer in self._peers.values())

    async def start(self) -> None:
        """Open the address.

        Raises:
            BusUnavailable: it is in use, not of this machine, others would reach it and that is not allowed, ZeroMQ
                is not installed, or this subscription was closed.
        """
        if self._closed or self._socket is not None:
            raise BusUnavailable(f"bus {self.name}: this subscription was used; open another one")
        zmq = import_zmq()
        self._context = zmq.Context()
        socket = self._context.socket(zmq.ROUTER)
        try:
            prepare(socket, self.endpoint)
            socket.setsockopt(zmq.MAXMSGSIZE, wire.MAX_FRAME_BYTES)
            socket.setsockopt(zmq.RCVHWM, 64)
            socket.setsockopt(zmq.SNDHWM, 64)
            self.endpoint, self._file = bind(socket, self.endpoint, allow_remote=self._options.allow_remote)
        except BaseException:
            socket.close(linger=0)
            self._context.term()
            self._closed = True
            raise
        self._notices.name = self.name
        self._socket = socket
        self._reader = SocketReader(socket, self._take_parts)
        self._tick()

    async def messages(self) -> AsyncIterator[Sequence[BusMessage]]:
        """Messages as they come, those of one publisher in order; ends after `close`."""
        while not self._closed:
            self._wake.clear()
            if some := self._window.take():
                self._ask_the_stalled()
                yield some
            else:
                await self._wake.wait()

    async def ack(self, messages: Sequence[BusMessage]) -> None:
        """Tell their publishers that they are safe, a little later."""
        if self._closed:
            return
        by_log: dict[int, list[int]] = {}
        for message in self._window.ack(messages):
            by_log.setdefault(message.log, []).append(message.position)
        for log, positions in by_log.items():
            if (peer := self._by_log.get(log)) is not None:
                peer.stream.resolve(positions)
                self._mark(peer)
        self._wake.set()

    def take_notices(self) -> Sequence[BusNotice]:
        """What publishers shed, and what was no message, since the last call."""
        return self._notices.take()

    async def close(self) -> None:
        """Let go of the address; the last acknowledgements still leave."""
        if self._closed:
            return
        if self._socket is not None:
            self._tell()
        self._closed = True
        self._wake.set()
        for timer in (self._ack_timer, self._tick_timer):
            if timer is not None:
                timer.cancel()
        if self._reader is not None:
            self._reader.close()
        if self._socket is not None:
            if self._file is not None:
                self._file.remove()
            self._socket.close(linger=CLOSE_LINGER_MS)
            await asyncio.to_thread(self._context.term)

    # -- frames --------------------------------------------------------------------------------------------------

    def _take_parts(self, parts: list[bytes]) -> None:
        if len(parts) != 2:
            self._notices.malformed(f"{len(parts) - 1} parts instead of 1", b"".join(parts[1:]))
            return
        route, frame = parts
        try:
            epoch, content = wire.unpack_from_publisher(frame)
        except wire.WireError as error:
            self._notices.malformed(str(error), frame)
            return
        peer = self._peers.get(epoch)
        if isinstance(content, wire.Hello):
            self._greet(peer, epoch, content, route)
            return
        if peer is None:
            if not isinstance(content, wire.Bye):
                self._send(route, wire.pack_unknown(epoch, self.run))
            return
        peer.heard_s = time.monotonic()
        peer.route = route
        if isinstance(content, wire.Data):
            self._data(peer, content, frame)
        elif isinstance(content, wire.Ping):
            self._notices.shed(peer.stream.name, peer.stream.shed_since(content.shed))
            if content.sent_to > peer.stream.expected:
                self._ask(peer)
            else:
                self._answer(peer)
        elif not peer.stream.in_hand:
            self._forget(peer)

    def _greet(self, peer: _Peer | None, epoch: int, hello: wire.Hello, route: bytes) -> None:
        now_s = time.monotonic()
        if peer is None:
            if len(self._peers) >= MAX_PUBLISHERS and not self._forget_one():
                self._notices.refused(
                    f"{MAX_PUBLISHERS} publishers have messages in hand; another one has to wait"
                )
                return
            peer = _Peer(PublisherStream(epoch, hello), route, now_s)
            self._peers[epoch] = self._by_log[peer.stream.log] = peer
            self._share_out()
        else:
            peer.stream.greet(hello)
        peer.heard_s = now_s
        peer.route = route
        self._notices.shed(peer.stream.name, peer.stream.shed_since(hello.shed))
        self._answer(peer, welcome=True)

    def _data(self, peer: _Peer, data: wire.Data, frame: bytes) -> None:
        stream = peer.stream
        self._notices.shed(stream.name, stream.shed_since(data.shed))
        if stream.hole(data):
            self._ask(peer)
            return
        if stream.repeated(data):
            self._mark(peer)
            return
        window = self._window
        if (
            len(window.waiting) >= self._options.window_messages
            or window.waiting_bytes >= self._options.window_bytes
        ):
            # A share that shrank under what was already on its way: it has to come again.
            self._stalled.add(stream.epoch)
            return
        try:
            records = wire.unpack_records(data)
        except wire.WireError as error:
            saved = salvage(data)
            if saved is None:
                self._notices.malformed(f"{error}, from {stream.name}", frame)
                stream.give_up(data)
                self._mark(peer)
                return
            records = saved.records
            known = stream.expected - data.first
            for place, why in saved.faults.items():
                if place >= known:
                    self._notices.unreadable(f"{why}, from {stream.name}")
        window.add(stream.take(data, records))
        self._wake.set()

    # -- what publishers are told --------------------------------------------------------------------------------

    def _share(self) -> tuple[int, int]:
        options, shares = self._options, self._shares
        messages = min(options.window_messages // shares, 2**32 - 1)  # as many as the frame can say
        return max(1, messages), max(1, options.window_bytes // shares)

    def _share_out(self) -> None:
        now_s = time.monotonic()
        active = sum(
            peer.stream.in_hand > 0 or now_s - peer.heard_s < ACTIVE_S for peer in self._peers.values()
        )
        if max(1, active) != self._shares:
            self._shares = max(1, active)
            for peer in self._peers.values():
                self._mark(peer)

    def _mark(self, peer: _Peer) -> None:
        self._dirty.add(peer.stream.epoch)
        if self._ack_timer is None and not self._closed:
            self._ack_timer = asyncio.get_running_loop().call_later(ACK_LINGER_S, self._tell)

    def _tell(self) -> None:
        self._ack_timer = None
        dirty, self._dirty = self._dirty, set()
        for epoch in dirty:
            if (peer := self._peers.get(epoch)) is not None:
                self._answer(peer)

    def _ask(self, peer: _Peer) -> None:
        now_s = time.monotonic()
        if peer.asked_for != peer.stream.expected or now_s - peer.asked_s >= RESEND_PAUSE_S:
            peer.asked_for, peer.asked_s = peer.stream.expected, now_s
            self._answer(peer, resend=True)

    def _ask_the_stalled(self) -> None:
        if self._stalled and len(self._window.waiting) * 2 <= self._options.window_messages:
            stalled, self._stalled = self._stalled, set()
            for epoch in stalled:
                if (peer := self._peers.get(epoch)) is not None:
                    self._ask(peer)

    def _answer(self, peer: _Peer, *, welcome: bool = False, resend: bool = False) -> None:
        self._dirty.discard(peer.stream.epoch)
        self._send(peer.route, peer.stream.ack(self.run, *self._share(), welcome=welcome, resend=resend))

    def _send(self, route: bytes, frame: bytes) -> None:
        zmq = import_zmq()
        # A publisher that is gone, or takes nothing, is told again when it asks.
        with contextlib.suppress(zmq.ZMQError):
            self._socket.send_multipart((route, frame), zmq.NOBLOCK)
        if self._reader is not None:
            self._reader.again()

    # -- who is known --------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        self._tick_timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)
        self._look_after_file()
        now_s = time.monotonic()
        for peer in [peer for peer in self._peers.values() if now_s - peer.heard_s > IDLE_S]:
            if not peer.stream.in_hand:
                self._forget(peer)
        self._share_out()

    def _look_after_file(self) -> None:
        """Make the socket's file again if somebody removed it: no publisher could come, and nothing would say so."""
        if self._file is None or self._file.ours:
            return
        try:
            self._file.renew()
        except BusUnavailable as error:
            why = f"the socket's file was removed, and cannot be made again: {error}"
            if why != self._file_why:
                self._notices.address(why)
            self._file_why = why
        else:
            self._notices.address("the socket's file was removed; it was made again")
            self._file_why = ""

    def _forget_one(self) -> bool:
        idle = [peer for peer in self._peers.values() if not peer.stream.in_hand]
        if idle:
            self._forget(min(idle, key=lambda peer: peer.heard_s))
        return bool(idle)

    def _forget(self, peer: _Peer) -> None:
        if peer.stream.epoch in self._dirty:
            self._answer(peer)  # its acknowledgements still lingered
        self._stalled.discard(peer.stream.epoch)
        self._peers.pop(peer.stream.epoch, None)
        self._by_log.pop(peer.stream.log, None)


def open_zmq(url: str, options: BusOptions) -> ZmqSubscription:
    """The subscription of `zmq://host:port` or `zmq:///path.sock`.

    Raises:
        BusUrlError: the URL names no address or path.
        BusUnavailable: ZeroMQ is not installed.
    """
    import_zmq()
    return ZmqSubscription(parse_zmq_url(url), options)
