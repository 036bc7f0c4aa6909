"""The server merges the rest of a partition while its parts are dropped: what is left goes with the next run."""

from __future__ import annotations

import pathlib

import pytest
from harness.backends import Backends
from harness.bars_desk import Desk
from harness.retention_world import START_NS, TABLE, Steps, World

from retention.policy import DAY_NS, RetentionPolicy
from schemas.policy import Partition

DAY = "20240824"


@pytest.mark.parametrize("archive_after_days", [None, 1])
@pytest.mark.parametrize("late", [False, True], ids=["alone", "with a late row"])
def test_what_is_left_of_a_partition_with_bars_goes_though_it_was_merged(
    backends: Backends, tmp_path: pathlib.Path, archive_after_days: int | None, late: bool
) -> None:
    """Its rows are those that the bars were verified of, whatever part they are in by now. With a row that came late
    merged into them it stays, and so does that row: nobody can tell any more which bars to make."""
    with backends.chdb.fresh_database() as database:
        world = World(Desk(backends.chdb.client, database))
        policy = RetentionPolicy(
            table=TABLE,
            partition=Partition.DAY,
            keep_days=3,
            bars=True,
            archive_after_days=archive_after_days,
        )
        world.begin(tmp_path / "archive", policy)
        for _ in range(3):
            world.rows_come([START_NS - 5 * DAY_NS])

        def deed() -> None:
            if late:
                world.rows_come([START_NS - 5 * DAY_NS])
            world.merges(TABLE, DAY)

        world.since_the_run.clear()
        steps = Steps("lock", 2, deed)
        list(world.run(steps))
        assert steps.happened
        world.look()
        assert len(world.there) == 3 if late else 2
        outcomes = world.complete()
        if late:
            assert any("are gone" in one.told for one in outcomes)
        assert len(world.there) == (3 if late else 0)
        world.bars_stay()
