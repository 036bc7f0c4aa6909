"""The care of the disks that the logs stand on: it looks every so often how much is left, stops logs that need not be
written, frees the reserve, stops the others, and takes all of that back when there is room again.

What follows from numbers is decided in `wal.disk`; here they are asked for and acted on. With a second folder the logs
go on there when the first one's disk is full, and stop only when both are. A log that is stopped stops no row: it waits
in memory for its insert (`recorder.table_log`).

On the recorder's loop; disks are asked in another thread, since one that fails may let a call wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from recorder.aside import aside
from recorder.log import get_logger
from recorder.stats import LogDiskStats
from recorder.table_log import TableLog
from wal.disk import (
    DiskLimits,
    DiskUse,
    Judgement,
    Level,
    Rate,
    Reserve,
    again_bytes,
    judge,
    minutes_of,
    reserve_fits,
    reserve_size,
    space_of,
)

log = get_logger("recorder.log")

RESERVE_FILE = "RESERVE"
MIB = 1_048_576


@dataclass(eq=False)
class WatchedDisk:
    """The disk of one folder of logs, and how it was found."""

    folder: Path
    limits: DiskLimits
    reserve: Reserve | None = None
    freed: bool = False
    """Whether its reserve was given back, and is not there again."""
    free_bytes: int = 0
    judged: Judgement = field(default_factory=lambda: Judgement(Level.OK, 0, None, ""))

    def told(self) -> str:
        """What is wrong with it; empty where nothing is."""
        return "" if self.judged.level is Level.OK else f"the disk of {self.folder} {self.judged.why}"


class LogDiskCare:
    """See the module. `folders` are the one or two in which the logs' own stand, each with the limits of its disk;
    `tables` the logs by table, which may become more.

    `drop`, if given, makes so many bytes of room where none is left for critical rows, once `alarmed()` says that this
    was told.
    """

    def __init__(
        self,
        folders: Sequence[tuple[Path, DiskLimits]],
        tables: Mapping[str, TableLog],
        *,
        reserve_bytes: int,
        drop: Callable[[int], Awaitable[int]] | None = None,
        alarmed: Callable[[], bool] = lambda: False,
    ):
        self.disks = [WatchedDisk(folder, limits) for folder, limits in folders]
        self.disks[0].reserve = Reserve(self.disks[0].folder / RESERVE_FILE)
        self.level = Level.OK
        """That of the disk with the most room: what the logs have to live with."""
        self._tables = tables
        self._quota_bytes = folders[0][1].quota_bytes
        self._reserve_bytes = reserve_bytes
        self._reserved_bytes = 0
        self._drop = drop
        self._alarmed = alarmed
        self._rate = Rate()
        self._total_bytes = 0
        self._written_bytes = 0
        self._written_s: float | None = None

    # -- what it tells ------------------------------------------------------------------------------------------

    def trouble(self) -> str:
        """What is wrong with the disks; empty where nothing is."""
        return "; ".join(filter(None, (disk.told() for disk in self.disks)))

    def stats(self) -> LogDiskStats | None:
        """How they were found; None before they were looked at."""
        if self._written_s is None:
            return None
        room_bytes = sum(disk.judged.room_bytes for disk in self.disks)
        if self._quota_bytes is not None:
            room_bytes = min(room_bytes, max(0, self._quota_bytes - self._log_bytes()))
        return LogDiskStats(
            level=self.level.name.lower(),
            severity=int(self.level),
            free_bytes={str(disk.folder): disk.free_bytes for disk in self.disks},
            room_bytes=room_bytes,
            bytes_per_s=self._rate.per_s,
            minutes=minutes_of(room_bytes, self._rate.per_s),
            reserve_bytes=self._reserved_bytes,
            why=self.trouble(),
        )

    # -- looking ------------------------------------------------------------------------------------------------

    async def look(self) -> None:
        """See how full they are, and do what follows."""
        if not self._tables:
            return
        first_look = self._written_s is None
        self._see_rate()
        await aside(self._see)
        before, self.level = self.level, min(disk.judged.level for disk in self.disks)
        if first_look:
            self._say_how_long()
        elif self.level is not before:
            tell = (
                log.info if self.level < before else log.warning if self.level < Level.FULL else log.critical
            )
            tell("the disk of the logs", level=self.level.name, was=before.name,
                 why=self.trouble() or self.disks[0].judged.why)  # fmt: skip
        self._act()
        if self.level < before:
            self._nudge()
        if self.level is Level.FULL and self._drop is not None and self._alarmed():
            await self._drop(2 * again_bytes(self._total_bytes, self._quota_bytes))

    def _see_rate(self) -> None:
        now_s, before_s = time.monotonic(), self._written_s
        written = sum(one.writer.stats().bytes_written for one in self._critical())
        if before_s is not None:
            self._rate = self._rate.after(written - self._written_bytes, now_s - before_s)
        self._written_bytes, self._written_s = written, now_s

    def _critical(self) -> list[TableLog]:
        return [one for one in self._tables.values() if one.table.policy.critical]

    def _log_bytes(self) -> int:
        return sum(one.writer.stats().disk_bytes for one in self._tables.values())

    def _see(self) -> None:
        """Look at each disk; in another thread."""
        for disk in self.disks:
            try:
                total, disk.free_bytes = space_of(disk.folder)
                self._total_bytes = total
            except OSError as error:
                # It is not there, or fails: who writes to it finds out, but where there is another one, not there.
                level = Level.FULL if len(self.disks) > 1 else Level.WARNING
                disk.judged = Judgement(level, 0, None, f"cannot be asked how full it is: {error}")
                continue
            use = self._use(disk, total)
            disk.judged = judge(use, disk.limits, disk.judged.level)
            if disk.reserve is not None:
                self._see_to_reserve(disk, disk.reserve, total)
                self._reserved_bytes = disk.reserve.nbytes

    def _use(self, disk: WatchedDisk, total: int) -> DiskUse:
        return DiskUse(
            total_bytes=total,
            free_bytes=disk.free_bytes,
            log_bytes=self._log_bytes(),
            reserve_bytes=disk.reserve.nbytes if disk.reserve is not None else 0,
            reserve_freed=disk.freed,
            bytes_per_s=self._rate.per_s,
        )

    def _see_to_reserve(self, disk: WatchedDisk, reserve: Reserve, total: int) -> None:
        """Free it where it is needed, and make it where it has room twice."""
        wanted = reserve_size(self._reserve_bytes, total, self._quota_bytes)
        has = reserve.nbytes
        if has and disk.judged.level >= Level.RESERVE:
            disk.freed = reserve.free() > 0 and wanted > 0  # else it is never there again
            log.warning("the reserve is freed", folder=str(disk.folder), freed_bytes=has)
            disk.free_bytes = space_of(disk.folder)[1]
            disk.judged = judge(self._use(disk, total), disk.limits, disk.judged.level)
            self._nudge()
        elif (
            has < wanted
            and reserve_fits(disk.judged.room_bytes - has, wanted, again_bytes(total, self._quota_bytes))
            and reserve.make(wanted)
        ):
            if disk.freed:
                log.info("the reserve is there again", folder=str(disk.folder))
            disk.freed = False

    # -- acting -------------------------------------------------------------------------------------------------

    def _act(self) -> None:
        """Stop the logs that are to be stopped, and let the others go on."""
        spare = len(self.disks) > 1 and self.disks[0].judged.level is Level.FULL
        stopped, going_on = [], []
        for name, one in self._tables.items():
            one.writer.spare_first(spare)
            stops = self.level >= (Level.FULL if one.table.policy.critical else Level.EMERGENCY)
            if stops and not one.no_room:
                stopped.append(name)
            elif one.no_room and not stops:
                going_on.append(name)
                one.refused_why = ""  # that was why, and it may be long until it is given rows again
            one.no_room = f"no room is left for it: {self.trouble()}" if stops else ""
        if stopped:
            tell = log.critical if self.level is Level.FULL else log.warning
            tell("logs take no more: new rows wait in memory", tables=stopped, why=self.trouble())
        if going_on:
            log.info("logs have room again", tables=going_on)

    def _nudge(self) -> None:
        """What could not be written is tried again at once."""
        for one in self._tables.values():
            one.writer.nudge()

    def _say_how_long(self) -> None:
        stats = self.stats()
        assert stats is not None
        told = log.info if self.level is Level.OK else log.warning
        told(
            "the disk of the logs",
            level=self.level.name,
            room_mib=stats.room_bytes // MIB,
            lasts="no rate is known yet: see recorder_wal_disk_minutes"
            if stats.minutes is None
            else f"{stats.minutes:.0f} min",
            why=self.trouble(),
        )

    async def close(self, timeout_s: float = 1.0) -> None:
        """Give the reserve back, which nobody needs who does not write; where little is left the next run finds it. So
        it does where the disk hangs.
        """
        reserve = self.disks[0].reserve
        if reserve is not None and self.level < Level.EMERGENCY:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(aside(reserve.free), timeout_s)
