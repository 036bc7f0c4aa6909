"""What the recorder needs of a bus: messages that say who they are, and somebody to tell that they are safe.

A bus that repeats what was not acknowledged (at least once) makes each row once, because a message makes the same
identities whenever and wherever it is delivered: `log` is a hash of the stream's incarnation (for ZeroMQ, of one
publisher's epoch), `position` the message's number in it. Every implementation passes
`tests/contract/subscription_contract.py` unchanged.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple, Protocol


class Encoding(enum.StrEnum):
    """How a payload is written."""

    JSON = "json"
    MSGPACK = "msgpack"


class Guarantee(enum.StrEnum):
    """What a bus promises of a message that was published and not shed by its publisher."""

    AT_LEAST_ONCE = "at-least-once"
    """Delivered again until it is acknowledged: its rows are in the table once."""
    AT_MOST_ONCE = "at-most-once"
    """May be lost between publisher and recorder; nothing is delivered again."""


class BusMessage(NamedTuple):
    """One message: a topic and one row or many.

    `ts_ns` is when it was published (UTC), the same at every delivery; `log` and `position` are its identity, the
    same at every delivery too. `redelivered` says that it may have been delivered before, to this recorder or another
    one: its rows are looked up before their first insert.
    """

    topic: str
    payload: bytes
    encoding: Encoding
    ts_ns: int
    log: int
    position: int
    redelivered: bool = False
    correlation_id: str | None = None


class BusNotice(NamedTuple):
    """Something to tell in `system_events`: messages a publisher shed, a frame that is none, an address that was lost.

    `kind` is a short code (`bus_overflow`, `bus_malformed`, `bus_refused`, `bus_address`); `messages` how many it is
    about; `payload` the bytes of what could not be taken for a message, which become a dead letter.
    """

    kind: str
    text: str
    messages: int = 0
    payload: bytes = b""


class Subscription(Protocol):
    """Messages of one bus, for one recorder. Used on one event loop.

    Nothing is read ahead without bound. At least once: at most a window of messages is delivered and unacknowledged
    at a time, and what is beyond it stays with the publisher. At most once: nothing waits for acknowledgements, since
    what is not read is lost and not counted; at most a window of messages is delivered at a time, and who takes them
    bounds and counts.
    """

    @property
    def name(self) -> str:
        """What people call it, such as its URL without secrets: for logs, metrics and a dead letter's origin."""

    @property
    def guarantee(self) -> Guarantee:
        """What it promises."""

    async def start(self) -> None:
        """Subscribe.

        Raises:
            BusUnavailable: it cannot; the message says what, where and what to do.
        """

    def messages(self) -> AsyncIterator[Sequence[BusMessage]]:
        """Messages as they come, some at a time, those of one `log` in order. Ends after `close`.

        What was delivered and not acknowledged before is delivered again by a new subscription, marked so.
        """

    async def ack(self, messages: Sequence[BusMessage]) -> None:
        """Their rows are durable: they need not be delivered again. In any order; an unknown one is ignored."""

    def take_notices(self) -> Sequence[BusNotice]:
        """What happened since the last call."""

    async def close(self) -> None:
        """Take no more, and let go of the bus; what is unacknowledged stays so. Idempotent."""
