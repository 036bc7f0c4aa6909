"""`Publisher`: rows from a trading process to a recorder in another one, over ZeroMQ.

`publish` encodes, copies the message into a bounded ring and returns: no waiting, no answer, no call of the system, no
exception because of load. What the ring cannot take is shed, counted, and told to the recorder. The ring is memory that
a process of its own shares (`recorder.bus.sender`), which sends what was taken until the recorder says that it is safe:
beside the trading process, so that nothing it does takes the interpreter's lock from a call, and a message that was
taken outlives whoever published it. Measurements in docs/bus.md.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import logging
import math
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Collection
from dataclasses import dataclass
from multiprocessing.spawn import get_executable
from types import TracebackType
from typing import Any, Self

import msgspec

from recorder.bus import wire
from recorder.bus.base import Encoding
from recorder.bus.cores import on_cores
from recorder.bus.encode import encode_rows, plain_parts
from recorder.bus.endpoint import parse_zmq_url
from recorder.bus.errors import BusUnavailable, BusUrlError
from recorder.bus.ring import RingWriter, Word
from recorder.bus.sender import READY, Config
from recorder.correlation import correlation_id as current_correlation_id
from recorder.errors import RecorderClosed, RecorderForked
from recorder.identity import new_epoch

MAX_MESSAGE_BYTES = 4 * 1024 * 1024
"""A larger message is refused in the call."""
START_S = 30.0
"""How long its sender may take to start."""
END_S = 2.0
"""How long its sender may take to end when everything is safe."""
LOOK_S = 0.002
"""Whoever waits for acknowledgements looks this often."""
AGAIN_S = 1.0
"""A sender that ended by itself has a successor so much later, at the soonest, than the last one."""

log = logging.getLogger("recorder.publisher")

_live: weakref.WeakSet[Publisher] = weakref.WeakSet()


def _forked() -> None:
    """In a forked child: the publishers are the parent's. Told once, so that no call has to ask the system."""
    for publisher in _live:
        publisher._forked = True


os.register_at_fork(after_in_child=_forked)


@dataclass(frozen=True)
class PublisherStats:
    """Counts of messages since the start: `accepted = acked + waiting`, and beside them what was `shed`.

    `sent` were handed to the socket at least once; `waiting_bytes` is what they take in the ring.
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
    `buffer_bytes` bounds what waits or is not acknowledged: so much memory is taken at the start; `linger_ms` is how
    long a message waits for company; `close_timeout_s` is what closing at the interpreter's exit waits at most, and
    `outlive_s` for how long what is not acknowledged by then, or when this process is killed, is still sent. `cpus` are
    the cores its sender may run on: without it those of the thread that makes it, so a trading thread that is pinned to
    a core names others. For use from any thread, and from coroutines: `publish` never waits. Making it waits until its
    sender has started, a quarter of a second; `flush` and `close` wait, too. A coroutine calls these by
    `asyncio.to_thread`.

    Raises:
        BusUrlError: the URL names no such address.
        BusUnavailable: ZeroMQ is not installed, or the sender does not start.
        OSError: there is no memory for the buffer.
        ValueError: `cpus` names a core that this process may not use, the buffer has no bytes, or a time is out of
            bounds: `linger_ms` is at most 1,000, and neither it nor `outlive_s` is endless.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str = "",
        buffer_bytes: int = 64 * 1024 * 1024,
        linger_ms: float = 10.0,
        close_timeout_s: float = 2.0,
        outlive_s: float = 30.0,
        cpus: Collection[int] | None = None,
    ):
        if not url.startswith("zmq://"):
            raise BusUrlError(
                f"bus {url.partition('://')[0]}://: a Publisher speaks zmq://host:port or zmq:///path"
            )
        parse_zmq_url(url)
        if buffer_bytes < 1:
            raise ValueError(f"a buffer of {buffer_bytes} bytes takes no message")
        for what, value, most in (
            ("linger_ms", linger_ms, 1_000),
            ("outlive_s", outlive_s, 10**9),
            ("close_timeout_s", close_timeout_s, math.inf),
        ):
            if not 0 <= value <= most:
                raise ValueError(f"{what}={value}; it is from 0 to {most}")
        if importlib.util.find_spec("zmq") is None:
            raise BusUnavailable("ZeroMQ is not installed; pip install 'coldpath-recorder[zmq]'")
        self.url = url
        self.name = name or f"{socket.gethostname()}-{os.getpid()}"
        self.epoch = new_epoch()
        self._forked = False
        _live.add(self)
        self._close_timeout_s = close_timeout_s
        self._outlive_s = outlive_s
        self._cpus = cpus
        self._import_path = _import_path()
        self._closed = False
        self._over_at = math.inf
        self._ring = RingWriter(buffer_bytes)
        self._config = Config(
            url,
            self.epoch,
            self.name,
            self._ring.fd,
            buffer_bytes,
            os.getpid(),
            int(linger_ms * 1e6),
            int(outlive_s * 1e9),
        )
        self._thread = threading.Thread(target=self._watch, name="recorder-publisher", daemon=True)
        try:
            self._sender = self._start()
            self._thread.start()
        except BaseException:
            self._ring.close()  # which ends the sender, too
            raise
        atexit.register(self._at_exit)

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
        return self._ring.put(wire.record(time.time_ns(), topic, number, correlation_id, payload))

    def _check_usable(self) -> None:
        if self._forked:
            raise RecorderForked(
                f"publisher {self.name}: the process forked after it was made; make another one in the child"
            )
        if self._closed:
            raise RecorderClosed(f"publisher {self.name}: is closed; make another one")

    def stats(self) -> PublisherStats:
        """Counts of messages since the start; of a closed publisher, as they were when its sender ended."""
        ring = self._ring
        # In this order: what is counted later is never less.
        acked, sent = ring.word(Word.RESOLVED), ring.word(Word.SENT_TO)
        accepted = ring.accepted
        return PublisherStats(accepted, sent, acked, accepted - acked, ring.shed, ring.used_bytes)

    # -- the sender ------------------------------------------------------------------------------------------------

    @property
    def sender_pid(self) -> int:
        """The process that sends."""
        return self._sender.pid

    def _start(self) -> subprocess.Popen[bytes]:
        """A sender that has said that it can begin."""
        with on_cores(self._cpus):  # a process runs where the thread does that starts it
            sender = subprocess.Popen(
                # -P: nothing in the working directory is taken for a module.
                [
                    get_executable(),
                    "-P",
                    "-m",
                    "recorder.bus.sender",
                    msgspec.json.encode(self._config).decode(),
                ],
                stdin=subprocess.DEVNULL,
                # Not the process's own: whoever reads these to their end would wait for the sender's.
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=[self._ring.fd],
                env=os.environ | {"PYTHONPATH": self._import_path},
                start_new_session=True,
            )
        assert sender.stdout is not None
        try:
            with sender.stdout as pipe:
                answers = select.poll()
                answers.register(pipe, select.POLLIN)
                said = pipe.readline() if answers.poll(START_S * 1_000) else b"it does not answer"
            if said == READY:
                return sender
        except BaseException:
            sender.kill()
            _end_of(sender)
            raise
        sender.kill()
        end = _end_of(sender)
        why = said.decode(errors="replace").strip() or end
        raise BusUnavailable(f"publisher {self.name}: its sender did not start: {why}")

    def _watch(self) -> None:
        """Wait for the sender's end; while there is something to send, or may be, start another one."""
        while True:
            why = _end_of(self._sender)
            if self._over():
                break
            apart = self._ring.word(Word.APART)
            log.warning(
                "publisher %s: its sender ended by itself: %s; another one goes on%s",
                self.name,
                why,
                f", without {apart} messages of which the recorder may not have all" if apart else "",
            )
            successor = self._successor()
            if successor is None:
                break
            self._sender = successor
        self._ring.close()

    def _successor(self) -> subprocess.Popen[bytes] | None:
        """Another sender, as soon as one can be started; None if none is needed any more."""
        why = ""
        while True:
            time.sleep(AGAIN_S)
            if self._over():
                return None
            try:
                return self._start()
            except Exception as error:  # noqa: BLE001 - no descriptor, no memory, no such core: it may pass
                if why != str(error):
                    why = str(error)
                    log.warning("publisher %s: no sender can be started, trying again: %s", self.name, why)

    def _over(self) -> bool:
        """Whether no sender is needed any more."""
        return self._closed and (not self.stats().waiting or time.monotonic() >= self._over_at)

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
        while not self._closed:
            left = end - time.monotonic()
            if left <= 0 or not self.stats().waiting:
                break
            time.sleep(min(LOOK_S, left))
        return not self.stats().waiting

    def close(self, timeout_s: float | None = None) -> bool:
        """Wait as `flush` does, at most so long, and let go; False if not everything was acknowledged.

        Without a time it is `close_timeout_s`. What is not acknowledged by then its sender goes on with for
        `outlive_s`; `stats` says how much that is. Idempotent; in a forked child it does nothing.
        """
        if self._forked:
            return not self.stats().waiting
        if not self._closed:
            self._drain(self._close_timeout_s if timeout_s is None else timeout_s)
            self._ring.end()
            self._over_at = min(self._over_at, time.monotonic() + self._outlive_s)
            self._closed = True
            atexit.unregister(self._at_exit)
        all_safe = not self.stats().waiting
        if all_safe or not self._outlive_s:
            self._thread.join(END_S)
            if self._thread.is_alive():
                self._sender.kill()
                self._thread.join(END_S)
        return all_safe

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


def _import_path() -> str:
    """Where this process finds modules, for one that runs elsewhere."""
    found = []
    for entry in sys.path:
        with contextlib.suppress(OSError):  # relative, to a folder that was removed
            found.append(os.path.abspath(entry))
    return os.pathsep.join(found)


def _end_of(sender: subprocess.Popen[bytes]) -> str:
    """Wait for it, and say how it came."""
    code = sender.wait()
    assert sender.stderr is not None
    with sender.stderr as pipe:
        # Its end is not waited for: a process that forked just then has the other side, too.
        os.set_blocking(pipe.fileno(), False)
        text = (pipe.read() or b"").decode(errors="replace").strip()
    names = {number.value: number.name for number in signal.Signals}  # not all have one
    how = names.get(-code, f"signal {-code}") if code < 0 else f"code {code}"
    return f"{how}, {text.splitlines()[-1]}" if text else how
