"""What of a table's log is done with: its checkpoint, as it is now, and as the disk has it.

Rows are *confirmed* when the database said that it has them, and *settled* when the run of the server that said so was
seen long enough after it: a server that loses its power may lose what it confirmed of late. What was confirmed by
another run than the one that is there is looked up again. Settled rows alone may be purged, and by what the disk has
alone. `wal.checkpoint` says what follows from what; here it is held, and written.

All of it is called on the recorder's loop. Writing is done in another thread, one write after the other, each of the
newest there is; nothing waits for it but who calls `write`. It reads no rows, and removes no file.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path

from recorder.aside import aside
from recorder.log import get_logger
from recorder.sink.base import ServerInfo
from recorder.sink.uptime import START_TOLERANCE_S
from wal.checkpoint import Checkpoint, CheckpointFile
from wal.places import PlaceSet, Range
from wal.recovery import SegmentState
from wal.seals import Json

log = get_logger("recorder.log")

NS_PER_S = 1_000_000_000
NO_FILE = "lost for want of their files"
"""The checkpoint's note of rows that were counted as lost since no file had them: a folder may come back."""


class LogDone:
    """See the module. `segments` are those that were found on the log, `epoch` is that of this run. `damage` is what is
    wrong with the checkpoint on disk, which then counts as empty; None where nothing is.
    """

    def __init__(self, table: str, folder: Path, *, segments: Sequence[SegmentState], epoch: int):
        self._table = table
        self._epoch = epoch
        self.server = ""
        """Which server, and which run of it, inserts go to, as the checkpoint has it; empty until it is known."""
        self._file = CheckpointFile(folder)
        read, self.damage = self._file.read()
        self.checkpoint = self._taken_back(read, segments)
        self.written = self.checkpoint
        """The checkpoint as the disk has it, or as far as it may be purged by."""
        self._changed = self.checkpoint is not read
        self._why = ""
        self._seen_ns = 0
        self._unsure: list[Range] = []
        self._writing = threading.Lock()

    def _taken_back(self, checkpoint: Checkpoint, segments: Sequence[SegmentState]) -> Checkpoint:
        """Without what was lost for want of its files, and has them again: it is sent after all."""
        noted, back = _noted(checkpoint), list[Range]()
        for state in segments:
            back += noted.common_of(Range(state.preamble.epoch, state.preamble.first, state.stop))
        if not back:
            return checkpoint
        log.warning("rows that were told as lost are there again", table=self._table,
                    rows=sum(one.rows for one in back))  # fmt: skip
        for one in back:
            noted.remove(one)
        return checkpoint.reopen(back).note(_note(noted))

    # -- what is in ---------------------------------------------------------------------------------------------

    def confirm(self, places: Sequence[Range], server: str) -> None:
        """The database has these rows, or their dead letters are durable; `server` is where they were sent."""
        self.checkpoint = self.checkpoint.confirm(places, at_ns=time.time_ns(), server=server)
        self._changed = True
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
        self._changed = self._changed or self.checkpoint != before

    def resolve(self, ranges: Sequence[Range]) -> None:
        """Nobody sends these any more."""
        if ranges:
            self.checkpoint = self.checkpoint.resolve(ranges)
            self._changed = True

    def lost_their_files(self, absent: Sequence[Range]) -> None:
        """These were counted as lost since no file has them: noted, should a folder come back."""
        if absent:
            noted = _noted(self.checkpoint)
            noted.update(absent)
            self.checkpoint = self.checkpoint.note(_note(noted))

    def forget(self, epochs: AbstractSet[int]) -> None:
        """All segments of these epochs were removed: the checkpoint speaks of them no more."""
        if gone := epochs - {self._epoch}:
            self.checkpoint = self.checkpoint.forget(gone)
            self._changed = True

    # -- on disk ------------------------------------------------------------------------------------------------

    async def write(self) -> None:
        """Put on disk what was confirmed and settled, if anything changed."""
        if self._changed:
            self._changed = False
            try:
                await aside(self._write_newest)
            except OSError as error:
                self._changed = True
                if self._why != str(error):  # told once, not at each try
                    self._why = str(error)
                    log.warning("the checkpoint cannot be written", table=self._table, error=str(error))
            else:
                self._why = ""

    def close(self) -> None:
        """Write no more, where a write hangs: what it would have said the next run looks up."""
        self._file.close()

    def _write_newest(self) -> None:
        # One after the other, and each the newest there is: who was cancelled as it waited leaves a thread that writes.
        with self._writing:
            newest = self.checkpoint
            self._file.write(newest)
            self.written = newest


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
