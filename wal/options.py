"""How a log is written: when it is synced, how large its segments are, and how much may wait in memory."""

from __future__ import annotations

import enum
from dataclasses import dataclass

MIB = 1_048_576


class Sync(enum.Enum):
    """When what was written is synced, and so what a power cut may take."""

    ALWAYS = "always"
    """With each group commit: nothing that was told to be on disk is lost."""
    INTERVAL = "interval"
    """Every `LogOptions.interval_ms`: what was appended since then may be lost, and is not told to be on disk."""
    OFF = "off"
    """When a segment is full, and at the end: nothing is ever told to be on disk before that."""


@dataclass(frozen=True, kw_only=True)
class LogOptions:
    """Of one log. Sizes are bytes of files; `pending_bytes_max` is memory, of Arrow buffers and of payloads.

    Raises:
        ValueError: a number is out of its bounds.
    """

    sync: Sync = Sync.ALWAYS
    interval_ms: float = 1_000
    """Of `Sync.INTERVAL`: how long what was written may wait for its sync."""
    segment_bytes_min: int = MIB
    """Of the first segment of an opening; each one that follows has twice as much, up to `segment_bytes_max`."""
    segment_bytes_max: int = 64 * MIB
    pending_bytes_max: int = 256 * MIB
    """What was appended and is not written yet (and, when syncing, not synced yet); beyond it: `LogFull`."""
    codec: str | None = "zstd"
    """How Arrow compresses the buffers of a frame of many rows: "zstd", "lz4", or None."""

    def __post_init__(self) -> None:
        if not 0 < self.interval_ms <= 3_600_000:
            raise ValueError(f"interval_ms={self.interval_ms}; more than 0, and at most an hour")
        if not 16_384 <= self.segment_bytes_min <= self.segment_bytes_max <= 1_024 * MIB:
            raise ValueError(
                f"segment_bytes_min={self.segment_bytes_min}, segment_bytes_max={self.segment_bytes_max}; "
                "16,384 <= segment_bytes_min <= segment_bytes_max <= 1 GiB"
            )
        if self.pending_bytes_max <= 0:
            raise ValueError(
                f"pending_bytes_max={self.pending_bytes_max}; without any nothing can be appended"
            )
        if self.codec not in (None, "zstd", "lz4"):
            raise ValueError(f'codec={self.codec!r}; "zstd", "lz4" or None')
