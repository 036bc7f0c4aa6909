"""`Publisher`: rows from a trading process to a recorder in another one, over ZeroMQ.

`publish` encodes, puts the message into a bounded buffer and returns: no waiting, no answer, no exception because of
load. What the buffer cannot take is shed, counted, and told to the recorder. What was taken is sent until the recorder
says that it is safe; it is lost only with this process. The protocol is in `recorder.bus.wire`, the bookkeeping in
`recorder.bus.outbox`; here are the socket and who serves it.

The socket is served in the calls of `publish` themselves, a few microseconds at a time and never by two threads at
once, and by a thread that looks after it while nobody publishes. ZeroMQ's own thread does what touches the network; it
needs no lock of the interpreter's. Measurements in docs/bus.md.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import socket as sockets
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from recorder.bus import wire
from recorder.bus.alarm import make_alarm
from recorder.bus.base import Encoding
from recorder.bus.cores import on_cores
from recorder.bus.encode import encode_rows, plain_parts
from recorder.bus.endpoint import ZmqEndpoint, import_zmq, parse_zmq_url, prepare
from recorder.bus.errors import BusUrlError
from recorder.bus.outbox import Outbox
from recorder.correlation import correlation_id as current_correlation_id
from recorder.errors import RecorderClosed, RecorderForked
from recorder.identity import new_epoch

MAX_MESSAGE_BYTES = 4 * 1024 * 1024
"""A larger message is refused in the call."""
FRAMES_A_TURN = 8
"""Sent, and read, at most, each time the thread serves the socket; a call of `publish` does one of either."""
SETTLE_A_CALL = 8
"""Messages that the recorder said are safe, let go of in a call of `publish`: more than the one that it takes, so that
none are left over, and few, so that it stays short."""
KEEP_NS = 5_000_000
"""The thread serves the socket so long after the last call that did, and this often while there is more to do."""
ANSWERS_NS = 50_000_000
"""While nothing can be sent and something is unresolved, this often: for answers."""
IDLE_NS = 250_000_000
"""While nothing is unresolved: for heartbeats, and a hello to a recorder that comes back."""
HEARTBEAT_NS = 1_000_000_000
HELLO_NS = 20_000_000
"""So long after a hello its answer is looked for as if there were something to send."""
SILENCE_NS = 5 * HEARTBEAT_NS
"""Without a word from the recorder for so long, everything begins with a hello again."""
TELL_NS = 100_000_000
"""A shed count that no message carries is told this often at most."""


@dataclass(frozen=True)
class PublisherStats:
    """Counts of messages since the start: `accepted = acked + waiting`, and beside them what was `shed`.

    `sent` were handed to the socket at least once; `waiting_bytes` is what the buffer holds.
    """

    accepted: int
    sent: int
    acked: int
    waiting: int
    shed: int
    waiting_bytes: int


class Publisher:
    """Messages to the recorder that listens at `url`: `zmq://host:port` or `zmq:///path.sock`.

    `name` says who publishes, for logs and for the identity of rows (beside a random number drawn at each start);
    `buffer_bytes` bounds what waits or is not acknowledged; `linger_ms` is how long a message waits for company;
    `close_timeout_s` is what closing at the interpreter's exit waits at most. `cpus` are the cores its own threads may
    run on: without it those of the thread that makes it, so a trading thread that is pinned to a core names others. For
    use from any thread, and from coroutines: `publish` never waits. `flush` and `close` do; a coroutine calls them by
    `asyncio.to_thread`.

    Raises:
        BusUrlError: the URL names no such address.
        BusUnavailable: ZeroMQ is not installed.
        ValueError: `cpus` names a core that this process may not use.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str = "",
        buffer_bytes: int = 64 * 1024 * 1024,
        linger_ms: float = 2.0,
        close_timeout_s: float = 2.0,
        cpus: Collection[int] | None = None,
    ):
        if not url.startswith("zmq://"):
            raise BusUrlError(
                f"bus {url.partition('://')[0]}://: a Publisher speaks zmq://host:port or zmq:///path"
            )
        zmq = import_zmq()
        endpoint = parse_zmq_url(url)
        self.url = url
        self.name = name or f"{sockets.gethostname()}-{os.getpid()}"
        self.epoch = new_epoch()
        self._outbox = Outbox(self.epoch, self.name, buffer_bytes)
        self._pid = os.getpid()
        self._linger_ns = int(linger_ms * 1e6)
        self._close_timeout_s = close_timeout_s
        self._closed = False
        self._serving = threading.Lock()
        self._served_ns = 0
        self._pending: bytes | None = None
        self._restarts = 0
        self._said_ns = 0
        self._heard_ns = time.monotonic_ns()
        self._told_shed = 0
        self._events, self._noblock, self._again = zmq.EVENTS, zmq.NOBLOCK, zmq.Again
        self._in, self._out = zmq.POLLIN, zmq.POLLOUT
        self._idle = False
        self._thread = threading.Thread(target=self._keep, name="recorder-publisher", daemon=True)
        with on_cores(cpus):
            self._open(endpoint)
        atexit.register(self._at_exit)

    def _open(self, endpoint: ZmqEndpoint) -> None:
        """Make the socket, and start all threads: they run on the cores of who starts them."""
        zmq = import_zmq()
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        prepare(self._socket, endpoint)
        # Nothing waits inside ZeroMQ for a recorder that is not there: what is sent again is ours to know.
        self._socket.setsockopt(zmq.IMMEDIATE, 1)
        self._socket.setsockopt(zmq.SNDHWM, 64)
        self._socket.setsockopt(zmq.RCVHWM, 64)
        self._socket.connect(endpoint.address)
        self._alarm = make_alarm()
        try:
            self._thread.start()
        except BaseException:
            self._alarm.close()
            raise

    # -- publishing ----------------------------------------------------------------------------------------------

    def publish(self, topic: str, row_or_rows: Any, correlation_id: str | None = None) -> bool:
        """Publish one row, or a list of them, as one message; True if it was taken, False if it was shed and counted.

        A row is a mapping or a row object. It is encoded before this returns: its owner may change it. Without a
        correlation id the context's is taken.

        Raises:
            TypeError: a row is none, or holds what cannot be sent exactly, such as a datetime; the topic or the
                correlation id is no text.
            ValueError: a value, the topic or the whole message is out of bounds.
            RecorderClosed: the publisher is closed.
            RecorderForked: the process forked after it was made.
        """
        return self.publish_raw(topic, encode_rows(row_or_rows), Encoding.MSGPACK, correlation_id)

    def publish_raw(
        self,
        topic: str,
        payload: bytes | bytearray | memoryview,
        encoding: Encoding = Encoding.JSON,
        correlation_id: str | None = None,
    ) -> bool:
        """Publish a payload as it is, as one message; True if it was taken, False if it was shed and counted.

        Raises:
            TypeError: the payload is not bytes or like them, the topic or the correlation id no text.
            ValueError: the payload has more than 4 MiB, the topic more than 255 characters, the correlation id more
                than 1,024.
            RecorderClosed: the publisher is closed.
            RecorderForked: the process forked after it was made.
        """
        self._check_usable()
        if correlation_id is None:
            correlation_id = current_correlation_id.get()
        topic, payload, correlation_id = plain_parts(topic, payload, correlation_id)
        if len(payload) > MAX_MESSAGE_BYTES:
            raise ValueError(
                f"{topic}: a message of {len(payload)} bytes; at most {MAX_MESSAGE_BYTES}, publish it in parts"
            )
        if len(topic) > 255 or (correlation_id is not None and len(correlation_id) > 1_024):
            raise ValueError("a topic has at most 255 characters, a correlation id 1,024")
        number = wire.ENCODING_NUMBERS[encoding]
        taken = self._outbox.put(wire.record(time.time_ns(), topic, number, correlation_id, payload))
        due = time.monotonic_ns() - self._served_ns >= self._linger_ns
        if (due or self._outbox.unsettled) and self._serving.acquire(False):
            try:
                if not self._closed:
                    self._outbox.settle(SETTLE_A_CALL)
                    if due:
                        self._serve_a_little()
                        self._alarm.set(KEEP_NS)
            finally:
                self._serving.release()
        if self._idle:
            self._idle = False
            self._alarm.set(KEEP_NS)
        return taken

    def _check_usable(self) -> None:
        if self._pid != os.getpid():
            raise RecorderForked(
                f"publisher {self.name}: the process forked after it was made; make another one in the child"
            )
        if self._closed:
            raise RecorderClosed(f"publisher {self.name}: is closed; make another one")

    def stats(self) -> PublisherStats:
        """Counts of messages since the start."""
        box = self._outbox
        acked, accepted = box.resolved.total, box.accepted
        return PublisherStats(accepted, box.sent_to, acked, accepted - acked, box.shed, box.held_bytes)

    # -- the socket: whoever holds `_serving` ----------------------------------------------------------------------

    def _serve_a_little(self) -> None:
        """Read one frame or send one: what a call of `publish` may cost."""
        now = time.monotonic_ns()
        events = self._socket.getsockopt(self._events)
        # What it said last is settled first: there is no hurry, and two answers in one call would take too long.
        if events & self._in and not self._outbox.unsettled:
            self._hear(self._socket.recv(self._noblock), now)
            return
        # With more waiting than a frame holds, the next call sends again.
        if not (events & self._out and self._send_one(now) and self._outbox.fills_a_frame):
            self._served_ns = now

    def _serve(self) -> bool:
        """Read what has come, send what may go; whether there is more to do soon."""
        now = self._served_ns = time.monotonic_ns()
        socket, more = self._socket, False
        for _ in range(FRAMES_A_TURN):
            if not socket.getsockopt(self._events) & self._in:
                break
            self._hear(socket.recv(self._noblock), now)
        else:
            more = True
        self._outbox.settle()
        if socket.getsockopt(self._events) & self._out:
            more = all(self._send_one(now) for _ in range(FRAMES_A_TURN)) or more
        # Who has just said hello is about to be answered, and messages wait for that.
        return more or (not self._outbox.welcome and now - self._said_ns < HELLO_NS)

    def _send_one(self, now: int) -> bool:
        """Send the next frame; False if there is none, or nobody takes it."""
        if self._pending is None or self._restarts != self._outbox.restarts:
            self._pending = self._next(now)
            self._restarts = self._outbox.restarts
            if self._pending is None:
                return False
        try:
            self._socket.send(self._pending, self._noblock)
        except self._again:
            return False
        self._pending = None
        self._said_ns = now
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

    def _hear(self, frame: bytes, now: int) -> None:
        try:
            epoch, answer = wire.unpack_from_recorder(frame)
        except wire.WireError:
            return  # not from a recorder; what it may have meant will be asked again
        if epoch != self.epoch:
            return
        self._heard_ns = now
        known = self._outbox.welcome
        self._outbox.take(answer)
        if known and not self._outbox.welcome:
            self._said_ns = 0  # say hello at once

    # -- the thread that looks after it ----------------------------------------------------------------------------

    def _keep(self) -> None:
        """Serve the socket while nobody publishes: until then, each call puts the alarm off."""
        more = False
        while not self._closed:
            accepted = self._outbox.accepted
            with self._serving:
                if not self._closed:
                    more = self._serve()
            # In this order: whoever publishes meanwhile sees that it is idle, or what was published is seen here.
            self._idle = True
            self._alarm.set(ANSWERS_NS if self._outbox.unresolved else IDLE_NS)
            if more or self._outbox.accepted != accepted:
                self._idle = False
                self._alarm.set(KEEP_NS)
            if not self._closed:
                self._alarm.wait()
            self._idle = False
        self._alarm.close()

    # -- the end ---------------------------------------------------------------------------------------------------

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything that was taken is acknowledged; False if the time did not suffice.

        Raises:
            RecorderClosed: the publisher is closed.
            RecorderForked: the process forked after it was made.
        """
        self._check_usable()
        return self._drain(timeout_s)

    def _drain(self, timeout_s: float) -> bool:
        end = time.monotonic() + timeout_s
        while self._outbox.unresolved:
            # Not for ever: a signal handler that flushes may have interrupted the very thread that serves.
            if self._serving.acquire(timeout=0.02):
                try:
                    if self._closed:
                        break
                    self._serve()
                finally:
                    self._serving.release()
            left = end - time.monotonic()
            if left <= 0:
                break
            time.sleep(min(0.002, left))
        return not self._outbox.unresolved

    def close(self, timeout_s: float | None = None) -> bool:
        """Wait as `flush` does, at most so long, and let go of the socket; False if not everything was acknowledged.

        Without a time it is `close_timeout_s`. What is not acknowledged by then is lost to this process; `stats` still
        says how much. Idempotent; in a forked child it does nothing.
        """
        if self._closed or self._pid != os.getpid():
            return not self._outbox.unresolved
        done = self._drain(self._close_timeout_s if timeout_s is None else timeout_s)
        mine = self._serving.acquire(timeout=1.0)
        if self._closed:
            if mine:
                self._serving.release()
            return done
        self._closed = True
        self._alarm.set(1)
        atexit.unregister(self._at_exit)
        if not mine:
            # A signal handler, in the middle of a call that serves: that call ends with what it does, and the socket
            # with the process.
            return done
        try:
            if done and self._outbox.welcome:
                with contextlib.suppress(self._again):
                    self._socket.send(wire.pack_bye(self.epoch), self._noblock)
            self._socket.close(linger=200)
        finally:
            self._serving.release()
        if threading.current_thread() is not self._thread:
            self._thread.join(1.0)
        self._context.term()
        return done

    def _at_exit(self) -> None:
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Publisher {self.name} to {self.url}, epoch {self.epoch:016x}>"
