"""Whether bars are what the recorded rows make: computed again and compared, and added up another way. Only reads.

Of hours that are over. An hour whose rows are no longer all recorded cannot be verified, which is told and no fault.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from recorder.bars import sql
from recorder.bars.due import State, Verdict
from recorder.bars.survey import DELAY_S, Scope, Survey, survey
from recorder.bars.windows import Bars
from schemas.executor import SqlExecutor

SAME_SHARE = 1e-9
"""Sums of floats in another order differ by less than this share of them."""
Show = Callable[[int, int], None]
"""Told how many rows were compared of how many."""
REMEDY = 'run "recorder bars build"'


@dataclass(frozen=True, kw_only=True)
class Verified:
    """Hours that were compared, those that could not be, and what is wrong, a sentence each."""

    bars: Bars
    closed_ns: int
    hours: int
    rows: int
    kept: int
    faults: tuple[str, ...]


def verify(
    executor: SqlExecutor,
    database: str,
    bars: Bars,
    scope: Scope,
    *,
    delay_s: float = DELAY_S,
    show: Show = lambda done, total: None,
) -> Verified:
    """Compare the bars of every hour of the scope that is over. Errors of the executor pass through."""
    found = survey(executor, database, bars, scope, delay_s=delay_s)
    over = [verdict for verdict in found.verdicts if verdict.hour.end_ns <= found.closed_ns]
    compared = [verdict for verdict in over if verdict.state is State.CURRENT]
    total = sum(verdict.recorded.rows for verdict in compared)
    faults = [fault_of_due(bars, verdict) for verdict in over if verdict.state.is_due]
    done = 0
    for verdict in compared:
        show(done, total)
        faults += faults_of(executor, database, found, verdict)
        done += verdict.recorded.rows
    show(done, total)
    return Verified(
        bars=bars,
        closed_ns=found.closed_ns,
        hours=len(compared),
        rows=total,
        kept=sum(verdict.state is State.KEPT for verdict in over),
        faults=tuple(faults),
    )


def fault_of_due(bars: Bars, verdict: Verdict) -> str:
    """What is wrong with an hour that is due."""
    what = "no bars are built" if verdict.state is State.NEW else "rows came since its bars were built"
    return f"{where(bars, verdict)}: {what}; {REMEDY}"


def faults_of(executor: SqlExecutor, database: str, found: Survey, verdict: Verdict) -> Iterator[str]:
    """What is wrong with the bars of an hour of which all rows are there, a sentence each."""
    bars, hour = found.bars, where(found.bars, verdict)
    mend = (
        f"drop partition {_month(verdict)} of {bars.stored} and {REMEDY}; rows of it must be recorded still"
    )
    made = tuple(executor.query(sql.digest_of_computed(database, bars, verdict, found.closed_ns))[0])
    there = tuple(executor.query(sql.digest_of_built(database, bars, verdict))[0])
    if tuple(map(int, made)) != tuple(map(int, there)):
        yield (
            f"{hour}: the rows make {made[0]} bars with the sum {int(made[1]):016x}, built are {there[0]} with "
            f"{int(there[1]):016x}; {mend}"
        )
    rows, built = found.recorded[verdict.hour], found.built[verdict.hour]
    for name in ("trades", "quotes"):
        if getattr(rows, name) != getattr(built, name):
            yield f"{hour}: {getattr(rows, name):,} {name} are recorded, {getattr(built, name):,} in bars; {mend}"
    if not math.isclose(rows.volume, built.volume, rel_tol=SAME_SHARE):
        yield f"{hour}: a volume of {rows.volume!r} is recorded, {built.volume!r} in bars; {mend}"


def where(bars: Bars, verdict: Verdict) -> str:
    """Which hour of which bars, to be read by people."""
    begin = datetime.datetime.fromtimestamp(verdict.hour.begin_ns // 10**9, datetime.UTC)
    return f"{bars.name}, {verdict.hour}, {begin:%Y-%m-%d %H:%M}"


def _month(verdict: Verdict) -> str:
    return f"{datetime.datetime.fromtimestamp(verdict.hour.begin_ns // 10**9, datetime.UTC):%Y%m}"
