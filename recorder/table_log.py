"""One table's log as its pipeline uses it: rows go in as they are built, or where they must (`recorder.spill`), a batch
is sealed before its first insert and confirmed after it, and what was not confirmed is read back.

On the recorder's loop, but for reading. A log that takes nothing (its disk is full, or fails) stops nobody: rows go on
to the database from memory, unsealed, and are not durable before they are there. What such a recorder left, killed, is
looked up before it is sent, as everything that an earlier run left.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from recorder.aside import aside
from recorder.batch import Batch
from recorder.lane import Stand
from recorder.log import get_logger
from recorder.log_cursor import Cursor
from recorder.log_earlier import EarlierRows, batches_of
from recorder.log_losses import Loss, losses
from recorder.log_rescue import rescue
from recorder.log_schema import OlderRows, as_current
from recorder.pulse import Pulse
from recorder.replay_memory import ReplayMemory
from recorder.sink.base import ServerInfo
from recorder.sink.uptime import START_TOLERANCE_S
from schemas.renames import Renames
from schemas.table import Table
from wal.checkpoint import Checkpoint, CheckpointFile
from wal.damage import Damage, Harm
from wal.errors import LogFull, WalError
from wal.places import PlaceSet, Range
from wal.reader import LogReader
from wal.replay import Replay
from wal.seals import Json, Seal, pack_seal, pack_void
from wal.writer import LogWriter

log = get_logger("recorder.log")

NS_PER_S = 1_000_000_000
WRITTEN_LOOK_S = 0.02
"""How often is looked whether rows that left memory were written."""
DAMAGE_LINES_MAX = 50
"""What is wrong with a log is told in so many lines at most; `recorder wal verify` says the rest."""
UNCOUNTED = frozenset({Harm.UNREADABLE, Harm.HEADER, Harm.MISSING_SEGMENT})
"""What may have cost durable rows, and nobody can know how many. An unfinished end is of rows that were not durable."""
LETTERS_S = 0.2
"""What closing gives those who wait for others' rows to be durable, which takes a sync."""
HUNG_S = 3.0
"""A log that has got nothing on disk for so long gets no more time when it is closed than `HUNG_CLOSE_S`, nor do those
beside it: there was time before, and there are many."""
HUNG_CLOSE_S = 0.2
STILL_S = 5.0
"""When nothing has got on disk for so long that is told."""
STILL = "the disk of the log takes nothing: it hangs, or does not keep up"
LAST = 2**63
"""No epoch has so many rows."""
REPLAY_ROWS = 100_000
"""Of a batch of what earlier runs left, where no seal says how many: what each insert costs is paid for fewer of them,
and live rows, who go between two, wait for a fraction of a second."""
UNREAD = (
    "the disk does not give them; when it does, start the recorder again, or give them up: recorder wal drop"
)
"""Why rows stay on the log, and what is to be done."""
NO_FILE = "lost for want of their files"
"""The checkpoint's note of rows that were counted as lost since no file had them: a folder may come back."""
SPILL_BYTES = 4 * 1_048_576
"""About what a batch is put on the log in at once: all of it may be more than may wait to be written."""
PIECE_BYTES = 16_384
"""More than what such a part takes beside its data."""
TOO_LARGE_MAX = 64
"""Batches that are too large, and remembered: memory holds a few."""


class Account(Protocol):
    """Who counts a table's rows (`recorder.account`). On the loop."""

    def replayed(self, rows: int) -> None:
        """Rows that an earlier run left on the log are under way."""

    def damaged(self, losses: Sequence[Loss], *, counted: bool) -> None:
        """Rows on the log cannot be read any more; `counted`: they are among those under way."""


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
        self.server = ""
        """Which server, and which run of it, inserts go to, as the checkpoint has it; empty until it is known."""
        self._file = CheckpointFile(folder)
        read, damage = self._file.read()
        self.checkpoint = self._taken_back(read)
        self.written = self.checkpoint
        """The checkpoint as the disk has it, or as far as it may be purged by."""
        self.checkpoint_changed = self.checkpoint is not read
        self._checkpoint_why = ""
        self.unlogged_rows = 0
        """Rows built since the last cut that the log did not take."""
        self.earlier: EarlierRows | None = None
        self.no_room = ""
        """Why no more is to be written: the disk is to be left alone. Empty while there is room."""
        self.refused_rows = 0
        """Rows that the log did not take."""
        self.refused_why = ""
        """Why it does not take any now."""
        self._awaited_bytes = 0
        """The room that what was refused last waits for; 0 where it was refused for another reason."""
        self.unread = ""
        """Where the disk does not give what is on the log, and why. Nobody knows which rows are there, so nothing is
        purged before another run could read it."""
        self.left = PlaceSet()
        """Rows that are no rows of the table now, or that the disk does not give, and stay on the log."""
        self.left_why = ""
        """Why they do."""
        self._room_bytes_max = writer.room_bytes
        self._too_large = deque[str](maxlen=TOO_LARGE_MAX)
        """Tokens of batches that it did not take, though nothing else waited: they are not tried again."""
        self._letters_durable = letters_durable
        self._gaps_durable = gaps_durable
        self._renames = renames
        self._batch_rows = batch_rows
        self._memory = memory
        if self._has_open_rows():
            memory.join(table.name)
        self.waits_for_sync = waits_for_sync
        self._synced_within_s = synced_within_s
        self._beside_hangs = beside_hangs
        self.always = table.policy.critical
        """Whether rows go to it as they are built; else those alone that are spilled."""
        self._places: list[Range] = []
        self._mark = 0
        self._seen_ns = 0
        self._unsure: list[Range] = []
        self._line = deque[Stand]()
        self._logged_upto = 0
        self._took_all = True
        self._confirming: set[asyncio.Task[None]] = set()
        self._unlooked = bool(writer.recovered.damage)
        self._losing = 0
        self._cursor: Cursor | None = None
        self._writing = threading.Lock()
        self._told = set[tuple[Harm, str, int, int]]()
        self._tell((*writer.recovered.damage, *([damage] if damage else [])))

    def _taken_back(self, checkpoint: Checkpoint) -> Checkpoint:
        """Without what was lost for want of its files, and has them again: it is sent after all."""
        noted, back = _noted(checkpoint), list[Range]()
        for state in self.writer.recovered.segments:
            back += noted.common_of(Range(state.preamble.epoch, state.preamble.first, state.stop))
        if not back:
            return checkpoint
        log.warning("rows that were told as lost are there again", table=self.table.name,
                    rows=sum(one.rows for one in back))  # fmt: skip
        for one in back:
            noted.remove(one)
        return checkpoint.reopen(back).note(_note(noted))

    def _has_open_rows(self) -> bool:
        """Whether earlier runs left rows that are not done, as far as can be told without reading them."""
        done = self.checkpoint.done()
        return any(
            done.missing_of(Range(state.preamble.epoch, state.preamble.first, state.stop))
            for state in self.writer.recovered.segments
        )

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
                self.resolve(taken)  # they stay in memory, with the others
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
        self.resolve(places)

    @property
    def failing(self) -> bool:
        """Whether it cannot write now."""
        return self.writer.stats().recovering

    @property
    def may_purge(self) -> bool:
        """Whether files whose rows are settled may go: what earlier runs left is not read any more, and what is broken
        was looked at and told. Broken rows at the end of a file are not among those it is known to have; without it
        nothing says that they were there.
        """
        return self.earlier is None and not self.blind and not self._losing

    @property
    def blind(self) -> bool:
        """Whether it may have rows that nobody has seen: the disk does not give them, or nobody has looked yet."""
        return bool(self.unread) or self._unlooked

    @property
    def had_segments(self) -> bool:
        """Whether earlier runs left anything on it."""
        return bool(self.writer.recovered.segments or self.writer.recovered.damage)

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
            self._confirm(places, server)

    def _soon(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._confirming.add(task)
        task.add_done_callback(self._confirming.discard)

    async def _confirm_later(self, places: Sequence[Range], server: str) -> None:
        await self._letters_durable()
        self._confirm(places, server)

    def _confirm(self, places: Sequence[Range], server: str) -> None:
        self.checkpoint = self.checkpoint.confirm(places, at_ns=time.time_ns(), server=server)
        self.checkpoint_changed = True
        if server != self.server:  # it was started anew in between: which of both said yes?
            self._unsure += places

    def server_is(self, info: ServerInfo, asked_ns: int) -> tuple[Range, ...]:
        """Which server answers, asked at that time; what another run of it confirmed, to be looked up.

        That stays confirmed by that other run, and so is not settled, until it was looked up: a recorder that is closed
        or killed before knows it again, and does not take it for rows that were never sent.
        """
        self._seen_ns = asked_ns
        unsure, self._unsure = tuple(PlaceSet(self._unsure)), []
        known = {self.server, *(one.server for one in self.checkpoint.confirmed)} - {""}
        server = next((text for text in sorted(known) if _is_run(info, text)), _run_of(info))
        if server == self.server:
            return unsure
        self.server = server
        return self.checkpoint.unconfirm(server=server)[1]

    def settle(self, grace_s: float) -> None:
        """What was confirmed so long before the server was last seen, by the run that was seen, is settled.

        Not so long before now: a server that is away may have lost its power.
        """
        before = self.checkpoint
        self.checkpoint = before.settle(before_ns=self._seen_ns - int(grace_s * NS_PER_S), server=self.server)
        self.checkpoint_changed = self.checkpoint_changed or self.checkpoint != before

    # -- what is read back --------------------------------------------------------------------------------------

    def _tell(self, damage: Iterable[Damage]) -> None:
        """Say once what is wrong with the log, a line each."""
        for one in damage:
            if one.harm is Harm.CHECKPOINT_AHEAD and one.epoch == self.writer.epoch:
                continue  # all of this run counts as done where earlier ones are read, whether it is written or not
            if (one.harm, one.file, one.offset, one.first) not in self._told:
                self._told.add((one.harm, one.file, one.offset, one.first))
                if one.harm is Harm.UNREAD:
                    self._tell_unread(one)
                    continue
                if len(self._told) <= DAMAGE_LINES_MAX:
                    told = log.critical if one.rows is None and one.harm in UNCOUNTED else log.warning
                    told("the log was found damaged", table=self.table.name, damage=str(one))

    def _tell_unread(self, damage: Damage) -> None:
        if not self.unread:
            self.unread = str(damage)
            log.critical("a log cannot be read: its rows stay there, and nothing of it is purged before they could",
                         table=self.table.name, where=self.unread, remedy=UNREAD)  # fmt: skip

    async def take_up(self, account: Account) -> EarlierRows | None:
        """What earlier runs left, to be gone through once the database answers; None if nothing is."""
        await self.pulse.until(lambda: bool(self.server))
        done = self.checkpoint.done()
        done.add(Range(self.writer.epoch, 0, LAST))  # of this run, which goes its own way
        batch_rows = max(self._batch_rows, REPLAY_ROWS)
        replay = await asyncio.to_thread(
            lambda: Replay(LogReader(self.folders, name=self.table.name), done, batch_rows=batch_rows)
        )
        self._tell(replay.damage)
        unread = PlaceSet(replay.unread)
        lost = PlaceSet(replay.lost)
        self.lose(tuple(lost), account, seals=replay.seals, counted=False)
        self._unlooked = False
        if unread.rows:
            account.replayed(unread.rows)
            self.leave(replay.unread, UNREAD)
        if not replay.rows_to_go:
            self._memory.leave(self.table.name)
            return None
        self._memory.join(self.table.name)
        log.info("rows of an earlier run are on the log", table=self.table.name, rows=replay.rows_to_go)
        account.replayed(replay.rows_to_go)

        def ended(last: Replay) -> None:
            """All that earlier runs left was given out, but for what could not be read."""
            self.earlier = None
            self._memory.leave(self.table.name)
            self._tell(last.damage)
            later = [part for one in last.lost for part in lost.missing_of(one)]
            self.lose(later, account, seals=last.seals, counted=True)
            if last.unread:
                self.leave(last.unread, UNREAD)

        self.earlier = EarlierRows(
            self.table, replay, renames=self._renames, memory=self._memory, left=self.leave, ended=ended
        )
        return self.earlier

    @property
    def left_rows(self) -> int:
        """How many rows are left."""
        return self.left.rows

    def leave(self, places: Sequence[Range], why: str) -> None:
        """Rows stay on the log, for whoever can send them."""
        rows = sum(map(self.left.add, places))
        if why != self.left_why:
            self.left_why = why
            log.critical("rows stay on the log", table=self.table.name, rows=rows, why=why)

    def lose(
        self, places: Sequence[Range], account: Account, *, seals: Sequence[Seal] = (), counted: bool
    ) -> None:
        """Nobody can read these any more: they are counted as lost, told, and then done with.

        `counted`: the account has them among those under way.
        """
        if places:
            self._losing += 1
            self._soon(self._lose(places, account, seals, counted))

    async def _lose(
        self, places: Sequence[Range], account: Account, seals: Sequence[Seal], counted: bool
    ) -> None:
        try:
            found = await asyncio.to_thread(losses, self.folders, self.table.name, places, seals)
        except OSError:  # of this process: when they were is not known
            now_ns = time.time_ns()
            found = [Loss(place, now_ns, now_ns) for place in places]
        account.damaged(found, counted=counted)
        log.critical(
            "rows are lost: the log cannot be read there; run 'recorder wal verify'",
            table=self.table.name,
            rows=sum(one.rows for one in found),
            where=[one.detail for one in found[:DAMAGE_LINES_MAX]],
        )
        # A recorder that is killed before says it again.
        await self._gaps_durable()
        self._losing -= 1
        self.resolve(places)
        held = PlaceSet(
            Range(one.preamble.epoch, one.preamble.first, one.stop) for one in self.writer.segments()
        )
        if absent := [part for place in places for part in held.missing_of(place)]:
            noted = _noted(self.checkpoint)
            noted.update(absent)
            self.checkpoint = self.checkpoint.note(_note(noted))

    def drop_left(self, gone: Range) -> list[Range]:
        """The log has these no more: which of the rows that stayed on it nobody had, and nobody will send now."""
        done = self.checkpoint.done()
        lost = [part for left in self.left.common_of(gone) for part in done.missing_of(left)]
        self.left.remove(gone)
        return lost

    def resolve(self, ranges: Sequence[Range]) -> None:
        """Nobody sends these any more."""
        if ranges:
            self.checkpoint = self.checkpoint.resolve(ranges)
            self.checkpoint_changed = True

    def forget(self, epochs: AbstractSet[int]) -> None:
        """All segments of these epochs were removed: the checkpoint speaks of them no more."""
        if gone := epochs - {self.writer.epoch}:
            self.checkpoint = self.checkpoint.forget(gone)
            self.checkpoint_changed = True

    def readable(self, places: Sequence[Range]) -> bool:
        """Whether rows that it took can be read back now: of this run, once they are in a file that is none too bad."""
        if not places or places[-1].epoch != self.writer.epoch:
            return True
        stats, stop = self.writer.stats(), places[-1].stop
        return stats.rows_synced >= stop or (stats.rows_written >= stop and not stats.recovering)

    async def batches(self, places: Sequence[Range], from_source: bool) -> list[Batch]:
        """Rows that stand on the log alone, as batches.

        Raises:
            LookupError: the log cannot give all of them any more.
            OlderRows: they are of another version, and no rows of the table now.
        """
        last = places[-1]
        while last.epoch == self.writer.epoch and self.writer.stats().rows_written < last.stop:  # noqa: ASYNC110
            await asyncio.sleep(WRITTEN_LOOK_S)  # it is in the writer's memory still
        if self._cursor is None or not self._cursor.is_before(places[0]):
            if self._cursor is not None:
                self._cursor.close()
            self._cursor = Cursor(self.folders, self.table.name)
        try:
            parts = await asyncio.to_thread(self._cursor.read, places)
        except LookupError:
            self._cursor = None
            raise
        logged = pa.concat_batches(parts)
        try:
            data = as_current(logged, self.table, self._renames)
        except OlderRows as error:
            error.logged = logged
            raise
        return batches_of(self.table, data, places, from_source)

    async def rescue(
        self, places: Sequence[Range], from_source: bool
    ) -> tuple[list[Batch], tuple[Range, ...]]:
        """As `batches`, of those rows that can be read; and where others stood that are lost. What the disk does not
        give now stays on the log.

        Raises:
            OlderRows: they are of another version, and no rows of the table now.
        """
        pieces, lost, unread, damage = await asyncio.to_thread(rescue, self.folders, self.table.name, places)
        self._tell(one for one in damage if one.harm is Harm.UNREAD)
        if unread:
            self.leave(unread, UNREAD)
        found = [piece.range for piece in pieces]
        if not pieces:
            return [], lost
        rows = [as_current(piece.rows, self.table, self._renames) for piece in pieces]
        return batches_of(self.table, pa.concat_batches(rows), found, from_source), lost

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
            await asyncio.wait_for(self.write_checkpoint(), timeout_s)
        except TimeoutError:  # what it would have said the next run looks up
            self._file.close()
            timeout_s = min(timeout_s, HUNG_CLOSE_S)
        whole = await aside(self.writer.close, timeout_s)
        if self._cursor is not None:
            self._cursor.close()
        stats = self.writer.stats()
        return 0 if whole else stats.rows_appended - stats.rows_synced

    def _write_newest(self) -> None:
        # One after the other, and each the newest there is: who was cancelled as it waited leaves a thread that writes.
        with self._writing:
            newest = self.checkpoint
            self._file.write(newest)
            self.written = newest

    async def write_checkpoint(self) -> None:
        """Put on disk what was confirmed and settled, if anything changed."""
        if self.checkpoint_changed:
            self.checkpoint_changed = False
            try:
                await aside(self._write_newest)
            except OSError as error:
                self.checkpoint_changed = True
                if self._checkpoint_why != str(error):  # told once, not at each try
                    self._checkpoint_why = str(error)
                    log.warning("the checkpoint cannot be written", table=self.table.name, error=str(error))
            else:
                self._checkpoint_why = ""


def _packed_seal(batch: Batch) -> bytes:
    first_ns, last_ns = batch.time_range_ns()
    return pack_seal(Seal(batch.token, batch.places, batch.rows, first_ns, last_ns))


def _noted(checkpoint: Checkpoint) -> PlaceSet:
    """What was lost for want of its files."""
    noted = checkpoint.notes.get(NO_FILE)
    if not isinstance(noted, list):
        return PlaceSet()
    return PlaceSet(Range(int(epoch, 16), first, stop) for epoch, first, stop in noted)


def _note(lost: PlaceSet) -> dict[str, Json]:
    return {NO_FILE: [[*one.as_json()] for one in lost]}


def _run_of(info: ServerInfo) -> str:
    """A server and its run, as a checkpoint names them."""
    return f"{info.uuid} {info.started_at_s}"


def _is_run(info: ServerInfo, text: str) -> bool:
    """Whether a checkpoint means this run: another process may have put its start some seconds elsewhere."""
    uuid, _, started = text.rpartition(" ")
    return (
        uuid == info.uuid and started.isdigit() and abs(int(started) - info.started_at_s) < START_TOLERANCE_S
    )
