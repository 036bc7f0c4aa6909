"""Which of some rows a partition's archive has, told by their identity: asked before a row is inserted once more.

Only pieces with a receipt count: what nobody has read back yet is no reason to leave a row out. Of their files only
identities are read, and of these only the row groups that reach into the rows' times; what is in memory is about the
rows that are asked for, three times. Bytes are not checked again: the receipt says that they were.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from retention.archive.identities import IdentitySet, Mask
from retention.archive.layout import Place
from retention.archive.manifest import FileEntry, Manifest
from retention.archive.parquet import REMEDY
from retention.archive.pieces import partition_of
from retention.archive.rowhash import LOG, SEQ, TIME, identities_of
from retention.archive.store import Store
from retention.errors import ArchiveError, VerifyError

READ_ROWS = 65_536

Words = npt.NDArray[np.uint64]
Times = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Wanted:
    """Rows that are asked for, three arrays of shape (n,): `_log`, `_seq`, and `ts_local` in ns since 1970."""

    logs: Words
    seqs: Words
    times_ns: Times

    def only(self, keep: Mask) -> Wanted:
        """Some of them."""
        return Wanted(self.logs[keep], self.seqs[keep], self.times_ns[keep])


def found_in(store: Store, place: Place, database: str, wanted: Wanted) -> Mask:
    """Which of these rows of a partition are in its verified pieces, shape (n,).

    Raises:
        ManifestError: a manifest or receipt cannot be read, or believed.
        VerifyError: a file is missing, or is no Parquet file with identities.
        ArchiveError: the pieces are of another database.
        StoreError: the store fails.
    """
    found = np.zeros(len(wanted.logs), np.bool_)
    for piece in partition_of(store, place).pieces:
        manifest = piece.manifest
        if manifest.database != database:
            raise ArchiveError(
                f"{place.folder}: is of database {manifest.database}, expected {database}; name the archive of this "
                'database by the setting "archive"'
            )
        if piece.receipt is None or found.all():
            continue
        open_ = wanted.only(~found)
        first_ns, last_ns = manifest.sums.min_ts_local_ns, manifest.sums.max_ts_local_ns
        if first_ns is None or last_ns is None or not _reach(open_, first_ns, last_ns):
            continue
        asked, there = IdentitySet(), IdentitySet()
        asked.add(open_.logs, open_.seqs)
        for logs, seqs in _identities(manifest, store, open_):
            if (mine := asked.has(logs, seqs)).any():
                there.add(logs[mine], seqs[mine])
        found |= there.has(wanted.logs, wanted.seqs)
    return found


def _identities(manifest: Manifest, store: Store, wanted: Wanted) -> Iterator[tuple[Words, Words]]:
    """Identities of a piece's rows, of those that may be among the wanted ones."""
    for entry in manifest.files:
        yield from _of_file(f"{manifest.place.folder}/{entry.name}", entry, store, wanted)


def _of_file(name: str, entry: FileEntry, store: Store, wanted: Wanted) -> Iterator[tuple[Words, Words]]:
    with store.fetched(name) as path:
        if path is None:
            raise VerifyError(f"{name}: is missing, expected {entry.nbytes} bytes; {REMEDY}")
        try:
            with pq.ParquetFile(path, pre_buffer=False) as file:
                groups = _groups(file, wanted)
                batches = file.iter_batches(READ_ROWS, row_groups=groups, columns=[LOG, SEQ])
                for batch in batches if groups else ():
                    yield identities_of(batch)
        except (pa.ArrowException, OSError) as error:
            raise VerifyError(f"{name}: cannot be read as Parquet ({error}); {REMEDY}") from error


def _groups(file: pq.ParquetFile, wanted: Wanted) -> list[int]:
    """The row groups that may have rows of these times."""
    metadata = file.metadata
    names = [metadata.schema.column(n).path for n in range(metadata.num_columns)]
    if TIME not in names:
        return list(range(metadata.num_row_groups))
    at = names.index(TIME)
    found = []
    for number in range(metadata.num_row_groups):
        known = metadata.row_group(number).column(at).statistics
        first_ns, last_ns = (known.min_raw, known.max_raw) if known is not None else (None, None)
        if first_ns is None or last_ns is None or _reach(wanted, first_ns, last_ns):
            found.append(number)
    return found


def _reach(wanted: Wanted, first_ns: int, last_ns: int) -> bool:
    """Whether a wanted row is of this time, both ends included."""
    return bool(((wanted.times_ns >= first_ns) & (wanted.times_ns <= last_ns)).any())
