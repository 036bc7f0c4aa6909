"""Restores the rows of `archives.DAY` at ROOT into nothing: `restore_memory_child.py ROOT` (prints its peak)."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Iterator

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import pyarrow as pa
from harness.archives import DAY, Rows

from retention.archive import FolderStore, Limits, Times, partition_of, restore_partition
from retention.archive.rowhash import identities_of, identity_hashes

store = FolderStore(pathlib.Path(sys.argv[1]))


class Counting:
    """Keeps the number of rows and the sum of their identities."""

    name = "trading.fills"
    schema = partition_of(store, DAY).pieces[0].manifest.schema
    columns = dict.fromkeys(schema.names, "") | Rows.columns
    rows = total = 0

    def sums(self, times: Times | None) -> tuple[int, int]:
        return self.rows, self.total % 2**64

    def identities(self, times: Times | None, number: int, of: int) -> Iterator[pa.RecordBatch]:
        raise AssertionError("the sums say all that is asked")

    def insert(self, rows: pa.RecordBatch, token: str) -> None:
        self.rows += rows.num_rows
        self.total += int(identity_hashes(*identities_of(rows)).sum(dtype="u8"))


restore_partition(Counting(), store, DAY, limits=Limits(group_bytes=8 * 2**20))
status = pathlib.Path("/proc/self/status").read_text()
print(next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")))
