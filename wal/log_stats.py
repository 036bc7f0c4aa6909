"""What a writer says of itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class LogStats:
    """Since the log was opened. What a power cut would take now is `unsynced_rows`, of the last `unsynced_age_s`."""

    rows_appended: int
    rows_written: int
    rows_synced: int
    bytes_appended: int
    """Of Arrow data, and of the payloads of seals and voids."""
    bytes_written: int
    """Of frames, those too that were written again."""
    bytes_synced: int
    pending_bytes: int
    """What waits in memory takes, of `LogOptions.pending_bytes_max`."""
    unsynced_rows: int
    unsynced_age_s: float
    """How long ago the oldest of what is not synced was appended; 0 if there is none."""
    still_s: float
    """For how long something has waited and nothing got on disk: where no call fails, one hangs, or takes long."""
    segments: int
    """Those that were there when the log was opened, and those made since, without those that were removed."""
    suspects: tuple[int, ...]
    """Of these, those on which a write or a sync failed; what was not certain was written again."""
    disk_bytes: int
    """What they take, and the one that is being made."""
    failures: int
    """Calls of the file system that failed."""
    last_error: str
    """Of the last one that failed; empty if none did."""
    recovering: bool
    """Whether nothing can be written now: it is tried again."""
