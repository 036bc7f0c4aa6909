"""What is recorded and what is built, hour by hour, read from the database and judged. Only reads."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

from recorder.bars import sql
from recorder.bars.due import Built, Recorded, State, Verdict, verdicts
from recorder.bars.errors import CannotBuild
from recorder.bars.windows import ALL_BARS, HOUR_NS, Bars, Hour, hour_of
from retention.live_facts import server_time_ns
from schemas.executor import SqlExecutor

DELAY_S = 60
"""By default a window is closed so long after its end: about what clocks and a recorder's batches are behind."""


@dataclass(frozen=True, kw_only=True)
class Scope:
    """Hours that begin from the hour of `since_ns` on and before `until_ns`; None leaves an end open."""

    since_ns: int | None = None
    until_ns: int | None = None


@dataclass(frozen=True, kw_only=True)
class Sums:
    """What can be added up of an hour by another way than that of its bars."""

    trades: int
    volume: float
    quotes: int


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What becomes of each hour of the scope. `closed_ns` is the end of the last window that is closed.

    `recorded` are sums over the rows that count, `built` over the bars.
    """

    bars: Bars
    closed_ns: int
    verdicts: tuple[Verdict, ...]
    recorded: Mapping[Hour, Sums]
    built: Mapping[Hour, Sums]

    def count(self, state: State) -> int:
        """How many hours are so."""
        return sum(verdict.state is state for verdict in self.verdicts)

    @property
    def due(self) -> list[Verdict]:
        """Hours to be computed, the oldest first."""
        return [verdict for verdict in self.verdicts if verdict.state.is_due]


def require_tables(executor: SqlExecutor, database: str) -> None:
    """See that the tables are there.

    Raises:
        CannotBuild: one is not.
    """
    wanted = ["market_data", *(name for bars in ALL_BARS for name in (bars.stored, bars.name))]
    there = {
        row[0]
        for row in executor.query(
            "SELECT name FROM system.tables WHERE database = {db:String}", {"db": database}
        )
    }
    if lacking := [name for name in wanted if name not in there]:
        raise CannotBuild(
            f'{database} has no {", ".join(lacking)}; bars need them: run "recorder migrate up" (or name another '
            "database with RECORDER_DATABASE)"
        )


def survey(
    executor: SqlExecutor,
    database: str,
    bars: Bars,
    scope: Scope,
    *,
    delay_s: float = DELAY_S,
    local_ns: int | None = None,
) -> Survey:
    """Read what is recorded and built, and judge it. A window is closed `delay_s` after its end, by the server's clock.

    Rows with local times from `local_ns` on are looked at, too, however far behind their venue's times they are.

    What is recorded is read before anything is computed of it, so that a row that comes meanwhile is late, not lost.
    """
    closed_ns = bars.closed(server_time_ns(executor) - int(delay_s * 1_000_000_000))
    begin_ns = hour_of(max(0, scope.since_ns or 0))
    end_ns = closed_ns if scope.until_ns is None else min(scope.until_ns, closed_ns)
    # What an hour's bars are depends on the hour before, and a little on the one after.
    first_ns, last_ns = begin_ns - HOUR_NS, min(hour_of(end_ns) + 2 * HOUR_NS, closed_ns)
    recorded: dict[Hour, Recorded] = {}
    sums: dict[Hour, tuple[int, float, int, float, int]] = {}
    for row in executor.query(sql.recorded_hours(database, first_ns, last_ns, local_ns)):
        hour = Hour(row[0], row[1], int(row[2]))
        recorded[hour] = Recorded(
            rows=int(row[3]),
            identities=int(row[4]),
            first_local_ns=int(row[5]),
            last_local_ns=int(row[6]),
            singles=int(row[7]),
            aggregates=int(row[8]),
        )
        sums[hour] = (int(row[7]), float(row[9]), int(row[8]), float(row[10]), int(row[11]))
    built: dict[Hour, Built] = {}
    built_sums: dict[Hour, Sums] = {}
    # Bars are kept for longer than rows: those without any are not asked for.
    needed_ns = min((hour.begin_ns for hour in recorded), default=last_ns) - HOUR_NS
    for row in executor.query(sql.built_hours(database, bars, needed_ns, last_ns)):
        hour = Hour(row[0], row[1], int(row[2]))
        least, greatest = int(row[5]), int(row[6])
        built[hour] = Built(
            bars=int(row[3]),
            rows=int(row[4]),
            basis=least if least == greatest else None,
            version=int(row[7]),
            first_local_ns=int(row[8]),
            last_local_ns=int(row[9]),
        )
        built_sums[hour] = Sums(trades=int(row[10]), volume=float(row[11]), quotes=int(row[12]))
    oldest_local_ns = int(executor.query(sql.oldest_local(database))[0][0])

    @functools.cache  # an hour is asked for by the next one, too
    def lacking(hour: Hour, rows: Recorded) -> bool:
        return int(executor.query(sql.bars_that_lack(database, bars, hour, rows))[0][0]) > 0

    found = tuple(
        verdicts(
            recorded,
            built,
            oldest_local_ns=oldest_local_ns,
            begin_ns=begin_ns,
            end_ns=end_ns,
            lacking=lacking,
        )
    )
    recorded_sums = {verdict.hour: _counted(sums[verdict.hour], verdict) for verdict in found}
    return Survey(bars=bars, closed_ns=closed_ns, verdicts=found, recorded=recorded_sums, built=built_sums)


def _counted(sums: tuple[int, float, int, float, int], verdict: Verdict) -> Sums:
    singles, volume, aggregates, aggregated_volume, quotes = sums
    if verdict.aggregates:
        return Sums(trades=aggregates, volume=aggregated_volume, quotes=quotes)
    return Sums(trades=singles, volume=volume, quotes=quotes)
