"""The recorder's own rows: events, metrics, gaps, dead letters, runs."""

from __future__ import annotations

from schemas.columns import Float, Id, Name, Payload, Tags, Text, TimeNs, UInt32, UInt64
from schemas.core.rows import Event
from schemas.core.vocabulary import PayloadFormat, Severity
from schemas.policy import Durability, Overflow, Partition, TablePolicy
from schemas.table import table


class SystemEvent(Event, kw_only=True):
    """Something that happened to the recorder or its infrastructure: holes in a feed, overflow, alarms."""

    ts: TimeNs | None = None
    """When it happened, ns; null where the producer states none, `ts_local` then stands for it."""
    severity: Severity = "info"
    """debug, info, warning, error or critical."""
    kind: Name
    """Short code of what happened, such as `feed_gap`."""
    component: Name = ""
    """The part it happened to, such as a normaliser or a table."""
    message: Text = ""
    """What happened, for people."""
    payload: Payload | None = None
    """Details, JSON."""


class MetricSample(Event, kw_only=True):
    """One sample of one metric; the recorder writes its own every few seconds."""

    ts: TimeNs | None = None
    """When it was sampled, ns; null where the producer states none, `ts_local` then stands for it."""
    name: Name
    """The metric, as its exposition names it."""
    value: Float
    """The value, in the metric's unit."""
    labels: Tags = {}
    """The metric's labels."""


class RecorderGap(Event, kw_only=True):
    """Rows that were shed: a hole in the data, said in the data."""

    recorder_run_id: Name = ""
    """The run of the recorder that shed them."""
    table_name: Name
    """The table that lacks them."""
    reason: Name
    """Short code of why they were shed, such as `drop_oldest`."""
    ts_first: TimeNs
    """When the recorder accepted the first row shed, ns; a live row's `ts_local`, but for the way to the recorder."""
    ts_last: TimeNs
    """When the last row was shed, ns: no row accepted later is missing."""
    rows: UInt64
    """How many rows were shed."""
    detail: Text = ""
    """More, for people."""


class DeadLetter(Event, kw_only=True):
    """A row that can never be inserted, or a message that cannot be read, kept with its bytes and the reason."""

    recorder_run_id: Name = ""
    """The run of the recorder that gave it up."""
    table_name: Name = ""
    """The table the row was for; empty for a message that could not be decoded."""
    reason: Name
    """Short code of why."""
    detail: Text = ""
    """What was wrong: field, value, what was expected."""
    origin: Text = ""
    """Where it came from: producer, file and line, stream and position."""
    source_log: UInt64 | None = None
    """`_log` of the row itself; null where it had none yet."""
    source_seq: UInt64 | None = None
    """`_seq` of the row itself; null where it had none yet."""
    payload: Payload = b""
    """The row or message, byte for byte, without its secrets."""
    payload_format: PayloadFormat = "json"
    """How `payload` is written."""


class RecorderRun(Event, kw_only=True):
    """One start of a recorder."""

    recorder_run_id: Id
    """Id of the run, drawn at start."""
    ts_start: TimeNs
    """When it started, ns, its own clock."""
    version: Name
    """Version of the recorder."""
    git_sha: Name = ""
    """Commit it was built from; empty where unknown."""
    config_hash: Name = ""
    """Hash of the settings in force, secrets left out."""
    host: Name = ""
    """Name of the machine."""
    pid: UInt32 = 0
    """Process id."""
    packs: Tags = {}
    """Packs in force: name to number of the last migration."""


SYSTEM_EVENTS = table(
    "system_events",
    SystemEvent,
    TablePolicy(
        durability=Durability.SPILL,
        overflow=Overflow.SPILL,
        partition=Partition.DAY,
        order_by=("kind", "ts_local"),
        keep_days=180,
    ),
)
METRICS_TIMESERIES = table(
    "metrics_timeseries",
    MetricSample,
    TablePolicy(
        durability=Durability.MEMORY,
        overflow=Overflow.DROP_OLDEST,
        partition=Partition.DAY,
        order_by=("name", "ts_local"),
        keep_days=180,
    ),
)
RECORDER_GAPS = table(
    "recorder_gaps",
    RecorderGap,
    TablePolicy(
        durability=Durability.WAL,
        overflow=Overflow.SPILL,
        partition=Partition.MONTH,
        order_by=("table_name", "ts_local"),
    ),
)
DEAD_LETTERS = table(
    "dead_letters",
    DeadLetter,
    TablePolicy(
        durability=Durability.WAL,
        overflow=Overflow.SPILL,
        partition=Partition.MONTH,
        order_by=("table_name", "reason", "ts_local"),
    ),
)
RECORDER_RUNS = table(
    "recorder_runs",
    RecorderRun,
    TablePolicy(
        durability=Durability.WAL,
        overflow=Overflow.SPILL,
        partition=Partition.MONTH,
        order_by=("ts_local",),
    ),
)
