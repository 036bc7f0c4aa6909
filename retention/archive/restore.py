"""Put the rows of an archived partition back into a table, each once. Interrupted anywhere, the next run completes it.

In this order:

    read back      every file of every piece, first and addenda: nothing is sent before all of it was found true
    look up        which identities the table has, in portions; their rows are not sent again
    send           the others, in inserts of a bounded size
    compare        the table's number of rows and sum of identities with the receipts'; where they differ, exactly

Nothing is written down about a run: what the table has is what says how far the last one came. Rows of the partition's
time that the archive does not have stay as they are, and are counted. The archive is only read.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from retention.archive.adapt import Adapter
from retention.archive.identities import IdentitySet, portion
from retention.archive.layout import Place, manifest_name
from retention.archive.parquet import REMEDY, Limits, grouped, read_files
from retention.archive.pieces import Partition, Piece, partition_of
from retention.archive.rowhash import LOG, SEQ, Sums, Words, identities_of, identity_hashes
from retention.archive.store import Store
from retention.archive.target import Target, Times
from retention.archive.verify import Progress, read_back
from retention.errors import ArchiveError, VerifyError
from retention.partitions import span_of
from schemas.policy import Partition as By
from schemas.renames import Renames

TRIES = 2
"""A table that still knows a token of rows that were deleted since takes their insert for a repeated one."""


@dataclass(frozen=True)
class Restored:
    """What a run came to. `others` are rows of the partition's time that the table has and the archive has not."""

    place: Place
    rows: int
    inserted: int
    pieces: int
    others: int

    @property
    def there(self) -> int:
        """Rows that the table had before."""
        return self.rows - self.inserted


def restore_partition(
    target: Target,
    store: Store,
    place: Place,
    *,
    renames: Renames = (),
    progress: Progress | None = None,
    limits: Limits | None = None,
) -> Restored:
    """Have the table hold every row of the archived partition, once. A run that finds nothing missing sends nothing.

    `renames` are those of the archived table's columns. Memory does not grow with the partition: an insert of at most
    `limits.group_rows`, and 8 bytes a row for at most about `limits.known_rows` that are looked up.

    Raises:
        VerifyError: a file is missing or damaged, and nothing was sent; or the table has not what the receipts say.
        ManifestError: a manifest or receipt is damaged.
        StoreError: the store fails.
        ArchiveError: nothing is archived of it, or the table cannot have its rows as they are.
    """
    return _Run(target, store, partition_of(store, place), renames, progress, limits or Limits()).complete()


def times_of(known: Partition) -> Times | None:
    """The local times that look-ups are for: of the archived rows and of the whole partition, None where not known."""
    sums, place = known.sums, known.place
    if sums.min_ts_local_ns is None or sums.max_ts_local_ns is None:
        return None
    span = span_of(place.id, By.DAY if len(place.id) == 8 else By.MONTH)
    if span is None:
        return None
    return Times(min(span.start_ns, sums.min_ts_local_ns), max(span.end_ns - 1, sums.max_ts_local_ns))


class _Run:
    """One run over one partition."""

    def __init__(
        self,
        target: Target,
        store: Store,
        known: Partition,
        renames: Renames,
        progress: Progress | None,
        limits: Limits,
    ):
        self._target, self._store, self._known, self._limits = target, store, known, limits
        self._renames, self._progress = renames, progress
        self._times = times_of(known)

    def complete(self) -> Restored:
        known = self._known
        if not known.pieces:
            raise ArchiveError(f'{known.place}: nothing is archived of it; see "recorder archive ls"')
        adapters = [Adapter(piece.manifest, self._target, self._renames) for piece in known.pieces]
        self._verify()
        inserted = 0
        for number in range(TRIES):
            inserted += self._send(adapters, again=number > 0)
            there, missing, doubled, others = self._compared()
            if not missing:
                break
        if missing or doubled:
            raise VerifyError(
                f"{self._target.name}: of the {known.sums.rows} archived rows of {known.place} it has {there}, "
                f"{missing} are missing and {doubled} are there twice; look for them by {LOG}, {SEQ}, "
                "and see whether something else deletes or inserts there (a TTL, a recorder)"
            )
        return Restored(known.place, known.sums.rows, inserted, len(known.pieces), others)

    def _verify(self) -> None:
        """Read every file; a piece without a receipt whole, since nobody has yet."""
        seen = 0
        for piece in self._known.pieces:
            if piece.receipt is None:
                read_back(piece.manifest, self._store, self._progress)
                continue
            rows = total = 0
            for batch in read_files(piece.manifest, self._store, [LOG, SEQ], check=True):
                rows += batch.num_rows
                total += int(identity_hashes(*identities_of(batch)).sum(dtype=np.uint64))
                seen += batch.num_rows
                self._tell("reading back", seen)
            sums = piece.manifest.sums
            if (rows, total % 2**64) != (sums.rows, sums.identity_sum):
                raise VerifyError(
                    f"{manifest_name(piece.manifest.place, piece.manifest.piece)}: its files hold {rows} rows of "
                    f"identities {total % 2**64:016x}, expected {sums.rows} of {sums.identity_sum:016x}; {REMEDY}"
                )

    def _send(self, adapters: list[Adapter], *, again: bool) -> int:
        """Insert what the table lacks; how many rows."""
        rows, total = self._target.sums(self._times)
        # The same rows after the same state: what a killed run has sent, and the table did not get yet, comes once.
        state = secrets.token_hex(16) if again else f"{rows} {total:016x}"
        of = 1 + rows // self._limits.known_rows
        sent = 0
        for number in range(of):
            live = _gathered(self._target.identities(self._times, number, of) if rows else ())
            for piece, adapt in zip(self._known.pieces, adapters, strict=True):
                for group in grouped(self._lacking(piece, live, number, of), self._limits):
                    chunk = adapt(group.combine_chunks().to_batches()[0])
                    self._target.insert(chunk, _token(self._target.name, state, chunk))
                    sent += chunk.num_rows
                    self._tell("restoring", sent)
        return sent

    def _lacking(self, piece: Piece, live: IdentitySet, number: int, of: int) -> Iterator[pa.RecordBatch]:
        for batch in read_files(piece.manifest, self._store, check=True):
            logs, seqs = identities_of(batch)
            mine = portion(logs, seqs, number, of) & ~live.has(logs, seqs)
            if mine.all():
                yield batch
            elif mine.any():
                yield batch.filter(pa.array(mine))

    def _compared(self) -> tuple[int, int, int, int]:
        """Archived rows that the table has, that it lacks, rows beyond the first of each; and rows of others."""
        sums: Sums = self._known.sums
        rows, total = self._target.sums(self._times)
        if (rows, total) == (sums.rows, sums.identity_sum):
            return rows, 0, 0, 0
        of = 1 + max(rows, sums.rows) // self._limits.known_rows
        there = missing = doubled = others = 0
        for number in range(of):
            archived = _gathered(self._archived(number, of))
            found: list[tuple[Words, Words]] = []
            for batch in self._target.identities(self._times, number, of):
                logs, seqs = identities_of(batch)
                mine = archived.has(logs, seqs)
                found.append((logs[mine], seqs[mine]))
                others += len(mine) - int(mine.sum())
                self._tell("comparing", there + others)
            distinct, every = _distinct(found)
            there += distinct
            doubled += every - distinct
            missing += archived.rows - distinct
        return there, missing, doubled, others

    def _archived(self, number: int, of: int) -> Iterator[pa.RecordBatch]:
        for piece in self._known.pieces:
            for batch in read_files(piece.manifest, self._store, [LOG, SEQ]):
                yield batch.filter(pa.array(portion(*identities_of(batch), number, of)))

    def _tell(self, step: str, rows: int) -> None:
        if self._progress is not None:
            self._progress(step, rows)


def _gathered(batches: Iterable[pa.RecordBatch]) -> IdentitySet:
    found = IdentitySet()
    for batch in batches:
        found.add(*identities_of(batch))
    return found


def _distinct(found: list[tuple[Words, Words]]) -> tuple[int, int]:
    """How many different identities these are, and how many in all."""
    if not found:
        return 0, 0
    logs, seqs = (np.concatenate([pair[side] for pair in found]) for side in (0, 1))
    order = np.lexsort((seqs, logs))
    logs, seqs = logs[order], seqs[order]
    repeated = int(((logs[1:] == logs[:-1]) & (seqs[1:] == seqs[:-1])).sum())
    return len(logs) - repeated, len(logs)


def _token(table: str, state: str, rows: pa.RecordBatch) -> str:
    """The name of an insert: of these rows in this order, into this table as it was."""
    logs, seqs = identities_of(rows)
    content = hashlib.sha256(f"{table} {state} ".encode())
    content.update(logs.tobytes())
    content.update(seqs.tobytes())
    return content.hexdigest()[:32]
