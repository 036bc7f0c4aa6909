"""What the embedded engine is told of its disk when it opens: how much it leaves free, how long it keeps merged parts.

Only the first handle of a process on an engine folder counts: the engine reads the file while it opens and never
again, and handles that join it later take what is in force, whatever they say.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Iterator

from recorder.sink import carrier

KEEP_FREE_BYTES = 64 << 20
"""What is kept free unless it is said otherwise, on a disk that has eight times as much."""
SMALL_DISK_SHARE = 8
"""On a smaller disk it is this part of it."""
OLD_PARTS_LIFETIME_S = 480
"""How long the parts that a merge replaced stay on the disk. A merge that broke is undone from them. It is what
servers have; the embedded engine of today has 0."""

_CONFIG = """<clickhouse>
<storage_configuration><disks><default>
<keep_free_space_bytes>{keep_free_bytes}</keep_free_space_bytes>
</default></disks></storage_configuration>
<merge_tree><old_parts_lifetime>{lifetime_s}</old_parts_lifetime>{merges}</merge_tree>
</clickhouse>
"""
_NO_MERGES = "<max_bytes_to_merge_at_max_space_in_pool>0</max_bytes_to_merge_at_max_space_in_pool>"


def keep_free_on(path: pathlib.Path, wanted: int | None) -> int:
    """Bytes to keep free on the disk of `path`: `wanted`, or for None the default for a disk of its size."""
    if wanted is not None:
        return wanted
    disk = os.statvfs(next(folder for folder in (path, *path.parents) if folder.exists()))
    return min(KEEP_FREE_BYTES, disk.f_blocks * disk.f_frsize // SMALL_DISK_SHARE)


@contextlib.contextmanager
def as_file(
    keep_free_bytes: int, tmp_dir: pathlib.Path, *, merges: bool = True, in_memory: bool = carrier.IN_MEMORY
) -> Iterator[str]:
    """The path of a file with the engine's configuration, for as long as the context lasts.

    Without `merges` the engine begins none: the first begin while it opens, before it can be told anything.

    Raises:
        OSError: it cannot be written.
    """
    if in_memory:
        descriptor = os.memfd_create("recorder-engine", os.MFD_CLOEXEC)
        path = f"/proc/self/fd/{descriptor}"
    else:
        tmp_dir.mkdir(parents=True, exist_ok=True)
        descriptor, path = tempfile.mkstemp(suffix=".xml", prefix=f"engine-{os.getpid()}-", dir=tmp_dir)
    try:
        text = _CONFIG.format(
            keep_free_bytes=keep_free_bytes,
            lifetime_s=OLD_PARTS_LIFETIME_S,
            merges="" if merges else _NO_MERGES,
        )
        with open(descriptor, "wb", closefd=False) as file:  # unlike os.write, all of it or an error
            file.write(text.encode())
        yield path
    finally:
        os.close(descriptor)
        if not in_memory:
            with contextlib.suppress(OSError):  # the engine is open, and has read it
                os.unlink(path)
