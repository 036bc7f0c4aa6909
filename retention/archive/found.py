"""Which of some rows a partition's archive has, told by their identity: asked before a row is inserted once more.

Only pieces with a receipt count: what nobody has read back yet is no reason to leave a row out. Their files must be
there and have their size; of what is in them only identities are read, and of these only the row groups that reach into
the rows' times. Values are not checked again: the receipt says that they were.

What was read is kept for the next question (`Known`): what an outage left is asked for batch by batch.
"""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from retention.archive.identities import IdentitySet, Mask
from retention.archive.layout import Place
from retention.archive.manifest import FileEntry
from retention.archive.parquet import REMEDY
from retention.archive.pieces import partition_of
from retention.archive.rowhash import LOG, SEQ, TIME, Words, identities_of
from retention.archive.store import Entry, Readable, Store
from retention.errors import ArchiveError, VerifyError

READ_ROWS = 65_536
KNOWN_ROWS_MAX = 8_000_000
"""Of so many rows identities are kept, 8 bytes each; those that were asked for longest ago go first."""
KNOWN_FILES_MAX = 1_000

Times = npt.NDArray[np.int64]
Spans = tuple[tuple[int, int] | None, ...]
"""Of each row group, from when to when its rows are, both included; None where it does not say."""


@dataclass(frozen=True)
class Wanted:
    """Rows that are asked for, three arrays of shape (n,): `_log`, `_seq`, and `ts_local` in ns since 1970."""

    logs: Words
    seqs: Words
    times_ns: Times

    def only(self, keep: Mask) -> Wanted:
        """Some of them."""
        return Wanted(self.logs[keep], self.seqs[keep], self.times_ns[keep])


@dataclass
class Known:
    """Identities that were read, by file (its sha256: files never change) and row group. For any threads."""

    rows_max: int = KNOWN_ROWS_MAX
    rows: int = 0
    _spans: collections.OrderedDict[str, Spans] = field(default_factory=collections.OrderedDict)
    _groups: collections.OrderedDict[tuple[str, int], IdentitySet] = field(
        default_factory=collections.OrderedDict
    )
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def spans(self, file: str) -> Spans | None:
        """Those of a file's row groups, if it was opened before."""
        with self._lock:
            return self._spans.get(file)

    def opened(self, file: str, spans: Spans) -> None:
        """A file has these."""
        with self._lock:
            self._spans[file] = spans
            while len(self._spans) > KNOWN_FILES_MAX:
                self._spans.popitem(last=False)

    def group(self, file: str, number: int) -> IdentitySet | None:
        """A row group's, if they are known."""
        with self._lock:
            if (found := self._groups.get((file, number))) is not None:
                self._groups.move_to_end((file, number))
            return found

    def add(self, file: str, number: int, group: IdentitySet) -> None:
        """A row group has these. It changes no more."""
        group.twice()  # puts it in order, which two threads must not do at once
        with self._lock:
            if (file, number) in self._groups:
                return
            self._groups[file, number] = group
            self.rows += group.rows
            while self.rows > self.rows_max:
                self.rows -= self._groups.popitem(last=False)[1].rows


def found_in(
    store: Store,
    place: Place,
    database: str,
    wanted: Wanted,
    *,
    known: Known | None = None,
    moved: Callable[[], object] = lambda: None,
) -> Mask:
    """Which of these rows of a partition are in its verified pieces, shape (n,). `moved` is told of each answer of the
    store, and of what is read of its files.

    Raises:
        ManifestError: a manifest or receipt cannot be read, or believed.
        VerifyError: a file is missing, has another size, or is no Parquet file with identities.
        ArchiveError: the pieces are of another database.
        StoreError: the store fails.
    """
    known = Known(0) if known is None else known
    store = cast("Store", _Watched(store, moved))
    found = np.zeros(len(wanted.logs), np.bool_)
    sizes: dict[str, int] | None = None
    for piece in partition_of(store, place).pieces:
        manifest = piece.manifest
        if manifest.database != database:
            raise ArchiveError(
                f"{place.folder}: is of database {manifest.database}, expected {database}; name the archive of this "
                'database by the setting "archive"'
            )
        if piece.receipt is None or found.all():
            continue
        first_ns, last_ns = manifest.sums.min_ts_local_ns, manifest.sums.max_ts_local_ns
        if first_ns is None or last_ns is None or not _reach(wanted.only(~found), first_ns, last_ns):
            continue
        if sizes is None:
            sizes = {one.name: one.nbytes for one in store.files(place.folder)}
        for entry in manifest.files:
            name = f"{place.folder}/{entry.name}"
            _must_be_there(name, entry, sizes.get(name))
            found[~found] = _in_file(name, entry, store, wanted.only(~found), known, moved)
    return found


class _Watched:
    """As much of a store as is needed here, which tells of its answers."""

    def __init__(self, store: Store, moved: Callable[[], object]):
        self._store, self._moved = store, moved

    def files(self, folder: str) -> list[Entry]:
        found = self._store.files(folder)
        self._moved()
        return found

    def read(self, name: str) -> bytes | None:
        found = self._store.read(name)
        self._moved()
        return found

    def opened(self, name: str) -> AbstractContextManager[Path | Readable | None]:
        return self._store.opened(name)


def _must_be_there(name: str, entry: FileEntry, nbytes: int | None) -> None:
    if nbytes != entry.nbytes:
        seen = "is missing" if nbytes is None else f"has {nbytes} bytes"
        raise VerifyError(f"{name}: {seen}, expected {entry.nbytes} bytes; {REMEDY}")


def _in_file(
    name: str, entry: FileEntry, store: Store, wanted: Wanted, known: Known, moved: Callable[[], object]
) -> Mask:
    """Which rows a file has. It is opened for what is not known."""
    found, lacking, key = np.zeros(len(wanted.logs), np.bool_), list[int](), entry.sha256
    spans = known.spans(key)
    for number in _groups(spans, wanted) if spans is not None else ():
        group = known.group(key, number)
        if group is None:
            lacking.append(number)
        else:
            found |= group.has(wanted.logs, wanted.seqs)
    if spans is not None and not lacking:
        return found
    with store.opened(name) as opened:
        if opened is None:
            raise VerifyError(f"{name}: is missing, expected {entry.nbytes} bytes; {REMEDY}")
        moved()
        try:
            with pq.ParquetFile(opened, pre_buffer=False) as file:
                if spans is None:
                    spans = _spans(file)
                    known.opened(key, spans)
                    lacking = _groups(spans, wanted)
                for number in lacking:
                    group = IdentitySet()
                    for batch in file.iter_batches(READ_ROWS, row_groups=[number], columns=[LOG, SEQ]):
                        group.add(*identities_of(batch))
                        moved()
                    found |= group.has(wanted.logs, wanted.seqs)
                    known.add(key, number, group)
        except (pa.ArrowException, OSError) as error:
            raise VerifyError(f"{name}: cannot be read as Parquet ({error}); {REMEDY}") from error
    return found


def _spans(file: pq.ParquetFile) -> Spans:
    metadata: pq.FileMetaData = file.metadata
    names = [metadata.schema.column(n).path for n in range(metadata.num_columns)]
    if TIME not in names:
        return (None,) * int(metadata.num_row_groups)
    at = names.index(TIME)
    found = list[tuple[int, int] | None]()
    for number in range(metadata.num_row_groups):
        known = metadata.row_group(number).column(at).statistics
        first_ns, last_ns = (known.min_raw, known.max_raw) if known is not None else (None, None)
        found.append(None if first_ns is None or last_ns is None else (first_ns, last_ns))
    return tuple(found)


def _groups(spans: Spans, wanted: Wanted) -> list[int]:
    """The row groups that may have rows of these times."""
    return [number for number, span in enumerate(spans) if span is None or _reach(wanted, *span)]


def _reach(wanted: Wanted, first_ns: int, last_ns: int) -> bool:
    """Whether a wanted row is of this time, both ends included."""
    return bool(((wanted.times_ns >= first_ns) & (wanted.times_ns <= last_ns)).any())
