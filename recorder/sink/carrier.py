"""How a batch reaches the engine of this process: a file it reads, holding one record batch as an Arrow stream.

On Linux the file is anonymous memory: nothing is left behind by a kill, and a full disk does not matter. Elsewhere it
is a file in a folder of the recorder's own, swept at start, because a killed process leaves rows in it.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Iterator

import pyarrow as pa

SUFFIX = ".raw"
IN_MEMORY = hasattr(os, "memfd_create") and os.path.isdir("/proc/self/fd")


@contextlib.contextmanager
def as_file(data: pa.RecordBatch, tmp_dir: pathlib.Path, *, in_memory: bool = IN_MEMORY) -> Iterator[str]:
    """The path of a file with `data` as an Arrow IPC stream, for as long as the context lasts."""
    if in_memory:
        descriptor = os.memfd_create("recorder-insert", os.MFD_CLOEXEC)
        path = f"/proc/self/fd/{descriptor}"
    else:
        tmp_dir.mkdir(parents=True, exist_ok=True)
        descriptor, path = tempfile.mkstemp(suffix=SUFFIX, prefix=f"insert-{os.getpid()}-", dir=tmp_dir)
    try:
        # Straight from the batch's buffers: a stream in memory first would be a second copy of the rows.
        with pa.OSFile(path, "wb") as out, pa.ipc.new_stream(out, data.schema) as writer:
            writer.write_batch(data)
        yield path
    finally:
        os.close(descriptor)
        if not in_memory:
            os.unlink(path)


def sweep(tmp_dir: pathlib.Path) -> int:
    """Delete what killed processes left in `tmp_dir`; how many files. Those of this process may be in use."""
    own = f"insert-{os.getpid()}-"
    left = [file for file in tmp_dir.glob(f"*{SUFFIX}") if not file.name.startswith(own)]
    for file in left:
        file.unlink(missing_ok=True)
    return len(left)
