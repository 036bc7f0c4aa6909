"""From what a person writes to a store: a folder, `file:///folder`, or `s3://bucket/prefix`."""

from __future__ import annotations

import urllib.parse
from pathlib import Path

from retention.archive.store import FolderStore, Store
from retention.errors import StoreError


def open_store(root: str | Path, *, spool: Path) -> Store:
    """The store at a root. `spool` is a local folder where a bucket's files lie while they are written or read.

    Raises:
        StoreError: it is of a kind that is not known, or the bucket's settings cannot be used.
    """
    if isinstance(root, Path) or "://" not in root:
        if not str(root):
            raise StoreError("the archive's root is empty; name a folder, or s3://bucket/prefix")
        return FolderStore(Path(root))
    parts = check_root(root)
    if parts.scheme == "file":
        return FolderStore(Path(urllib.parse.unquote(parts.path)))
    from retention.archive.s3 import S3Store

    return S3Store(root.rstrip("/"), spool)


def check_root(url: str) -> urllib.parse.SplitResult:
    """The parts of a URL that names an archive; nothing is opened.

    Raises:
        StoreError: it names none. The message does not repeat what may be a secret.
    """
    parts = urllib.parse.urlsplit(url)
    where = f"{parts.scheme}://{parts.hostname or ''}"
    if parts.query or parts.fragment:
        # The rest alone would be another place than the one that was named.
        raise StoreError(f"{where}: a root has no ? and no #; name a folder, or s3://bucket/prefix")
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path:
        return parts
    if parts.scheme == "s3" and parts.hostname and parts.username is None:
        return parts
    raise StoreError(f"{where}: is no place for an archive; name a folder, or s3://bucket/prefix")
