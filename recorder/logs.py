"""The logs of a recorder: one a table that is not kept in memory alone, one commit for all of them, and the care they
need while it runs.

data_dir/wal/<table>/           one log, see `wal`
wal_second_dir/<table>/         its second folder, if any: it goes on there when the first one fails or is full
data_dir/wal/RESERVE            see `recorder.log_disk_care`
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path

from recorder.aside import aside
from recorder.errors import LogInUse
from recorder.log import get_logger
from recorder.pulse import Pulse
from recorder.replay_memory import REPLAY_BYTES, ReplayMemory
from recorder.sink.base import Sink
from recorder.sink.errors import SinkError
from recorder.table_log import HUNG_CLOSE_S, HUNG_S, TableLog
from schemas.renames import Renames
from schemas.table import Table
from wal.commit import GroupCommit
from wal.errors import LogLocked, WalError
from wal.options import LogOptions, Sync
from wal.places import Range
from wal.purge import purge
from wal.writer import LogWriter

log = get_logger("recorder.log")


class Logs:
    """See the module. Built and used on the recorder's loop."""

    def __init__(
        self,
        folder: Path,
        options: LogOptions,
        *,
        group_ms: float,
        grace_s: float,
        second: Path | None = None,
        replay_bytes_max: int = REPLAY_BYTES,
    ):
        self.tables: dict[str, TableLog] = {}
        self._folder = folder
        self._second = second
        self._options = options
        self._grace_s = grace_s
        self._replay_memory = ReplayMemory(replay_bytes_max)
        self._commit = GroupCommit(group_ms=group_ms)
        self._loop = asyncio.get_running_loop()

    def open(
        self,
        table: Table,
        *,
        letters_durable: Callable[[], Awaitable[None]],
        gaps_durable: Callable[[], Awaitable[None]],
        batch_rows: int,
        renames: Renames = (),
    ) -> TableLog | None:
        """Open a table's log; None if its folder cannot be used: the table goes on without one, and it is told.

        Raises:
            LogInUse: another recorder writes to it.
        """
        pulse, folder = Pulse(), self._folder / table.name
        second = self._second / table.name if self._second is not None else None
        try:
            try:
                writer = self._writer(table, folder, second, pulse)
            except OSError as error:
                if second is None:
                    raise
                log.error("the first folder of a log cannot be used: it begins in the second", table=table.name,
                          folder=str(folder), second=str(second), error=str(error))  # fmt: skip
                folder, second = second, None
                writer = self._writer(table, folder, None, pulse)
        except LogLocked as error:
            raise LogInUse(
                f"{error}; one recorder a data_dir: stop that one, or give this one another"
            ) from None
        except (OSError, WalError) as error:
            log.critical("a table has no log: what memory holds is lost with the process", table=table.name,
                         folder=str(folder), error=str(error))  # fmt: skip
            return None
        opened = TableLog(
            table,
            writer,
            folder,
            pulse=pulse,
            letters_durable=letters_durable,
            gaps_durable=gaps_durable,
            batch_rows=batch_rows,
            memory=self._replay_memory,
            renames=renames,
            second=second,
            waits_for_sync=self._options.sync is Sync.ALWAYS,
            synced_within_s=self._synced_within_s,
            beside_hangs=self.hanging,
        )
        self.tables[table.name] = opened
        return opened

    def _writer(self, table: Table, folder: Path, second: Path | None, pulse: Pulse) -> LogWriter:
        beat = partial(self._loop.call_soon_threadsafe, pulse.beat)
        return LogWriter.open(
            folder,
            table.name,
            table.schema,
            commit=self._commit,
            options=self._options,
            second=second,
            on_synced=lambda _: _quietly(beat),
        )

    async def look_at(self, sink: Sink, recheck: Mapping[str, Callable[[tuple[Range, ...]], None]]) -> None:
        """Ask which server answers; where it restarted, have looked up again what it had confirmed."""
        asked_ns = time.time_ns()
        try:
            info = await sink.server()
        except SinkError:
            return
        for name, table_log in self.tables.items():
            again = table_log.done.server_is(info, asked_ns)
            table_log.pulse.beat()
            if again:
                log.info("the database was started anew: what it confirmed of late is looked up again", table=name,
                            rows=sum(one.rows for one in again))  # fmt: skip
                recheck[name](again)

    async def tidy(self) -> None:
        """Settle what is old enough, write the checkpoints, and remove segments that nobody needs."""
        for name, table_log in self.tables.items():
            table_log.pulse.beat()  # whoever waits for a log that has begun to fail sees it
            table_log.done.settle(self._grace_s)
            await table_log.done.write()
            if table_log.reading.may_purge:
                # By what the disk has: a recorder killed after the purge must not look for rows, to have them looked up
                # again, that are gone.
                written = table_log.done.written
                purged = await aside(purge, table_log.writer, table_log.folders, written)
                if purged.error:
                    log.warning("the log cannot be purged", table=name, error=purged.error)
                table_log.done.forget(written.epochs - purged.checkpoint.epochs)

    @property
    def _synced_within_s(self) -> float:
        """How long rows that are written may wait for their sync."""
        sync = self._options.sync
        return {Sync.ALWAYS: 0.0, Sync.INTERVAL: self._options.interval_ms / 1_000, Sync.OFF: math.inf}[sync]

    def hanging(self) -> list[str]:
        """The tables whose logs have got nothing on disk for so long that closing does not wait for them."""
        return [name for name, table_log in self.tables.items() if table_log.still_s() >= HUNG_S]

    def abandon(self) -> None:
        """Let go of what was opened: the recorder does not start."""
        for table_log in self.tables.values():
            table_log.writer.close(1.0)
        self._commit.close(1.0)

    async def close(self) -> None:
        """End what they share; each was closed with its pipeline."""
        hanging = self.hanging()
        whole = await asyncio.to_thread(self._commit.close, HUNG_CLOSE_S if hanging else 1.0)
        if hanging and not whole:
            log.critical(
                "the disk of the logs hangs: what waits in memory for it is given up, and the system may hold the "
                "process until it is back",
                tables=hanging,
            )


def _quietly(beat: Callable[[], object]) -> None:
    try:
        beat()
    except RuntimeError:
        return  # The loop is closed: nobody waits any more.
