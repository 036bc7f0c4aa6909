"""What a subscription has to tell until it is asked: summed up, and bounded."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence

from recorder.bus.base import BusNotice

KEPT = 256
KEPT_BYTES = 16 * 1024 * 1024
"""Of frames that are none, so many of together so many bytes are kept; those beyond are only counted."""


class Notices:
    """Notices of one subscription, named in their texts."""

    def __init__(self, name: str):
        self.name = name
        self._shed: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._address: list[str] = []
        self._unreadable: Counter[str] = Counter()
        self._malformed: deque[BusNotice] = deque()
        self._malformed_bytes = 0
        self._malformed_more = 0

    def shed(self, publisher: str, messages: int) -> None:
        """A publisher's buffer was full, and it says how many messages that cost."""
        if messages and (publisher in self._shed or len(self._shed) < KEPT):
            self._shed[publisher] += messages
        elif messages:
            self._shed["others"] += messages

    def refused(self, why: str) -> None:
        """A publisher was not let in."""
        if why in self._refused or len(self._refused) < KEPT:
            self._refused[why] += 1

    def address(self, what: str) -> None:
        """Something became of the address that the bus is opened at."""
        if len(self._address) < KEPT:
            self._address.append(what)

    def unreadable(self, why: str) -> None:
        """A message of a sound frame is none; its bytes come as a message."""
        if why in self._unreadable or len(self._unreadable) < KEPT:
            self._unreadable[why] += 1
        else:
            self._unreadable["others"] += 1

    def malformed(self, why: str, payload: bytes) -> None:
        """A frame is none; its bytes are kept."""
        if len(self._malformed) >= KEPT or self._malformed_bytes + len(payload) > KEPT_BYTES:
            self._malformed_more += 1
            return
        self._malformed_bytes += len(payload)
        self._malformed.append(BusNotice("bus_malformed", f"{self.name}: no message: {why}", 1, payload))

    def take(self) -> Sequence[BusNotice]:
        """All of them, once."""
        told = self._shed, self._refused, self._address, self._unreadable, self._malformed
        if not (any(told) or self._malformed_more):
            return []
        found = [
            BusNotice(
                "bus_overflow", f"{self.name}: buffer of {publisher} full; {count} messages shed", count
            )
            for publisher, count in self._shed.items()
        ]
        found += [
            BusNotice("bus_refused", f"{self.name}: {why}", count) for why, count in self._refused.items()
        ]
        found += [BusNotice("bus_address", f"{self.name}: {what}") for what in self._address]
        found += [
            BusNotice("bus_malformed", f"{self.name}: {count} messages cannot be read: {why}", count)
            for why, count in self._unreadable.items()
        ]
        found += self._malformed
        if self._malformed_more:
            text = (
                f"{self.name}: {self._malformed_more} more frames are no messages; their bytes were not kept"
            )
            found.append(BusNotice("bus_malformed", text, self._malformed_more))
        self._shed.clear()
        self._refused.clear()
        self._address.clear()
        self._unreadable.clear()
        self._malformed.clear()
        self._malformed_bytes = self._malformed_more = 0
        return found
