"""Keeping a depth book in step with the venue: snapshot, then every change after it, or nothing at all.

The venue's procedure ("How to manage a local order book correctly", spot and futures): keep the stream's changes, take
a snapshot, drop changes it already has, let the first one left reach back to it, and from then on let every change
follow the one before.

| | already in the snapshot | reaches back to the snapshot | follows the one before |
|---|---|---|---|
| spot | u <= lastUpdateId | U <= lastUpdateId + 1 | U <= previous u + 1 |
| futures | u < lastUpdateId | pu <= lastUpdateId | pu == previous u |

(The futures' documents ask U <= lastUpdateId <= u of the first change. `pu` is below `U`, and the change covers
all after `pu`: the rule here takes the same changes, and the one that follows the snapshot without overlap.)

A book that missed a change is dropped at once and comes back with the next snapshot: there are no levels rather than
wrong ones.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from enum import Enum, auto
from typing import NamedTuple

from recorder.normalise.binance.book import NO_TOP, Book, Level, Top
from recorder.normalise.binance.ids import REPEATS_MAX, Hole

BUFFER_EVENTS_MAX = 1_000
BUFFER_LEVELS_MAX = 20_000
"""What is kept while there is no snapshot; the oldest goes first, and a snapshot from before it is then of no use."""


class Change(NamedTuple):
    """Changed levels from update `first` to `last`; `before` is the last update of the message before (futures)."""

    first: int
    last: int
    before: int | None
    bids: Sequence[Level]
    asks: Sequence[Level]


class Taken(Enum):
    """What became of a change."""

    APPLIED = auto()
    BUFFERED = auto()
    REPEATED = auto()


class BookSync:
    """One symbol's depth book and its place in the venue's ids. `depth` levels are kept ready in `top`."""

    __slots__ = (
        "_book",
        "_book_id",
        "_buffer",
        "_buffered_levels",
        "_depth",
        "_repeats",
        "lost",
        "stream_id",
        "top",
    )

    def __init__(self, depth: int):
        self.top: Top = NO_TOP
        """The best levels; empty while the book is not in sync."""
        self.lost = False
        """Whether the book was in sync and is not any more."""
        self.stream_id: int | None = None
        """The last update id the stream gave; None before its first change."""
        self._depth = depth
        self._book: Book | None = None
        self._book_id = 0
        self._buffer: deque[Change] = deque()
        self._buffered_levels = 0
        self._repeats = 0

    @property
    def in_sync(self) -> bool:
        """Whether the book holds every change up to now."""
        return self._book is not None

    def change(self, change: Change) -> tuple[Taken, Hole | None]:
        """Take the stream's next change; the hole before it, if there is one."""
        previous = self.stream_id
        hole: Hole | None = None
        if previous is not None and not _follows(change, previous):
            if change.last <= previous and self._repeats < REPEATS_MAX:
                self._repeats += 1
                return Taken.REPEATED, None
            hole = _hole(change, previous)
            self._drop()
            self._buffer.clear()  # what lies before a hole can never lead across it
            self._buffered_levels = 0
        self._repeats = 0
        self.stream_id = change.last
        if self._book is not None and self._apply(self._book, change):
            self.top = self._book.top(self._depth)
        if self._book is None:
            self._keep(change)
            return Taken.BUFFERED, hole
        return Taken.APPLIED, hole

    def snapshot(self, last_id: int, bids: Sequence[Level], asks: Sequence[Level]) -> bool:
        """Start from a snapshot; False if it is of no use: older than the book, or than the changes kept."""
        if self._book is not None and last_id < self._book_id:
            return False
        newer = [change for change in self._buffer if not _contained(change, last_id)]
        if newer and not _reaches(newer[0], last_id):
            return False
        book = Book(bids, asks)
        self._book_id = last_id
        for change in newer:
            book.apply(change.bids, change.asks)
            self._book_id = change.last
        self._book = book
        self.lost = False
        self._buffer.clear()
        self._buffered_levels = 0
        self.top = book.top(self._depth)
        return True

    def _apply(self, book: Book, change: Change) -> bool:
        """Apply a change that follows; whether the book moved."""
        if _contained(change, self._book_id):
            return False
        if not _reaches(change, self._book_id):  # the snapshot was too old for what came first after it
            self._drop()
            return False
        book.apply(change.bids, change.asks)
        self._book_id = max(change.last, self._book_id)
        return True

    def _drop(self) -> None:
        self.lost = self.lost or self._book is not None
        self._book = None
        self.top = NO_TOP

    def _keep(self, change: Change) -> None:
        self._buffer.append(change)
        self._buffered_levels += len(change.bids) + len(change.asks)
        while len(self._buffer) > BUFFER_EVENTS_MAX or self._buffered_levels > BUFFER_LEVELS_MAX:
            oldest = self._buffer.popleft()
            self._buffered_levels -= len(oldest.bids) + len(oldest.asks)


def _follows(change: Change, previous: int) -> bool:
    if change.before is None:
        return change.first <= previous + 1 and change.last > previous
    return change.before == previous


def _contained(change: Change, snapshot_id: int) -> bool:
    if change.before is None:
        return change.last <= snapshot_id
    return change.last < snapshot_id


def _reaches(change: Change, snapshot_id: int) -> bool:
    if change.before is None:
        return change.first <= snapshot_id + 1
    return change.before <= snapshot_id


def _hole(change: Change, previous: int) -> Hole:
    if change.before is None:
        return Hole(previous + 1, change.first, max(0, change.first - previous - 1))
    return Hole(previous, change.before, max(0, change.before - previous))
