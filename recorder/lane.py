"""What a table's builder has cut for its worker, in two lanes: what memory holds, and what stands on the log alone.

Cuts come in the order of their rows. While there is room they wait in memory. Where there is none and all of a cut's
rows are on the table's log, and can be read there, its rows leave memory and it waits as a number of places; else
whoever brings it waits for room, and the queue behind it fills up to its bounds.

The worker gets what is in memory first, so that rows flow again as soon as the database does; after each of those one
of the backlog, so that it drains as well. The backlog is in order, and what is older than all of it goes before it.
Rows of a source that may have come before wait for what earlier runs left, where they may be. Rows are *resolved* up to
a queue position when all cuts up to it are done, in whatever order they were.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from aiochannel import Channel

from recorder.batch import Batch
from recorder.elsewhere import Gone
from recorder.pulse import Pulse
from wal.places import Range

ROOM = 1
"""Cuts that wait in memory; with the one under way and the one being built, three a table."""
ROOM_LOOK_S = 0.02
"""How often a cut that waits for room looks whether it is to go to the log instead."""


@dataclass(eq=False, slots=True)
class Stand:
    """A queue position, and the mark with which the log has all rows up to it that those before do not have; None where
    it lacks one.
    """

    upto: int
    mark: int | None = None


@dataclass(eq=False)
class Cut:
    """Rows for the worker. All rows up to queue position `upto` are resolved with it and those before it.

    `batches` are those that are not resolved, and empty while they are on the log alone: `places` says where.
    """

    batches: list[Batch]
    upto: int
    rows: int
    accepted: Sequence[tuple[int, int]] = ()
    """(acceptance in monotonic ns, rows) of its slices, for the lag."""
    places: tuple[Range, ...] = ()
    from_source: bool = False
    sent_before: bool = False
    """Of a batch that an earlier run had sealed: look up first, and send under its token."""
    recheck: bool = False
    """Its rows were in the database before it restarted, and are counted: only what it lost is put back."""
    partly: tuple[Range, ...] = ()
    """Where some of its rows stand, the log not having taken all: `places` is empty then. Done with when the cut is."""
    server: str | None = None
    """Which run of the server its first batch went to."""
    gone: list[Gone] | None = None
    """Of each batch, what became of rows that have left the table; None until it is known."""
    sorted_out: bool = False
    """Whether these were taken out of its batches, or none of them can have left."""
    done: bool = False
    stand: Stand = field(default_factory=lambda: Stand(0))
    """Of a table that spills: since when its rows are on the log."""

    @property
    def on_log_alone(self) -> bool:
        """Whether memory does not hold its rows."""
        return not self.batches and self.rows > 0

    def let_go(self) -> Cut:
        """The same on the log alone. The log has all of its rows."""
        accepted = ((self.accepted[0][0], self.rows),) if self.accepted else ()
        return replace(self, batches=[], accepted=accepted)

    def joined(self, later: Cut) -> Cut:
        """This and the cut that follows it, both on the log alone."""
        oldest = self.accepted or later.accepted
        accepted = ((oldest[0][0], self.rows + later.rows),) if oldest else ()
        return replace(
            self,
            upto=later.upto,
            rows=self.rows + later.rows,
            accepted=accepted,
            places=_joined(self.places, later.places),
        )


class Earlier(Protocol):
    """What earlier runs left on the log."""

    async def next(self) -> Cut | None:
        """The next of it, with its batches; None where nothing is left."""


@dataclass
class Lane:
    """See the module. Used on the recorder's loop."""

    batch_rows: int
    """As many rows small cuts of the backlog are joined to."""
    pulse: Pulse
    """Beats when rows were resolved."""
    earlier: Earlier | None = None
    readable: Callable[[Sequence[Range]], bool] = lambda _: True
    """Whether the log can give rows back that it has taken: they may be in its memory still, and its disk gone."""
    _memory: Channel[Cut] = field(default_factory=lambda: Channel(ROOM))
    _backlog: deque[Cut] = field(default_factory=deque)
    _under_way: deque[Cut] = field(default_factory=deque)
    """Of this run, in order, until all before them are done."""
    _head: Cut | None = None
    """Of what memory holds, the first."""
    _from_backlog: bool = False
    """Whether the backlog is next."""
    _parked: int = 0
    """Cuts of earlier runs that wait for an answer, and hold up what earlier runs left behind them."""
    _answered: deque[Cut] = field(default_factory=deque)
    """Those that were parked, and got it."""
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)
    _taken: asyncio.Event = field(default_factory=asyncio.Event)
    resolved_upto: int = 0
    """All rows up to this queue position are inserted, duplicates, dead letters, or shed."""

    @property
    def backlog_rows(self) -> int:
        """Rows of this run that stand on the log alone."""
        return sum(cut.rows for cut in self._backlog)

    @property
    def waiting(self) -> bool:
        """Whether something waits for the worker."""
        return self.parked or bool(self._backlog) or self._head is not None or not self._memory.empty()

    @property
    def parked(self) -> bool:
        """Whether cuts of earlier runs wait for an answer, or have it and wait for the worker."""
        return bool(self._parked or self._answered)

    def oldest_ns(self) -> int | None:
        """Acceptance (monotonic) of the oldest row of this run that is not resolved; None where there is none."""
        for cut in self._under_way:
            if not cut.done and cut.accepted:
                return cut.accepted[0][0]
        return None

    @property
    def full(self) -> bool:
        """Whether memory has no room for another cut."""
        return bool(self._memory.full())

    async def _room_within(self, seconds: float) -> None:
        """Wait until the worker takes a cut from memory, at most so long."""
        self._taken.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._taken.wait()

    async def put(self, cut: Cut, on_log: Callable[[Cut], bool] | None = None) -> None:
        """Add a cut; waits for room where it cannot leave memory.

        `on_log` puts it on the log, if it is to go there by now; it is asked until it has done so, or there is room.
        """
        self._under_way.append(cut)
        while on_log is not None and not on_log(cut) and self.full:
            await self._room_within(ROOM_LOOK_S)
        while self.full and _on_log(cut) and not self.readable(cut.places):
            await self._room_within(ROOM_LOOK_S)
        if self._memory.full() and _on_log(cut):
            self._under_way.pop()
            light = cut.let_go()
            last = self._backlog[-1] if self._backlog else None
            if last is not None and self._under_way[-1] is last and _may_join(last, light, self.batch_rows):
                self._backlog[-1] = light = last.joined(light)
                self._under_way[-1] = light
            else:
                self._backlog.append(light)
                self._under_way.append(light)
        else:
            await self._memory.put(cut)
        self._arrived.set()

    def recheck(self, cuts: Sequence[Cut]) -> None:
        """Add cuts on the log alone that are no rows of this run's queue any more."""
        self._backlog.extend(cuts)
        self._arrived.set()

    async def next(self) -> Cut:
        """The cut that is the worker's next."""
        while True:
            if self._head is None and not self._memory.empty():
                self._head = self._memory.get_nowait()
                self._taken.set()
            if self._backlogs_turn() and (cut := await self._next_of_backlog()) is not None:
                self._from_backlog = False
                return cut
            if self._head is not None and not (self._parked and self._head.from_source):
                cut, self._head = self._head, None
                self._from_backlog = not self._before_backlog(cut)
                return cut
            self._arrived.clear()
            if self._memory.empty() or self._head is not None:
                # What is left of the backlog cannot be read now.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(ROOM_LOOK_S if self._backlog else None):
                        await self._arrived.wait()

    def park(self, cut: Cut) -> None:
        """A cut of earlier runs waits for an answer: what memory holds goes on meanwhile."""
        self._parked += 1

    def unpark(self, cut: Cut) -> None:
        """Its answer has come."""
        self._parked -= 1
        self._answered.append(cut)
        self._arrived.set()

    def _backlogs_turn(self) -> bool:
        if self._head is None or (self._from_backlog and not self._before_backlog(self._head)):
            return True
        # A source's rows may be among those: what was sealed must be found whole or not at all.
        return bool(self._answered) or (self._head.from_source and self.earlier is not None)

    def _before_backlog(self, cut: Cut) -> bool:
        """Whether a cut came to memory before the trouble began: it is older than all that has left memory since."""
        return bool(self._backlog) and cut.upto <= self._backlog[0].upto

    async def _next_of_backlog(self) -> Cut | None:
        if self._answered:
            return self._answered.popleft()
        if self._parked and (self.earlier is not None or (self._backlog and self._backlog[0].from_source)):
            return None
        if self.earlier is not None:
            if (cut := await self.earlier.next()) is not None:
                return cut
            self.earlier = None
        if self._backlog and self.readable(self._backlog[0].places):
            return self._backlog.popleft()
        return None

    def done(self, cut: Cut) -> None:
        """All rows of a cut are resolved."""
        cut.done = True
        cut.batches = []  # it may wait here for long until all before it are done: memory must not hold it
        before = self.resolved_upto
        while self._under_way and self._under_way[0].done:
            self.resolved_upto = self._under_way.popleft().upto
        if self.resolved_upto != before:
            self.pulse.beat()

    def drop(self, gone: Range) -> list[Range]:
        """The log has these no more: what of them stood on it alone, and is given out by nobody now."""
        lost: list[Range] = []
        for cut in self._backlog:
            taken = [part for place in cut.places if (part := place.common(gone)) is not None]
            if not taken or not cut.on_log_alone:
                continue
            cut.places = tuple(part for place in cut.places for part in _without(place, gone))
            cut.rows -= sum(part.rows for part in taken)
            cut.accepted = ((cut.accepted[0][0], cut.rows),) if cut.accepted and cut.rows else ()
            if not cut.recheck:
                lost += taken
        return lost

    def unresolved(self) -> list[Cut]:
        """The cuts of this run that wait or are under way, in order."""
        return [cut for cut in self._under_way if not cut.done]


def _on_log(cut: Cut) -> bool:
    """Whether memory need not hold it: the log has all of its rows, or it has none (they were dead letters)."""
    return sum(place.rows for place in cut.places) == cut.rows


def _without(place: Range, gone: Range) -> list[Range]:
    """What of a range another one leaves."""
    common = place.common(gone)
    if common is None:
        return [place]
    parts = (Range(place.epoch, place.first, common.first), Range(place.epoch, common.stop, place.stop))
    return [part for part in parts if part.rows]


def _may_join(last: Cut, cut: Cut, batch_rows: int) -> bool:
    return (
        last.rows + cut.rows <= batch_rows
        and last.from_source == cut.from_source
        and not (last.sent_before or last.recheck)
    )


def joined_places(batches: Iterable[Batch]) -> tuple[Range, ...]:
    """Where the rows of batches stand that follow on one another."""
    return functools.reduce(_joined, (batch.places for batch in batches), ())


def _joined(places: Sequence[Range], later: Sequence[Range]) -> tuple[Range, ...]:
    if places and later and places[-1].epoch == later[0].epoch and places[-1].stop == later[0].first:
        middle = Range(places[-1].epoch, places[-1].first, later[0].stop)
        return (*places[:-1], middle, *later[1:])
    return (*places, *later)
