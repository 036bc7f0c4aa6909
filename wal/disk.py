"""How full the disk of a log is, what follows from it, and the reserve that buys time when it is full.

Pure judgements of numbers, and one file. Who acts on a judgement is the owner of the logs: it knows which of them may
stop and which may not.

The steps, each with the ones before it:

    OK         nothing
    WARNING    tell: little is left, in bytes or in minutes at the recent rate
    EMERGENCY  logs that need not be written are not
    RESERVE    the reserve is freed, for those that must
    FULL       there is no room at all: what comes is shed, and counted as lost
"""

from __future__ import annotations

import enum
import math
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from wal.files import Files, fill_with_zeros

RESERVE = "RESERVE"
MIN_ROOM_BYTES = 4 * 1_048_576
"""With less than this free a disk counts as full: the next segment, a checkpoint and a page of logs must fit."""


class Level(enum.IntEnum):
    """How bad it is. See the module."""

    OK = 0
    WARNING = 1
    EMERGENCY = 2
    RESERVE = 3
    FULL = 4


@dataclass(frozen=True, kw_only=True)
class DiskLimits:
    """Where the levels begin. Fractions are of the whole disk, or of the quota where that is reached first."""

    warning_fraction: float = 0.8
    emergency_fraction: float = 0.9
    quota_bytes: int | None = None
    """What the logs may take in all; None: as much as the disk has."""
    min_minutes: float = 10.0
    """Warn when what is free lasts for less than this at the recent rate."""

    def __post_init__(self) -> None:
        if not 0 < self.warning_fraction <= self.emergency_fraction <= 1:
            raise ValueError(
                f"warning_fraction={self.warning_fraction}, emergency_fraction={self.emergency_fraction}; "
                "0 < warning_fraction <= emergency_fraction <= 1"
            )
        if self.quota_bytes is not None and self.quota_bytes <= 0:
            raise ValueError(f"quota_bytes={self.quota_bytes}; a quota is more than nothing, or None")


@dataclass(frozen=True, kw_only=True)
class DiskUse:
    """What was seen. `free_bytes` is what an ordinary user may still take; the reserve counts as taken."""

    total_bytes: int
    free_bytes: int
    log_bytes: int
    """What all logs on this disk take, without the reserve."""
    reserve_bytes: int = 0
    """What the reserve still has."""
    bytes_per_s: float = 0.0
    """At which the logs that must be written have grown of late."""


@dataclass(frozen=True)
class Judgement:
    """What follows. `minutes` is how long the room lasts, infinite where nothing is written."""

    level: Level
    room_bytes: int
    minutes: float
    why: str


def judge(use: DiskUse, limits: DiskLimits) -> Judgement:
    """The level, and the reason for it in a line.

    Room is what is free, the reserve too, within the quota. Whoever frees the reserve at `RESERVE` is judged anew with
    it gone: the level stays until there is room for it again.
    """
    quota_room = math.inf if limits.quota_bytes is None else max(0, limits.quota_bytes - use.log_bytes)
    room = int(min(use.free_bytes + use.reserve_bytes, quota_room))
    minutes = room / use.bytes_per_s / 60 if use.bytes_per_s > 0 else math.inf
    of_disk = 1 - use.free_bytes / use.total_bytes if use.total_bytes else 1.0
    of_quota = use.log_bytes / limits.quota_bytes if limits.quota_bytes else 0.0
    fraction, of = max((of_disk, "the disk"), (of_quota, "the logs' quota"))
    share = f"{fraction:.0%} of {of} is taken"

    def judged(level: Level, why: str) -> Judgement:
        return Judgement(level, room, minutes, why)

    if room < MIN_ROOM_BYTES:
        return judged(Level.FULL, f"{share}, the reserve too")
    if min(use.free_bytes, quota_room) < MIN_ROOM_BYTES + use.reserve_bytes // 8:
        return judged(Level.RESERVE, share)
    if fraction >= limits.emergency_fraction:
        return judged(Level.EMERGENCY, f"{share}, {limits.emergency_fraction:.0%} is the limit")
    if fraction >= limits.warning_fraction:
        return judged(Level.WARNING, f"{share}, a warning begins at {limits.warning_fraction:.0%}")
    if minutes < limits.min_minutes:
        return judged(
            Level.WARNING,
            f"at the recent rate the room lasts for {minutes:.1f} min, of {limits.min_minutes:g} wanted",
        )
    return judged(Level.OK, share)


class Reserve:
    """A file full of zeros whose place on the disk can be given back when nothing else is left."""

    def __init__(self, folder: Path, nbytes: int, files: Files):
        self._path = folder / RESERVE
        self._nbytes = nbytes
        self._files = files

    @property
    def nbytes(self) -> int:
        """What it holds now."""
        try:
            return self._path.stat().st_size
        except OSError:
            return 0

    def make(self) -> bool:
        """Take the place, where that leaves as much free again; whether it is there."""
        if self.nbytes >= self._nbytes:
            return True
        unfinished = self._path.with_suffix(".new")
        try:
            if shutil.disk_usage(self._path.parent).free < 2 * self._nbytes:
                return False
            unfinished.unlink(missing_ok=True)
            fd = self._files.create(unfinished)
            try:
                fill_with_zeros(self._files, fd, self._nbytes)
                self._files.fsync(fd)
            finally:
                self._files.close(fd)
            self._files.rename(unfinished, self._path)
            self._files.sync_folder(self._path.parent)
        except OSError:
            unfinished.unlink(missing_ok=True)
            return False
        return True

    def free(self) -> int:
        """Give the place back; how many bytes that were."""
        nbytes = self.nbytes
        if nbytes:
            self._files.unlink(self._path)
            self._files.sync_folder(self._path.parent)
        return nbytes


def seen(folder: Path, logs: Iterable[Path], *, reserve: Reserve, bytes_per_s: float) -> DiskUse:
    """What the disk of `folder` shows now. `logs` are the folders of its logs.

    Raises:
        OSError: the disk cannot be asked.
    """
    disk = shutil.disk_usage(folder)
    log_bytes = sum(file.stat().st_blocks * 512 for log in logs for file in log.iterdir())
    return DiskUse(
        total_bytes=disk.total,
        free_bytes=disk.free,
        log_bytes=log_bytes,
        reserve_bytes=reserve.nbytes,
        bytes_per_s=bytes_per_s,
    )
