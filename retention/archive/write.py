"""Archive one partition: write, read back, give the receipt. Interrupted anywhere, the next run completes it.

In this order, each step durable before the next: files of rows, manifest, reading back, receipt. So a manifest means
that its files are complete, and a receipt that they were read from the store and are what the source gave. What a run
finds tells how far the last one came:

    files of rows without a manifest     removed (on a bucket when they are a day old), and written anew
    a probe of the database's way        removed
    a manifest without a receipt         read back: true, then it gets its receipt; else removed and written anew,
                                         if the source has as many rows for it as it had
    a receipt                            stands: only rows whose identity no piece has are written, as an addendum

Drops nothing of the table, and never changes a piece that has a receipt.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pyarrow as pa

from retention.archive.identities import IdentitySet, Passing, missing, only, portion
from retention.archive.layout import is_probe, manifest_name, new_attempt, receipt_name
from retention.archive.manifest import FileEntry, Manifest, Receipt, receipt_for
from retention.archive.parquet import Limits, metadata_of, namer, read_files, write_files
from retention.archive.pieces import Partition, Piece, partition_of
from retention.archive.rowhash import LOG, SEQ, Sums, identities_of, identity_hashes
from retention.archive.server_export import Exporter
from retention.archive.source import Source
from retention.archive.store import Store
from retention.archive.verify import Progress, read_back
from retention.errors import ArchiveError, ManifestError, StoreError, VerifyError

ONE_OF_TWO = (
    "OPTIMIZE TABLE … PARTITION ID … FINAL DEDUPLICATE leaves one of rows that are alike in every column; "
    "of others, delete the wrong one"
)


@dataclass(frozen=True)
class Archived:
    """What a run came to: the receipts of all pieces, and which of them it gave."""

    receipts: tuple[Receipt, ...]
    new: tuple[Receipt, ...]

    @property
    def sums(self) -> Sums:
        """Of the rows of all pieces."""
        return sum((receipt.sums for receipt in self.receipts), Sums())


def write_partition(
    source: Source,
    store: Store,
    *,
    recorder_version: str,
    progress: Progress | None = None,
    limits: Limits | None = None,
    now_ns: Callable[[], int] = time.time_ns,
    exporter: Exporter | None = None,
) -> Archived:
    """Have the archive hold every row that the source has now, verified. A run that finds nothing new adds nothing.

    Rows that the source no longer has stay in the archive. With an `exporter` the first piece is written by the
    database itself, where that can be; addenda, and what it cannot write, by this process.

    Raises:
        StoreError: the store fails, or another writer is at this partition; run it again.
        VerifyError: what was read back is not what was written, a file of a piece with a receipt is missing, a piece
            without one is untrue and the source no longer has its rows, or the table has one identity twice.
        ManifestError: a manifest or receipt is damaged; nothing was changed.
        ArchiveError: the partition has no rows, or rows without identity.
    """
    run = _Run(source, store, recorder_version, progress, limits or Limits(), now_ns, exporter)
    with store.exclusive(source.place.folder):
        return run.complete()


class _Run:
    """One run over one partition, alone in its folder where the store can see to that."""

    def __init__(
        self,
        source: Source,
        store: Store,
        recorder_version: str,
        progress: Progress | None,
        limits: Limits,
        now_ns: Callable[[], int],
        exporter: Exporter | None,
    ):
        self._source, self._store, self._version = source, store, recorder_version
        self._exporter = exporter
        self._progress, self._limits, self._now_ns = progress, limits, now_ns
        self._new: list[Receipt] = []

    def complete(self) -> Archived:
        known = self._mended(partition_of(self._store, self._source.place))
        if not known.pieces:
            if self._write(0, self._source.batches(), self._exporter) is None:
                raise ArchiveError(
                    f"{self._source.place}: the table has no rows of it; there is nothing to archive"
                )
        else:
            self._add_late(known)
        done = partition_of(self._store, self._source.place)
        return Archived(tuple(piece.receipt for piece in done.pieces if piece.receipt), tuple(self._new))

    def _mended(self, known: Partition) -> Partition:
        """The pieces, each with a receipt; what was left unfinished is finished or removed."""
        pieces = []
        for piece in known.pieces:
            if piece.manifest.database != self._source.database:
                raise ManifestError(
                    f"{known.place.folder}: holds rows of database {piece.manifest.database}, the source is "
                    f"{self._source.database}; give each an archive of its own"
                )
            if piece.receipt is not None:
                self._must_be_there(piece.manifest)
                pieces.append(piece)
            elif (receipt := self._late_receipt(piece, known)) is not None:
                pieces.append(replace(piece, receipt=receipt))
        for name in known.loose:
            self._store.drop(name)
        for entry in self._store.files(known.place.folder):
            # Of whatever age: a writer that still runs and misses it lets this process write the rows.
            if is_probe(entry.name):
                self._store.drop(entry.name)
        return Partition(known.place, tuple(pieces), ())

    def _must_be_there(self, manifest: Manifest) -> None:
        sizes = {entry.name: entry.nbytes for entry in self._store.files(manifest.place.folder)}
        for file in manifest.files:
            name = f"{manifest.place.folder}/{file.name}"
            if sizes.get(name) != file.nbytes:
                found = "is missing" if name not in sizes else f"has {sizes[name]} bytes"
                raise VerifyError(
                    f"{name}: {found}, expected {file.nbytes} bytes; bring it back from a copy, nothing was changed"
                )

    def _late_receipt(self, piece: Piece, known: Partition) -> Receipt | None:
        """The receipt of a piece that an interrupted run left without one; None if it is untrue, and now gone."""
        try:
            return self._receipt(piece.manifest, piece.manifest_json)
        except VerifyError as error:
            if self._store.read(receipt_name(piece.manifest.place, piece.manifest.piece)) is not None:
                raise  # another writer found it true meanwhile
            # A receipt can get lost, and rows expire: then the files that are whole hold what is nowhere else.
            if (there := self._unvouched(known)) < piece.manifest.sums.rows:
                raise VerifyError(
                    f"{error}; it has no receipt, and of its {piece.manifest.sums.rows} rows the table has at most "
                    f"{there}: nothing was changed"
                ) from error
            # The manifest goes first, so that none is ever there whose files were taken away.
            self._store.drop(manifest_name(piece.manifest.place, piece.manifest.piece))
            self._drop(piece.manifest.files)
            return None

    def _unvouched(self, known: Partition) -> int:
        """How many rows the source has that are in no piece with a receipt."""
        pieces = [piece for piece in known.pieces if piece.receipt is not None]
        of = 1 + known.sums.rows // self._limits.known_rows
        rows = 0
        for number in range(of):
            archived = self._archived(pieces, number, of)
            for batch in self._source.identities():
                logs, seqs = identities_of(batch)
                rows += int((portion(logs, seqs, number, of) & ~archived.has(logs, seqs)).sum())
        return rows

    def _write(
        self, number: int, batches: Iterator[pa.RecordBatch], exporter: Exporter | None = None
    ) -> Piece | None:
        """Write a piece and verify it; None where there are no rows."""
        draft = Manifest(
            self._source.database,
            self._source.place,
            number,
            self._source.order_by,
            Sums(),
            pa.schema([]),
            self._source.columns,
            (),
            self._version,
            self._now_ns(),
        )
        written = passing = None
        if exporter is not None:
            passing = Passing(self._limits.known_rows)
            name = namer(draft, new_attempt())(0)
            written = exporter(self._store, name, passing, self._limits, self._progress)
        was_read = written is not None
        if written is None or passing is None:
            passing = Passing(self._limits.known_rows)
            written = write_files(
                self._counted(passing.watched(batches)),
                self._store,
                # An attempt of its own: what the database was asked to write may still come, under its name.
                namer(draft, new_attempt()),
                metadata_of(draft),
                self._limits,
            )
        if written is None:
            return None
        if twice := passing.twice(self._source.identities, written.sums.rows):
            # With both in a receipt, no later run and no restore could tell that one is too many.
            self._drop(written.files)
            raise VerifyError(
                f"{self._source.place}: {LOG} {twice[0]}, {SEQ} {twice[1]} is in the table twice, and nothing of this "
                f"run was archived; {ONE_OF_TWO}"
            )
        manifest = replace(draft, sums=written.sums, schema=written.schema, files=written.files)
        content = manifest.to_json()
        if not self._store.create(manifest_name(manifest.place, number), content):
            self._drop(written.files)
            raise StoreError(
                f"{manifest_name(manifest.place, number)}: another process wrote this partition meanwhile; "
                "run again, one at a time"
            )
        return Piece(manifest, content, self._receipt(manifest, content, was_read=was_read))

    def _drop(self, files: tuple[FileEntry, ...]) -> None:
        for file in files:
            self._store.drop(f"{self._source.place.folder}/{file.name}")

    def _receipt(self, manifest: Manifest, content: bytes, *, was_read: bool = False) -> Receipt:
        """Read a piece back, unless that was done, and only then give its receipt."""
        if not was_read:
            read_back(manifest, self._store, self._progress)
        receipt = receipt_for(manifest, content, recorder_version=self._version, verified_ns=self._now_ns())
        self._store.create(receipt_name(manifest.place, manifest.piece), receipt.to_json())
        self._new.append(receipt)
        return receipt

    def _add_late(self, known: Partition) -> None:
        """Write what no piece has, an addendum after the other until nothing is missing."""
        pieces = list(known.pieces)
        number = 0
        rows, identity_sum = self._at_source()
        of = 1 + known.sums.rows // self._limits.known_rows
        while (rows, identity_sum) != _identities(pieces) and number < of:
            archived = self._archived(pieces, number, of)
            late = missing(self._source.identities(), archived, number, of, at_most=self._limits.late_rows)
            if not late.rows:
                number += 1
                continue
            del archived
            after = max(piece.manifest.piece for piece in pieces) + 1
            if (piece := self._write(after, only(self._source.batches(), late))) is not None:
                pieces.append(piece)
        if rows > _identities(pieces)[0]:
            # Every identity is archived, and still the table has more rows than there are.
            raise VerifyError(
                f"{self._source.place}: the table has {rows} rows, and the archive {_identities(pieces)[0]} with all "
                f"their identities; some are in the table twice, look for them by {LOG}, {SEQ}; {ONE_OF_TWO}"
            )

    def _at_source(self) -> tuple[int, int]:
        rows = total = 0
        for batch in self._source.identities():
            rows += batch.num_rows
            total += int(identity_hashes(*identities_of(batch)).sum(dtype="u8"))
            if self._progress is not None:
                self._progress("comparing", rows)
        return rows, total % 2**64

    def _archived(self, pieces: list[Piece], number: int, of: int) -> IdentitySet:
        """The identities of one portion of the archived rows."""
        known = IdentitySet()
        for piece in pieces:
            for batch in read_files(piece.manifest, self._store, [LOG, SEQ]):
                logs, seqs = identities_of(batch)
                mine = portion(logs, seqs, number, of)
                known.add(logs[mine], seqs[mine])
        return known

    def _counted(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        rows = 0
        for batch in batches:
            yield batch
            rows += batch.num_rows
            if self._progress is not None:
                self._progress("archiving", rows)


def _identities(pieces: list[Piece]) -> tuple[int, int]:
    total = sum((piece.manifest.sums for piece in pieces), Sums())
    return total.rows, total.identity_sum
