"""The decision which hours of bars are due, against a model of rows, bars, late rows, kills and rows that go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from recorder.bars.due import Built, Recorded, State, Verdict, counts_aggregates, verdicts
from recorder.bars.windows import ALL_BARS, HOUR_NS, Hour, hour_of

FEED = "binance.spot", "BTCUSDT"
HOURS = 5
Row = tuple[int, int, bool]
"""Hour, number, and whether it is a single trade; the number is its identity and its local time."""


@dataclass(frozen=True)
class Made:
    """What the bars of an hour were made of: its rows, those of the hour before, and whether aggregates counted."""

    rows: frozenset[Row]
    before: frozenset[Row]
    aggregates: bool


@dataclass
class World:
    """Rows that are recorded, and for each hour what its bars were made of."""

    rows: set[Row] = field(default_factory=set)
    made: dict[Hour, Made] = field(default_factory=dict)
    built: dict[Hour, Built] = field(default_factory=dict)

    def of(self, hour: Hour) -> frozenset[Row]:
        return frozenset(row for row in self.rows if row[0] * HOUR_NS == hour.begin_ns)

    def recorded(self) -> dict[Hour, Recorded]:
        found = {}
        for begin in {row[0] for row in self.rows}:
            hour = Hour(*FEED, begin * HOUR_NS)
            rows = self.of(hour)
            found[hour] = Recorded(
                rows=len(rows),
                identities=sum(hash((row, "identity")) for row in rows) % 2**64,
                first_local_ns=min(row[1] for row in rows),
                last_local_ns=max(row[1] for row in rows),
                singles=sum(row[2] for row in rows),
                aggregates=sum(not row[2] for row in rows),
            )
        return found

    def judged(self) -> list[Verdict]:
        oldest = min((row[1] for row in self.rows), default=0)
        told = verdicts(
            self.recorded(),
            self.built,
            oldest_local_ns=oldest,
            begin_ns=0,
            end_ns=2**62,
            lacking=self.lacking,
        )
        return list(told)

    def lacking(self, hour: Hour, recorded: Recorded) -> bool:
        """A look at the rows themselves, for those that an hour's counts and times do not show to be gone."""
        assert recorded == self.recorded()[hour]
        return not self.made[hour].rows <= self.rows

    def would_be(self, hour: Hour) -> Made:
        return Made(self.of(hour), self.of(hour.moved(-1)), counts_aggregates(self.recorded(), hour))

    def build(self, verdict: Verdict) -> None:
        hour = verdict.hour
        self.made[hour] = self.would_be(hour)
        self.built[hour] = Built(
            bars=1,
            rows=verdict.recorded.rows,
            basis=verdict.basis,
            version=verdict.version,
            first_local_ns=verdict.recorded.first_local_ns,
            last_local_ns=verdict.recorded.last_local_ns,
        )


ROWS = st.tuples(st.integers(0, HOURS - 1), st.integers(1, 10**6), st.booleans())
STEPS = st.lists(st.tuples(st.lists(ROWS, max_size=4), st.integers(0, 3)), min_size=1, max_size=6)


@given(steps=STEPS)
def test_after_a_build_bars_are_those_of_all_rows_however_they_came(
    steps: list[tuple[list[Row], int]],
) -> None:
    """Rows come in portions, each followed by a build that is killed after some hours. A last build that is not killed
    leaves every hour made of all the rows it depends on; then nothing is due. An hour is due only if it has to be."""
    world = World()
    for rows, killed_after in [*steps, ([], HOURS)]:
        world.rows |= set(rows)
        for verdict in [verdict for verdict in world.judged() if verdict.state.is_due][:killed_after]:
            there = world.made.get(verdict.hour)
            expected = world.would_be(verdict.hour)
            assert there is None or there != expected, "built again of the same"
            assert verdict.state is (State.NEW if there is None else State.LATE)
            world.build(verdict)
    for hour in world.recorded():
        assert world.made[hour].rows == world.of(hour)
        assert world.made[hour].before == world.of(hour.moved(-1))
        counted = world.would_be(hour).aggregates
        aggregates = any(not row[2] for row in world.of(hour))
        assert world.made[hour].aggregates == counted or not aggregates
    assert [verdict for verdict in world.judged() if verdict.state is not State.CURRENT] == []


@given(steps=STEPS, gone=st.integers(0, 63), late=st.lists(ROWS, max_size=5))
def test_bars_are_never_made_again_from_fewer_rows(
    steps: list[tuple[list[Row], int]], gone: int, late: list[Row]
) -> None:
    """Any rows go, be there older ones or not, and others come late, perhaps as many and around them: no hour whose
    bars were made of a row that went is due."""
    world = World()
    for rows, _ in steps:
        world.rows |= set(rows)
    for verdict in world.judged():
        world.build(verdict)
    went = {row for number, row in enumerate(sorted(world.rows)) if gone >> number % 6 & 1}
    world.rows = (world.rows - went) | (set(late) - went)
    for verdict in world.judged():
        if verdict.hour in world.made:
            made = world.made[verdict.hour]
            assert not verdict.state.is_due or not made.rows & went
            assert not verdict.state.is_due or not made.before & went
    for before, after in _again(world).items():
        assert after >= before


def _again(world: World) -> Mapping[frozenset[Row], frozenset[Row]]:
    """What bars were made of, and what they are made of after another build, of hours that had bars."""
    before = dict(world.made)
    for verdict in world.judged():
        if verdict.state.is_due:
            world.build(verdict)
    return {made.rows: world.made[hour].rows for hour, made in before.items()}


@given(at=st.integers(-(2**60), 2**60))
def test_windows_and_hours_hold_their_times(at: int) -> None:
    """The end of the last closed window is at or before a time by less than a window; an hour begins at a full one."""
    for bars in ALL_BARS:
        assert 0 <= at - bars.closed(at) < bars.window_ns
        assert bars.closed(at) % bars.window_ns == 0
    assert 0 <= at - hour_of(at) < HOUR_NS


def test_bars_that_are_not_complete_are_made_again() -> None:
    """An hour of which some bars are missing, or are of another build than the rest, is due."""
    world = World({(1, 10, True), (1, 20, False)})
    (verdict,) = world.judged()
    world.build(verdict)
    hour, whole = verdict.hour, world.built[verdict.hour]
    for rows, basis in ((1, whole.basis), (2, None), (2, 0)):
        world.built[hour] = Built(
            bars=1,
            rows=rows,
            basis=basis,
            version=5,
            first_local_ns=whole.first_local_ns,
            last_local_ns=whole.last_local_ns,
        )
        (again,) = world.judged()
        assert (again.state, again.version) == (State.LATE, 6)
