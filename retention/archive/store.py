"""Where an archive lies: what it needs of a store, and a folder as one.

A file is there under its name when it is complete, or not at all. Names are below the root, parts separated by `/`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from retention.errors import StoreError

_UNFINISHED = ".part"
_LOCK = ".lock"


@dataclass(frozen=True)
class Entry:
    """A file of the store. `spare`: no writer that still runs can have made it."""

    name: str
    nbytes: int
    spare: bool


class Readable(Protocol):
    """An open file of a bucket: each read is a request, which raises `StoreError` where it fails."""

    def read(self, nbytes: int = -1) -> bytes:
        """So many bytes, or all that are left."""

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go there."""

    def tell(self) -> int:
        """Where it is."""

    def close(self) -> None:
        """Let go of it."""

    @property
    def closed(self) -> bool:
        """Whether that was done."""


class Store(Protocol):
    """A folder, or a bucket. All methods raise `StoreError` where it does not answer, or refuses."""

    def files(self, folder: str) -> list[Entry]:
        """The complete files below a folder ("" is the root), in order of their names."""

    def read(self, name: str) -> bytes | None:
        """A small file; None where there is none."""

    def create(self, name: str, content: bytes) -> bool:
        """Write a small file, durably; False where there is one already, which stays."""

    def drop(self, name: str) -> None:
        """Remove a file, if it is there."""

    def drafted(self, name: str) -> AbstractContextManager[Path]:
        """A path to write a large file at; removed afterwards, but for what was put."""

    def put(self, name: str, draft: Path) -> None:
        """Give a written draft its name, durably; it is complete when this returns."""

    def fetched(self, name: str) -> AbstractContextManager[Path | None]:
        """A path to read a large file from, as the store has it now; None where there is none."""

    def opened(self, name: str) -> AbstractContextManager[Path | Readable | None]:
        """Some of a large file, to be read where it lies; None where there is none."""

    def exclusive(self, folder: str) -> AbstractContextManager[None]:
        """Keep other writers out of a folder where the store can, and remove what they left unfinished."""


class FolderStore:
    """A folder of this machine, or one that is mounted and has `flock`."""

    def __init__(self, root: Path):
        self.root = root

    def __str__(self) -> str:
        return str(self.root)

    def files(self, folder: str) -> list[Entry]:
        """See `Store`."""
        found = []
        with _told(self.root / folder):
            for path, _, names in os.walk(self.root / folder, onerror=_raised):
                for name in names:
                    if not name.startswith("."):
                        whole = Path(path, name)
                        with contextlib.suppress(FileNotFoundError):  # a writer removed it meanwhile
                            nbytes = whole.stat().st_size
                            found.append(Entry(whole.relative_to(self.root).as_posix(), nbytes, spare=True))
        return sorted(found, key=lambda entry: entry.name)

    def read(self, name: str) -> bytes | None:
        """See `Store`."""
        with _told(self.root / name):
            try:
                return (self.root / name).read_bytes()
            except FileNotFoundError:
                return None

    def create(self, name: str, content: bytes) -> bool:
        """See `Store`."""
        with self.drafted(name) as draft, _told(self.root / name):
            draft.write_bytes(content)
            _sync(draft)
            try:
                os.link(draft, self.root / name)  # a rename would replace what is there
            except FileExistsError:
                return False
            _sync(draft.parent)
        return True

    def drop(self, name: str) -> None:
        """See `Store`."""
        path = self.root / name
        with _told(path):
            path.unlink(missing_ok=True)
            if path.parent.is_dir():
                _sync(path.parent)

    @contextlib.contextmanager
    def drafted(self, name: str) -> Iterator[Path]:
        """See `Store`."""
        path = self.root / name
        draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_UNFINISHED}")
        with _told(path):
            _make(path.parent)
        try:
            yield draft
        finally:
            with contextlib.suppress(
                OSError
            ):  # a disk that takes no writing says so, and not that it is not there
                draft.unlink(missing_ok=True)

    def put(self, name: str, draft: Path) -> None:
        """See `Store`."""
        path = self.root / name
        with _told(path):
            _sync(draft)
            os.rename(draft, path)
            _sync(path.parent)

    @contextlib.contextmanager
    def fetched(self, name: str) -> Iterator[Path | None]:
        """See `Store`."""
        path = self.root / name
        with _told(path):
            try:
                opened = os.open(path, os.O_RDONLY)
            except FileNotFoundError:
                opened = None
            if opened is not None:
                # From the disk: memory would also give what the disk has not kept.
                os.posix_fadvise(opened, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(opened)
        yield None if opened is None else path

    @contextlib.contextmanager
    def opened(self, name: str) -> Iterator[Path | Readable | None]:
        """See `Store`."""
        path = self.root / name
        with _told(path):
            there = path.exists()
        yield path if there else None

    @contextlib.contextmanager
    def exclusive(self, folder: str) -> Iterator[None]:
        """See `Store`.

        Raises:
            StoreError: another writer has the folder.
        """
        path = self.root / folder
        with _told(path):
            _make(path)
            lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            with _told(path):
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    raise StoreError(
                        f"{path}: another process is writing this partition; wait until it has ended, and run again"
                    ) from error
                for left in path.glob(f".*{_UNFINISHED}"):
                    left.unlink(missing_ok=True)
            yield
        finally:
            os.close(lock)


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = error.filename or path
        raise StoreError(f"{where}: {error.strerror}; see to the folder, and run again") from error


def _raised(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def _make(folder: Path) -> None:
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        _sync(path.parent)


def _sync(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
