"""Whether raw rows may go for their bars' sake: all bars of them are built, and verified while the rows are there.

For retention. A partition's rows, by local time, lie in hours of venue time; proven are all of these hours, and those
after them, whose first quotes are of these rows. An hour of which other rows are gone, as the first one of a day after
the day before was dropped, is compared in all that its own rows alone make: everything but the spread, which began with
a quote that is gone and was compared when that went.

Drops nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from recorder.bars import sql
from recorder.bars.due import State, Verdict
from recorder.bars.survey import DELAY_S, Scope, Survey, require_tables, survey
from recorder.bars.verify import fault_of_due, faults_of, where
from recorder.bars.windows import ALL_BARS, HOUR_NS, OF_TABLE, Bars, Hour
from retention.barred import Barred
from retention.errors import RetentionError
from retention.partitions import Span
from schemas.executor import SqlExecutor

TOLD_FAULTS = 3
"""So many are told of a partition; "recorder bars verify" tells all."""


class BarsProof:
    """Builds and verifies for retention; see `retention.barred.Barring`. `on_step` is told of each hour before it."""

    table = OF_TABLE

    def __init__(
        self,
        executor: SqlExecutor,
        database: str,
        *,
        delay_s: float = DELAY_S,
        on_step: Callable[[str], None] = lambda step: None,
    ):
        self._executor, self._database = executor, database
        self._delay_s, self._on_step = delay_s, on_step

    def prove(self, span: Span) -> Barred:
        """See `Barring`.

        Raises:
            RetentionError: bars are not what the rows make, or cannot be compared.
            CannotBuild: the tables of bars are not there.
        """
        require_tables(self._executor, self._database)
        mine = {
            Hour(str(row[0]), str(row[1]), int(row[2])): int(row[3])
            for row in self._executor.query(sql.hours_of_span(self._database, span.start_ns, span.end_ns))
        }
        wanted = {*mine, *(hour.moved(1) for hour in mine)}
        spells = spells_of(wanted)
        faults: list[str] = []
        built = 0
        for bars in ALL_BARS:
            for begin_ns, end_ns in spells:
                found, made = self._build(bars, Scope(since_ns=begin_ns, until_ns=end_ns), wanted, span)
                built += made
                within = {hour: rows for hour, rows in mine.items() if begin_ns <= hour.begin_ns < end_ns}
                faults += self._faults(found, wanted, within)
        if faults:
            more = f"; and {len(faults) - TOLD_FAULTS:,} more" if len(faults) > TOLD_FAULTS else ""
            raise RetentionError("; ".join(faults[:TOLD_FAULTS]) + more)
        bars_there, rows_there = self._count(spells)
        return Barred(hours=len(mine), built=built, hours_ns=spells, rows=rows_there, bars=bars_there)

    def still_there(self, barred: Barred) -> bool:
        """See `Barring`."""
        bars_there, rows_there = self._count(barred.hours_ns)
        return bars_there >= barred.bars and rows_there >= barred.rows

    def _build(self, bars: Bars, scope: Scope, wanted: set[Hour], span: Span) -> tuple[Survey, int]:
        """What is there after all that is due of the wanted hours was built, and how many hours that were."""

        def looked() -> Survey:
            return survey(
                self._executor, self._database, bars, scope, delay_s=self._delay_s, local_ns=span.start_ns
            )

        found = looked()
        due = [verdict for verdict in found.due if verdict.hour in wanted]
        for verdict in due:
            self._on_step(f"building {where(bars, verdict)}")
            self._executor.command(sql.insert_hour(self._database, bars, verdict, found.closed_ns))
        return (looked() if due else found), len(due)

    def _faults(self, found: Survey, wanted: set[Hour], mine: dict[Hour, int]) -> Iterator[str]:
        verdicts = {verdict.hour: verdict for verdict in found.verdicts if verdict.hour in wanted}
        for hour, rows in mine.items():
            seen = verdicts[hour].recorded.rows if hour in verdicts else 0
            if seen < rows:
                yield (
                    f"{found.bars.name}, {hour}: of {rows:,} rows {seen:,} are in windows that are closed; rows with a "
                    "venue time of the future have no bars yet"
                )
        for hour, verdict in verdicts.items():
            self._on_step(f"verifying {where(found.bars, verdict)}")
            if hour.end_ns > found.closed_ns:
                yield f"{where(found.bars, verdict)}: the hour is not over; run it again when it is"
            elif verdict.state.is_due:
                yield fault_of_due(found.bars, verdict)
            elif verdict.state is State.CURRENT:
                yield from faults_of(self._executor, self._database, found, verdict)
            elif hour in mine and not self._has_its_own(found, verdict):
                yield (
                    f"{where(found.bars, verdict)}: rows that its bars were made of are gone, and those that are there "
                    "make other bars, which cannot be built of them alone; bring the others back (recorder archive "
                    'restore) and run it again, or set "bars" to false and look at these rows by hand'
                )

    def _has_its_own(self, found: Survey, verdict: Verdict) -> bool:
        """Whether the bars of an hour have all that the rows recorded in it make, but for what others gave to it."""
        there = self._digest(sql.digest_of_built(self._database, found.bars, verdict, sql.OWN_VALUES))
        # What the hours beside it had is not known any more: whether its aggregates counted may be either.
        return any(
            there
            == self._digest(
                sql.digest_of_computed(
                    self._database,
                    found.bars,
                    replace(verdict, aggregates=aggregates),
                    found.closed_ns,
                    sql.OWN_VALUES,
                )
            )
            for aggregates in ([False, True] if not verdict.recorded.singles else [False])
        )

    def _digest(self, statement: str) -> tuple[int, ...]:
        return tuple(map(int, self._executor.query(statement)[0]))

    def _count(self, spells: Iterable[tuple[int, int]]) -> tuple[int, int]:
        counts = [
            self._executor.query(sql.count_of_built(self._database, bars, begin_ns, end_ns))[0]
            for bars in ALL_BARS
            for begin_ns, end_ns in spells
        ]
        return sum(int(row[0]) for row in counts), sum(int(row[1]) for row in counts)


def spells_of(hours: Iterable[Hour]) -> tuple[tuple[int, int], ...]:
    """The times that hours lie in, each from its first moment to before its last: apart by more than a day, so that one
    row with a wild time makes nobody look at all that is between."""
    spells: list[tuple[int, int]] = []
    for begin_ns in sorted({hour.begin_ns for hour in hours}):
        if spells and begin_ns - spells[-1][1] <= sql.DAY_NS:
            spells[-1] = (spells[-1][0], begin_ns + HOUR_NS)
        else:
            spells.append((begin_ns, begin_ns + HOUR_NS))
    return tuple(spells)
