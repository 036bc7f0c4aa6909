"""Archives batches of 4,000 rows of about 1 KB: `archive_memory_child.py ROOT BATCHES` (prints its peak)."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Iterator

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import numpy as np
import pyarrow as pa
from harness.archives import Rows, rows

from retention.archive import FolderStore, Limits, write_partition

BATCH_ROWS, PAYLOAD_BYTES = 4_000, 900


class Many(Rows):
    """Batches made as they are asked for, of bytes that do not compress."""

    def batches(self) -> Iterator[pa.RecordBatch]:
        random = np.random.default_rng(1)
        some = rows(0, BATCH_ROWS).drop_columns(["payload", "_seq"])
        for number in range(int(sys.argv[2])):
            content = pa.py_buffer(random.bytes(BATCH_ROWS * PAYLOAD_BYTES))
            stops = pa.array(range(0, len(content) + 1, PAYLOAD_BYTES), pa.int32()).buffers()[1]
            payload = pa.Array.from_buffers(pa.binary(), BATCH_ROWS, [None, stops, content])
            seqs = pa.array(range(number * BATCH_ROWS, (number + 1) * BATCH_ROWS), pa.uint64())
            yield from some.append_column("payload", payload).append_column("_seq", seqs).to_batches()


write_partition(
    Many(rows(0, 0)),
    FolderStore(pathlib.Path(sys.argv[1])),
    recorder_version="1.2.3",
    limits=Limits(group_bytes=8 * 2**20, file_bytes=64 * 2**20),
)
status = pathlib.Path("/proc/self/status").read_text()
print(next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")))
