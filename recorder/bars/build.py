"""Build the bars that are due, hour by hour: one insert an hour, after which all of its bars are new.

Ended anywhere, the next build goes on: an hour is built or is due still. Two builds at once do the same work twice, and
what is read afterwards is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from recorder.bars import sql
from recorder.bars.due import State
from recorder.bars.survey import DELAY_S, Scope, survey
from recorder.bars.windows import Bars
from schemas.executor import SqlExecutor

Show = Callable[[int, int], None]
"""Told how many rows were computed of how many."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """Hours by what was done with them: `new` and `late` ones were computed. `rows` are those that were computed of."""

    bars: Bars
    closed_ns: int
    new: int
    late: int
    current: int
    kept: int
    rows: int


def build(
    executor: SqlExecutor,
    database: str,
    bars: Bars,
    scope: Scope,
    *,
    delay_s: float = DELAY_S,
    show: Show = lambda done, total: None,
) -> Result:
    """Compute and insert the bars of every hour of the scope that is due. Errors of the executor pass through."""
    found = survey(executor, database, bars, scope, delay_s=delay_s)
    total = sum(verdict.recorded.rows for verdict in found.due)
    done = 0
    for verdict in found.due:
        show(done, total)
        executor.command(sql.insert_hour(database, bars, verdict, found.closed_ns))
        done += verdict.recorded.rows
    show(done, total)
    return Result(
        bars=bars,
        closed_ns=found.closed_ns,
        new=found.count(State.NEW),
        late=found.count(State.LATE),
        current=found.count(State.CURRENT),
        kept=found.count(State.KEPT),
        rows=done,
    )
