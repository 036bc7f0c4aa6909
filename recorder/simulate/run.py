"""Simulate into a recorder: what `recorder simulate` does, as a function."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from recorder.simulate.instruments import DEFAULT_STRATEGIES, DEFAULT_SYMBOLS
from recorder.simulate.pace import Progress, Schedule, drive
from recorder.simulate.session import Mix, Session
from recorder.simulate.truth import Truth


class RecordsRows(Protocol):
    """What a simulation needs of a recorder."""

    def record(self, table: str, row: Any) -> bool:
        """Take a row; False when it was shed."""


@dataclass(frozen=True, slots=True)
class SimulationOptions:
    """What to simulate and how fast to send it.

    The session ends after `minutes` of simulated time or about `rows` rows, whichever is first; with neither, after
    five minutes. `schedule` paces sending in real time and is independent of simulated time; when it ends before the
    session, the rest is not sent. `start_ns` None lets the session end about now, so that its rows are today's.
    """

    seed: int = 1
    minutes: float | None = None
    rows: int | None = None
    schedule: Schedule = field(default_factory=Schedule)
    symbols: Sequence[str] = DEFAULT_SYMBOLS
    strategies: Sequence[str] = DEFAULT_STRATEGIES
    mix: Mix = field(default_factory=Mix)
    start_ns: int | None = None

    def __post_init__(self) -> None:
        if self.minutes is not None and not self.minutes > 0:
            raise ValueError(f"minutes must be above zero, got {self.minutes}")
        if self.rows is not None and self.rows < 1:
            raise ValueError(f"rows must be at least 1, got {self.rows}")


@dataclass(frozen=True, slots=True)
class SimulationResult:
    """What was sent. `accepted` and `shed` are rows per table; `truth` is what the session did.

    `complete` is False when the schedule ended first: the truth then has orders that are still open.
    """

    seed: int
    start_ns: int
    end_ns: int
    elapsed_s: float
    accepted: Mapping[str, int]
    shed: Mapping[str, int]
    max_lateness_s: float
    complete: bool
    truth: Truth

    @property
    def rows(self) -> int:
        """Rows sent, taken or shed."""
        return sum(self.accepted.values()) + sum(self.shed.values())

    @property
    def rows_per_s(self) -> float:
        """Mean rate of sending."""
        return self.rows / self.elapsed_s if self.elapsed_s else 0.0

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "seed": self.seed,
            "start_ns": self.start_ns,
            "end_ns": self.end_ns,
            "elapsed_s": round(self.elapsed_s, 3),
            "rows": self.rows,
            "rows_per_s": round(self.rows_per_s, 1),
            "accepted": dict(sorted(self.accepted.items())),
            "shed": dict(sorted(self.shed.items())),
            "max_lateness_s": round(self.max_lateness_s, 6),
            "complete": self.complete,
            "truth": self.truth.as_dict(),
        }


def make_session(options: SimulationOptions) -> Session:
    """The session the options describe.

    Raises:
        ValueError: a symbol or strategy is empty or named twice.
    """
    minutes = options.minutes if options.minutes is not None or options.rows is not None else 5.0
    duration_s = None if minutes is None else minutes * 60
    start_ns = options.start_ns
    if start_ns is None:
        start_ns = time.time_ns() - int((duration_s or 300.0) * 1e9)
    return Session(
        options.seed,
        start_ns,
        duration_s=duration_s,
        max_rows=options.rows,
        symbols=options.symbols,
        strategy_names=options.strategies,
        mix=options.mix,
    )


def run_simulation(
    recorder: RecordsRows,
    options: SimulationOptions | None = None,
    on_progress: Callable[[Progress, Session], None] | None = None,
) -> SimulationResult:
    """Send a session's rows to a recorder; `on_progress` is called about ten times a second.

    Rows that the recorder refuses are counted as shed, as it counts them. Returns when all rows are handed over,
    not when they are inserted.

    Raises:
        ValueError: the options make no session.
        UnknownTable, RecorderClosed: as `record` does.
    """
    options = options or SimulationOptions()
    session = make_session(options)
    progress = Progress()
    for progress in drive(session.events(), recorder.record, options.schedule):
        if on_progress is not None:
            on_progress(progress, session)
    return SimulationResult(
        seed=options.seed,
        start_ns=session.start_ns,
        end_ns=session.now_ns,
        elapsed_s=progress.elapsed_s,
        accepted=dict(progress.accepted),
        shed=dict(progress.shed),
        max_lateness_s=progress.max_lateness_s,
        complete=session.finished,
        truth=session.truth,
    )
