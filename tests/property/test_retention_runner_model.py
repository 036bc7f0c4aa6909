"""What the runner of retention does to real tables, archives and bars: a model of rows that come, late ones too, while
runs are stopped, disturbed by other runs, and started again.

After each rule every row that ever came is in the table, in the one that its partitions move to, or gone because it
might: older than its policy keeps it, of a closed partition that nothing held, in a verified piece of the archive where
one is due, with right bars where they are due. No row is there twice. After a run that nothing disturbed nothing is
left that had to go, and it failed at nothing without a reason (`harness.retention_world`).

`RECORDER_TEST_KILLS` says how many random examples are tried (`make torture` tries many); without it they are few, and
the same each time. `test_retention_runner_days` has days that come to each kind of action for sure.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pathlib
from collections.abc import Callable, Iterator

import pytest
from harness.backends import Backends
from harness.bars_desk import Desk
from harness.retention_runs import Ended
from harness.retention_world import START_NS, TABLE, TIER, Steps, World
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from retention.holds import Hold
from retention.policy import DAY_NS, RetentionPolicy
from schemas.policy import Partition

LONG = "RECORDER_TEST_KILLS" in os.environ
EXAMPLES = int(os.environ.get("RECORDER_TEST_KILLS", "2"))
HOUR_NS = DAY_NS // 24
S_NS = 10**9
TTLS = ("", "toDateTime(ts_local) + toIntervalDay(20000)", "toDateTime(ts_local) + toIntervalDay(25000)")
"""Of days that are not over when the test runs."""
AT_NS = st.sampled_from([0, 5 * S_NS, 12 * HOUR_NS, 12 * HOUR_NS + S_NS, DAY_NS - 5 * S_NS])
"""When in a day: near its ends, since bars of one day take quotes of the day before."""
DAYS_AGO = st.sampled_from([-3, -1, 0, 0, 1, 1, 2, 2, 3, 3, 4, 5, 6, 8])
ROWS = st.lists(st.tuples(DAYS_AGO, AT_NS), min_size=1, max_size=4)
LATER_NS = st.sampled_from([1, HOUR_NS, 6 * HOUR_NS, DAY_NS, DAY_NS, 2 * DAY_NS, 3 * DAY_NS, 9 * DAY_NS])
KINDS = st.sampled_from(["command", "command", "store", "store", "query", "lock"])
LEFT = st.one_of(st.integers(0, 8), st.integers(0, 80))


@st.composite
def policies(draw: st.DrawFn, like: RetentionPolicy | None = None) -> RetentionPolicy:
    """Few days, so that rows expire often. `like`: of a table that is cut the same, with bars or without, whose
    partitions move or do not."""
    if like is None:
        bars = draw(st.booleans())
        tiered = not bars and draw(st.booleans())
        month = not bars and draw(st.integers(0, 3)) == 0
        groups = 1 if bars or month else draw(st.sampled_from([1, 1, 2, 3]))
    else:
        bars, tiered = like.bars, like.tier_after_days is not None
        month, groups = like.partition is Partition.MONTH, like.symbol_groups
    keep = draw(st.sampled_from([None, 1, 2, 2, 3, 3, 4]))
    tier = archive = None
    if tiered:
        keep = None if keep == 1 else keep
        tier = draw(st.integers(1, (keep or 4) - 1))
    else:
        archive = draw(st.none() | st.integers(1, keep or 3))
    ttl = "" if keep is None else draw(st.sampled_from(TTLS))
    return RetentionPolicy(
        table=TABLE,
        partition=Partition.MONTH if month else Partition.DAY,
        keep_days=keep,
        archive_after_days=archive,
        bars=bars,
        tier_after_days=tier,
        native_ttl=ttl,
        symbol_groups=groups,
    )


class Retention(RuleBasedStateMachine):
    """Runs over one table, and all that comes between."""

    def __init__(self, world: World, roots: Iterator[pathlib.Path]):
        super().__init__()
        self.world, self._roots, self._begun = world, roots, False

    @initialize(policy=policies())
    def begin(self, policy: RetentionPolicy) -> None:
        self.world.begin(next(self._roots), policy)
        self._begun = True

    def teardown(self) -> None:
        if self._begun:
            self.world.ends()

    # -- what happens between runs --

    @rule(rows=ROWS)
    def rows_come(self, rows: list[tuple[int, int]]) -> None:
        """New ones, late ones, and ones of a clock that is ahead."""
        self._insert(rows)
        self.world.look()

    @rule(later_ns=LATER_NS)
    def time_goes_by(self, later_ns: int) -> None:
        self.world.now_ns += later_ns

    @rule(data=st.data())
    def the_policy_changes(self, data: st.DataObject) -> None:
        """Not whether bars are made, nor whether partitions move: what has moved is then nobody's."""
        self.world.policy = data.draw(policies(self.world.policy), "policy")

    @rule(
        name=st.sampled_from("ab"),
        table=st.sampled_from([None, TABLE, "fills"]),
        days_ago=st.none() | st.integers(-1, 6),
        hours=st.none() | st.sampled_from([1, 24, 60]),
    )
    def someone_holds(self, name: str, table: str | None, days_ago: int | None, hours: int | None) -> None:
        self._hold(name, table, days_ago, hours)

    @precondition(lambda self: self.world.holds)
    @rule()
    def someone_lifts(self) -> None:
        self.world.lift(sorted(self.world.holds)[0])

    @rule(which=st.integers(0, 20))
    def the_server_merges(self, which: int) -> None:
        self._merge(which)

    @precondition(
        lambda self: TIER in self.world.tables() and self.world.partitions(TIER) and not self.world.twins
    )
    @rule(data=st.data())
    def the_server_is_killed_amid_a_move(self, data: st.DataObject) -> None:
        self.world.move_is_cut_short(data.draw(st.sampled_from(self.world.partitions(TIER)), "partition"))
        self.world.look()

    @precondition(lambda self: self.world.damaged is None and self.world.files())
    @rule(data=st.data(), how=st.sampled_from(["removed", "cut", "changed"]))
    def someone_damages_the_archive(self, data: st.DataObject, how: str) -> None:
        self.world.damage(data.draw(st.sampled_from(self.world.files()), "file"), how)

    @precondition(lambda self: self.world.damaged is None and self.world.files())
    @rule(data=st.data(), days=st.integers(1, 4))
    def a_file_rots_until_its_rows_expire(self, data: st.DataObject, days: int) -> None:
        """Under its name and with its size."""
        if files := [path for path in self.world.files() if path.suffix == ".parquet"]:
            self.world.damage(data.draw(st.sampled_from(files), "file"), "changed")
            self.world.now_ns += days * DAY_NS
            self.world.complete()

    @precondition(lambda self: self.world.damaged is not None)
    @rule()
    def the_archive_is_mended(self) -> None:
        self.world.mend()
        self.world.look()

    # -- runs --

    @rule()
    def a_run_is_complete(self) -> None:
        self.world.complete()
        self.world.bars_stay()

    @rule(rows=ROWS)
    def a_run_finds_rows_on_a_log(self, rows: list[tuple[int, int]]) -> None:
        """Which come after it: nothing is done to the partitions that they may be of."""
        self.world.rows_wait(self._times(rows))
        self.world.complete()
        self.world.log_is_emptied()
        self.world.look()

    @rule(kind=KINDS, left=LEFT)
    def a_run_is_killed(self, kind: str, left: int) -> None:
        """Before or after any step."""

        def die() -> None:
            raise Ended

        with contextlib.suppress(Ended):
            self._run(Steps(kind, left, die))
        self.world.look()

    @rule(kind=KINDS, left=LEFT, data=st.data())
    def a_run_is_disturbed(self, kind: str, left: int, data: st.DataObject) -> None:
        """By rows, by the server, by someone who holds, or by another run, which may be killed; and then it goes on."""
        self._run(Steps(kind, left, self._deed(data)))
        self.world.look()

    @precondition(lambda self: self.world.there)
    @rule(which=st.integers(0, 20), days=st.integers(0, 4), left=st.integers(0, 3))
    def a_row_comes_right_before_a_drop(self, which: int, days: int, left: int) -> None:
        """Or between two, for a day that has others."""
        world = self.world
        at_ns = world.said[sorted(world.there)[which % len(world.there)]].at
        world.now_ns += days * DAY_NS
        self._run(Steps("lock", left, lambda: world.rows_come([at_ns])))
        world.look()

    @precondition(lambda self: self.world.damaged is None and self.world.files())
    @rule(data=st.data(), outcomes=st.integers(1, 4), how=st.sampled_from(["removed", "cut"]))
    def the_archive_is_damaged_amid_a_run(self, data: st.DataObject, outcomes: int, how: str) -> None:
        """Between two of its actions."""
        self.world.since_the_run.clear()
        run = self.world.run(Steps())
        done = list(itertools.islice(run, outcomes))
        self.world.look()
        if len(done) == outcomes and (files := self.world.files()):
            self.world.damage(data.draw(st.sampled_from(files), "file"), how)
        list(run)
        self.world.look()

    # -- for the rules --

    def _deed(self, data: st.DataObject) -> Callable[[], object]:
        """Something to do amid a run, drawn before it."""
        match data.draw(
            st.sampled_from(["rows", "rows", "merge", "hold", "time", "run", "killed run"]), "deed"
        ):
            case "rows":
                rows = data.draw(ROWS, "rows")
                return lambda: self._insert(rows)
            case "merge":
                which = data.draw(st.integers(0, 20), "which")
                return lambda: self._merge(which)
            case "hold":
                return lambda: self._hold("c", TABLE, None, None)
            case "time":
                later_ns = data.draw(LATER_NS, "later")
                return lambda: self.time_goes_by(later_ns)
            case "run":
                return lambda: self._run(Steps())
        kind, left = data.draw(KINDS, "kind"), data.draw(LEFT, "left")
        return lambda: self.a_run_is_killed(kind, left)

    def _run(self, steps: Steps) -> None:
        self.world.since_the_run.clear()
        for _ in self.world.run(steps):
            pass

    def _insert(self, rows: list[tuple[int, int]]) -> None:
        self.world.rows_come(self._times(rows))

    def _times(self, rows: list[tuple[int, int]]) -> list[int]:
        today_ns = self.world.now_ns // DAY_NS * DAY_NS
        return [today_ns - days * DAY_NS + at_ns for days, at_ns in rows]

    def _merge(self, which: int) -> None:
        world = self.world
        there = [(table, partition) for table in world.tables() for partition in world.partitions(table)]
        if there:
            world.merges(*there[which % len(there)])

    def _hold(self, name: str, table: str | None, days_ago: int | None, hours: int | None) -> None:
        since_ns = None if days_ago is None else self.world.now_ns // DAY_NS * DAY_NS - days_ago * DAY_NS
        until_ns = None if hours is None else (since_ns or START_NS) + hours * HOUR_NS
        if name not in self.world.holds:
            self.world.hold(Hold(name=name, table=table, since_ns=since_ns, until_ns=until_ns))


@pytest.mark.slow
@pytest.mark.torture
@pytest.mark.timeout(300 + 30 * EXAMPLES)
def test_whatever_stops_or_disturbs_runs_no_row_goes_that_may_not_and_none_stays_that_must_go(
    backends: Backends, tmp_path: pathlib.Path
) -> None:
    """Random policies, rows, clocks, holds, merges, damages, stops at any step, and runs within runs."""
    with backends.chdb.fresh_database() as database:
        world = World(Desk(backends.chdb.client, database))
        roots = (tmp_path / f"archive-{number}" for number in itertools.count())
        run_state_machine_as_test(
            lambda: Retention(world, roots),
            settings=settings(
                max_examples=EXAMPLES,
                stateful_step_count=25 if LONG else 12,
                deadline=None,
                derandomize=not LONG,
                phases=[Phase.reuse, Phase.generate],
                suppress_health_check=list(HealthCheck),
            ),
        )
    print(", ".join(f"{what} {count:,}" for what, count in sorted(world.told.items())))
