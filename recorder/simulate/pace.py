"""When rows are sent: an open-loop schedule with absolute deadlines, driving any `record(table, row) ->
bool`.

Open loop: a step's deadline is fixed when the drive begins. A step that is late is not forgiven, the rows it
owes are sent at once, and its lateness is measured, so that a slow `record` shows up as what it does to a
trading loop. Not here: threads, asyncio, and what the rows are.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

Record = Callable[[str, Any], bool]
"""Takes a row for a table; False when it was shed."""
_SUFFIXES = {"k": 1e3, "m": 1e6}


@dataclass(frozen=True, slots=True)
class Phase:
    """So many rows a second for so long; `duration_s` may be infinite in the last phase."""

    rows_per_s: float
    duration_s: float

    def __post_init__(self) -> None:
        if not (self.rows_per_s > 0 and self.duration_s > 0):
            raise ValueError(
                f"a phase needs a rate and a duration above zero, got {self.rows_per_s} rows/s for "
                f"{self.duration_s} s"
            )


@dataclass(frozen=True, slots=True)
class Schedule:
    """Phases one after another. No phase at all means: as fast as the rows are taken."""

    phases: tuple[Phase, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Schedule:
        """`25k:60,50k:5` is 25,000 rows/s for 60 s, then 50,000 for 5 s; `10k` alone has no end; `max` no
        rate.

        Raises:
            ValueError: the text says nothing of that kind.
        """
        if text.strip() == "max":
            return cls()
        phases = []
        parts = text.split(",")
        for number, part in enumerate(parts, 1):
            rate, colon, duration = part.strip().partition(":")
            try:
                phases.append(Phase(_number(rate), float(duration) if colon else float("inf")))
            except ValueError as error:
                raise ValueError(
                    f"cannot read the rate {part!r}; write max, 25k, or 25k:60,50k:5 (rows a second : "
                    f"seconds)"
                ) from error
            if not colon and number < len(parts):
                raise ValueError(
                    f"the rate {part!r} has no end, so {parts[number]!r} never begins; write {part}:60"
                )
        return cls(tuple(phases))

    @property
    def duration_s(self) -> float:
        """How long it lasts; infinite where it has no end or no rate."""
        return sum(phase.duration_s for phase in self.phases) if self.phases else float("inf")

    @property
    def total_rows(self) -> int | None:
        """Rows due at its end; None where it has none."""
        return None if self.duration_s == float("inf") else self.rows_due(self.duration_s)

    def rows_due(self, elapsed_s: float) -> int:
        """Rows that should have been sent by then; a schedule without phases has none."""
        due, left = 0.0, elapsed_s
        for phase in self.phases:
            spent = min(left, phase.duration_s)
            due += phase.rows_per_s * spent
            left -= spent
            if left <= 0:
                break
        return int(due + 1e-6)

    def phase_at(self, elapsed_s: float) -> int:
        """The number of the phase in force then, from 0."""
        end = 0.0
        for number, phase in enumerate(self.phases):
            end += phase.duration_s
            if elapsed_s < end:
                return number
        return max(0, len(self.phases) - 1)


def _number(text: str) -> float:
    scale = _SUFFIXES.get(text[-1:].lower(), 0.0)
    return float(text[:-1]) * scale if scale else float(text)


@dataclass(slots=True)
class Progress:
    """How far a drive is. The same object is handed out again and again, with higher numbers.

    `lateness_ns` has one entry per step: how long after its deadline the step began. It stays empty at full
    speed and unless asked for.
    """

    elapsed_s: float = 0.0
    accepted: Counter[str] = field(default_factory=Counter)
    shed: Counter[str] = field(default_factory=Counter)
    phase: int = 0
    max_lateness_s: float = 0.0
    lateness_ns: list[int] = field(default_factory=list)
    done: bool = False

    @property
    def rows(self) -> int:
        """Rows offered so far."""
        return self.accepted.total() + self.shed.total()

    @property
    def rows_per_s(self) -> float:
        """Mean rate since the drive began."""
        return self.rows / self.elapsed_s if self.elapsed_s else 0.0


def drive(
    events: Iterable[tuple[str, Any]],
    record: Record,
    schedule: Schedule | None = None,
    *,
    step_s: float = 0.002,
    progress_s: float = 0.1,
    chunk_rows: int = 2_048,
    keep_lateness: bool = False,
    clock_ns: Callable[[], int] = time.perf_counter_ns,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Progress]:
    """Send events when they are due; yields about every `progress_s`, and once more with `done` at the end.

    It ends with the events or with the schedule, whichever is first. A schedule is cut in steps of `step_s`,
    each with its own deadline from the start; a step sends all rows due by its end, so the first rows go at
    once. Whatever `record` raises ends the drive.
    """
    schedule = schedule or Schedule()
    progress = Progress()
    source = iter(events)
    start = clock_ns()
    step_ns, progress_ns = int(step_s * 1e9), int(progress_s * 1e9)
    next_progress = start + progress_ns
    sent, step, end_s = 0, 0, schedule.duration_s
    while True:
        if schedule.phases:
            if step * step_s >= end_s - step_s * 1e-6:
                break
            deadline = start + step * step_ns
            now = clock_ns()
            if now < deadline:
                sleep((deadline - now) / 1e9)
                now = clock_ns()
            late = max(0, now - deadline)
            progress.max_lateness_s = max(progress.max_lateness_s, late / 1e9)
            if keep_lateness:
                progress.lateness_ns.append(late)
            step += 1
            wanted = schedule.rows_due(min(step * step_s, end_s)) - sent
        else:
            wanted = chunk_rows
        got = _send(source, record, wanted, progress)
        sent += got
        now = clock_ns()
        if now >= next_progress:
            next_progress = now + progress_ns
            progress.elapsed_s = (now - start) / 1e9
            progress.phase = schedule.phase_at(progress.elapsed_s)
            yield progress
        if got < wanted:
            break
    progress.elapsed_s = (clock_ns() - start) / 1e9
    progress.phase = schedule.phase_at(progress.elapsed_s)
    progress.done = True
    yield progress


def _send(source: Iterator[tuple[str, Any]], record: Record, rows: int, progress: Progress) -> int:
    taken: list[str] = []
    append, shed, refused = taken.append, progress.shed, 0
    for table, row in islice(source, rows):
        if record(table, row):
            append(table)
        else:
            shed[table] += 1
            refused += 1
    progress.accepted.update(taken)  # once a step, in C: cheaper than row by row
    return len(taken) + refused
