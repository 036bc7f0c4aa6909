"""The alarms of one recorder: looks at it every so often, and tells what was raised or cleared.

What stands is decided by `recorder.alarms.state`; here is what it is read from and whom it is told to: one line of the
log, one row of `system_events`, the metrics, the status. The row waits in its queue like any other, so that an alarm
about a database that is away is in the table once that is back. An alarm about `system_events` itself makes no row: it
would wait, be late or be shed with the others, and be the cause of the next.

Everything runs on the recorder's loop. It only tells: it stops, kills and mends nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from recorder.alarms.alarm import Alarm, Key
from recorder.alarms.rules import AlarmPolicy, Look, TableLook
from recorder.alarms.state import AlarmState, Change, advance
from recorder.alarms.stillness import Stillness
from recorder.contact import Contact
from recorder.log import get_logger
from recorder.log_disk_care import LogDiskCare
from recorder.log_reading import UNREAD
from recorder.loop_watch import LoopWatch
from recorder.own_rows import EVENTS, GAPS
from recorder.own_writer import OwnWriter
from recorder.reasons import by_reason
from recorder.recorded_table import RecordedTable, RecordedTables
from recorder.redact import redacted
from recorder.settings import Settings
from recorder.stats import AlarmStats, RetentionStats, Sources, TaskDeaths
from recorder.supervised import Supervised

log = get_logger("recorder")

TOGETHER_S = 0.2
"""What happens to several tables within this time, for the same reason, is one line of the log."""
RAISED, CLEARED = "alarm raised", "alarm cleared"


class AlarmBoard:
    """See the module. `tasks` are those of the recorder as a whole; they and the loops may become more."""

    def __init__(
        self,
        settings: Settings,
        tables: RecordedTables,
        own: OwnWriter,
        *,
        contact: Contact,
        sources: Sources,
        loop_watch: LoopWatch,
    ):
        self.tasks: list[Supervised] = []
        self.loops = [loop_watch]
        """Event loops that are watched: the recorder's own, and others of the process."""
        self.log_disk: LogDiskCare | None = None
        """Who looks at the disks of the logs, if anybody does."""
        self.retention: Callable[[], RetentionStats] | None = None
        """How the runs of retention stand, where somebody begins them by itself."""
        self._settings = settings
        self._policy = AlarmPolicy(
            retry_s=settings.alarm_retry_s, clear_s=settings.alarm_clear_s, loss_s=settings.alarm_loss_s
        )
        self._tables = tables
        self._own = own
        self._contact = contact
        self._sources = sources
        self._stalls_seen: Counter[str] = Counter()
        self._state = AlarmState()
        self._stillness: dict[str, Stillness] = {}
        self._late_s: dict[str, float] = {}
        self._raises: Counter[Key] = Counter()
        self._since_ns: dict[Key, int] = {}
        self._untold: list[Change] = []
        self._telling: asyncio.TimerHandle | None = None

    # -- looking --------------------------------------------------------------------------------------------------

    def late(self, table: str, seconds: float) -> None:
        """Rows of a table got in so long after they had come."""
        self._late_s[table] = max(seconds, self._late_s.get(table, 0.0))

    def look(self) -> None:
        """See what is wrong, and tell what has changed."""
        now_ns = time.monotonic_ns()
        late_s, self._late_s = self._late_s, {}
        look = Look(
            now_s=now_ns / 1e9,
            away="" if self._contact.made else redacted(self._contact.why),
            troubles=[*self._troubles()],
            wal_disk=self._log_troubles(),
            retention="" if self.retention is None else redacted(self.retention().trouble),
            tables=[
                self._table(name, recorded, now_ns, late_s.get(name, 0.0))
                for name, recorded in self._tables.items()
            ],
        )
        self._state, changes = advance(self._state, look, self._policy)
        for change in changes:
            self._changed(change)

    def _log_troubles(self) -> str:
        """What is wrong with the logs of critical tables, one cause once."""
        if not self._settings.wal:
            return ""
        whys = {
            name: "has no log" if (wal := recorded.pipeline.wal) is None else wal.trouble()
            for name, recorded in self._tables.items()
            if recorded.table.policy.critical
        }
        found = by_reason({name: why for name, why in whys.items() if why})
        told = [f"{why} ({', '.join(tables)})" for why, tables in found.items()]
        if self.log_disk is not None and (disk := self.log_disk.trouble()):
            told = [disk, *(one for one in told if disk not in one)]
        return redacted("; ".join(told))

    def stands(self, alarm: Alarm) -> bool:
        """Whether an alarm stands, of the recorder or of a table."""
        return any(key.alarm is alarm for key in self._since_ns)

    def glance(self) -> None:
        """As `look`, for whoever has other work: a fault of the looking is its own task's to die of, and not theirs."""
        with contextlib.suppress(Exception):
            self.look()

    def _troubles(self) -> Iterator[str]:
        """What is wrong with the recorder as a whole."""
        for loop in self.loops:
            if (stalls := loop.stalls) > self._stalls_seen[loop.name]:
                self._stalls_seen[loop.name] = stalls
                yield f"had its event loop {loop.name} stand still for {self._settings.loop_stall_s:g} s or longer"
        yield from filter(None, (task.trouble() for task in self.tasks))
        buses = (ask().bus for ask in self._sources.values())
        yield from (bus.trouble for bus in buses if bus is not None and bus.trouble)

    def _table(self, name: str, recorded: RecordedTable, now_ns: int, late_s: float) -> TableLook:
        pipeline = recorded.pipeline
        still = self._stillness.get(name, Stillness()).after(pipeline.at_work(), now_ns / 1e9)
        self._stillness[name] = still
        oldest_ns = pipeline.oldest_waiting_ns()
        return TableLook(
            table=name,
            critical=recorded.table.policy.critical,
            state=pipeline.state,
            why=redacted(pipeline.why_held or pipeline.last_error),
            troubles=[
                *filter(None, (task.trouble() for task in pipeline.supervised)),
                *self._stuck(still, pipeline.linger_s),
                *_left(recorded),
            ],
            waits_s=(now_ns - oldest_ns) / 1e9 if oldest_ns is not None else 0.0,
            late_s=late_s,
            linger_s=pipeline.linger_s,
            shed=_shed(recorded),
        )

    def _stuck(self, still: Stillness, linger_s: float) -> Iterator[str]:
        """Whether a task has stood still for longer than anything may take that it waits for."""
        settings = self._settings
        pause_s = max(settings.retry_max_s, settings.hold_probe_s, linger_s)
        if still.work and still.still_s > settings.insert_timeout_s + pause_s + settings.stuck_grace_s:
            yield f"{still.work.who} is stuck: it has work and has done none of it for {still.still_s:.0f} s"

    # -- telling --------------------------------------------------------------------------------------------------

    def _changed(self, change: Change) -> None:
        key = change.key
        if change.raised:
            self._raises[key] += 1
            self._since_ns[key] = time.time_ns()
        else:
            self._since_ns.pop(key, None)
        if key.table != EVENTS:
            sentence = f"{key.table or 'recorder'} {change.why}"
            self._own.event(
                key.alarm.value,
                key.alarm.severity if change.raised else "info",
                key.table,
                sentence if change.raised else f"over after {change.lasted_s:.1f} s: {sentence}",
                {"alarm": "raised" if change.raised else "cleared", "lasted_s": round(change.lasted_s, 3)},
            )
        self._untold.append(change)
        if self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(TOGETHER_S, self.tell)

    def tell(self) -> None:
        """Say in the log now what was to be said soon: also at the end."""
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None
        untold, self._untold = self._untold, []
        for alarm, raised, why, tables in together(untold):
            told = log.info if not raised else getattr(log, alarm.severity)
            told(RAISED if raised else CLEARED, alarm=alarm.value, tables=tables, why=why)

    # -- showing --------------------------------------------------------------------------------------------------

    def standing(self) -> list[dict[str, Any]]:
        """The alarms that stand, the first one first, ready for JSON."""
        raised = self._state.raised
        return [
            {
                "alarm": key.alarm.value,
                "severity": key.alarm.severity,
                "table": key.table,
                "since_ns": since_ns,
                "why": raised[key].finding.why,
            }
            for key, since_ns in self._since_ns.items()
        ]

    @property
    def loop_stalls(self) -> dict[str, int]:
        """How often each event loop stood still."""
        return {loop.name: loop.stalls for loop in self.loops}

    def stats(self) -> list[AlarmStats]:
        """Every alarm that there may be, for the metrics: one that was never raised shows as such."""
        return [
            AlarmStats(key.alarm.value, key.table, key in self._since_ns, self._raises[key])
            for key in dict.fromkeys((*self._possible(), *self._raises))
        ]

    def deaths(self) -> list[TaskDeaths]:
        """How often each task died."""
        tasks = [*self.tasks, *(task for one in self._tables.values() for task in one.pipeline.supervised)]
        buses = ((source, ask().bus) for source, ask in self._sources.items())
        return [
            *(TaskDeaths(task.name, task.table, task.deaths) for task in tasks),
            *(TaskDeaths(source, "", bus.deaths) for source, bus in buses if bus is not None),
        ]

    def _possible(self) -> Iterator[Key]:
        yield from (Key(Alarm.FAILURE), Key(Alarm.WAL_DISK))
        if self.retention is not None:
            yield Key(Alarm.RETENTION)
        for name, recorded in self._tables.items():
            shedding = Alarm.DATA_LOSS if recorded.table.policy.critical else Alarm.SHEDDING
            yield from (Key(alarm, name) for alarm in (Alarm.FAILURE, Alarm.LAG, shedding))


def together(changes: Iterable[Change]) -> list[tuple[Alarm, bool, str, Sequence[str]]]:
    """Changes as lines of the log: alarm, whether raised, why, and the tables of which that is so. Pure."""
    lines: dict[tuple[Alarm, bool, str], list[str]] = {}
    for change in changes:
        name = change.key.table
        why = change.why.replace(f": {name}: ", ": ") if name else change.why
        lines.setdefault((change.key.alarm, change.raised, why), []).append(name or "recorder")
    return [(*line, tables) for line, tables in lines.items()]


def _left(recorded: RecordedTable) -> Iterator[str]:
    """Rows on its log that it cannot send, or cannot even see, or does not know whether to send."""
    wal = recorded.pipeline.wal
    if wal is not None and wal.reading.left_rows:
        yield f"leaves {wal.reading.left_rows:,} rows on its log: {redacted(wal.reading.left_why)}"
    elif wal is not None and wal.reading.unread:
        yield f"may leave rows on its log: {UNREAD}"
    if recorded.pipeline.asking_why:
        yield f"keeps rows waiting: {redacted(recorded.pipeline.asking_why)}"


def _shed(recorded: RecordedTable) -> Mapping[str, int]:
    """Rows of a table that were shed, by reason; gap rows that found no room are told again, and are not lost."""
    totals = dict(recorded.pipeline.queue.shed.totals)
    if recorded.table.name == GAPS:
        totals.pop("full", None)
    return totals
