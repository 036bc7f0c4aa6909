"""Days of retention that are the same each time: for each kind of policy rows come, late ones too, and runs are made
every twelve hours; after each of them all laws of `harness.retention_world` hold.

Short, and sure to come to archives, addenda, bars, moves, holds and drops. What random runs come to, and what stops or
disturbs them in any order, is `test_retention_runner_model`'s.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator, Sequence

import pytest
from harness.backends import Backends
from harness.bars_desk import Desk
from harness.retention_runs import Ended
from harness.retention_world import START_NS, TABLE, TIER, Steps, World

from retention.holds import Hold
from retention.policy import DAY_NS, RetentionPolicy
from schemas.policy import Partition

HOUR_NS, S_NS = DAY_NS // 24, 10**9
FIRST = (START_NS, START_NS + DAY_NS - S_NS)
"""Rows at both ends of the first day."""
MONTH_ENDS_NS = START_NS + 3 * DAY_NS
LATE_NS, LATER_NS = START_NS + 7 * HOUR_NS, START_NS + 9 * HOUR_NS
"""Rows of the first day that come late, in hours that no other row is of."""


TWO_DAYS = RetentionPolicy(table=TABLE, partition=Partition.DAY, keep_days=2)
ARCHIVE = dataclasses.replace(TWO_DAYS, archive_after_days=1)
BARS = dataclasses.replace(TWO_DAYS, bars=True)
TIER_FIRST = dataclasses.replace(TWO_DAYS, tier_after_days=1)


class _Rot(Steps):
    """Changes a file of rows as soon as it is there."""

    def __init__(self, world: World):
        super().__init__()
        self._world = world

    def step(self, kind: str) -> None:
        """Before a step, and after it."""
        if not self.happened and (
            files := [path for path in self._world.files() if path.suffix == ".parquet"]
        ):
            self.happened = True
            self._world.damage(files[0], "changed")


class _Death(Steps):
    """Kills a run as soon as the archive has such files, by what their names begin with."""

    def __init__(self, world: World, kinds: set[str]):
        super().__init__()
        self._world, self._kinds = world, kinds

    def step(self, kind: str) -> None:
        """Before a step, and after it."""
        if {path.name.partition("-")[0] for path in self._world.files()} == self._kinds:
            raise Ended


@contextlib.contextmanager
def _world(
    backends: Backends, root: pathlib.Path, policy: RetentionPolicy, rows: Sequence[int] = FIRST
) -> Iterator[World]:
    with backends.chdb.fresh_database() as database:
        world = World(Desk(backends.chdb.client, database))
        world.begin(root, policy)
        world.rows_come(rows)
        yield world


def _run_after(world: World, half_days: int) -> set[int]:
    """A run so long after the first moment; the rows that are there then."""
    world.now_ns = START_NS + half_days * DAY_NS // 2
    world.complete()
    world.bars_stay()
    return world.there


@pytest.mark.parametrize("policy", [ARCHIVE, BARS, TIER_FIRST], ids=["archive", "bars", "tier"])
def test_rows_go_with_the_first_run_after_their_time_and_late_ones_too(
    backends: Backends, tmp_path: pathlib.Path, policy: RetentionPolicy
) -> None:
    """None goes as long as the newest of its partition is young, and none stays then: not one that came after the
    archive of its partition was made, or was moved, nor as many as there were after all of these had gone."""
    with _world(backends, tmp_path, policy) as world:
        assert _run_after(world, 4) == {0, 1}
        world.rows_come([LATE_NS])
        if policy.tier_after_days is not None:
            world.move_is_cut_short(*world.partitions(TIER))
        assert _run_after(world, 5) == {0, 1, 2}
        assert _run_after(world, 6) == set()
        if not policy.bars:  # of which such rows ask nothing new
            world.rows_come([LATER_NS] * 3)
            assert _run_after(world, 7) == set()


def test_what_is_held_or_waited_for_stays_until_it_is_not(backends: Backends, tmp_path: pathlib.Path) -> None:
    """By any hold over a moment of the day, and where rows of the day may wait in a log."""
    with _world(backends, tmp_path, TWO_DAYS) as world:
        world.hold(Hold(name="a", since_ns=LATE_NS, until_ns=LATE_NS + 1))
        assert _run_after(world, 6) == {0, 1}
        world.lift("a")
        world.rows_wait([LATE_NS])
        assert _run_after(world, 6) == {0, 1}
        world.log_is_emptied()
        assert _run_after(world, 6) == set()


def test_a_file_that_is_wrong_as_it_is_written_is_no_archive(
    backends: Backends, tmp_path: pathlib.Path
) -> None:
    """It is read back before it gets its receipt; rows stay until it is right."""
    with _world(backends, tmp_path, ARCHIVE) as world:
        world.now_ns = START_NS + 3 * DAY_NS
        list(world.run(_Rot(world)))
        assert world.damaged is not None
        world.look()
        assert world.there == {0, 1}
        world.mend()
        assert _run_after(world, 6) == set()


def test_a_run_that_is_killed_before_the_receipt_takes_no_row(
    backends: Backends, tmp_path: pathlib.Path
) -> None:
    """Nor does the next one without it, by what the first one left."""
    with _world(backends, tmp_path, ARCHIVE) as world:
        world.now_ns = START_NS + 3 * DAY_NS
        with pytest.raises(Ended):
            list(world.run(_Death(world, {"part", "manifest"})))
        world.look()
        assert world.there == {0, 1}
        assert _run_after(world, 6) == set()


def test_rows_of_a_month_stay_until_it_is_over(backends: Backends, tmp_path: pathlib.Path) -> None:
    """Although all that came are older than they are kept: more may come."""
    month = dataclasses.replace(ARCHIVE, partition=Partition.MONTH)
    with _world(backends, tmp_path, month, FIRST[:1]) as world:
        world.now_ns = MONTH_ENDS_NS - 1
        world.complete()
        assert world.there == {0}
        world.now_ns = MONTH_ENDS_NS
        world.complete()
        assert world.there == set()
