"""`zmq+sub://host:port?topics=a,b`: messages of somebody's plain ZeroMQ PUB socket. At most once, no acknowledgements.

A PUB socket knows nobody who missed something: what is published while nobody is connected, or faster than it is taken,
is lost and not even counted. So what is delivered is let go of at once, whatever is acknowledged: reading stops only
while nobody takes what was read. Messages are of two parts, topic and payload; `encoding=msgpack` says that they are
not JSON. Each subscription numbers what it gets by an epoch of its own, and stamps it with the time of its arrival.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from recorder.bus.base import BusMessage, BusNotice, Encoding, Guarantee
from recorder.bus.endpoint import ZmqEndpoint, import_zmq, parse_zmq_url, prepare
from recorder.bus.errors import BusUnavailable, BusUrlError
from recorder.bus.notices import Notices
from recorder.bus.options import BusOptions
from recorder.bus.reader import SocketReader
from recorder.bus.window import DeliveryWindow
from recorder.bus.wire import MAX_FRAME_BYTES
from recorder.identity import new_epoch, source_log
from recorder.log import get_logger

AHEAD = 1_024
"""At most so many messages are read ahead of who takes them."""

logger = get_logger(__name__)


class TopicSubscription:
    """Messages of a PUB socket. Used on one event loop."""

    guarantee = Guarantee.AT_MOST_ONCE

    def __init__(self, endpoint: ZmqEndpoint, topics: Sequence[str], encoding: Encoding, options: BusOptions):
        self.name = endpoint.url
        self.log = source_log("zmq+sub", endpoint.address, new_epoch().to_bytes(8, "little"))
        self._endpoint = endpoint
        self._topics = topics
        self._encoding = encoding
        self._window = DeliveryWindow(options.window_messages, options.window_bytes)
        self._ahead = min(AHEAD, options.window_messages)
        self._ahead_bytes = options.window_bytes
        self._notices = Notices(self.name)
        self._position = 0
        self._wake = asyncio.Event()
        self._closed = False
        self._context: Any = None
        self._socket: Any = None
        self._reader: SocketReader | None = None

    async def start(self) -> None:
        """Connect; the PUB socket may come later.

        Raises:
            BusUnavailable: ZeroMQ is not installed, takes no such address, or this subscription was used.
        """
        if self._closed or self._socket is not None:
            raise BusUnavailable(f"bus {self.name}: this subscription was used; open another one")
        zmq = import_zmq()
        self._context = zmq.Context()
        self._socket = socket = self._context.socket(zmq.SUB)
        prepare(socket, self._endpoint)
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME_BYTES)
        for topic in self._topics:
            socket.setsockopt(zmq.SUBSCRIBE, topic.encode())
        try:
            socket.connect(self._endpoint.address)
        except zmq.ZMQError as error:
            await self.close()
            raise BusUnavailable(f"bus {self.name}: {error}; check host and port, or path") from error
        self._reader = SocketReader(socket, self._take_parts)
        logger.debug("topics asked for", bus=self.name, topics=list(self._topics))

    def _take_parts(self, parts: list[bytes]) -> None:
        try:
            raw_topic, payload = parts
            topic = raw_topic.decode()
        except ValueError as error:
            self._notices.malformed(f"{len(parts)} parts: {error}", b"".join(parts))
            return
        self._window.add(
            [BusMessage(topic, payload, self._encoding, time.time_ns(), self.log, self._position)]
        )
        self._position += 1
        self._wake.set()
        if self._full and self._reader is not None:
            self._reader.pause()

    @property
    def _full(self) -> bool:
        return len(self._window.waiting) >= self._ahead or self._window.waiting_bytes >= self._ahead_bytes

    async def messages(self) -> AsyncIterator[Sequence[BusMessage]]:
        """Messages as they come; ends after `close`."""
        while not self._closed:
            self._wake.clear()
            if some := self._window.take():
                self._window.ack(some)  # nothing here waits for an acknowledgement
                if not self._full and self._reader is not None:
                    self._reader.resume()
                yield some
            else:
                await self._wake.wait()

    async def ack(self, messages: Sequence[BusMessage]) -> None:
        """Does nothing: the publisher is told nothing, and room was made at delivery."""

    def take_notices(self) -> Sequence[BusNotice]:
        """What was no message since the last call."""
        return self._notices.take()

    async def close(self) -> None:
        """Disconnect."""
        if self._closed:
            return
        self._closed = True
        self._wake.set()
        if self._reader is not None:
            self._reader.close()
        if self._socket is not None:
            self._socket.close(linger=0)
            await asyncio.to_thread(self._context.term)


def open_topics(url: str, options: BusOptions) -> TopicSubscription:
    """The subscription of `zmq+sub://host:port?topics=a,b&encoding=json`; without topics, all of them.

    Raises:
        BusUrlError: the URL names no address or path, or no such encoding.
        BusUnavailable: ZeroMQ is not installed.
    """
    import_zmq()
    endpoint = parse_zmq_url(url, "topics", "encoding")
    topics = [topic for topic in endpoint.options.get("topics", "").split(",") if topic] or [""]
    try:
        encoding = Encoding(endpoint.options.get("encoding", "json"))
    except ValueError:
        raise BusUrlError(f"bus {url}: no such encoding; write encoding=json or encoding=msgpack") from None
    return TopicSubscription(endpoint, topics, encoding, options)
