"""A ZeroMQ socket on an event loop.

ZeroMQ's descriptor is edge-triggered, and any call on the socket may swallow the edge: so whoever sends says `again`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from recorder.bus.endpoint import import_zmq

if TYPE_CHECKING:
    import zmq

FRAMES_A_TURN = 32
"""Read in one turn of the loop, so that others have theirs."""


class SocketReader:
    """Calls `take` with each message's parts, on the running loop, until it is closed or paused."""

    def __init__(self, socket: zmq.Socket[bytes], take: Callable[[list[bytes]], None]):
        zmq = import_zmq()
        self._socket = socket
        self._take = take
        self._events, self._in, self._noblock = zmq.EVENTS, zmq.POLLIN, zmq.NOBLOCK
        self._error = zmq.ZMQError
        self._fd = int(socket.getsockopt(zmq.FD))
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._fd, self._ready)
        self._soon: asyncio.Handle | None = None
        self._paused = False
        self.again()

    def again(self) -> None:
        """Look again soon."""
        if self._soon is None and not self._paused:
            self._soon = self._loop.call_soon(self._ready)

    def pause(self) -> None:
        """Read nothing more until `resume`."""
        self._paused = True

    def resume(self) -> None:
        """Go on reading."""
        self._paused = False
        self.again()

    def _ready(self) -> None:
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        socket, events, wanted = self._socket, self._events, self._in
        more = True
        try:
            for _ in range(FRAMES_A_TURN):
                if self._paused or socket.closed or not socket.getsockopt(events) & wanted:
                    more = False
                    return
                self._take(socket.recv_multipart(self._noblock))
        except self._error:
            pass  # somebody else took it; look again
        finally:
            # Even after an error of who takes: the edge is gone, and nothing would wake us.
            if more:
                self.again()

    def close(self) -> None:
        """Read no more. The socket stays open."""
        self._paused = True
        self._loop.remove_reader(self._fd)
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
