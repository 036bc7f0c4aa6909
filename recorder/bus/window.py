"""What waits to be delivered and what is delivered and unacknowledged: one subscription's bookkeeping. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from recorder.bus.base import BusMessage

SOME = 256
"""At most so many messages are delivered at a time, so that one turn of the loop stays short."""
MESSAGE_COST = 256
"""What a message is counted for beside its payload, in bytes: about what its objects take."""


def cost(message: BusMessage) -> int:
    """What a message takes of a budget, in bytes."""
    return len(message.payload) + MESSAGE_COST


class DeliveryWindow:
    """Messages on their way through one subscription. At most `messages` of together `bytes_` are out at a time.

    One message larger than all of `bytes_` goes out alone. Not thread-safe.
    """

    def __init__(self, messages: int, bytes_: int):
        self.limit_messages = messages
        self.limit_bytes = bytes_
        self.waiting: deque[BusMessage] = deque()
        self.waiting_bytes = 0
        self.out: dict[tuple[int, int], BusMessage] = {}
        self.out_bytes = 0

    def add(self, messages: Iterable[BusMessage]) -> None:
        """Put messages in the queue, in order."""
        for message in messages:
            self.waiting.append(message)
            self.waiting_bytes += cost(message)

    def take(self) -> Sequence[BusMessage]:
        """The next messages that the window has room for, now out; empty if there are none or it is full."""
        taken: list[BusMessage] = []
        while self.waiting and len(taken) < SOME and len(self.out) < self.limit_messages:
            size = cost(self.waiting[0])
            if self.out and self.out_bytes + size > self.limit_bytes:
                break
            message = self.waiting.popleft()
            self.waiting_bytes -= size
            self.out_bytes += size
            self.out[message.log, message.position] = message
            taken.append(message)
        return taken

    def ack(self, messages: Iterable[BusMessage]) -> list[BusMessage]:
        """Those of the messages that were out, and are no longer."""
        known = []
        for message in messages:
            there = self.out.pop((message.log, message.position), None)
            if there is not None:
                self.out_bytes -= cost(there)
                known.append(there)
        return known

    @property
    def total_bytes(self) -> int:
        """What all of its messages take, in bytes."""
        return self.waiting_bytes + self.out_bytes
