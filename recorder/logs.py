"""The logs of a recorder: one a critical table, one commit for all of them, and the care they need while it runs.

data_dir/wal/<table>/     one log, see `wal`
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path

from recorder.errors import LogInUse
from recorder.log import get_logger
from recorder.pulse import Pulse
from recorder.sink.base import Sink
from recorder.sink.errors import SinkError
from recorder.table_log import TableLog
from schemas.renames import Renames
from schemas.table import Table
from wal.commit import GroupCommit
from wal.errors import LogLocked, WalError
from wal.options import LogOptions, Sync
from wal.places import Range
from wal.purge import purge
from wal.writer import LogWriter

log = get_logger("recorder.log")

FREE_BYTES = 256 * 1_048_576
FREE_SHARE = 20
"""What the logs leave free: so many bytes, or that part of a small disk."""


class Logs:
    """See the module. Built and used on the recorder's loop."""

    def __init__(self, folder: Path, options: LogOptions, *, group_ms: float, grace_s: float):
        self.tables: dict[str, TableLog] = {}
        self._folder = folder
        self._options = options
        self._grace_s = grace_s
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
        beat = partial(self._loop.call_soon_threadsafe, pulse.beat)
        try:
            writer = LogWriter.open(
                folder,
                table.name,
                table.schema,
                commit=self._commit,
                options=self._options,
                on_synced=lambda _: _quietly(beat),
            )
        except LogLocked as error:
            raise LogInUse(
                f"{error}; one recorder a data_dir: stop that one, or give this one another"
            ) from None
        except (OSError, WalError) as error:
            log.critical("a critical table has no log: what memory holds is lost with the process", table=table.name,
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
            renames=renames,
            waits_for_sync=self._options.sync is Sync.ALWAYS,
        )
        self.tables[table.name] = opened
        return opened

    async def look_at(self, sink: Sink, recheck: Mapping[str, Callable[[tuple[Range, ...]], None]]) -> None:
        """Ask which server answers; where it restarted, have looked up again what it had confirmed."""
        asked_ns = time.time_ns()
        try:
            info = await sink.server()
        except SinkError:
            return
        for name, table_log in self.tables.items():
            again = table_log.server_is(info, asked_ns)
            table_log.pulse.beat()
            if again:
                log.info("the database was started anew: what it confirmed of late is looked up again", table=name,
                            rows=sum(one.rows for one in again))  # fmt: skip
                recheck[name](again)

    async def tidy(self) -> None:
        """Settle what is old enough, write the checkpoints, remove segments that nobody needs, and look at the disk."""
        for name, table_log in self.tables.items():
            table_log.pulse.beat()  # whoever waits for a log that has begun to fail sees it
            table_log.settle(self._grace_s)
            if table_log.earlier is None:  # it still reads them
                purged = await asyncio.to_thread(
                    purge, table_log.writer, [table_log.folder], table_log.checkpoint
                )
                if purged.error:
                    log.warning("the log cannot be purged", table=name, error=purged.error)
                table_log.forget(purged.checkpoint)
            await table_log.write_checkpoint()
        self._look_at_disk()

    def _look_at_disk(self) -> None:
        """Stop writing while the disk is so full that others on it, the embedded engine among them, would suffer."""
        try:
            disk = shutil.disk_usage(self._folder)
        except OSError:
            return
        floor = min(FREE_BYTES, disk.total // FREE_SHARE)
        why = ""
        if disk.free < floor:
            why = (
                f"{disk.free >> 20} MiB are free on the disk of {self._folder}; the log leaves {floor >> 20}"
            )
        for name, table_log in self.tables.items():
            if why and not table_log.no_room:
                log.critical("the disk is full: new rows wait in memory", table=name, why=why)
            elif table_log.no_room and not why:
                log.info("the disk has room again", table=name)
            table_log.no_room = why

    def abandon(self) -> None:
        """Let go of what was opened: the recorder does not start."""
        for table_log in self.tables.values():
            table_log.writer.close(1.0)
        self._commit.close(1.0)

    async def close(self) -> None:
        """End what they share; each was closed with its pipeline."""
        await asyncio.to_thread(self._commit.close, 1.0)


def _quietly(beat: Callable[[], object]) -> None:
    try:
        beat()
    except RuntimeError:
        return  # The loop is closed: nobody waits any more.
