"""What a recorder tells of itself: to the health port, to the metrics, to who asks. It only reads.

On the recorder's loop, where no row is between two counts.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from recorder.alarms.board import AlarmBoard
from recorder.balance import Balance
from recorder.contact import Contact
from recorder.flush_worker import WorkerState
from recorder.log_disk_care import LogDiskCare
from recorder.metrics import RecorderMetrics
from recorder.reasons import as_sentences
from recorder.recorded_table import RecordedTable, RecordedTables
from recorder.redact import redacted
from recorder.settings import Settings
from recorder.stats import BusCounts, RecorderStats, Sources, TableStats
from recorder.table_log import STILL, STILL_S
from recorder.version import version


class Status:
    """The `HealthProvider` of one recorder. `health_url` and `unread_logs` are filled in as it starts."""

    def __init__(
        self,
        settings: Settings,
        tables: RecordedTables,
        metrics: RecorderMetrics,
        *,
        contact: Contact,
        sources: Sources,
        board: AlarmBoard,
        run_id: str,
        recorder_run_id: str,
    ):
        self.metrics = metrics
        self.health_url: str | None = None
        self.log_disk: LogDiskCare | None = None
        """Who looks at the disks of the logs, if anybody does."""
        self.unread_logs: dict[str, dict[str, Any]] = {}
        """By table, rows of earlier runs on a log that this run does not read (`recorder.unread_logs`)."""
        self._settings = settings
        self._tables = tables
        self._contact = contact
        self._sources = sources
        self._board = board
        self._run_id = run_id
        self._recorder_run_id = recorder_run_id
        self._started_ns = time.time_ns()

    def balance(self) -> dict[str, Balance]:
        """Where every table's rows are."""
        return {name: recorded.pipeline.balance() for name, recorded in self._tables.items()}

    def sick(self) -> list[str]:
        """What is broken inside the process; empty when all is well."""
        return [
            *(down for task in self._board.tasks if (down := task.down())),
            *(
                f"{name}: {fault}"
                for name, recorded in self._tables.items()
                if (fault := recorded.pipeline.fault())
            ),
        ]

    def alarms(self) -> Sequence[dict[str, Any]]:
        """The alarms that stand."""
        return self._board.standing()

    def unready(self) -> list[str]:
        """Why rows do not reach the database; empty when they do."""
        buses = [
            f"{source} is down: {bus.down}"
            for source, ask in self._sources.items()
            if (bus := ask().bus) is not None and bus.down
        ]
        if not self._contact.made:
            return [f"no contact with the database: {self._contact.why}", *buses]
        return [
            *buses,
            *(
                sentence
                for state in (WorkerState.HELD, WorkerState.RETRYING)
                for sentence in as_sentences(state.value, self._stopped(state))
            ),
            *as_sentences("waiting", self._unsealed() | self._unasked()),
        ]

    def _unasked(self) -> dict[str, str]:
        """The tables with rows that may have left them, while the database does not say so."""
        return {
            name: recorded.pipeline.asking_why
            for name, recorded in self._tables.items()
            if recorded.pipeline.asking_why
        }

    def _unsealed(self) -> dict[str, str]:
        """The tables whose rows wait for a log that gets nothing on disk: no batch goes before it is sealed there."""
        return {
            name: STILL
            for name, recorded in self._tables.items()
            if (wal := recorded.pipeline.wal) is not None
            and wal.always
            and wal.waits_for_sync
            and wal.still_s() >= STILL_S
        }

    def _stopped(self, state: WorkerState) -> dict[str, str]:
        """Why each table in a state is in it; of those that are on."""
        return {
            name: pipeline.why_held or pipeline.last_error
            for name, recorded in self._tables.items()
            if (pipeline := recorded.pipeline).state is state and recorded.door.enabled
        }

    def status(self) -> dict[str, Any]:
        """State of everything, ready for JSON."""
        return {
            "version": version(),
            "recorder_run_id": self._recorder_run_id,
            "run_id": self._run_id,
            "started_ns": self._started_ns,
            "target": str(self._settings.target),
            "database": self._settings.database,
            "server": self._contact.server,
            "config_hash": self._settings.config_hash,
            "health": self.health_url,
            "alarms": self.alarms(),
            "balance": {name: balance.as_dict() for name, balance in self.balance().items()},
            "buses": {
                source: dataclasses.asdict(bus)
                for source, ask in self._sources.items()
                if (bus := ask().bus) is not None
            },
            "log_disk": _log_disk(self.log_disk),
            "unread_logs": self.unread_logs,
            "retention": _retention(self._board),
            "tables": {name: _table_status(recorded) for name, recorded in self._tables.items()},
        }


def _log_disk(care: LogDiskCare | None) -> dict[str, Any] | None:
    """How full the disks of the logs are; minutes are None where no rate is known, and where nothing is logged."""
    if care is None or (found := care.stats()) is None:
        return None
    shown = dataclasses.asdict(found)
    if found.minutes is not None and math.isinf(found.minutes):
        shown["minutes"] = None
    return shown


def _retention(board: AlarmBoard) -> dict[str, Any] | None:
    """How the runs of retention stand; None where nobody begins them by itself."""
    if board.retention is None:
        return None
    shown = dataclasses.asdict(found := board.retention())
    shown["actions"] = [
        {"kind": kind, "state": state, "count": count} for (kind, state), count in found.actions.items()
    ]
    shown |= {"last_why": redacted(found.last_why), "trouble": redacted(found.trouble)}
    return shown


def _table_status(recorded: RecordedTable) -> dict[str, Any]:
    door, pipeline = recorded.door, recorded.pipeline
    return {
        "enabled": door.enabled,
        "critical": recorded.table.policy.critical,
        "state": pipeline.state.value,
        "held_because": pipeline.why_held,
        "queue_rows": pipeline.queue.waiting_rows,
        "queue_bytes": pipeline.queue.waiting_bytes,
        "queue_usage": round(pipeline.queue.usage(), 4),
        "inserts": pipeline.inserts,
        "lag": recorded.lag.summary(),
        "oldest_waiting_s": round(_oldest_s(recorded), 3),
        "shed": dict(pipeline.queue.shed.totals),
        "filtered_rows": door.filtered_rows,
        "unknown_fields": pipeline.unknown_fields,
        "redacted_secrets": pipeline.redacted_spans,
        "errors": {str(code): count for code, count in pipeline.errors.items()},
        "last_error": pipeline.last_error,
        "last_insert_ns": pipeline.last_insert_ns,
        "log": dataclasses.asdict(log) if (log := pipeline.log_stats()) is not None else None,
    }


def _oldest_s(recorded: RecordedTable) -> float:
    """How long its oldest row waits that is not resolved; 0 for none."""
    oldest_ns = recorded.pipeline.oldest_waiting_ns()
    return 0.0 if oldest_ns is None else (time.monotonic_ns() - oldest_ns) / 1e9


def stats(tables: RecordedTables, sources: Sources, board: AlarmBoard) -> RecorderStats:
    """What the metrics show."""
    filtered, ignored, unresolved = Counter[str](), Counter[str](), Counter[str]()
    undecodable: dict[str, int] = {}
    buses: dict[str, BusCounts] = {}
    for source, ask in sources.items():
        counts = ask()
        filtered.update(counts.filtered)
        ignored.update(counts.ignored)
        undecodable[source] = counts.undecodable
        unresolved.update(counts.unresolved)
        if counts.bus is not None:
            buses[source] = counts.bus
    return RecorderStats(
        tables=[_table_stats(name, recorded) for name, recorded in tables.items()],
        filtered=filtered,
        ignored=ignored,
        undecodable=undecodable,
        unresolved=unresolved,
        buses=buses,
        alarms=board.stats(),
        deaths=board.deaths(),
        log_disk=board.log_disk.stats() if board.log_disk is not None else None,
        loop_stalls=board.loop_stalls,
        retention=None if board.retention is None else board.retention(),
    )


def _table_stats(name: str, recorded: RecordedTable) -> TableStats:
    door, pipeline = recorded.door, recorded.pipeline
    rows = pipeline.balance().as_dict()
    pending = rows.pop("pending")
    return TableStats(
        table=name,
        critical=recorded.table.policy.critical,
        queue_rows=pipeline.queue.waiting_rows,
        queue_bytes=pipeline.queue.waiting_bytes,
        queue_usage=pipeline.queue.usage(),
        pending_rows=pending,
        rows=rows | {"filtered": door.filtered_rows},
        shed=dict(pipeline.queue.shed.totals),
        redacted=pipeline.redacted_spans,
        held=pipeline.state is WorkerState.HELD,
        log=pipeline.log_stats(),
        last_insert_s=(pipeline.last_insert_ns or 0) / 1e9,
        oldest_s=_oldest_s(recorded),
    )
