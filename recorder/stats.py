"""What a recorder counts, read at one moment: values for whoever shows them. All counts are of this run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


@dataclass(frozen=True, kw_only=True)
class TableLogStats:
    """How a table's log stands."""

    unsynced_rows: int
    """What a power cut would take."""
    unsynced_s: float
    """Since when the oldest of it waits: the loss window."""
    disk_bytes: int
    segments: int
    backlog_rows: int
    """Rows that stand on the log alone and wait for the database."""
    refused_rows: int
    """Rows that it did not take, and that waited in memory."""
    failures: int
    """Calls of the file system that failed."""


@dataclass(frozen=True, kw_only=True)
class LogDiskStats:
    """How the disks of the logs stand."""

    level: str
    """ok, warning, emergency, reserve or full: that of the disk with the most room."""
    severity: int
    """The same as a number, 0 to 4."""
    free_bytes: Mapping[str, int]
    """By folder, what its disk has free."""
    room_bytes: int
    """What the logs may take yet: within the quota, and with what is to be left free left free."""
    bytes_per_s: float | None
    """At which critical rows were logged of late; None while no rate is known."""
    minutes: float | None
    """How long the room lasts at that rate; infinite where nothing is logged."""
    reserve_bytes: int
    why: str
    """What is wrong; empty where nothing is."""


@dataclass(frozen=True, kw_only=True)
class TableStats:
    """What one table's pipeline counts."""

    table: str
    critical: bool
    queue_rows: int
    queue_bytes: int
    queue_usage: float
    """Fullness of the queue, 0 to 1: the greater of rows and bytes."""
    pending_rows: int
    rows: Mapping[str, int]
    """By outcome: received, inserted, shed, dead_lettered, duplicates_skipped, expired, filtered."""
    shed: Mapping[str, int] = field(default_factory=dict)
    """Shed rows by reason."""
    redacted: int = 0
    """Secrets cut out of its rows."""
    held: bool = False
    last_insert_s: float = 0.0
    """Time of the last successful insert in seconds since the epoch; 0 for none yet."""
    log: TableLogStats | None = None
    """None for a table without one."""
    oldest_s: float = 0.0
    """How long the oldest row waits that is not resolved; 0 for none."""


@dataclass(frozen=True, kw_only=True)
class BusCounts:
    """What one subscription of a bus counts."""

    guarantee: str
    """What the bus promises, such as `at-least-once`."""
    down: str
    """Why it delivers nothing; empty while it is up."""
    restarts: int
    """How often it had to be opened again."""
    messages: int
    """Messages delivered, repeated ones too."""
    redelivered: int
    """Those that may have been delivered before."""
    duplicates: int
    """Those that were under way here already, and were not taken again."""
    undecodable: int
    """Those that could not be decoded or placed, and became dead letters."""
    ignored: int
    """Those whose topic is told to be ignored."""
    rows: int
    """Rows handed to the tables."""
    unacknowledged: int
    """Messages whose rows are not durable yet."""
    oldest_unacknowledged_s: float
    """How long the oldest of them waits; 0 for none."""
    deaths: int = 0
    """How often a task of it died and was started again."""
    trouble: str = ""
    """Which of its tasks is dead, or was not long ago, and why; empty when they are healthy."""


@dataclass(frozen=True, kw_only=True)
class SourceCounts:
    """What one source left out before it made rows."""

    filtered: Mapping[str, int] = field(default_factory=dict)
    """Rows left out by the recording policy, by reason."""
    ignored: Mapping[str, int] = field(default_factory=dict)
    """Messages of a known kind that no table takes, by event type."""
    undecodable: int = 0
    """Messages that could not be decoded."""
    unresolved: Mapping[str, int] = field(default_factory=dict)
    """Rows without a strategy that led to no known order, by table; they went on as they were."""
    bus: BusCounts | None = None
    """Of a source that is a bus."""


Sources = Mapping[str, Callable[[], SourceCounts]]
"""By source, what it left out before it made rows."""


class AlarmStats(NamedTuple):
    """One alarm of one table, or of the recorder as a whole where `table` is empty."""

    alarm: str
    table: str
    raised: bool
    raises: int
    """How often it was raised."""


class TaskDeaths(NamedTuple):
    """How often a task died; `table` is empty where it is of none."""

    task: str
    table: str
    deaths: int


@dataclass(frozen=True, kw_only=True)
class RetentionStats:
    """How the runs of retention stand that a service begins by itself. Times are seconds since 1970; 0 is never."""

    schedule: str
    """A cron expression, or `off`."""
    next_run_s: float = 0.0
    running_since_s: float = 0.0
    """0 while none is at work."""
    last_run_s: float = 0.0
    """When the last run of this recorder ended."""
    last_outcome: str = ""
    """done, failed, left (to another one) or stopped (with the recorder); empty before the first."""
    last_why: str = ""
    last_seconds: float = 0.0
    """How long it took."""
    last_success_s: float = 0.0
    """When the last run that was done ended, whichever recorder ran it."""
    runs: Mapping[str, int] = field(default_factory=dict)
    """By how they ended; skipped and missed ones too."""
    actions: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """By kind and what became of them."""
    rows: Mapping[str, int] = field(default_factory=dict)
    """By kind, of actions that were done."""
    nbytes: Mapping[str, int] = field(default_factory=dict)
    """The same in bytes on disk."""
    trouble: str = ""
    """What is wrong; empty where nothing is."""


@dataclass(frozen=True, kw_only=True)
class RecorderStats:
    """What the whole recorder counts."""

    tables: Sequence[TableStats] = ()
    filtered: Mapping[str, int] = field(default_factory=dict)
    """Rows that normalisers left out by the recording policy, by reason."""
    ignored: Mapping[str, int] = field(default_factory=dict)
    """Messages of a known kind that no table takes, by event type."""
    undecodable: Mapping[str, int] = field(default_factory=dict)
    """Messages that could not be decoded, by source."""
    unresolved: Mapping[str, int] = field(default_factory=dict)
    """Rows without a strategy that led to no known order, by table."""
    buses: Mapping[str, BusCounts] = field(default_factory=dict)
    """By subscription."""
    alarms: Sequence[AlarmStats] = ()
    deaths: Sequence[TaskDeaths] = ()
    log_disk: LogDiskStats | None = None
    """None without logs, and before they were looked at."""
    loop_stalls: Mapping[str, int] = field(default_factory=dict)
    """How often each event loop of the process stood still."""
    retention: RetentionStats | None = None
    """None where nobody runs it by itself."""
