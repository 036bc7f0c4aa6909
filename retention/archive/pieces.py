"""The pieces of a partition as the store has them: which are whole, which are unfinished, what belongs to none."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from retention.archive.layout import Place, manifest_name, piece_of, place_at, receipt_name
from retention.archive.manifest import Manifest, Receipt, manifest_of, receipt_for, receipt_of
from retention.archive.rowhash import Sums
from retention.archive.store import Store
from retention.errors import ManifestError


@dataclass(frozen=True)
class Piece:
    """A manifest, and its receipt if it was verified."""

    manifest: Manifest
    manifest_json: bytes
    receipt: Receipt | None


@dataclass(frozen=True)
class Partition:
    """What the store has of a partition. `loose`: files of rows that no manifest names and no receipt vouches for."""

    place: Place
    pieces: tuple[Piece, ...]
    loose: tuple[str, ...]

    @property
    def sums(self) -> Sums:
        """Of the rows of all pieces."""
        return sum((piece.manifest.sums for piece in self.pieces), Sums())

    @property
    def nbytes(self) -> int:
        """Of the files of all pieces."""
        return sum(piece.manifest.nbytes for piece in self.pieces)

    @property
    def verified(self) -> bool:
        """Whether there is something, and each piece has its receipt."""
        return bool(self.pieces) and all(piece.receipt is not None for piece in self.pieces)


def places(store: Store, table: str | None = None) -> list[Place]:
    """The partitions that the store has files of, of one table or all.

    Raises:
        StoreError: the store fails.
    """
    folder = "" if table is None else Place(table, "2000-01-01").folder.partition("/")[0]
    found = {place_at(entry.name) for entry in store.files(folder) if piece_of(entry.name) is not None}
    return sorted(place for place in found if place is not None)


def partition_of(store: Store, place: Place) -> Partition:
    """What the store has of a partition.

    Raises:
        ManifestError: a manifest or receipt is damaged, is of another version, or belongs to another partition, or
            there is a receipt without its manifest. Nothing may be changed then: rows may be there and nowhere else.
        StoreError: the store fails.
    """
    # Files first: whatever a manifest names that is written meanwhile is not among them.
    entries = [
        entry
        for entry in store.files(place.folder)
        # Not below it: a copy that somebody laid there has files of the same names.
        if piece_of(entry.name) is not None and place_at(entry.name) == place
    ]
    numbers = sorted({number for entry in entries if (number := piece_of(entry.name)) is not None})
    pieces = [piece for number in numbers if (piece := _piece(store, place, number)) is not None]
    named = {f"{place.folder}/{file.name}" for piece in pieces for file in piece.manifest.files}
    loose = [
        entry.name
        for entry in entries
        if entry.spare and entry.name.endswith(".parquet") and entry.name not in named
    ]
    if len({piece.manifest.database for piece in pieces}) > 1:
        raise ManifestError(
            f"{place.folder}: holds rows of several databases; give each an archive of its own"
        )
    return Partition(place, tuple(pieces), tuple(loose))


def partitions(store: Store, table: str | None = None) -> Iterator[Partition]:
    """All partitions, of one table or all; raises as `places` and `partition_of` do."""
    return (partition_of(store, place) for place in places(store, table))


def _piece(store: Store, place: Place, number: int) -> Piece | None:
    name, stamp = manifest_name(place, number), receipt_name(place, number)
    receipt_json, manifest_json = store.read(stamp), store.read(name)
    if manifest_json is None:
        if receipt_json is not None:
            raise ManifestError(f"{name}: is missing, and {stamp} is there; bring it back from a copy")
        return None
    manifest = manifest_of(manifest_json, name)
    if (manifest.place, manifest.piece) != (place, number):
        raise ManifestError(
            f"{name}: is of {manifest.place}, piece {manifest.piece}; bring the one that belongs here back from a copy"
        )
    for file in manifest.files:
        # What is written anew is removed by these names.
        if "/" in file.name or not file.name.endswith(".parquet") or piece_of(file.name) != number:
            raise ManifestError(
                f"{name}: names {file.name!r}, no file of this piece; "
                "bring the one that belongs here back from a copy"
            )
    if receipt_json is None:
        return Piece(manifest, manifest_json, None)
    receipt = receipt_of(receipt_json, stamp)
    if receipt.manifest_sha256 != (found := hashlib.sha256(manifest_json).hexdigest()):
        raise ManifestError(
            f"{stamp}: is for a manifest of sha256 {receipt.manifest_sha256}, {name} has {found}; "
            "bring the one that belongs here back from a copy"
        )
    due = receipt_for(
        manifest, manifest_json, recorder_version=receipt.recorder_version, verified_ns=receipt.verified_ns
    )
    if receipt != due:
        raise ManifestError(f"{stamp}: contradicts {name}; bring the one that belongs here back from a copy")
    return Piece(manifest, manifest_json, receipt)
