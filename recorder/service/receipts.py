"""Which messages of a subscription wait for what, and which are done: the books behind its acknowledgements. Pure.

A message whose dead letters found no room is not done, but to be taken again: it stays pending until then. Messages
that wait for the same handovers are one group, so that a burst of messages costs a group for each combination of tables
and not an entry for each message and table.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict, deque
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from recorder.bus.base import BusMessage


class Made(NamedTuple):
    """A message and the places (tables, or its dead letter) that its rows are for."""

    message: BusMessage
    places: frozenset[str]


@dataclass(eq=False, slots=True)
class _Group:
    messages: list[BusMessage]
    places: frozenset[str]
    left: int
    bytes: int = 0
    unkept: bool = False


@dataclass(slots=True)
class Use:
    """What of a subscription's window waits for one place."""

    messages: int = 0
    bytes: int = 0


class Receipts:
    """See the module. A message is pending from `expect` until all that it waits for is settled."""

    def __init__(self) -> None:
        self.uses: defaultdict[str, Use] = defaultdict(Use)
        """By place."""
        self._pending: dict[tuple[int, int], float] = {}
        self._groups: dict[Hashable, list[_Group]] = {}
        self._done: list[BusMessage] = []
        self._again: deque[BusMessage] = deque()

    @property
    def pending(self) -> int:
        """Messages that wait."""
        return len(self._pending)

    @property
    def any_done(self) -> bool:
        """Whether messages can be acknowledged."""
        return bool(self._done)

    def is_pending(self, message: BusMessage) -> bool:
        """Whether this very message waits here already."""
        return (message.log, message.position) in self._pending

    def oldest_s(self) -> float | None:
        """Since when the oldest message waits. From any thread."""
        with contextlib.suppress(RuntimeError):  # changed just now
            return next(iter(self._pending.values()), None)
        return None

    def expect(self, made: Iterable[Made], handovers: Sequence[tuple[str, Hashable]], now_s: float) -> None:
        """Let messages wait for those of the handovers, each with its place, that have rows of theirs.

        A message none of whose places has a handover (it made no rows, or none found room) is done.
        """
        by_place = dict(handovers)
        groups: dict[frozenset[str], _Group] = {}
        for message, places in made:
            waits = places.intersection(by_place)
            if not waits:
                self.finish(message)
                continue
            group = groups.get(waits)
            if group is None:
                group = groups[waits] = _Group([], waits, len(waits))
            group.messages.append(message)
            group.bytes += len(message.payload)
            self._pending.setdefault((message.log, message.position), now_s)
        for group in groups.values():
            for place in group.places:
                self._groups.setdefault(by_place[place], []).append(group)
                self.uses[place].messages += len(group.messages)
                self.uses[place].bytes += group.bytes

    def settled(self, handover: Hashable, *, unkept: bool = False) -> None:
        """It is waited for no more; `unkept` where dead letters of its messages may have found no room."""
        for group in self._groups.pop(handover, ()):
            group.left -= 1
            group.unkept |= unkept
            if not group.left:
                self._finish(group)

    def finish(self, message: BusMessage) -> None:
        """A message that makes nothing is done."""
        self._pending.pop((message.log, message.position), None)
        self._done.append(message)

    @property
    def again(self) -> int:
        """Messages that are to be taken again."""
        return len(self._again)

    def take_again(self, most: int) -> list[BusMessage]:
        """Messages that are to be taken again, each once, oldest first. They stay pending: `expect` them anew."""
        return [self._again.popleft() for _ in range(min(most, len(self._again)))]

    def take_done(self) -> list[BusMessage]:
        """Messages that can be acknowledged, each once."""
        done, self._done = self._done, []
        return done

    def _finish(self, group: _Group) -> None:
        for place in group.places:
            self.uses[place].messages -= len(group.messages)
            self.uses[place].bytes -= group.bytes
        if group.unkept:
            self._again += group.messages
            return
        for message in group.messages:
            self.finish(message)
