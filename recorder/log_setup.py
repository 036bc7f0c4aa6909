"""What the settings say of the logs, for the disks that they stand on."""

from __future__ import annotations

from pathlib import Path

from recorder.settings import Settings
from recorder.sink.engine_config import keep_free_on
from wal.disk import DiskLimits, segment_size, space_of
from wal.options import LogOptions, Sync

LOG_PENDING_BYTES = 32 * 1_048_576
"""What of a table may wait to be written to its log: seconds of the busiest, where a disk hangs or is full."""
ENGINE_ROOM = 2
"""The logs leave the embedded engine on their disk so many times what it keeps free: inserts go on while they stop."""


def log_options(settings: Settings) -> LogOptions:
    """How each log is written: segments are small where the disk is, or the quota."""
    total_bytes = 1 << 62
    for folder in settings.log_folders:
        try:
            total_bytes = min(total_bytes, space_of(_there(folder))[0])
        except OSError:
            continue  # who opens a log there says so
    most = segment_size(total_bytes, settings.wal_quota_bytes)
    return LogOptions(
        sync=Sync(settings.wal_sync),
        interval_ms=settings.wal_interval_ms,
        segment_bytes_max=most,
        pending_bytes_max=LOG_PENDING_BYTES,
    )


def disk_limits(settings: Settings, folder: Path) -> DiskLimits:
    """When the disk of a folder of logs is how full."""
    return DiskLimits(
        warning_fraction=settings.wal_warning_fraction,
        emergency_fraction=settings.wal_emergency_fraction,
        quota_bytes=settings.wal_quota_bytes,
        min_minutes=settings.wal_min_minutes,
        keep_free_bytes=_kept_for_engine(settings, folder),
    )


def _kept_for_engine(settings: Settings, folder: Path) -> int:
    """What the embedded engine needs free on that disk: a log that took it would keep its own rows from going in."""
    if not settings.target.embedded:
        return 0
    path = Path(settings.target.path)
    try:
        if _there(path).stat().st_dev != _there(folder).stat().st_dev:
            return 0
        return ENGINE_ROOM * keep_free_on(_there(path), settings.engine_keep_free_bytes)
    except OSError:
        return 0


def _there(path: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path
