"""`python -m recorder.bus.sender`: the process beside a trading process that sends what `Publisher` puts into the ring.

It shares nothing with the trading process but the ring's memory: not its interpreter's lock, not its garbage, not its
end. Whoever is killed, the other goes on: a sender that died has a successor, which finds in the ring what is not yet
safe; a sender whose trading process died, or closed, delivers what is left, for a bounded time.

The protocol is in `recorder.bus.wire`, the bookkeeping in `recorder.bus.outbox`; here are the socket and the times.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time

import msgspec

from recorder.bus import wire
from recorder.bus.endpoint import import_zmq, parse_zmq_url, prepare
from recorder.bus.errors import BusError
from recorder.bus.feed import Feed
from recorder.bus.ring import RingReader, Word

FRAMES_A_TURN = 8
"""Sent, and read, at most, before the other side is looked at."""
IDLE_NS = 20_000_000
"""While nothing was published for `ACTIVE_NS`, the ring is looked at this often: the first message waits for it."""
ACTIVE_NS = 100_000_000
HEARTBEAT_NS = 1_000_000_000
SILENCE_NS = 5 * HEARTBEAT_NS
"""Without a word from the recorder for so long, everything begins with a hello again."""
TELL_NS = 100_000_000
"""A shed count that no message carries is told this often at most."""
READY = b"ready\n"
"""Written to the standard output when it can begin."""


class Config(msgspec.Struct, frozen=True):
    """What a sender is started with, as JSON in its only argument."""

    url: str
    epoch: int
    name: str
    fd: int
    capacity: int
    parent: int
    linger_ns: int
    outlive_ns: int


class Sender:
    """The socket, and who serves it.

    Raises:
        BusError: the address cannot be used.
    """

    def __init__(self, config: Config):
        zmq = import_zmq()
        endpoint = parse_zmq_url(config.url)
        self._config = config
        self._ring = RingReader(config.fd, config.capacity)
        self._feed = Feed(self._ring, config.epoch, config.name)
        self._outbox = self._feed.outbox
        self._pending: bytes | None = None
        self._restarts = 0
        self._blocked = False
        self._said_ns = 0
        self._heard_ns = self._moved_ns = time.monotonic_ns()
        self._told_shed = 0
        self._unread = select.poll()
        self._unread.register(2, 0)  # an error is always told: nobody can read any more what is written there
        self._noblock, self._again, self._in, self._out = zmq.NOBLOCK, zmq.Again, zmq.POLLIN, zmq.POLLOUT
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        prepare(self._socket, endpoint)
        # Nothing waits inside ZeroMQ for a recorder that is not there: what is sent again is ours to know.
        self._socket.setsockopt(zmq.IMMEDIATE, 1)
        self._socket.setsockopt(zmq.SNDHWM, 64)
        self._socket.setsockopt(zmq.RCVHWM, 64)
        self._socket.connect(endpoint.address)

    def run(self) -> None:
        """Send until the other side has closed or died and everything is safe, or its time is up."""
        end_ns = None
        while True:
            more = self._turn(time.monotonic_ns())
            if end_ns is None and self._alone():
                end_ns = time.monotonic_ns() + self._config.outlive_ns
            if end_ns is not None and (self._feed.done or time.monotonic_ns() >= end_ns):
                return
            if not more:
                self._wait()

    def close(self) -> None:
        """Say goodbye, if all is safe, and let go of the socket."""
        if self._outbox.welcome and self._feed.done:
            self._send(wire.pack_bye(self._outbox.epoch))
        self._socket.close(linger=200)
        self._context.term()

    def _alone(self) -> bool:
        return (
            self._ring.word(Word.CLOSING) != 0
            or os.getppid() != self._config.parent
            or bool(self._unread.poll(0))  # another program runs in the process that started it
        )

    def _wait(self) -> None:
        """Until an answer comes, the socket takes what it did not, or it is time to look."""
        idle = time.monotonic_ns() - self._moved_ns > ACTIVE_NS
        wait_ns = IDLE_NS if idle or self._blocked else self._config.linger_ns
        self._socket.poll(max(1, wait_ns // 1_000_000), self._in | (self._out if self._blocked else 0))

    def _turn(self, now: int) -> bool:
        """Read what has come, send what may go; whether there is more to do at once."""
        more = self._hear_all(now)
        if self._feed.fill():
            self._moved_ns = now
        for _ in range(FRAMES_A_TURN):
            if not self._send_one(now):
                break
        else:
            more = True
        self._feed.tell()
        return more

    def _send_one(self, now: int) -> bool:
        """Send the next frame; False if there is none, or nobody takes it."""
        if self._pending is None or self._restarts != self._outbox.restarts:
            self._pending = self._next(now)
            self._restarts = self._outbox.restarts
            self._feed.about_to_send()
        self._blocked = self._pending is not None and not self._send(self._pending)
        if self._pending is None or self._blocked:
            return False
        self._pending = None
        self._said_ns = now
        return True

    def _send(self, frame: bytes) -> bool:
        try:
            self._socket.send(frame, self._noblock)
        except self._again:
            return False
        return True

    def _next(self, now: int) -> bytes | None:
        box = self._outbox
        if box.welcome and now - self._heard_ns > SILENCE_NS:
            box.forget()
        frame = box.next_frame()
        if frame is not None:
            self._told_shed = box.shed
            return frame
        since = now - self._said_ns
        if not box.welcome:
            return box.hello() if since >= HEARTBEAT_NS // 4 else None
        if since >= HEARTBEAT_NS or (box.shed != self._told_shed and since >= TELL_NS):
            self._told_shed = box.shed
            return box.ping()
        return None

    def _hear_all(self, now: int) -> bool:
        """Read what has come; whether there may be more."""
        for _ in range(FRAMES_A_TURN):
            try:
                frame = self._socket.recv(self._noblock)
            except self._again:
                return False
            self._hear(frame, now)
        return True

    def _hear(self, frame: bytes, now: int) -> None:
        try:
            epoch, answer = wire.unpack_from_recorder(frame)
        except wire.WireError:
            return  # not from a recorder; what it may have meant will be asked again
        if epoch != self._outbox.epoch:
            return
        self._heard_ns = now
        known = self._outbox.welcome
        self._outbox.take(answer)
        if known and not self._outbox.welcome:
            self._said_ns = 0  # say hello at once


def _say(what: bytes) -> None:
    """Tell who started it, once, if it is still there: if it was killed, what it had published is sent all the same."""
    with contextlib.suppress(BrokenPipeError):
        os.write(1, what)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


def main(argument: str) -> int:
    """Send; the exit code."""
    # The trading process says when to end. What tells it to end is sent to all of a group, or of a service, at once.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.chdir("/")  # the trading process's folder may be removed
    os.set_blocking(2, False)  # nobody reads it before the end
    try:
        sender = Sender(msgspec.json.decode(argument, type=Config))
    except (BusError, OSError) as error:
        _say(str(error).encode())
        return 1
    _say(READY)
    sender.run()
    sender.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
