"""A receipt may be of long ago when its rows are to go: what it vouches for is read again before they do."""

from __future__ import annotations

import dataclasses
import pathlib

import pytest
from harness.backends import Backends
from harness.bars_desk import Desk
from harness.retention_world import START_NS, TABLE, Steps, World

from retention.due import Kind
from retention.policy import DAY_NS, RetentionPolicy
from retention.runner import State
from schemas.policy import Partition

LONG_KEPT = RetentionPolicy(table=TABLE, partition=Partition.DAY, keep_days=9, archive_after_days=1)
EXPIRED = dataclasses.replace(LONG_KEPT, keep_days=3)


@pytest.mark.parametrize("merged", [False, True], ids=["as it was", "merged since"])
def test_a_bit_that_flipped_since_the_receipt_keeps_the_rows(
    backends: Backends, tmp_path: pathlib.Path, merged: bool
) -> None:
    """A file of the same name and size with another content proves nothing: that is told, and the rows stay until it is
    brought back."""
    with backends.chdb.fresh_database() as database:
        world = World(Desk(backends.chdb.client, database))
        world.begin(tmp_path / "archive", LONG_KEPT)
        for _ in range(2):
            world.rows_come([START_NS - 5 * DAY_NS])
        assert [one.state for one in world.complete()] == [State.DONE]
        if merged:
            world.merges(TABLE, "20240824")
        (path,) = (path for path in world.files() if path.suffix == ".parquet")
        world.damage(path, "changed")
        world.policy = EXPIRED
        outcomes = [(one.action.kind, one.state) for one in world.run(Steps())]
        assert outcomes == [(Kind.VERIFY_ARCHIVE, State.DONE), (Kind.DROP, State.FAILED)]
        world.look()
        assert world.there == {0, 1}
        world.mend()
        world.complete()
        assert world.there == set()
