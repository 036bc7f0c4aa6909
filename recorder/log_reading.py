"""What is read back from a table's log: what earlier runs left, what memory let go of, and what of both cannot be had.

Rows that cannot be read any more are *lost*: counted, told, and done with once that is durable. Rows that the disk does
not give now, or that are no rows of the table now, are *left*: they stay on the log for whoever can send them.

All of it is called on the recorder's loop: `take_up`, `batches` and `rescue` by the table's worker, who waits for one
before it asks for the next, the rest by whoever asks. Files are read in other threads, none of which touches what this
holds but the cursor. It writes nothing but what it says is done with (`recorder.log_done`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from recorder.batch import Batch
from recorder.log import get_logger
from recorder.log_cursor import Cursor
from recorder.log_done import LogDone
from recorder.log_earlier import EarlierRows, batches_of
from recorder.log_losses import Loss, losses
from recorder.log_rescue import rescue
from recorder.log_schema import OlderRows, as_current
from recorder.pulse import Pulse
from recorder.replay_memory import ReplayMemory
from schemas.renames import Renames
from schemas.table import Table
from wal.damage import Damage, Harm
from wal.places import PlaceSet, Range
from wal.reader import LogReader
from wal.replay import Replay
from wal.seals import Seal
from wal.writer import LogWriter

log = get_logger("recorder.log")

LAST = 2**63
"""No epoch has so many rows."""
REPLAY_ROWS = 100_000
"""Of a batch of what earlier runs left, where no seal says how many: what each insert costs is paid for fewer of them,
and live rows, who go between two, wait for a fraction of a second."""
UNREAD = (
    "the disk does not give them; when it does, start the recorder again, or give them up: recorder wal drop"
)
"""Why rows stay on the log, and what is to be done."""
WRITTEN_LOOK_S = 0.02
"""How often is looked whether rows that left memory were written."""
DAMAGE_LINES_MAX = 50
"""What is wrong with a log is told in so many lines at most; `recorder wal verify` says the rest."""
UNCOUNTED = frozenset({Harm.UNREADABLE, Harm.HEADER, Harm.MISSING_SEGMENT})
"""What may have cost durable rows, and nobody can know how many. An unfinished end is of rows that were not durable."""


class Account(Protocol):
    """Who counts a table's rows (`recorder.account`). On the loop."""

    def replayed(self, rows: int) -> None:
        """Rows that an earlier run left on the log are under way."""

    def damaged(self, losses: Sequence[Loss], *, counted: bool) -> None:
        """Rows on the log cannot be read any more; `counted`: they are among those under way."""


class LogReading:
    """See the module. Of one log, whose `writer` has recovered it; `soon` has work done that nobody waits for but who
    closes the log; `gaps_durable` returns when the gap rows there are now are durable. The `memory` is shared by all
    tables that have rows of earlier runs.
    """

    def __init__(
        self,
        table: Table,
        writer: LogWriter,
        folders: Sequence[Path],
        done: LogDone,
        *,
        pulse: Pulse,
        gaps_durable: Callable[[], Awaitable[None]],
        soon: Callable[[Coroutine[Any, Any, None]], None],
        batch_rows: int,
        memory: ReplayMemory,
        renames: Renames,
    ):
        self._table = table
        self._writer = writer
        self._folders = folders
        self._done = done
        self._pulse = pulse
        self._gaps_durable = gaps_durable
        self._soon = soon
        self._batch_rows = batch_rows
        self._memory = memory
        self._renames = renames
        self.earlier: EarlierRows | None = None
        """What earlier runs left, while it is gone through."""
        self.unread = ""
        """Where the disk does not give what is on the log, and why. Nobody knows which rows are there, so nothing is
        purged before another run could read it."""
        self.left = PlaceSet()
        """Rows that are no rows of the table now, or that the disk does not give, and stay on the log."""
        self.left_why = ""
        """Why they do."""
        if self._has_open_rows():
            memory.join(table.name)
        self._unlooked = bool(writer.recovered.damage)
        self._losing = 0
        self._cursor: Cursor | None = None
        self._told = set[tuple[Harm, str, int, int]]()
        self._tell((*writer.recovered.damage, *([done.damage] if done.damage else [])))

    def _has_open_rows(self) -> bool:
        """Whether earlier runs left rows that are not done, as far as can be told without reading them."""
        done = self._done.checkpoint.done()
        return any(
            done.missing_of(Range(state.preamble.epoch, state.preamble.first, state.stop))
            for state in self._writer.recovered.segments
        )

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
        return bool(self._writer.recovered.segments or self._writer.recovered.damage)

    def _tell(self, damage: Iterable[Damage]) -> None:
        """Say once what is wrong with the log, a line each."""
        for one in damage:
            if one.harm is Harm.CHECKPOINT_AHEAD and one.epoch == self._writer.epoch:
                continue  # all of this run counts as done where earlier ones are read, whether it is written or not
            if (one.harm, one.file, one.offset, one.first) not in self._told:
                self._told.add((one.harm, one.file, one.offset, one.first))
                if one.harm is Harm.UNREAD:
                    self._tell_unread(one)
                    continue
                if len(self._told) <= DAMAGE_LINES_MAX:
                    told = log.critical if one.rows is None and one.harm in UNCOUNTED else log.warning
                    told("the log was found damaged", table=self._table.name, damage=str(one))

    def _tell_unread(self, damage: Damage) -> None:
        if not self.unread:
            self.unread = str(damage)
            log.critical("a log cannot be read: its rows stay there, and nothing of it is purged before they could",
                         table=self._table.name, where=self.unread, remedy=UNREAD)  # fmt: skip

    async def take_up(self, account: Account) -> EarlierRows | None:
        """What earlier runs left, to be gone through once the database answers; None if nothing is."""
        await self._pulse.until(lambda: bool(self._done.server))
        done = self._done.checkpoint.done()
        done.add(Range(self._writer.epoch, 0, LAST))  # of this run, which goes its own way
        batch_rows = max(self._batch_rows, REPLAY_ROWS)
        replay = await asyncio.to_thread(
            lambda: Replay(LogReader(self._folders, name=self._table.name), done, batch_rows=batch_rows)
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
            self._memory.leave(self._table.name)
            return None
        self._memory.join(self._table.name)
        log.info("rows of an earlier run are on the log", table=self._table.name, rows=replay.rows_to_go)
        account.replayed(replay.rows_to_go)

        def ended(last: Replay) -> None:
            """All that earlier runs left was given out, but for what could not be read."""
            self.earlier = None
            self._memory.leave(self._table.name)
            self._tell(last.damage)
            later = [part for one in last.lost for part in lost.missing_of(one)]
            self.lose(later, account, seals=last.seals, counted=True)
            if last.unread:
                self.leave(last.unread, UNREAD)

        self.earlier = EarlierRows(
            self._table, replay, renames=self._renames, memory=self._memory, left=self.leave, ended=ended
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
            log.critical("rows stay on the log", table=self._table.name, rows=rows, why=why)

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
            found = await asyncio.to_thread(losses, self._folders, self._table.name, places, seals)
        except OSError:  # of this process: when they were is not known
            now_ns = time.time_ns()
            found = [Loss(place, now_ns, now_ns) for place in places]
        account.damaged(found, counted=counted)
        log.critical(
            "rows are lost: the log cannot be read there; run 'recorder wal verify'",
            table=self._table.name,
            rows=sum(one.rows for one in found),
            where=[one.detail for one in found[:DAMAGE_LINES_MAX]],
        )
        # A recorder that is killed before says it again.
        await self._gaps_durable()
        self._losing -= 1
        self._done.resolve(places)
        held = PlaceSet(
            Range(one.preamble.epoch, one.preamble.first, one.stop) for one in self._writer.segments()
        )
        self._done.lost_their_files([part for place in places for part in held.missing_of(place)])

    def drop_left(self, gone: Range) -> list[Range]:
        """The log has these no more: which of the rows that stayed on it nobody had, and nobody will send now."""
        done = self._done.checkpoint.done()
        lost = [part for left in self.left.common_of(gone) for part in done.missing_of(left)]
        self.left.remove(gone)
        return lost

    def readable(self, places: Sequence[Range]) -> bool:
        """Whether rows that it took can be read back now: of this run, once they are in a file that is none too bad."""
        if not places or places[-1].epoch != self._writer.epoch:
            return True
        stats, stop = self._writer.stats(), places[-1].stop
        return stats.rows_synced >= stop or (stats.rows_written >= stop and not stats.recovering)

    async def batches(self, places: Sequence[Range], from_source: bool) -> list[Batch]:
        """Rows that stand on the log alone, as batches.

        Raises:
            LookupError: the log cannot give all of them any more.
            OlderRows: they are of another version, and no rows of the table now.
        """
        last = places[-1]
        while last.epoch == self._writer.epoch and self._writer.stats().rows_written < last.stop:  # noqa: ASYNC110
            await asyncio.sleep(WRITTEN_LOOK_S)  # it is in the writer's memory still
        if self._cursor is None or not self._cursor.is_before(places[0]):
            if self._cursor is not None:
                self._cursor.close()
            self._cursor = Cursor(self._folders, self._table.name)
        try:
            parts = await asyncio.to_thread(self._cursor.read, places)
        except LookupError:
            self._cursor = None
            raise
        logged = pa.concat_batches(parts)
        try:
            data = as_current(logged, self._table, self._renames)
        except OlderRows as error:
            error.logged = logged
            raise
        return batches_of(self._table, data, places, from_source)

    async def rescue(
        self, places: Sequence[Range], from_source: bool
    ) -> tuple[list[Batch], tuple[Range, ...]]:
        """As `batches`, of those rows that can be read; and where others stood that are lost. What the disk does not
        give now stays on the log.

        Raises:
            OlderRows: they are of another version, and no rows of the table now.
        """
        pieces, lost, unread, damage = await asyncio.to_thread(
            rescue, self._folders, self._table.name, places
        )
        self._tell(one for one in damage if one.harm is Harm.UNREAD)
        if unread:
            self.leave(unread, UNREAD)
        found = [piece.range for piece in pieces]
        if not pieces:
            return [], lost
        rows = [as_current(piece.rows, self._table, self._renames) for piece in pieces]
        return batches_of(self._table, pa.concat_batches(rows), found, from_source), lost

    def close(self) -> None:
        """Let go of the files."""
        if self._cursor is not None:
            self._cursor.close()
