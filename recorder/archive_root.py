"""Where partitions are archived: what the settings say, else a folder below the data folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recorder.settings import Settings
    from retention.archive import Store

FOLDER = "archive"
"""Below the data folder, where nothing else is named."""


def archive_store(settings: Settings, root: str | None = None) -> Store:
    """The archive of the settings, or the one at `root`.

    Raises:
        StoreError: it is none.
    """
    from retention.archive import open_store

    if root is None:
        root = settings.archive
    return open_store(settings.data_dir / FOLDER if root is None else root, spool=settings.data_dir / "spool")
