"""Which alarms there are. Their names are an interface: metrics, events, Prometheus rules and docs bear them."""

from __future__ import annotations

import enum
from typing import NamedTuple


class Alarm(enum.Enum):
    """An alarm, by its name; `docs/alarms.md` has a section on each."""

    FAILURE = "RecorderFailure"
    """Rows do not get in: ClickHouse is away, a table is held, a task is dead or stuck."""
    DATA_LOSS = "RecorderDataLoss"
    """Rows of a critical table were shed."""
    LAG = "RecorderLag"
    """Rows of a table get in late, or wait for too long."""
    SHEDDING = "RecorderShedding"
    """Rows of another table were shed, conflated or thinned."""
    WAL_DISK = "RecorderWalDisk"
    """The disk of the log is nearly full, or fails."""
    RETENTION = "RecorderRetention"
    """The last run of retention failed, or none has succeeded for long."""

    @property
    def severity(self) -> str:
        """As in `system_events` and in the Prometheus rules: warning, error or critical."""
        return _SEVERITIES[self]


_SEVERITIES = {
    Alarm.FAILURE: "error",
    Alarm.DATA_LOSS: "critical",
    Alarm.LAG: "warning",
    Alarm.SHEDDING: "warning",
    Alarm.WAL_DISK: "error",
    Alarm.RETENTION: "warning",
}


class Key(NamedTuple):
    """What is raised or cleared as one: an alarm of a table, or of the recorder as a whole where `table` is empty."""

    alarm: Alarm
    table: str = ""
