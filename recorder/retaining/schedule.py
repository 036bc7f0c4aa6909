"""When retention is due: times of a cron expression, in UTC. Pure; it reads no clock.

Laws
- A time whose turn has come is due once, and not again when the clock is set back to before it.
- A time that was missed is not made up for: where the clock, or a machine that slept, is past it by more than `LATE_S`,
  it is told as missed, and the next one counts. The time was chosen since little else is done then; a start, or waking
  up, is when there is most to do, and partitions lose nothing by another day.
- However the clock jumps, the next time is never further away than the schedule says.

UTC has no daylight saving: no time comes twice, and none is left out.
"""

from __future__ import annotations

import datetime
import functools
from dataclasses import dataclass
from typing import NamedTuple

from cronsim import CronSim

EXAMPLE = "0 2 * * *"
LATE_S = 3_600.0
_S_NS = 1_000_000_000
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_LAST_S = 250_000_000_000
"""In the year 9892: beyond it the calendar of the standard library soon ends."""


class Schedule:
    """The times of a cron expression of five fields: minute, hour, day of the month, month, day of the week.

    Raises:
        ValueError: it is none, or no day is ever such a day; with an example.
    """

    def __init__(self, expression: str):
        self.expression = " ".join(expression.split())
        try:
            if len(self.expression.split()) != 5:
                raise ValueError("it has not five fields")
            next(CronSim(self.expression, _EPOCH))
        except StopIteration:
            raise ValueError(f"{expression!r} has no time at all; {_HINT}") from None
        except Exception as error:  # noqa: BLE001 - the library asserts, too
            raise ValueError(f"{expression!r} is no schedule ({error}); {_HINT}") from None

    def after_ns(self, now_ns: int) -> int:
        """The first time after `now_ns`, nanoseconds since 1970."""
        return _after_s(self.expression, min(max(now_ns // _S_NS, 0), _LAST_S)) * _S_NS

    def second_after_ns(self, now_ns: int) -> int:
        """The second one: when what should have been done since is two periods old."""
        return self.after_ns(self.after_ns(now_ns))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schedule) and other.expression == self.expression

    def __hash__(self) -> int:
        return hash(self.expression)


@functools.lru_cache(maxsize=16)
def _after_s(expression: str, now_s: int) -> int:
    found = next(CronSim(expression, _EPOCH + datetime.timedelta(seconds=now_s)))
    return int((found - _EPOCH) // datetime.timedelta(seconds=1))


_HINT = (
    f'write minute, hour, day of the month, month and day of the week (UTC), such as "{EXAMPLE}" for 02:00 each day or '
    '"30 3 * * 6" for Saturdays at 03:30; or "off"'
)


class Turn(NamedTuple):
    """A time that has come: to run now, or that was missed."""

    at_ns: int
    missed: bool


@dataclass(frozen=True)
class Turns:
    """Where one is in a schedule: `next_ns` comes next, `last_ns` was the last to come (0: none), `seen_ns` is when one
    looked last.
    """

    next_ns: int
    last_ns: int
    seen_ns: int


def begun(schedule: Schedule, now_ns: int, *, last_ns: int = 0) -> Turns:
    """From now on, where the time `last_ns` has had its turn."""
    next_ns = schedule.after_ns(now_ns)
    if next_ns == last_ns:
        next_ns = schedule.after_ns(next_ns)
    return Turns(next_ns, last_ns, now_ns)


def looked(schedule: Schedule, turns: Turns, now_ns: int) -> tuple[Turns, Turn | None]:
    """Where one is at another look, and the turn that has come, if any."""
    if now_ns < turns.seen_ns:  # set back: the next time may be nearer now
        return begun(schedule, now_ns, last_ns=turns.last_ns), None
    if now_ns < turns.next_ns:
        return Turns(turns.next_ns, turns.last_ns, now_ns), None
    late_s = (now_ns - turns.next_ns) / _S_NS
    return begun(schedule, now_ns, last_ns=turns.next_ns), Turn(turns.next_ns, late_s > LATE_S)
