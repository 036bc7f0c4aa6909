"""What is wrong now: from one look at the recorder to its findings. Pure; how long a finding must last and what follows
from it is `recorder.alarms.state`'s.

Each finding's `why` completes a sentence that begins with the table, or with "recorder".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from recorder.alarms.alarm import Alarm, Key
from recorder.flush_worker import WorkerState

LAG_LEAST_S = 5.0
"""No table's lag is an alarm below this, however short its linger (design, section 2; issue 4, part 6)."""
LAG_LINGERS = 3.0
"""A lag of so many lingers is one."""


@dataclass(frozen=True, kw_only=True)
class AlarmPolicy:
    """How long something must last, or be over; seconds. As in the settings of these names."""

    retry_s: float
    """Inserts that fail for so long are a failure: shorter troubles pass by themselves."""
    clear_s: float
    """What raised an alarm must be over for so long, so that none flaps."""
    loss_s: float
    """The same of lost critical rows: a person has to see it."""


@dataclass(frozen=True, kw_only=True)
class TableLook:
    """How one table is at one moment."""

    table: str
    critical: bool
    state: WorkerState
    why: str = ""
    """Why it is held, or what its last error was."""
    troubles: Sequence[str] = ()
    """Tasks of it that died or are stuck, and why."""
    waits_s: float = 0.0
    """How long its oldest row waits that is not resolved; 0 for none."""
    late_s: float = 0.0
    """The greatest lag of rows that got in since the last look; 0 for none."""
    linger_s: float
    """The longest that its rows may wait for company."""
    shed: Mapping[str, int] = field(default_factory=dict)
    """Rows shed in this run, by reason."""

    @property
    def shed_rows(self) -> int:
        """Rows shed in this run."""
        return sum(self.shed.values())


@dataclass(frozen=True, kw_only=True)
class Look:
    """How the recorder is at one moment."""

    now_s: float
    """On the monotonic clock."""
    away: str = ""
    """Why there is no contact with the database yet; empty once there was."""
    troubles: Sequence[str] = ()
    """What is wrong with the recorder as a whole: tasks that died, a loop that stood still."""
    wal_disk: str = ""
    """What is wrong with the logs, or with their disk."""
    retention: str = ""
    """What is wrong with the runs of retention that begin by themselves."""
    tables: Sequence[TableLook] = ()


@dataclass(frozen=True)
class Finding:
    """Something that is wrong. It is an alarm when it has lasted `after_s`, until it is over for `clear_s`."""

    why: str
    after_s: float
    clear_s: float


def findings(look: Look, policy: AlarmPolicy, shed_before: Mapping[str, int]) -> dict[Key, Finding]:
    """What is wrong, by alarm and table. `shed_before` are the rows that each table had shed at the look before."""
    found: dict[Key, Finding] = {}
    whole = [f"has no contact with the database: {look.away}"] if look.away else []
    if whole := [*whole, *look.troubles]:
        found[Key(Alarm.FAILURE)] = Finding("; ".join(whole), 0.0, policy.clear_s)
    if look.wal_disk:
        found[Key(Alarm.WAL_DISK)] = Finding(look.wal_disk, 0.0, policy.clear_s)
    if look.retention:
        found[Key(Alarm.RETENTION)] = Finding(look.retention, 0.0, 0.0)  # it is over when a run succeeds
    for table in look.tables:
        if (failure := _failure(table, policy, away=bool(look.away))) is not None:
            found[Key(Alarm.FAILURE, table.table)] = failure
        if late := _late(table):
            found[Key(Alarm.LAG, table.table)] = Finding(late, 0.0, policy.clear_s)
        if table.shed_rows > shed_before.get(table.table, 0):
            alarm = Alarm.DATA_LOSS if table.critical else Alarm.SHEDDING
            clear_s = policy.loss_s if table.critical else policy.clear_s
            found[Key(alarm, table.table)] = Finding(_shed(table), 0.0, clear_s)
    return found


def lag_limit_s(linger_s: float) -> float:
    """The lag above which a table with that linger is late."""
    return max(LAG_LEAST_S, LAG_LINGERS * linger_s)


def _failure(table: TableLook, policy: AlarmPolicy, *, away: bool) -> Finding | None:
    """A table that is held, or retries for too long; that none has contact is said once, of the recorder."""
    whys = list(table.troubles)
    if table.state is WorkerState.HELD:
        whys.insert(0, f"is held: {table.why}")
    if whys:
        return Finding("; ".join(whys), 0.0, policy.clear_s)
    if table.state is WorkerState.RETRYING and not away:
        return Finding(f"gets no rows in, trying on: {table.why}", policy.retry_s, policy.clear_s)
    return None


def _late(table: TableLook) -> str:
    limit_s = lag_limit_s(table.linger_s)
    if table.waits_s > limit_s:
        return f"is late: its oldest row waits for {table.waits_s:.1f} s, more than {limit_s:g} s"
    if table.late_s > limit_s:
        return f"is late: rows got in {table.late_s:.1f} s after they came, more than {limit_s:g} s"
    return ""


def _shed(table: TableLook) -> str:
    reasons = ", ".join(f"{reason} {rows:,}" for reason, rows in sorted(table.shed.items()) if rows)
    return f"{'lost' if table.critical else 'shed'} {table.shed_rows:,} rows in all ({reasons})"
