"""What was confirmed and settled, as a value: what of a log needs no replay. Pure.

A place is *confirmed* once the server said yes, and *settled* once that server has not restarted for the grace period
since; or at once, where nobody will send it (a dead letter, a row that was lost, or has expired).

It knows neither files (`wal.checkpoint`) nor what the log holds: it may speak of more, or of less.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeAlias

from wal.places import PlaceSet, Range
from wal.seals import Json

_NS_PER_S = 1_000_000_000


class Confirmed(NamedTuple):
    """Rows that a server said it has. `at_s` is the second in which that was over, since 1970."""

    range: Range
    at_s: int
    server: str
    """Which server, and which run of it: another text means that it restarted."""


_Confirmed: TypeAlias = tuple[Confirmed, ...]


@dataclass(frozen=True)
class Checkpoint:
    """A value: each method gives another one. No place is both settled and confirmed, nor confirmed twice."""

    settled: tuple[Range, ...] = ()
    """By epoch and sequence, none touching the next."""
    confirmed: _Confirmed = ()
    """By epoch and sequence."""
    notes: Mapping[str, Json] = field(default_factory=dict, hash=False)
    """What the owner has to remember, such as how far it had read its sources. They outlive every epoch."""

    def confirm(self, ranges: Iterable[Range], *, at_ns: int, server: str) -> Checkpoint:
        """A server said that it has these. What is settled stays so; of what is confirmed already, this counts.

        Times are rounded up to seconds, and what comes in order within one is kept as one: at any rate of inserts it
        takes one line for each second of the grace period.
        """
        at_s = -(-at_ns // _NS_PER_S)
        settled = PlaceSet(self.settled)
        confirmed = self.confirmed
        for asked in ranges:
            for fresh in settled.missing_of(asked):
                confirmed = _put(confirmed, Confirmed(fresh, at_s, server))
        return replace(self, confirmed=confirmed)

    def settle(self, *, before_ns: int, server: str) -> Checkpoint:
        """What this run of the server confirmed at `before_ns` or earlier is settled."""
        settled, kept = PlaceSet(self.settled), []
        for one in self.confirmed:
            if one.server == server and one.at_s * _NS_PER_S <= before_ns:
                settled.add(one.range)
            else:
                kept.append(one)
        return replace(self, settled=tuple(settled), confirmed=tuple(kept))

    def resolve(self, ranges: Iterable[Range]) -> Checkpoint:
        """Nobody has to send these again, and no restart of a server changes that: they are settled at once."""
        settled = PlaceSet(self.settled)
        confirmed = self.confirmed
        for done in ranges:
            settled.add(done)
            confirmed = _cut(confirmed, done)
        return replace(self, settled=tuple(settled), confirmed=confirmed)

    def unconfirm(self, *, server: str) -> tuple[Checkpoint, tuple[Range, ...]]:
        """What another run than this one confirmed is open again; and which ranges these are, to be looked up."""
        again = PlaceSet(one.range for one in self.confirmed if one.server != server)
        kept = tuple(one for one in self.confirmed if one.server == server)
        return replace(self, confirmed=kept), tuple(again)

    def reopen(self, ranges: Iterable[Range]) -> Checkpoint:
        """These are to be sent again, through the look-up, whatever was said of them."""
        settled = PlaceSet(self.settled)
        confirmed = self.confirmed
        for opened in ranges:
            settled.remove(opened)
            confirmed = _cut(confirmed, opened)
        return replace(self, settled=tuple(settled), confirmed=confirmed)

    def forget(self, epochs: Iterable[int]) -> Checkpoint:
        """Without these epochs: the log has nothing of them any more."""
        gone = frozenset(epochs)
        return replace(
            self,
            settled=tuple(one for one in self.settled if one.epoch not in gone),
            confirmed=tuple(one for one in self.confirmed if one.range.epoch not in gone),
        )

    def note(self, notes: Mapping[str, Json]) -> Checkpoint:
        """With these notes, and those under other keys."""
        return replace(self, notes={**self.notes, **notes})

    def drop_notes(self, keys: Iterable[str]) -> Checkpoint:
        """Without these notes, if they are there."""
        gone = frozenset(keys)
        return replace(self, notes={key: value for key, value in self.notes.items() if key not in gone})

    @property
    def epochs(self) -> frozenset[int]:
        """The epochs that it speaks of."""
        return frozenset(one.epoch for one in self.settled) | {one.range.epoch for one in self.confirmed}

    def done(self) -> PlaceSet:
        """What needs no replay: settled or confirmed."""
        return PlaceSet((*self.settled, *(one.range for one in self.confirmed)))


def _span(confirmed: _Confirmed, span: Range) -> tuple[int, int]:
    """From which to before which entry something is in a span, which is not empty."""
    begin = bisect_left(confirmed, (span.epoch, span.first), key=lambda one: one.range[:2])
    if begin and confirmed[begin - 1].range.common(span):
        begin -= 1
    return begin, bisect_left(confirmed, (span.epoch, span.stop), key=lambda one: one.range[:2])


def _cut(confirmed: _Confirmed, span: Range, put: _Confirmed = ()) -> _Confirmed:
    """Without what is in a span, and with these entries in its place."""
    if span.rows <= 0:
        return confirmed
    begin, end = _span(confirmed, span)
    epoch, first, stop = span
    left = [one for one in confirmed[begin:end] if one.range.first < first]
    right = [one for one in confirmed[begin:end] if one.range.stop > stop]
    return (
        *confirmed[:begin],
        *(one._replace(range=Range(epoch, one.range.first, first)) for one in left),
        *put,
        *(one._replace(range=Range(epoch, stop, one.range.stop)) for one in right),
        *confirmed[end:],
    )


def _put(confirmed: _Confirmed, new: Confirmed) -> _Confirmed:
    """With a new entry, which takes the place of others and goes on with those beside it, if they are alike."""
    confirmed = _cut(confirmed, new.range)
    epoch, first, stop = new.range
    begin, end = _span(confirmed, Range(epoch, max(0, first - 1), stop + 1))
    for other in confirmed[begin:end]:
        if (other.at_s, other.server) == (new.at_s, new.server):
            first, stop = min(first, other.range.first), max(stop, other.range.stop)
    whole = Range(epoch, first, stop)
    return _cut(confirmed, whole, (new._replace(range=whole),))
