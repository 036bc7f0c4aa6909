"""Room that a writer of the archive leaves on its disk, which may be one that logs and the database need.

It looks, and reserves nothing: what others take meanwhile is not its own.
"""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from retention.errors import StoreError

if TYPE_CHECKING:
    from recorder.settings import Settings
    from retention.archive import Store

MIB = 1_048_576
KEEP_FREE_BYTES = 1_024 * MIB
KEEP_FREE_SHARE = 10
"""So many bytes stay free, or that part of a small disk: more than what the logs leave (`wal.disk`), so that an archive
that grows stops before they do."""


def written_to(settings: Settings, store: Store) -> Path:
    """The folder on whose disk files are written: the archive, or where those for a bucket are made."""
    root = getattr(store, "root", None)
    return root if isinstance(root, Path) else settings.data_dir


def see_room(folder: Path) -> None:
    """See that enough is free on the disk of a folder, which need not be there yet.

    Raises:
        StoreError: too little is.
    """
    there = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    with contextlib.suppress(OSError):  # whoever writes there says what is wrong with it
        disk = shutil.disk_usage(there)
        kept = min(KEEP_FREE_BYTES, disk.total // KEEP_FREE_SHARE)
        if disk.free < kept:
            raise StoreError(
                f"{folder}: {_said(disk.free)} are free on its disk, expected at least {_said(kept)}, "
                "which are left to what is recorded there; make room, or have the setting archive name another disk"
            )


def _said(size_bytes: int) -> str:
    """A size in MiB; a small one, which would be none, to a tenth."""
    return f"{size_bytes / MIB:,.{0 if size_bytes >= 10 * MIB else 1}f} MiB"
