"""Whatever rows a real table has already, restoring leaves each archived row in it once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from harness.restoring import DAY, NAMES, Database, opened
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retention.archive import FolderStore, Limits, restore_partition

if TYPE_CHECKING:
    from harness.backends import Backend

ROWS, FIRST = 90, 60


@pytest.fixture(scope="module")
def archived(
    backend: Backend, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Database, FolderStore]]:
    """`trades` with all rows and some that no archive has, its archive of two pieces, and a table to restore into."""
    with backend.fresh_database() as name, opened(backend.client, backend.sink(name), name) as db:
        db.make()
        root = tmp_path_factory.mktemp("archive")
        for start, stop in ((0, FIRST), (FIRST, ROWS)):
            db.fill(start, stop)
            store = db.archive(root)
        db.fill(ROWS, 2 * ROWS)
        db.make("again")
        yield db, store


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    live=st.sets(st.integers(0, 2 * ROWS - 1)),
    group_rows=st.integers(1, ROWS).filter(lambda rows: rows > 8),
    known_rows=st.integers(10, 2 * ROWS),
)
def test_any_rows_may_be_there_already(
    archived: tuple[Database, FolderStore], live: set[int], group_rows: int, known_rows: int
) -> None:
    """Sent is exactly what was missing; each archived row is there once, and what was there besides stays."""
    db, store = archived
    again = f"{db.name}.again"
    db.client.command(f"TRUNCATE TABLE {again}")
    if live:
        chosen = ", ".join(map(str, sorted(live)))
        db.client.command(
            f"INSERT INTO {again} ({NAMES}) SELECT {NAMES} FROM {db.name}.trades WHERE _seq IN ({chosen})"
        )
    there = {number for number in live if number < ROWS}
    limits = Limits(group_rows=group_rows, known_rows=known_rows)
    done = restore_partition(db.target("again"), store, DAY, limits=limits)
    assert (done.inserted, done.there, done.others) == (ROWS - len(there), len(there), len(live - there))
    wanted = sorted({*range(ROWS), *live})
    assert db.ask(f"SELECT arraySort(groupArray(_seq)) FROM {again}") == wanted
    left = f"SELECT {NAMES} FROM {again} EXCEPT SELECT {NAMES} FROM {db.name}.trades"
    assert db.ask(f"SELECT count() FROM ({left})") == 0
