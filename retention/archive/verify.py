"""Read an archive back: every byte and every row of every file, compared with what the source gave."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from retention.archive.layout import Place, manifest_name
from retention.archive.manifest import Manifest
from retention.archive.parquet import REMEDY, read_files
from retention.archive.pieces import partition_of
from retention.archive.rowhash import Summing, Sums
from retention.archive.store import Store
from retention.errors import ManifestError, VerifyError

Progress = Callable[[str, int], None]
"""Told after each batch what is being done ("archiving", "reading back"), and how many rows it is at."""


@dataclass(frozen=True)
class Checked:
    """A partition that was read back. `faults` say what is wrong where; without one it is what the source gave."""

    place: Place
    rows: int
    nbytes: int
    receipts: int
    unverified: int
    """Pieces without a receipt: nothing may be dropped for them yet."""
    faults: tuple[str, ...]


def read_back(manifest: Manifest, store: Store, progress: Progress | None = None) -> None:
    """Read a piece's files back from the store: the bytes, the rows, and what they come to.

    Raises:
        VerifyError: they are not what the source gave; the message names the first difference.
        StoreError: the store fails.
    """
    seen = 0
    with Summing() as summing:
        for batch in read_files(manifest, store, check=True, encoded=_repeating(manifest)):
            summing.add(batch)
            seen += batch.num_rows
            if progress is not None:
                progress("reading back", seen)
    total = summing.total
    rows = sum(file.rows for file in manifest.files)
    if total == manifest.sums and rows == total.rows:
        return
    where = manifest_name(manifest.place, manifest.piece)
    raise VerifyError(f"{where}: its files hold {_told(total)}, expected {_told(manifest.sums)}; {REMEDY}")


def check(store: Store, place: Place, progress: Progress | None = None) -> Checked:
    """Read back all pieces of a partition; what is wrong is told, not raised.

    Raises:
        StoreError: the store fails.
    """
    try:
        known = partition_of(store, place)
    except ManifestError as error:
        return Checked(place, 0, 0, 0, 0, (str(error),))
    faults = []
    if not known.pieces:
        faults.append(
            f"{place.folder}: has files and no manifest; a run is at work there or was interrupted "
            '("recorder archive create" completes it), or the manifest is lost: bring it back from a copy'
        )
    for piece in known.pieces:
        try:
            read_back(piece.manifest, store, progress)
        except VerifyError as error:
            faults.append(str(error))
    unverified = sum(piece.receipt is None for piece in known.pieces)
    return Checked(
        place, known.sums.rows, known.nbytes, len(known.pieces) - unverified, unverified, tuple(faults)
    )


def _repeating(manifest: Manifest) -> list[str]:
    """Columns of which few values differ, to go by their type in the table."""
    named = manifest.columns
    return [name for name in manifest.schema.names if named.get(name, "").startswith("LowCardinality(")]


def _told(sums: Sums) -> str:
    return (
        f"{sums.rows} rows from {sums.min_ts_local_ns} to {sums.max_ts_local_ns} "
        f"of sum {sums.row_sum:016x}, identities {sums.identity_sum:016x}"
    )
