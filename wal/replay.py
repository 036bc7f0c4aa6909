"""Giving out what of a log still has to be sent: in order, in bounded memory, and as it was frozen.

What was sealed comes as it was sealed: its rows, all of them, as one record batch, with its token. The rest comes in
runs of at most `batch_rows`, of one epoch and one schema, with the seal in whose place they come if rows of it are
lost. Runs leave out what is done, so their rows need not follow on one another; no run reaches over a seal.

A replay is worked out from the log and the checkpoint alone, as they are when it is made. To resume, or to read what
was appended or sealed since, make another. Whoever sends what it gives asks the table first: it cannot know what was
sent and not confirmed. Rows that turn out to be unreadable are left out and told, and cost no others: lost ones, whose
bytes are not what was written, apart from those that the disk does not give now.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import pyarrow as pa

from wal.damage import Damage, Harm
from wal.places import PlaceSet, Range
from wal.reader import LogReader
from wal.replay_plan import Item, ahead, plan, survey
from wal.replay_rows import Gathering, Piece, RowFetch
from wal.seals import Seal
from wal.settled import Checkpoint


@dataclass(frozen=True)
class ReplayBatch:
    """Rows to send, in order of their places, which are those of `ranges`."""

    rows: pa.RecordBatch
    ranges: tuple[Range, ...]
    schema_hash: int
    """Of the rows' schema (`wal.rows.schema_hash`)."""
    seal: Seal | None = None
    """These are exactly its rows: they go under its token, or not at all. None: nothing was frozen for them."""
    broken_seal: Seal | None = None
    """They were of this seal, and others of it are lost: it holds no more, and they may be in the table under it."""

    @property
    def epoch(self) -> int:
        """Of all its rows."""
        return self.ranges[0].epoch


class Replay:
    """See the module. Making one goes through the log once.

    Args:
        reader: of the log; the replay has it for itself.
        done: what needs no sending: a checkpoint, or a set of places.
        batch_rows: the most that come in one batch that was not sealed.
        memory_bytes_max: the most that decoded rows take at once, the batch that was given last not counted. A seal
            that takes more, or a frame, is held whole all the same, and alone. A batch that was not sealed takes at
            most a third of it.
        only: what is asked for; None: everything. A seal comes whole, also where it reaches beyond that.

    Raises:
        ValueError: a bound that admits nothing.
        OSError: of this process and not of a file, such as too many open files.
    """

    def __init__(
        self,
        reader: LogReader,
        done: Checkpoint | PlaceSet,
        *,
        batch_rows: int = 100_000,
        memory_bytes_max: int = 256 * 1_048_576,
        only: Collection[Range] | None = None,
    ):
        if batch_rows < 1 or memory_bytes_max < 1:
            raise ValueError(
                f"batch_rows={batch_rows}, memory_bytes_max={memory_bytes_max}: at least 1 of each"
            )
        places = done.done() if isinstance(done, Checkpoint) else done
        self._reader, self._done, self._only = reader, places, only
        self.memory_bytes_max = memory_bytes_max
        """May be changed between two batches."""
        found = survey(reader)
        self._survey = found
        self._items, told = plan(found, places, only)
        self._batch_rows = batch_rows
        self._told = [*found.damage, *ahead(found, places), *told]
        self._fetch = RowFetch(found, self._told)
        self._lost = PlaceSet(part for one in found.lost for part in places.missing_of(one))
        self._unread = PlaceSet(part for one in found.unread for part in places.missing_of(one))
        self.rows_to_go = sum(one.rows for item in self._items for one in item.ranges)
        """Known at once; falls with each batch."""
        self._rows = self.rows_to_go
        self._bytes = sum(found.bytes_of(one) for item in self._items for one in item.ranges)

    def without(self, given: PlaceSet) -> Replay:
        """Another of the same log as it is now, of what this one had to give but for `given`, and for what it could not
        read: to go on after an error.

        Raises:
            OSError: of this process and not of a file, such as too many open files.
        """
        done = self._done.copy()
        done.update(given)
        done.update(self._unread)
        other = Replay(
            self._reader,
            done,
            batch_rows=self._batch_rows,
            memory_bytes_max=self.memory_bytes_max,
            only=self._only,
        )
        other._unread.update(self._unread)
        return other

    @property
    def _run_bytes_max(self) -> int:
        # A run is there twice while it is made one: its pieces and itself; and the frame that is being read.
        return max(1, self.memory_bytes_max // 3)

    @property
    def seals(self) -> tuple[Seal, ...]:
        """All seals of the log that hold, done or not, in the order in which they were made."""
        return tuple(self._survey.seals)

    @property
    def bytes_to_go(self) -> int:
        """About what the rows to go take in the log."""
        return self._bytes * self.rows_to_go // max(1, self._rows)

    @property
    def damage(self) -> list[Damage]:
        """What is wrong with the log, as known by now."""
        return list(self._told)

    @property
    def lost(self) -> tuple[Range, ...]:
        """Rows that the log had, cannot give, and that are not done: for the owner to count and to settle."""
        return tuple(self._lost)

    @property
    def unread(self) -> tuple[Range, ...]:
        """Rows that are not done and that the disk does not give: another replay may have them. None is lost."""
        return tuple(self._unread)

    def batches(self) -> Iterator[ReplayBatch]:
        """All that is to be sent, once. Ending it early is no harm; after an error `without` goes on.

        Raises:
            OSError: of this process and not of a file, such as too many open files.
        """
        items, self._items = self._items, []
        try:
            at = 0
            while at < len(items):
                if items[at].whole:
                    yield from self._sealed(items[at])
                    at += 1
                    continue
                stop = at + 1
                while stop < len(items) and _one_run(items[at], items[stop]):
                    stop += 1
                yield from self._runs([one for item in items[at:stop] for one in item.ranges], items[at].seal)
                at = stop
        finally:
            self._fetch.close()

    def _sealed(self, item: Item) -> Iterator[ReplayBatch]:
        seal = item.seal
        assert seal is not None
        gathered = Gathering()
        for one in seal.ranges:
            for piece in self._fetch.pieces(one):
                gathered.add(piece, piece.rows.nbytes)
        if gathered.rows == seal.rows and len(gathered.schema_hashes) == 1:
            self.rows_to_go -= seal.rows
            (schema_hash,) = gathered.schema_hashes
            yield ReplayBatch(gathered.joined(), seal.ranges, schema_hash, seal=seal)
            return
        # Its rows were there when the log was gone through, and are not any more, or cannot be decoded.
        del gathered
        first = seal.ranges[0]
        self._told.append(
            Damage(
                Harm.SEAL,
                "",
                epoch=seal.epoch,
                first=first.first,
                detail=f"token {seal.token}, found when read",
            )
        )
        yield from self._runs(list(seal.ranges), seal)

    def _runs(self, ranges: list[Range], broken: Seal | None) -> Iterator[ReplayBatch]:
        run = Gathering()
        counted = PlaceSet()
        for asked in ranges:
            for whole in self._fetch.pieces(asked):
                for piece in self._cut(whole):
                    nbytes = piece.rows.nbytes
                    if run.rows and (
                        run.rows + piece.range.rows > self._batch_rows
                        or run.nbytes + nbytes > self._run_bytes_max
                        or piece.schema_hash not in run.schema_hashes
                    ):
                        yield self._batch(run, broken)
                        run = Gathering()
                    run.add(piece, nbytes)
                    counted.add(piece.range)
        if run.rows:
            yield self._batch(run, broken)
        for gone in [part for asked in ranges for part in counted.missing_of(asked)]:
            self.rows_to_go -= gone.rows
            unread = PlaceSet(self._fetch.unread.common_of(gone))
            self._unread.update(unread)
            self._lost.update(unread.missing_of(gone))

    def _cut(self, piece: Piece) -> Iterator[Piece]:
        """In parts that fit."""
        most = max(1, self._run_bytes_max * piece.range.rows // max(1, piece.rows.nbytes))
        yield from piece.parts(min(most, self._batch_rows))

    def _batch(self, run: Gathering, broken: Seal | None) -> ReplayBatch:
        self.rows_to_go -= run.rows
        (schema_hash,) = run.schema_hashes
        return ReplayBatch(run.joined(), tuple(run.places), schema_hash, broken_seal=broken)


def _one_run(first: Item, other: Item) -> bool:
    """Whether rows of both may be in one run: not those of two seals, nor of a seal and of none."""
    return not other.whole and first.seal is other.seal and first.ranges[0].epoch == other.ranges[0].epoch
