"""A bus inside one process: any thread publishes, one subscription takes.

At least once across subscriptions: what one did not acknowledge the next one gets again, for as long as the process
lives. Nothing is stored. The buffer is bounded in messages and bytes, over everything that is not acknowledged;
beyond it a message is shed, counted, and told in a `bus_overflow` notice.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import weakref
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence

from recorder.bus.base import BusMessage, BusNotice, Encoding, Guarantee
from recorder.bus.encode import plain_parts
from recorder.bus.errors import BusUnavailable, BusUrlError
from recorder.bus.options import BusOptions
from recorder.bus.window import DeliveryWindow, cost
from recorder.identity import new_epoch, source_log

_buses: weakref.WeakValueDictionary[str, InProcessBus] = weakref.WeakValueDictionary()
_buses_lock = threading.Lock()


class InProcessBus:
    """Messages from any thread of this process for one subscription of it.

    A bus with a name is the one that `inproc://name` subscribes to, until it is closed or nobody holds it.

    Raises:
        ValueError: there is a bus of that name.
    """

    def __init__(
        self, name: str = "", *, buffer_messages: int = 65_536, buffer_bytes: int = 64 * 1024 * 1024
    ):
        self.name = name
        self.log = source_log("inproc", name, new_epoch().to_bytes(8, "little"))
        self.shed = 0
        self._buffer_messages = buffer_messages
        self._buffer_bytes = buffer_bytes
        self._lock = threading.RLock()  # a signal handler may publish, too
        self._fresh: list[BusMessage] = []
        self._held_messages = 0
        self._held_bytes = 0
        self._next = 0
        self._busy = False
        self._late: deque[tuple[BusMessage, int | None]] = deque()
        self._shed_untold = 0
        self._left: list[BusMessage] = []
        self._subscription: InProcessSubscription | None = None
        if name:
            with _buses_lock:
                if name in _buses:
                    raise ValueError(f"there is a bus inproc://{name} in this process")
                _buses[name] = self

    def publish(
        self,
        topic: str,
        payload: bytes | bytearray | memoryview,
        encoding: Encoding = Encoding.JSON,
        *,
        ts_ns: int | None = None,
        correlation_id: str | None = None,
    ) -> bool:
        """Put a message on the bus, from any thread; False if the buffer is full and it was shed.

        Also from a signal handler, where True says that it was taken or is counted as shed.

        Raises:
            TypeError: the payload is not bytes or like them, the topic or the correlation id no text.
        """
        topic, payload, correlation_id = plain_parts(topic, payload, correlation_id)
        message = BusMessage(topic, payload, encoding, ts_ns or 0, self.log, 0, False, correlation_id)
        with self._lock:
            if self._busy:
                # A signal handler, in the middle of what its own thread does here: taken at the end of that.
                self._late.append((message, ts_ns))
                return True
            first = not self._fresh
            with self._alone():
                taken = self._accept(message, ts_ns)
            subscription = self._subscription
        if first and taken and subscription is not None:
            subscription._wake_from_any_thread()
        return taken

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Whatever is changed here is changed by one thread, and by no signal handler of that thread."""
        with self._lock:
            self._busy = True
            try:
                yield
                while self._late:
                    self._accept(*self._late.popleft())
            finally:
                self._busy = False
        if self._late:  # one that came between the last look and that line
            with self._alone():
                pass

    def _accept(self, message: BusMessage, ts_ns: int | None) -> bool:
        size = cost(message)
        if self._held_messages >= self._buffer_messages or self._held_bytes + size > self._buffer_bytes:
            self.shed += 1
            self._shed_untold += 1
            return False
        position, self._next = self._next, self._next + 1
        self._held_messages += 1
        self._held_bytes += size
        self._fresh.append(
            message._replace(position=position, ts_ns=time.time_ns() if ts_ns is None else ts_ns)
        )
        return True

    def subscribe(self, options: BusOptions | None = None) -> InProcessSubscription:
        """A subscription of it, not started; one at a time may be."""
        return InProcessSubscription(self, options or BusOptions())

    def close(self) -> None:
        """Give the name up. Idempotent."""
        with _buses_lock:
            if _buses.get(self.name) is self:
                del _buses[self.name]

    @property
    def waiting(self) -> int:
        """Messages that are not acknowledged."""
        return self._held_messages

    def _attach(self, subscription: InProcessSubscription) -> list[BusMessage]:
        with self._alone():
            if self._subscription is not None:
                raise BusUnavailable(
                    f"bus {subscription.name}: has a subscription; close it before another one starts"
                )
            self._subscription = subscription
            left, self._left = self._left, []
            return left

    def _detach(self, subscription: InProcessSubscription, left: list[BusMessage]) -> None:
        with self._alone():
            if self._subscription is subscription:
                self._subscription = None
                self._left = left

    def _take(self) -> list[BusMessage]:
        with self._alone():
            fresh, self._fresh = self._fresh, []
            return fresh

    def _take_shed(self) -> int:
        with self._alone():
            shed, self._shed_untold = self._shed_untold, 0
            return shed

    def _let_go(self, messages: Sequence[BusMessage]) -> None:
        with self._alone():
            self._held_messages -= len(messages)
            self._held_bytes -= sum(map(cost, messages))


class InProcessSubscription:
    """The subscription of an `InProcessBus`. Used on one event loop."""

    guarantee = Guarantee.AT_LEAST_ONCE

    def __init__(self, bus: InProcessBus, options: BusOptions):
        self.name = f"inproc://{bus.name}"
        self._bus = bus
        self._window = DeliveryWindow(options.window_messages, options.window_bytes)
        self._wake = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    async def start(self) -> None:
        """Subscribe, beginning with what earlier subscriptions did not acknowledge.

        Raises:
            BusUnavailable: the bus has a subscription, or this one was closed.
        """
        if self._closed:
            raise BusUnavailable(f"bus {self.name}: this subscription was closed; open another one")
        self._loop = asyncio.get_running_loop()
        self._window.add(self._bus._attach(self))

    async def messages(self) -> AsyncIterator[Sequence[BusMessage]]:
        """Messages as they come, in order; ends after `close`."""
        while not self._closed:
            self._wake.clear()
            # The bus's own bound covers what is taken over here.
            self._window.add(self._bus._take())
            if some := self._window.take():
                yield some
            else:
                await self._wake.wait()

    async def ack(self, messages: Sequence[BusMessage]) -> None:
        """Let go of what is safe."""
        if not self._closed:
            self._bus._let_go(self._window.ack(messages))
            self._wake.set()

    def take_notices(self) -> Sequence[BusNotice]:
        """What was shed since the last call."""
        count = self._bus._take_shed()
        if not count:
            return []
        return [BusNotice("bus_overflow", f"{self.name}: the buffer was full; {count} messages shed", count)]

    async def close(self) -> None:
        """Leave the bus; what is unacknowledged stays on it."""
        if self._closed:
            return
        self._closed = True
        seen = [message._replace(redelivered=True) for message in self._window.out.values()]
        if self._loop is not None:
            self._bus._detach(self, [*seen, *self._window.waiting])
        self._wake.set()

    def _wake_from_any_thread(self) -> None:
        if self._loop is not None:
            with contextlib.suppress(
                RuntimeError
            ):  # the loop has ended: whoever ran it wants no more messages
                self._loop.call_soon_threadsafe(self._wake.set)


def open_inprocess(url: str, options: BusOptions) -> InProcessSubscription:
    """The subscription of `inproc://name`.

    Raises:
        BusUrlError: this process has no bus of that name.
    """
    name = url.partition("://")[2]
    bus = _buses.get(name)
    if bus is None:
        raise BusUrlError(f"bus {url}: this process has no InProcessBus of that name; make one first")
    return InProcessSubscription(bus, options)
