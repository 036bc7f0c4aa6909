"""Which hours of bars are to be computed, given what is recorded and what is built. Pure: no clock, no SQL.

There is no memory of what was done but the bars themselves: each carries its `basis`, a number made of the identities
of all rows that its hour depends on. An hour is due when that number is not what the recorded rows make now. So a late
row, a build that was killed and two builds at once all end the same way: the next build finds what is not right.

Laws, each of them checked by tests:

- An hour is due exactly when a row that its bars depend on is there and was not when they were made, or they are not
  complete.
- An hour is never made again from fewer rows than its bars have: raw partitions go, and bars stay.
- After every hour due was built none is due.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from recorder.bars.windows import Hour

RULES = 1
"""Counts up when the same rows make other bars: then all of them are due."""


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """The rows of an hour that bars are made of, up to the last window that is closed.

    `identities` is an order-free sum over who they are; the local times are the first and the last of them. `singles`
    and `aggregates` are trades of either kind.
    """

    rows: int
    identities: int
    first_local_ns: int
    last_local_ns: int
    singles: int = 0
    aggregates: int = 0


@dataclass(frozen=True, kw_only=True)
class Built:
    """The bars of an hour as they are read. `rows` is the sum of theirs; `basis` is None where they do not agree."""

    bars: int
    rows: int
    basis: int | None
    version: int
    first_local_ns: int
    last_local_ns: int


class State(enum.StrEnum):
    """How the bars of an hour are."""

    CURRENT = "current"
    NEW = "new"
    """There are none."""
    LATE = "late"
    """Rows they depend on came since, or they are not complete."""
    KEPT = "kept"
    """Rows that they were made of are no longer recorded: they stay as they are, whatever came since."""

    @property
    def is_due(self) -> bool:
        """Whether they are to be computed."""
        return self in (State.NEW, State.LATE)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What becomes of an hour, and all that is needed to compute its bars.

    Rows that they are made of have local times from `first_local_ns` to `last_local_ns`. `version` is above the one
    that is built, 0 where none is. `rows_before` are the rows of the hour before.
    """

    hour: Hour
    state: State
    recorded: Recorded
    basis: int
    aggregates: bool
    first_local_ns: int
    last_local_ns: int
    version: int
    rows_before: int


def verdicts(
    recorded: Mapping[Hour, Recorded],
    built: Mapping[Hour, Built],
    *,
    oldest_local_ns: int,
    begin_ns: int,
    end_ns: int,
    lacking: Callable[[Hour, Recorded], bool],
) -> Iterator[Verdict]:
    """What becomes of each hour with rows that begins from `begin_ns` on and before `end_ns`, in the order of time.

    `recorded` also has the hours before and after, where there are rows. `oldest_local_ns` is the oldest local time of
    any row that is recorded still: what bars were made of before it is gone. `lacking` says whether rows of any bar of
    an hour are gone, looked at bar by bar; it is asked where the hour as a whole does not tell, and bars would be made
    again.
    """
    for hour in sorted(recorded, key=lambda hour: (hour.begin_ns, hour)):
        if not begin_ns <= hour.begin_ns < end_ns:
            continue
        mine, before = recorded[hour], recorded.get(hour.moved(-1))
        aggregates = counts_aggregates(recorded, hour)
        basis = basis_of(mine, before, aggregates=aggregates)
        there = built.get(hour)
        yield Verdict(
            hour=hour,
            state=_state(hour, recorded, basis, built, oldest_local_ns, lacking),
            recorded=mine,
            basis=basis,
            aggregates=aggregates,
            first_local_ns=min(mine.first_local_ns, before.first_local_ns if before else mine.first_local_ns),
            last_local_ns=max(mine.last_local_ns, before.last_local_ns if before else mine.last_local_ns),
            version=there.version + 1 if there else 0,
            rows_before=before.rows if before else 0,
        )


def counts_aggregates(recorded: Mapping[Hour, Recorded], hour: Hour) -> bool:
    """Whether aggregates make the trades of an hour: no single trade is in it, nor in the one before or after.

    An aggregate's time may lie on the other side of a full hour than those of the trades that it stands for.
    """
    near = (recorded.get(hour.moved(step)) for step in (-1, 0, 1))
    return not any(each.singles for each in near if each is not None)


def basis_of(mine: Recorded, before: Recorded | None, *, aggregates: bool) -> int:
    """The number of 64 bits that stands for all that the bars of an hour are made of."""
    made_of = [RULES, mine.rows, mine.identities, int(aggregates and mine.aggregates > 0)]
    made_of += [before.rows, before.identities] if before is not None else [0, 0]
    text = " ".join(map(str, made_of)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def _state(
    hour: Hour,
    recorded: Mapping[Hour, Recorded],
    basis: int,
    built: Mapping[Hour, Built],
    oldest_local_ns: int,
    lacking: Callable[[Hour, Recorded], bool],
) -> State:
    there = built.get(hour)
    if there is None:
        return State.NEW
    if there.basis == basis and there.rows == recorded[hour].rows:
        return State.CURRENT
    # The hour before gives the quote that this one begins with.
    needed = [each for each in (hour, hour.moved(-1)) if each in built]
    if any(_lacks(recorded.get(each), built[each], oldest_local_ns) for each in needed):
        return State.KEPT
    # Late rows may be as many as those that are gone, with times around theirs.
    return State.KEPT if any(lacking(each, recorded[each]) for each in needed) else State.LATE


def _lacks(recorded: Recorded | None, built: Built, oldest_local_ns: int) -> bool:
    """Whether rows that bars were made of are gone, as far as counts and times tell.

    The oldest row of all does not tell: an older partition may be there still, since it is held.
    """
    if recorded is None or recorded.rows < built.rows or built.first_local_ns < oldest_local_ns:
        return True
    return built.first_local_ns < recorded.first_local_ns or recorded.last_local_ns < built.last_local_ns
