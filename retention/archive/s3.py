"""A bucket as the archive's store: S3 and what speaks its protocol.

Large files go up in parts, and completing the upload is what makes them be there: one that was cut is never seen.
obstore repeats requests that fail (5xx, cut connections, timeouts) with back-off; a file is first written whole on the
local disk, so that a part can be sent again and that nothing half is ever completed. Credentials, endpoint and region
come from the environment (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_ENDPOINT_URL`, `AWS_REGION`, …) or the
machine's role.

A bucket has no lock. That two writers at one partition do no harm comes from names of files that no other attempt has,
and from manifests that are only created where there is none. What an interrupted run left is removed when it is a day
old: until then its writer may be running still. Parts of cut uploads are the bucket's to expire
(`AbortIncompleteMultipartUpload`).
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError

from retention.archive.store import Entry, Readable
from retention.errors import StoreError

PART_BYTES = 16 * 2**20
PARTS_AT_ONCE = 3
READ_BYTES = 1 << 20
OPENED_BYTES = 1 << 16
"""Of a file that is read where it lies a request asks for at least so many."""
SPARE_AFTER = datetime.timedelta(days=1)
_PREFIX = "archive-"


class S3Store:
    """`s3://bucket/prefix`. Drafts and fetched files lie in a local folder meanwhile, one at a time."""

    def __init__(
        self, url: str, spool: Path, *, retries: int = 8, retry_s: float = 180.0, timeout_s: float = 60.0
    ):
        self.url, self._spool = url, spool
        seconds = datetime.timedelta
        with self._told("the store"):
            self._store: Any = obstore.store.S3Store.from_url(
                url,
                client_options={
                    "timeout": seconds(seconds=timeout_s),
                    "connect_timeout": seconds(seconds=min(5.0, timeout_s)),
                    # Only where somebody asked for it by the endpoint's name.
                    "allow_http": os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://"),
                },
                retry_config={
                    "max_retries": retries,
                    "retry_timeout": seconds(seconds=retry_s),
                    "backoff": {
                        "init_backoff": seconds(milliseconds=100),
                        "max_backoff": seconds(seconds=15),
                        "base": 2,
                    },
                },
            )

    def __str__(self) -> str:
        return self.url

    def files(self, folder: str) -> list[Entry]:
        """See `Store`."""
        now = datetime.datetime.now(datetime.UTC)
        with self._told(folder):
            found = [
                Entry(one["path"], one["size"], now - one["last_modified"] > SPARE_AFTER)
                for page in obstore.list(self._store, folder or None)
                for one in page
            ]
        return sorted(found, key=lambda entry: entry.name)

    def read(self, name: str) -> bytes | None:
        """See `Store`."""
        with self._told(name):
            try:
                return bytes(obstore.get(self._store, name).bytes())
            except FileNotFoundError:
                return None

    def create(self, name: str, content: bytes) -> bool:
        """See `Store`."""
        with self._told(name):
            try:
                obstore.put(self._store, name, content, mode="create", use_multipart=False)
            except AlreadyExistsError:
                # It may be ours: the answer to the first request was lost, and obstore asked again.
                return self.read(name) == content
        return True

    def drop(self, name: str) -> None:
        """See `Store`."""
        with self._told(name), contextlib.suppress(FileNotFoundError):
            obstore.delete(self._store, name)

    @contextlib.contextmanager
    def drafted(self, name: str) -> Iterator[Path]:
        """See `Store`."""
        with self._local() as path:
            yield path

    def put(self, name: str, draft: Path) -> None:
        """See `Store`."""
        with self._told(name):
            obstore.put(self._store, name, draft, chunk_size=PART_BYTES, max_concurrency=PARTS_AT_ONCE)

    @contextlib.contextmanager
    def fetched(self, name: str) -> Iterator[Path | None]:
        """See `Store`."""
        with self._local() as path:
            with self._told(name):
                try:
                    got = obstore.get(self._store, name)
                except FileNotFoundError:
                    got = None
                if got is not None:
                    with path.open("wb") as file:
                        for piece in got.stream(READ_BYTES):
                            file.write(piece)
            yield None if got is None else path

    @contextlib.contextmanager
    def opened(self, name: str) -> Iterator[Path | Readable | None]:
        """See `Store`."""
        with self._told(name):
            try:
                reader = obstore.open_reader(self._store, name, buffer_size=OPENED_BYTES)
            except FileNotFoundError:
                reader = None
        yield None if reader is None else _Opened(reader, lambda: self._told(name))

    @contextlib.contextmanager
    def exclusive(self, folder: str) -> Iterator[None]:
        """See `Store`: nobody can be kept out of a bucket, and what was cut is not to be seen."""
        yield

    @contextlib.contextmanager
    def _local(self) -> Iterator[Path]:
        """A path on the local disk, removed afterwards, or, where this process is killed, by the next one."""
        self._spool.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as kept:
            with _locked(self._spool):  # so that nobody takes a new folder for one that was left
                for left in self._spool.glob(f"{_PREFIX}*"):
                    with contextlib.suppress(OSError), _locked(left, wait=False):
                        shutil.rmtree(left)
                folder = kept.enter_context(tempfile.TemporaryDirectory(prefix=_PREFIX, dir=self._spool))
                kept.enter_context(_locked(Path(folder)))
            yield Path(folder, "file")

    @contextlib.contextmanager
    def _told(self, name: str) -> Iterator[None]:
        try:
            yield
        except StoreError:
            raise
        except (BaseError, OSError, ValueError) as error:
            # The library's message ends in a dump of the request; what happened stands in its first line.
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise StoreError(
                f"{self.url}/{name}: {first}; see to the bucket, the network and the AWS_… variables, and run again"
            ) from error


class _Opened:
    """See `Readable`."""

    def __init__(self, reader: Any, told: Callable[[], AbstractContextManager[None]]):
        self._reader, self._told = reader, told
        self.closed = False

    def read(self, nbytes: int = -1) -> bytes:
        with self._told():
            return bytes(self._reader.readall() if nbytes < 0 else self._reader.read(nbytes))

    def seek(self, offset: int, whence: int = 0) -> int:
        with self._told():
            return int(self._reader.seek(offset, whence))

    def tell(self) -> int:
        return int(self._reader.tell())

    def close(self) -> None:
        self.closed = True


@contextlib.contextmanager
def _locked(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """A folder that is this process's own meanwhile; without `wait`, an `OSError` where it cannot be had now."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        if wait:
            # On a disk without such locks nothing is taken for left, either.
            with contextlib.suppress(OSError):
                fcntl.flock(opened, fcntl.LOCK_EX)
        else:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(opened)
