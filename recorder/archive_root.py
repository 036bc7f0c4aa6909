"""Where partitions are archived: what the settings say, else a folder below the data folder.

Which archive that is, is remembered in the data folder (`retention.archive.marked`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from recorder.log import get_logger

if TYPE_CHECKING:
    from recorder.settings import Settings
    from retention.archive.marked import MarkedStore

log = get_logger("recorder")

FOLDER = "archive"
"""Below the data folder, where nothing else is named."""
MEMORY = "known-archives"
"""Below the data folder: which archive lies at which root."""


def archive_store(settings: Settings, root: str | None = None) -> MarkedStore:
    """The archive of the settings, or the one at `root`. Its first use refuses another one than was used there before.

    Raises:
        StoreError: it is none.
    """
    from retention.archive import open_store
    from retention.archive.marked import MarkedStore

    if root is None:
        root = settings.archive
    store = open_store(
        settings.data_dir / FOLDER if root is None else root, spool=settings.data_dir / "spool"
    )
    return MarkedStore(store, settings.data_dir / MEMORY, told=log.warning)
