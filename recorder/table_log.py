"""One table's log as its pipeline uses it: rows go in as they are built, or where they must (`recorder.spill`), and a
batch is sealed before its first insert and confirmed after it. `recorder.log_done` keeps what is done with,
`recorder.log_reading` reads back what was not confirmed.

All of it is called on the recorder's loop: what takes rows in by the table's builder, seals and what confirms by its
worker, the rest by whoever asks. The files are written by another thread (`wal.writer`). A log that takes nothing (its
disk is full, or fails) stops nobody: rows go on to the database from memory, unsealed, and are not durable before they
are there. What such a recorder left, killed, is looked up before it is sent, as everything that an earlier run left.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from recorder.aside import aside
from recorder.batch import Batch
from recorder.lane import Stand
from recorder.log import get_logger
from recorder.log_done import LogDone
from recorder.log_reading import LogReading
from recorder.pulse import Pulse
from recorder.replay_memory import ReplayMemory
from schemas.renames import Renames
from schemas.table import Table
from wal.errors import LogFull, WalError
from wal.places import Range
from wal.seals import Seal, pack_seal, pack_void
from wal.writer import LogWriter

log = get_logger("recorder.log")

LETTERS_S = 0.2
"""What closing gives those who wait for others' rows to be durable, which takes a sync."""
HUNG_S = 3.0
"""A log that has got nothing on disk for so long gets no more time when it is closed than `HUNG_CLOSE_S`, nor do those
beside it: there was time before, and there are many."""
HUNG_CLOSE_S = 0.2
STILL_S = 5.0
"""When nothing has got on disk for so long that is told."""
STILL = "the disk of the log takes nothing: it hangs, or does not keep up"
SPILL_BYTES = 4 * 1_048_576
"""About what a batch is put on the log in at once: all of it may be more than may wait to be written."""
PIECE_BYTES = 16_384
"""More than what such a part takes beside its data."""
TOO_LARGE_MAX = 64
"""Batches that are too large, and remembered: memory holds a few."""


class TableLog:
    """See the module. `letters_durable` returns when the dead letters there are now are durable, `gaps_durable`
    the same of the gap rows."""

    def __init__(
        self,
        table: Table,
        writer: LogWriter,
        folder: Path,
        *,
        pulse: Pulse,
        letters_durable: Callable[[], Awaitable[None]],
        gaps_durable: Callable[[], Awaitable[None]],
        batch_rows: int,
        memory: ReplayMemory,
        renames: Renames = (),
        second: Path | None = None,
        waits_for_sync: bool = True,
        synced_within_s: float = 0.0,
        beside_hangs: Callable[[], object] = lambda: False,
    ):
        """`memory` is shared by all tables that have rows of earlier runs. `waits_for_sync`: a seal is on disk before
        its batch is sent; else it may be lost with what it seals. `synced_within_s` is how long rows may wait for a
        sync by the policy alone, `beside_hangs` says whether a log beside it hangs.
        """
        self.table = table
        self.folder = folder
        self.folders = [folder] if second is None else [folder, second]
        """Where its segments stand. The checkpoint stands in the first."""
        self.pulse = pulse
        self.writer = writer
        self.done = LogDone(table.name, folder, segments=writer.recovered.segments, epoch=writer.epoch)
        """What of it is done with."""
        self.unlogged_rows = 0
        """Rows built since the last cut that the log did not take."""
        self.no_room = ""
        """Why no more is to be written: the disk is to be left alone. Empty while there is room."""
        self.refused_rows = 0
        """Rows that the log did not take."""
        self.refused_why = ""
        """Why it does not take any now."""
        self._awaited_bytes = 0
        """The room that what was refused last waits for; 0 where it was refused for another reason."""
        self._room_bytes_max = writer.room_bytes
        self._too_large = deque[str](maxlen=TOO_LARGE_MAX)
        """Tokens of batches that it did not take, though nothing else waited: they are not tried again."""
        self._letters_durable = letters_durable
        self.waits_for_sync = waits_for_sync
        self._synced_within_s = synced_within_s
        self._beside_hangs = beside_hangs
        self.always = table.policy.critical
        """Whether rows go to it as they are built; else those alone that are spilled."""
        self._places: list[Range] = []
        self._mark = 0
        self._line = deque[Stand]()
        self._logged_upto = 0
        self._took_all = True
        self._confirming: set[asyncio.Task[None]] = set()
        self.reading = LogReading(
            table,
            writer,
            self.folders,
            self.done,
            pulse=pulse,
            gaps_durable=gaps_durable,
            soon=self._soon,
            batch_rows=batch_rows,
            memory=memory,
            renames=renames,
        )
        """What is read back from it."""

    # -- rows in ------------------------------------------------------------------------------------------------

    def append(self, rows: pa.RecordBatch) -> None:
        """Take the rows of a slice; what the log does not take waits for its insert in memory."""
        place = self._taken(rows)
        if place is None:
            self._took_all = False
            self.unlogged_rows += rows.num_rows
            self.refused_rows += rows.num_rows
            return
        last = self._places[-1] if self._places else None
        if last is not None and last.stop == place.first:
            self._places[-1] = Range(last.epoch, last.first, place.stop)
        else:
            self._places.append(place)

    def spill(self, batch: Batch, *, sent: bool = False) -> Batch:
        """The batch with its place on the log, where it is put if it is not on it; as it was if the log does not take
        it. With `sent`, an insert of it may have been under way: it is sealed.
        """
        if batch.places or not self._has_room(batch):
            return batch
        nothing_waits = self.writer.room_bytes >= self._room_bytes_max
        step = max(1, batch.rows * SPILL_BYTES // max(1, batch.nbytes))
        taken = list[Range]()
        for start in range(0, batch.rows, step):
            place = self._taken(batch.data.slice(start, step))
            if place is None:
                self.done.resolve(taken)  # they stay in memory, with the others
                if taken and nothing_waits:
                    self._too_large.append(batch.token)
                return batch
            taken.append(place)
        placed = replace(batch, places=(Range(taken[0].epoch, taken[0].first, taken[-1].stop),))
        if sent:
            with contextlib.suppress(WalError):  # then it is looked up row by row
                self._mark = self.writer.append_seal(_packed_seal(placed))
        return placed

    def _has_room(self, batch: Batch) -> bool:
        """Whether all of a batch may be taken now. It is asked fifty times a second: what was put there in part would
        be written for nothing, each time.
        """
        if self.no_room:
            return True  # that is said when the first of it is refused
        if batch.token in self._too_large:
            self._refuse(f"a batch of {batch.nbytes} bytes is more than it takes at once; lower batch_bytes")
            return False
        pieces = 1 + batch.nbytes // SPILL_BYTES
        needed_bytes = min(batch.nbytes + pieces * PIECE_BYTES, self._room_bytes_max)
        if needed_bytes <= self.writer.room_bytes:
            return True
        self._refuse(f"a batch of {batch.nbytes} bytes has no room beside what waits to be written")
        self._awaited_bytes = needed_bytes
        return False

    def _refuse(self, why: str) -> None:
        self._awaited_bytes = 0
        if self.refused_why != why:
            self.refused_why = why
            log.error("the log takes no rows", table=self.table.name, why=why)

    @property
    def mark(self) -> int:
        """Of what was put on the log last."""
        return self._mark

    def _taken(self, rows: pa.RecordBatch) -> Range | None:
        """Where the log puts rows; None if it does not take them."""
        try:
            if self.no_room:
                raise LogFull(self.no_room)
            appended = self.writer.append(rows)
        except WalError as error:
            self._refuse(str(error))
            return None
        self.refused_why = ""
        self._mark = appended.mark
        return appended.range

    def built_upto(self, upto: int, resolved_upto: int) -> None:
        """All rows up to this queue position were given to `append`, or are dead letters."""
        self.stand(upto, resolved_upto).mark = self._mark if self._took_all else None
        self._took_all = True

    def stand(self, upto: int, resolved_upto: int) -> Stand:
        """A further queue position; it is durable when the log has its mark, or when it is resolved."""
        self.durable_upto(resolved_upto)  # whether somebody asks or not, what is durable leaves the line
        self._line.append(Stand(upto))
        return self._line[-1]

    def take_places(self) -> tuple[tuple[Range, ...], int]:
        """Where rows stand that were appended since the last time; and how many it did not take."""
        places, self._places = tuple(self._places), []
        missing, self.unlogged_rows = self.unlogged_rows, 0
        return places, missing

    def durable_upto(self, resolved_upto: int) -> int:
        """All rows up to this queue position are on disk, or resolved."""
        synced = self.writer.synced_mark
        line = self._line
        while line and (
            line[0].upto <= resolved_upto or (line[0].mark is not None and line[0].mark <= synced)
        ):
            self._logged_upto = line.popleft().upto
        return max(self._logged_upto, resolved_upto)

    # -- seals (recorder.flush_worker.Seals) --------------------------------------------------------------------

    async def seal(self, batch: Batch) -> None:
        """Return when it is durable which rows the batch's token stands for, or while the log takes nothing."""
        if not batch.places:
            return
        try:
            mark = self.writer.append_seal(_packed_seal(batch))
        except WalError as error:
            log.warning("a batch goes unsealed", table=self.table.name, error=str(error))
            return
        if self.waits_for_sync:
            await self.pulse.until(lambda: self.writer.synced_mark >= mark or self.failing)

    def void(self, batch: Batch) -> None:
        """The batch's token stands for nothing any more."""
        if batch.places:
            with contextlib.suppress(WalError):  # then it was not sealed either, or stays so: a look-up tells
                self.writer.append_void(pack_void([batch.token]))

    def refused(self, row: Batch) -> None:
        """A row became a dead letter. It is settled as soon as that is durable: else a later run, or one after the
        database restarted, finds it missing in the table, sends it again, and makes another letter of it.
        """
        if row.places:
            self._soon(self._resolve_later(row.places))

    async def _resolve_later(self, places: Sequence[Range]) -> None:
        await self._letters_durable()
        self.done.resolve(places)

    @property
    def failing(self) -> bool:
        """Whether it cannot write now."""
        return self.writer.stats().recovering

    def trouble(self) -> str:
        """Why it does not take rows, or cannot write; empty while it does."""
        if self._awaited_bytes and self._awaited_bytes <= self.writer.room_bytes:
            # The room came; that nothing was put there since may be because nothing has to be.
            self.refused_why, self._awaited_bytes = "", 0
        if self.no_room or self.refused_why:
            return self.no_room or self.refused_why
        if (stats := self.writer.stats()).recovering:
            return f"cannot write: {stats.last_error}"
        return STILL if self.still_s() >= STILL_S else ""

    def still_s(self) -> float:
        """For how long nothing got on disk though something waits for it; 0 where that fails: a log that fails is told,
        and sealed for no more.
        """
        stats = self.writer.stats()
        return 0.0 if stats.recovering else max(0.0, stats.still_s - self._synced_within_s)

    # -- what is in ---------------------------------------------------------------------------------------------

    def confirm(self, places: Sequence[Range], server: str, *, letters: bool) -> None:
        """The database has these rows, or they are dead letters: with `letters`, some of which are on their way."""
        if not places:
            return
        if letters:
            self._soon(self._confirm_later(places, server))
        else:
            self.done.confirm(places, server)

    def _soon(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._confirming.add(task)
        task.add_done_callback(self._confirming.discard)

    async def _confirm_later(self, places: Sequence[Range], server: str) -> None:
        await self._letters_durable()
        self.done.confirm(places, server)

    # -- the end ------------------------------------------------------------------------------------------------

    async def close(self, timeout_s: float = 2.0) -> int:
        """Let go of the log when what it has is on disk; how many rows are not."""
        if self._confirming:
            await asyncio.wait(self._confirming, timeout=LETTERS_S)
        for task in self._confirming:
            task.cancel()
        await asyncio.gather(*self._confirming, return_exceptions=True)
        if self._beside_hangs() or self.still_s() >= HUNG_S:
            timeout_s = HUNG_CLOSE_S
        try:
            await asyncio.wait_for(self.done.write(), timeout_s)
        except TimeoutError:  # what it would have said the next run looks up
            self.done.close()
            timeout_s = min(timeout_s, HUNG_CLOSE_S)
        whole = await aside(self.writer.close, timeout_s)
        self.reading.close()
        stats = self.writer.stats()
        return 0 if whole else stats.rows_appended - stats.rows_synced


def _packed_seal(batch: Batch) -> bytes:
    first_ns, last_ns = batch.time_range_ns()
    return pack_seal(Seal(batch.token, batch.places, batch.rows, first_ns, last_ns))
