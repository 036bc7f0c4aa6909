"""Restoring with a table in memory that can be stopped at any call: order of the steps, portions, what is told."""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pyarrow as pa
import pytest
from click.testing import CliRunner
from harness.archives import DAY, SCHEMA, Rows, Stopped, Stopping, in_order, rows

from recorder.cli.archive import archive
from retention.archive import (
    FolderStore,
    Limits,
    Place,
    Times,
    partition_of,
    restore_partition,
    write_partition,
)
from retention.archive.adapt import columns_of
from retention.archive.identities import portion
from retention.archive.restore import Restored, times_of
from retention.archive.rowhash import identities_of, identity_hashes
from retention.archive.store import Store
from retention.errors import ArchiveError

HARNESS = pathlib.Path(__file__).parents[1] / "harness"
SMALL = Limits(group_rows=50, known_rows=40)
HOUR_NS = 3_600 * 10**9


class Memory:
    """A table in memory. Call number `stop_at` does not happen, or, with `after`, happens and is the last."""

    name = "trading.fills"
    schema = SCHEMA
    columns = dict.fromkeys(SCHEMA.names, "") | {"side": "Enum8('buy' = 0, 'sell' = 1)"}

    def __init__(self, table: pa.Table | None = None, stop_at: int | None = None, *, after: bool = False):
        self.table = SCHEMA.empty_table() if table is None else table
        self.calls, self.sent = 0, 0
        self.tokens: list[str] = []
        self._stop_at, self._after = stop_at, after

    def _call(self, before: bool) -> None:
        number = self.calls
        self.calls += not before
        if number == self._stop_at and before is not self._after:
            raise Stopped

    def sums(self, times: Times | None) -> tuple[int, int]:
        self._call(before=True)
        hashes = [
            int(identity_hashes(*identities_of(batch)).sum(dtype="u8")) for batch in self.table.to_batches()
        ]
        self._call(before=False)
        return self.table.num_rows, sum(hashes) % 2**64

    def identities(self, times: Times | None, number: int, of: int) -> Iterator[pa.RecordBatch]:
        for batch in self.table.select(["_log", "_seq"]).to_batches(30):
            yield batch.filter(pa.array(portion(*identities_of(batch), number, of)))

    def insert(self, batch: pa.RecordBatch, token: str) -> None:
        self._call(before=True)
        self.tokens.append(token)
        self.sent += batch.num_rows
        self.table = pa.concat_tables([self.table, pa.Table.from_batches([batch])])
        self._call(before=False)


@pytest.fixture
def store(tmp_path: pathlib.Path) -> FolderStore:
    """An archive of 200 rows and an addendum of 30."""
    store = FolderStore(tmp_path / "archive")
    for stop in (200, 230):
        write_partition(
            Rows(rows(0, stop)),
            store,
            recorder_version="1.2.3",
            limits=Limits(group_rows=64, file_bytes=4_000),
        )
    return store


def run(target: Memory, store: Store) -> Restored:
    return restore_partition(target, store, DAY, limits=SMALL)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_run_that_stopped_anywhere_is_completed_by_the_next(store: FolderStore, after: bool) -> None:
    """At every call of the table and of the store: no row twice, none lost, none sent that was there."""
    counted, counting = Memory(), Stopping(store)
    assert run(counted, counting).inserted == 230
    assert in_order(counted.table).equals(in_order(rows(0, 230)))
    assert counted.calls > 6
    for stop_at in range(counted.calls):
        target = Memory(stop_at=stop_at, after=after)
        with pytest.raises(Stopped):
            run(target, store)
        again = Memory(target.table)
        assert run(again, store).there == target.table.num_rows
        assert in_order(again.table).equals(in_order(rows(0, 230))), stop_at
        assert again.sent + target.sent == 230
    for stop_at in range(counting.made):
        target = Memory()
        with pytest.raises(Stopped):
            run(target, Stopping(store, stop_at, after=after))
        run(target, store)
        assert in_order(target.table).equals(in_order(rows(0, 230))), stop_at


def test_the_archive_is_only_read(store: FolderStore) -> None:
    """Not even a lock is left in it, so that it may lie on a disk that cannot be written."""
    before = {path: path.stat().st_mtime_ns for path in store.root.rglob("*")}
    run(Memory(), store)
    assert {path: path.stat().st_mtime_ns for path in store.root.rglob("*")} == before


def test_tokens_tell_rows_and_state_apart(store: FolderStore) -> None:
    """The same rows into the same table have one token, so that what is on its way yet comes once; others differ."""
    one, same, other = Memory(), Memory(), Memory(rows(0, 1))
    for target in (one, same, other):
        run(target, store)
    assert one.tokens == same.tokens
    assert len(set(one.tokens)) == len(one.tokens) > 3
    assert not set(one.tokens) & set(other.tokens)


def test_times_are_those_of_the_partition_and_of_all_rows(store: FolderStore) -> None:
    """A row of the partition that is not in the archive is within; one of the next day is not."""
    known = partition_of(store, DAY)
    times = times_of(known)
    assert times is not None
    day_ns = 1_723_075_200 * 10**9
    assert times == (day_ns, day_ns + 24 * HOUR_NS - 1)


def test_columns_for_a_new_table_are_those_of_now(store: FolderStore) -> None:
    """By their new names, with the types of the manifests."""
    found = columns_of(partition_of(store, DAY), [("payload", "message")])
    assert list(found) == [name if name != "payload" else "message" for name in SCHEMA.names]
    assert found["side"] == "Enum8('buy' = 0, 'sell' = 1)"


def test_what_is_not_archived_is_told(store: FolderStore, tmp_path: pathlib.Path) -> None:
    """By the library and by the command, before any database is opened."""
    with pytest.raises(ArchiveError, match="fills 2024-08-09: nothing is archived of it"):
        restore_partition(Memory(), store, Place("fills", "2024-08-09"))
    for arguments, told in (
        (["fills", "2024-08-09", "--at", str(store.root)], "nothing of it is archived at"),
        (["fills", "2024-08-09", "--into", ""], "--into is empty"),
    ):
        ended = CliRunner().invoke(archive, ["restore", *arguments], env={"RECORDER_DATA_DIR": str(tmp_path)})
        assert ended.exit_code != 0
        assert told in ended.output


def test_memory_does_not_grow_with_what_is_restored(tmp_path: pathlib.Path) -> None:
    """Of a partition four times as large, 210 MiB of rows more, the peak is at most 60 MiB higher."""
    peaks = []
    for batches in (20, 80):
        root = tmp_path / str(batches)
        made = [sys.executable, str(HARNESS / "archive_memory_child.py"), str(root), str(batches)]
        subprocess.run(made, check=True, timeout=120, stdout=subprocess.DEVNULL)
        restored = [sys.executable, str(HARNESS / "restore_memory_child.py"), str(root)]
        ended = subprocess.run(restored, check=True, timeout=120, stdout=subprocess.PIPE)
        shutil.rmtree(root)
        peaks.append(int(ended.stdout))
    assert peaks[1] - peaks[0] < 60 * 2**20, peaks
