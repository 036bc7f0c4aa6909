"""What a recorder knows of its runs of retention: how they ended, what they did, and whether that is an alarm. Pure.

A run is a stream of `Told` and one `End`. The book is one frozen value after another; who shows it reads the latest.
"""

from __future__ import annotations

import datetime
import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from recorder.redact import redacted
from recorder.stats import RetentionStats

if TYPE_CHECKING:
    from recorder.retaining.schedule import Schedule
    from retention.runner import Outcome

OVERDUE_GRACE_S = 60.0
"""So long after its time a run may begin before its absence is noticed."""
TOLD_CHARS = 4_000
"""So much of what is told of an action travels, and is kept."""
WHYS_MOST = 3
"""Of the actions that failed so many are named in a line; the others are rows of their own."""
_S_NS = 1_000_000_000


class Ended(enum.StrEnum):
    """How a run ended, or why there was none."""

    DONE = "done"
    FAILED = "failed"
    LEFT = "left"
    """Another run was at work on this database."""
    STOPPED = "stopped"
    """The recorder stopped; the next run goes on."""
    SKIPPED = "skipped"
    """The run before was still at work."""
    MISSED = "missed"
    """Its time was long over when the clock was seen: the machine slept, or the clock was set."""


@dataclass(frozen=True, kw_only=True)
class Told:
    """An action and what became of it, as it travels between processes."""

    kind: str
    state: str
    table: str
    partition: str
    rows: int
    bytes_on_disk: int
    told: str

    @classmethod
    def of(cls, outcome: Outcome) -> Told:
        """From what the runner tells."""
        action = outcome.action
        return cls(
            kind=action.kind.value,
            state=outcome.state.value,
            table=action.table,
            partition=action.partition,
            rows=action.rows,
            bytes_on_disk=action.bytes_on_disk,
            told=redacted(outcome.told)[:TOLD_CHARS],
        )

    def __str__(self) -> str:
        where = " ".join(filter(None, (self.table, self.partition)))
        return f"{where}: {self.kind.replace('_', ' ')}: {self.told}"


@dataclass(frozen=True, kw_only=True)
class End:
    """The end of a run."""

    how: Ended
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run, as far as it has come."""

    began_ns: int
    actions: Mapping[str, int] = field(default_factory=dict)
    """By state."""
    failures: tuple[str, ...] = ()
    """The first `WHYS_MOST` of them."""

    def told(self, told: Told) -> Run:
        """After another action."""
        failed = told.state == "failed" and len(self.failures) < WHYS_MOST
        return replace(
            self,
            actions=_more(self.actions, told.state),
            failures=(*self.failures, str(told)) if failed else self.failures,
        )

    def end(self, end: End) -> End:
        """The end as it is to be taken: a run of which an action failed has failed."""
        failed = self.actions.get("failed", 0)
        if end.how is not Ended.DONE or not failed:
            return end
        more = f", and {failed - len(self.failures)} more" if failed > len(self.failures) else ""
        return End(how=Ended.FAILED, why=f"{'; '.join(self.failures)}{more}")


@dataclass(frozen=True, kw_only=True)
class Book:
    """See the module. Times are nanoseconds since 1970; 0 is never."""

    started_ns: int
    """When this book was begun."""
    next_ns: int = 0
    running: Run | None = None
    last_ns: int = 0
    """When the last run ended."""
    last: End | None = None
    last_s: float = 0.0
    """How long it took."""
    failed: str = ""
    """Why the last run of those that were done or failed has failed, and when; empty where it was done."""
    standing: bool = False
    """That failure counts also where no run begins by itself: this recorder had it since."""
    judged_ns: int = 0
    """When that one ended."""
    success_ns: int = 0
    """When the last one that was done ended, whoever ran it."""
    runs: Mapping[str, int] = field(default_factory=dict)
    """Of this recorder, by how they ended."""
    actions: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """By kind and state."""
    rows: Mapping[str, int] = field(default_factory=dict)
    """Of actions that were done, by kind."""
    nbytes: Mapping[str, int] = field(default_factory=dict)

    def planned(self, next_ns: int) -> Book:
        """The next run is then; 0 for none."""
        return replace(self, next_ns=next_ns)

    def begun(self, now_ns: int) -> Book:
        """A run has begun."""
        return replace(self, running=Run(began_ns=now_ns))

    def told(self, told: Told) -> Book:
        """The run did something."""
        assert self.running is not None
        book = replace(
            self,
            running=self.running.told(told),
            actions=_more(self.actions, (told.kind, told.state)),
        )
        if told.state != "done":
            return book
        return replace(
            book,
            rows=_more(self.rows, told.kind, told.rows),
            nbytes=_more(self.nbytes, told.kind, told.bytes_on_disk),
        )

    def ended(self, end: End, now_ns: int) -> Book:
        """The run has ended, which `Run.end` has judged."""
        assert self.running is not None
        book = replace(
            self,
            running=None,
            last_ns=now_ns,
            last=end,
            last_s=max(0.0, (now_ns - self.running.began_ns) / _S_NS),
            runs=_more(self.runs, end.how.value),
        )
        book = book._judged(end, now_ns)
        return replace(book, standing=True) if end.how is Ended.FAILED else book

    def switched_off(self) -> Book:
        """No run begins by itself from now on: what has failed so far is nobody's trouble any more."""
        return replace(self, standing=False)

    def judged(self, end: End, at_ns: int) -> Book:
        """A run of an earlier or another recorder ended so; one that ended before the last one changes nothing."""
        return self if at_ns <= self.judged_ns else self._judged(end, at_ns)

    def _judged(self, end: End, at_ns: int) -> Book:
        if end.how not in (Ended.DONE, Ended.FAILED):
            return self
        if end.how is Ended.DONE:
            return replace(self, failed="", standing=False, judged_ns=at_ns, success_ns=at_ns)
        return replace(self, failed=f"failed at {moment(at_ns)}: {end.why}", judged_ns=at_ns)

    def passed(self, how: Ended) -> Book:
        """There was no run."""
        return replace(self, runs=_more(self.runs, how.value))

    def trouble(self, schedule: Schedule | None, now_ns: int) -> str:
        """What is wrong, as the end of a sentence that begins with "recorder"; empty where nothing is."""
        if self.failed and (schedule is not None or self.standing):
            return f"has a run of retention that {self.failed}"
        since_ns = self.success_ns or self.started_ns
        if schedule is None:
            return ""
        # A run that is at work and began in time may yet succeed, but not for ever: one that hangs never ends.
        if self.running is not None and _two_passed(schedule, self.running.began_ns, now_ns):
            began = moment(self.running.began_ns)
            return f"has a run of retention that is at work since {began}, and two of its times have passed"
        seen_ns = now_ns if self.running is None else self.running.began_ns
        if not _two_passed(schedule, since_ns, seen_ns):
            return ""
        since = f"since {moment(since_ns)}" if self.success_ns else f"since it started at {moment(since_ns)}"
        return f"has had no run of retention that succeeded {since}, and two of its times have passed"

    def stats(self, schedule: Schedule | None, now_ns: int) -> RetentionStats:
        """What is shown of it."""
        return RetentionStats(
            schedule="off" if schedule is None else schedule.expression,
            next_run_s=self.next_ns / _S_NS,
            running_since_s=self.running.began_ns / _S_NS if self.running else 0.0,
            last_run_s=self.last_ns / _S_NS,
            last_outcome=self.last.how.value if self.last else "",
            last_why=self.last.why if self.last else "",
            last_seconds=self.last_s,
            last_success_s=self.success_ns / _S_NS,
            runs={how.value: self.runs.get(how.value, 0) for how in Ended},
            actions=dict(self.actions),
            rows=dict(self.rows),
            nbytes=dict(self.nbytes),
            trouble=self.trouble(schedule, now_ns),
        )


def summary(run: Run, end: End, now_ns: int) -> tuple[str, dict[str, Any]]:
    """A run in a line, and as details."""
    counts = (
        ", ".join(f"{count} {state}" for state, count in sorted(run.actions.items())) or "nothing was due"
    )
    why = f": {end.why}" if end.why else ""
    details = {
        "outcome": end.how.value,
        "began_ns": run.began_ns,
        "seconds": round(max(0, now_ns - run.began_ns) / _S_NS, 3),
        "actions": dict(run.actions),
    }
    return f"a run of retention {_ENDS[end.how]} ({counts}){why}", details


_ENDS = {
    Ended.DONE: "is done",
    Ended.FAILED: "failed",
    Ended.LEFT: "was left to another one",
    Ended.STOPPED: "stopped with the recorder",
}


def _two_passed(schedule: Schedule, since_ns: int, now_ns: int) -> bool:
    return now_ns > schedule.second_after_ns(since_ns) + OVERDUE_GRACE_S * _S_NS


def moment(at_ns: int) -> str:
    """A time for people, in UTC."""
    return datetime.datetime.fromtimestamp(at_ns // _S_NS, datetime.UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _more(counts: Mapping[Any, int], key: Any, by: int = 1) -> dict[Any, int]:
    return {**counts, key: counts.get(key, 0) + by}
