"""How full the disk of logs is, what follows from it, and the reserve that buys time when it is full.

Pure judgements of numbers, and one file. Who acts on a judgement is the owner of the logs: it knows which of them may
stop and which may not.

The steps, each with the ones before it:

    OK         nothing
    WARNING    tell: little is left, as a share or in minutes at the recent rate
    EMERGENCY  logs that need not be written are not
    RESERVE    the reserve is freed, for those that must
    FULL       there is no room at all: no log is written

Invariants: less room, a smaller disk or a higher rate never makes a level milder. A step that was taken is taken back
only when there is a little more room than it took to come to it, so that none flaps. What is to be left free for others
on the disk is no room, and the reserve counts as taken, of the disk and of the quota.
"""

from __future__ import annotations

import enum
import math
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

MIB = 1_048_576
KEEP_FREE_BYTES = 256 * MIB
KEEP_FREE_SHARE = 20
"""What logs leave free for others on their disk: so many bytes, or that part of a small one."""
AGAIN_BYTES = 16 * MIB
"""Where there was no room, logs are written again once there is so much, or a 32nd of a small disk or quota."""
SHARE_MARGIN = 0.01
"""So far must a share fall below its limit until the level does."""
RATE_HALF_S = 60.0
"""What was written so long ago counts half in the rate."""
RATE_KNOWN_S = 5.0
"""What was seen for a shorter time makes no rate."""


class Level(enum.IntEnum):
    """How bad it is. See the module."""

    OK = 0
    WARNING = 1
    EMERGENCY = 2
    RESERVE = 3
    FULL = 4


@dataclass(frozen=True, kw_only=True)
class DiskLimits:
    """Where the levels begin. Fractions are of the whole disk, and of the quota.

    Raises:
        ValueError: a number is out of its bounds.
    """

    warning_fraction: float = 0.8
    emergency_fraction: float = 0.9
    quota_bytes: int | None = None
    """What the logs and the reserve may take in all; None: as much as the disk has."""
    min_minutes: float = 10.0
    """Warn when what is free lasts for less than this at the recent rate."""
    keep_free_bytes: int = 0
    """What others on the disk need free, where that is more than `KEEP_FREE_BYTES` and what a small disk's share is."""

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
    """What was seen. `total_bytes` is what an ordinary user could take of an empty disk, `free_bytes` of this one."""

    total_bytes: int
    free_bytes: int
    log_bytes: int
    """What the logs that share the quota take, without the reserve."""
    reserve_bytes: int = 0
    """What the reserve has now."""
    reserve_freed: bool = False
    """Whether it was given back, and is not there again."""
    bytes_per_s: float | None = None
    """At which the logs that must be written have grown of late; None while nobody knows."""


@dataclass(frozen=True)
class Judgement:
    """What follows. `minutes` is how long the room lasts: infinite where nothing is written, None while no rate is
    known. `room_bytes` is what logs may take yet, the reserve with it.
    """

    level: Level
    room_bytes: int
    minutes: float | None
    why: str
    """A sentence's end: how full it is."""


def judge(use: DiskUse, limits: DiskLimits, before: Level = Level.OK) -> Judgement:
    """The level, and the reason for it. `before` is the level of the last look."""
    quota = limits.quota_bytes
    kept = max(limits.keep_free_bytes, min(KEEP_FREE_BYTES, use.total_bytes // KEEP_FREE_SHARE))
    now = use.free_bytes - kept
    if quota is not None:
        now = min(now, quota - use.log_bytes - use.reserve_bytes)
    room = now + use.reserve_bytes
    again = again_bytes(use.total_bytes, quota)
    minutes = minutes_of(room, use.bytes_per_s)
    of_disk = 1 - use.free_bytes / use.total_bytes if use.total_bytes else 1.0
    of_quota = (use.log_bytes + use.reserve_bytes) / quota if quota is not None else 0.0
    fraction, of = max((of_disk, "the disk"), (of_quota, "the quota of the logs"))
    share = f"{fraction:.1%} of {of} is taken"

    def begins(level: Level, limit: float) -> float:
        return limit - SHARE_MARGIN if before >= level else limit

    def judged(level: Level, why: str) -> Judgement:
        return Judgement(level, max(0, room), minutes, why)

    if room < (again if before is Level.FULL else 1):
        left = f", and {kept / MIB:,.0f} MiB are left to others" if use.free_bytes - kept <= now else ""
        return judged(Level.FULL, f"is full: {share}{left}")
    if now < (again if before >= Level.RESERVE else 1) and use.reserve_bytes:
        return judged(Level.RESERVE, f"is full but for the reserve: {share}")
    if use.reserve_freed:
        return judged(Level.RESERVE, f"is nearly full, the reserve was freed: {share}")
    for level, limit in (
        (Level.EMERGENCY, limits.emergency_fraction),
        (Level.WARNING, limits.warning_fraction),
    ):
        if fraction >= begins(level, limit):
            return judged(level, f"is nearly full: {share}, {limit:.0%} is the limit")
    if minutes is not None and minutes < limits.min_minutes:
        return judged(
            Level.WARNING,
            f"lasts for {minutes:.1f} min at the recent rate, {limits.min_minutes:g} are wanted; {share}",
        )
    return judged(Level.OK, share)


def again_bytes(total_bytes: int, quota_bytes: int | None) -> int:
    """With so much room logs are written again that were stopped."""
    return max(1, min(AGAIN_BYTES, min(total_bytes, quota_bytes or total_bytes) // 32))


def minutes_of(room_bytes: int, bytes_per_s: float | None) -> float | None:
    """How long room lasts; infinite where nothing is written, None where no rate is known."""
    if bytes_per_s is None:
        return None
    return max(0, room_bytes) / bytes_per_s / 60 if bytes_per_s > 0 else math.inf


@dataclass(frozen=True)
class Rate:
    """Bytes per second, smoothed: what lies `RATE_HALF_S` back counts half."""

    weighed_bytes: float = 0.0
    weighed_s: float = 0.0

    def after(self, nbytes: float, seconds: float) -> Rate:
        """The same when so many bytes more were written in so many seconds."""
        if seconds <= 0:
            return self
        left = 0.5 ** (seconds / RATE_HALF_S)
        return Rate(self.weighed_bytes * left + max(0.0, nbytes), self.weighed_s * left + seconds)

    @property
    def per_s(self) -> float | None:
        """None while it was not seen for long enough to be one."""
        return self.weighed_bytes / self.weighed_s if self.weighed_s >= RATE_KNOWN_S else None


def reserve_size(wanted_bytes: int, total_bytes: int, quota_bytes: int | None) -> int:
    """Of the reserve: as wanted, a 16th of a small disk, an eighth of a small quota."""
    return min(wanted_bytes, total_bytes // 16, wanted_bytes if quota_bytes is None else quota_bytes // 8)


def reserve_fits(room_bytes: int, wanted_bytes: int, again: int) -> bool:
    """Whether there is room to make a reserve, or to make it anew, such that it is not freed at the next look: `again`
    is that of `again_bytes`.
    """
    return room_bytes >= wanted_bytes + max(wanted_bytes, again)


def segment_size(total_bytes: int, quota_bytes: int | None) -> int:
    """Of a segment at most. A 256th of a small disk or quota: each is taken at once, a table has two, and the one that
    is being written is never given back.
    """
    most = min(total_bytes, total_bytes if quota_bytes is None else quota_bytes)
    return max(MIB, min(64 * MIB, most // 256))


class Reserve:
    """A file whose place on the disk can be given back when nothing else is left. It holds nothing, so it need not
    survive a power cut: who finds it missing or short makes it anew.
    """

    def __init__(self, path: Path):
        self._path = path

    @property
    def nbytes(self) -> int:
        """What it holds now."""
        try:
            return self._path.stat().st_blocks * 512
        except OSError:
            return 0

    def make(self, nbytes: int) -> bool:
        """Take the place; whether it is there."""
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
            try:
                os.posix_fallocate(fd, 0, nbytes)
            finally:
                os.close(fd)
        except OSError:
            self.free()
            return False
        return True

    def free(self) -> int:
        """Give the place back; how many bytes that were.

        Another one that frees it at the same time, or a disk that is gone, is no error.
        """
        nbytes = self.nbytes
        try:
            self._path.unlink(missing_ok=True)
        except OSError:
            return 0
        return nbytes


def space_of(folder: Path) -> tuple[int, int]:
    """What an ordinary user could take of the folder's disk in all, and now.

    Raises:
        OSError: the disk cannot be asked.
    """
    disk = shutil.disk_usage(folder)
    return disk.used + disk.free, disk.free
