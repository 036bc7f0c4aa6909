"""A store that is known by a mark: nothing is read from or written to another one in its place.

An archive on a disk that is not mounted is an empty folder. It would look as if nothing had ever been archived. So each
archive has a mark, a small file `archive.json` at its root with a random id, made when first something is written; and
whoever uses it remembers the id, by the root, in a folder of its own. From then on a root without that mark, or with
another one, is refused. An archive from before there were marks gets one with the next thing that is written.

A root that was never used from here is taken as it is found.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec

from retention.archive.store import Entry, FolderStore, Readable, Store
from retention.errors import StoreError

MARK = "archive.json"


class _Mark(msgspec.Struct, frozen=True):
    """Which archive it is; `root` is where it lay, for people who look at what is remembered."""

    id: str
    root: str = ""


class MarkedStore:
    """See `Store`. `memory` is the folder of what is remembered; `told` gets one line where that cannot be written."""

    def __init__(self, store: Store, memory: Path, *, told: Callable[[str], None] = lambda line: None):
        self.inner, self._told = store, told
        self.root = store.root if isinstance(store, FolderStore) else None
        self._where = str(store) if self.root is None else str(self.root.absolute())
        self._name = f"{hashlib.blake2b(self._where.encode(), digest_size=8).hexdigest()}.json"
        self._memory = FolderStore(memory)
        self._seen = self._marked = self._unremembered = False

    def __str__(self) -> str:
        return str(self.inner)

    def see(self, *, writes: bool = False) -> None:
        """See that it is the archive that was used before; done by itself before the first use. `writes` marks it.

        Raises:
            StoreError: it is another one, or none; or it does not answer.
        """
        known = self._known()
        found = _mark_of(self.inner.read(MARK), f"{self._where}/{MARK}")
        if known is not None and (found is None or found.id != known.id):
            raise StoreError(
                f"{self._where}: is not the archive that was used here before: expected {MARK} with id {known.id}, "
                f"found {'none' if found is None else found.id}; mount or bring back that archive and run again; or, "
                f"if this one is meant, remove {self._memory.root / self._name} and run again"
            )
        if found is None and writes:
            self.inner.create(MARK, msgspec.json.encode({"id": secrets.token_hex(16)}) + b"\n")
            found = _mark_of(self.inner.read(MARK), MARK)  # perhaps of another writer, who was first
            if found is None:
                raise StoreError(
                    f"{self._where}: {MARK} is not there after it was written; see to the archive"
                )
        if known is None and found is not None:
            self._remember(found)
        self._seen, self._marked = True, found is not None

    def files(self, folder: str) -> list[Entry]:
        """See `Store`."""
        return [entry for entry in self._first().files(folder) if entry.name != MARK]

    def read(self, name: str) -> bytes | None:
        """See `Store`."""
        return self._first().read(name)

    def create(self, name: str, content: bytes) -> bool:
        """See `Store`."""
        return self._to_write().create(name, content)

    def drop(self, name: str) -> None:
        """See `Store`."""
        self._first().drop(name)

    def drafted(self, name: str) -> AbstractContextManager[Path]:
        """See `Store`."""
        return self._to_write().drafted(name)

    def put(self, name: str, draft: Path) -> None:
        """See `Store`."""
        self._to_write().put(name, draft)

    def fetched(self, name: str) -> AbstractContextManager[Path | None]:
        """See `Store`."""
        return self._first().fetched(name)

    def opened(self, name: str) -> AbstractContextManager[Path | Readable | None]:
        """See `Store`."""
        return self._first().opened(name)

    def exclusive(self, folder: str) -> AbstractContextManager[None]:
        """See `Store`. A partition is about to be written: the archive may have gone since it was last seen."""
        self.see(writes=True)
        return self.inner.exclusive(folder)

    def _first(self) -> Store:
        if not self._seen:
            self.see()
        return self.inner

    def _to_write(self) -> Store:
        if not self._marked:
            self.see(writes=True)
        return self.inner

    def _known(self) -> _Mark | None:
        path = self._memory.root / self._name
        try:
            return _mark_of(path.read_bytes(), str(path))
        except FileNotFoundError:
            return None
        except OSError as error:
            self._tell(error)
            return None

    def _remember(self, found: _Mark) -> None:
        try:
            self._memory.create(self._name, msgspec.json.encode(_Mark(found.id, self._where)) + b"\n")
        except StoreError as error:
            self._tell(error)

    def _tell(self, error: StoreError | OSError) -> None:
        if self._unremembered:
            return  # it was said
        self._unremembered = True
        self._told(
            f"{self._where}: which archive this is cannot be remembered, so another one in its place is not noticed: "
            f"{error}"
        )


def _mark_of(content: bytes | None, name: str) -> _Mark | None:
    if content is None:
        return None
    try:
        return msgspec.json.decode(content, type=_Mark)
    except msgspec.MsgspecError as error:
        raise StoreError(
            f"{name}: says no id of an archive ({error}); bring it back from a copy, or remove it if it is known which "
            "archive this is, and run again"
        ) from error


def folder_of(store: Store) -> Path | None:
    """The folder that a store is; None for a bucket."""
    inner = store.inner if isinstance(store, MarkedStore) else store
    return inner.root if isinstance(inner, FolderStore) else None
