"""The recorder's side of the protocol (`recorder.bus.wire`), for one epoch of one publisher. Pure.

What comes is taken in order only: a repeat is dropped and counted, a hole is asked for. What is resolved may be so in
any order.
"""

from __future__ import annotations

from collections.abc import Iterable

from recorder.bus import wire
from recorder.bus.base import BusMessage
from recorder.bus.ranges import Ranges
from recorder.identity import source_log


class PublisherStream:
    """What is known of one epoch: what is expected next, what is resolved, what was told."""

    def __init__(self, epoch: int, hello: wire.Hello):
        self.epoch = epoch
        self.name = "".join(char if char.isprintable() else "?" for char in hello.name)
        self.log = source_log("zmq", hello.name, epoch.to_bytes(8, "little"))
        self.expected = hello.base
        self.resolved = Ranges()
        self.resolved.add(0, hello.base)
        self.shed_seen = hello.shed_told
        self.repeats = 0

    @property
    def in_hand(self) -> int:
        """Messages that were taken and are not resolved."""
        return self.expected - self.resolved.total

    def greet(self, hello: wire.Hello) -> None:
        """The publisher says hello again: what it has as resolved is so."""
        if hello.base > self.expected:
            self.resolved.add(self.expected, hello.base)
            self.expected = hello.base

    def shed_since(self, shed: int) -> int:
        """Messages shed since it was last asked."""
        more = max(0, shed - self.shed_seen)
        self.shed_seen += more
        return more

    def hole(self, data: wire.Data) -> bool:
        """Whether something before these messages has not come."""
        return data.follows > self.expected

    def repeated(self, data: wire.Data) -> bool:
        """Whether all of these messages were taken before; they are counted."""
        if data.first + data.messages > self.expected:
            return False
        self.repeats += data.messages
        return True

    def take(self, data: wire.Data, records: list[wire.Record]) -> list[BusMessage]:
        """The messages that are new, of a frame without a hole before it."""
        if data.first > self.expected:
            self.resolved.add(self.expected, data.first)
        old = max(0, self.expected - data.first)
        self.repeats += old
        log, redelivered, encodings = self.log, data.redelivered, wire.ENCODINGS
        self.expected = data.first + data.messages
        return [
            BusMessage(topic, payload, encodings[encoding], ts_ns, log, position, redelivered, correlation_id)
            for position, (ts_ns, topic, encoding, correlation_id, payload) in enumerate(
                records[old:] if old else records, data.first + old
            )
        ]

    def give_up(self, data: wire.Data) -> None:
        """These messages cannot be read: they are dealt with, and the publisher goes on."""
        start = min(self.expected, data.first)
        self.expected = data.first + data.messages
        self.resolved.add(start, self.expected)

    def resolve(self, positions: Iterable[int]) -> None:
        """These are safe; positions that were not taken are ignored."""
        start = end = -1
        for position in sorted(positions):
            if position != end:
                self.resolved.add(start, min(end, self.expected))
                start = position
            end = position + 1
        self.resolved.add(start, min(end, self.expected))

    def ack(
        self,
        run: int,
        window_messages: int,
        window_bytes: int,
        *,
        welcome: bool = False,
        resend: bool = False,
    ) -> bytes:
        """The frame that tells the publisher."""
        resolved = self.resolved.end_of_run(0)
        ranges = self.resolved.above(resolved, wire.MAX_RANGES)
        return wire.pack_ack(
            self.epoch,
            wire.Ack(
                welcome,
                resend,
                run,
                resolved,
                self.expected,
                self.shed_seen,
                window_messages,
                window_bytes,
                ranges,
            ),
        )
