"""The recorder's metrics, for Prometheus and for its own `metrics_timeseries` table.

What the pipelines count anyway is read when somebody asks (`TableStats`, given by a callable), so that the
way of a row pays nothing for it; only what happens once a batch (inserts, lag, errors) is observed. Names,
labels and units are an interface: dashboards and alerts stand on them, and `docs/metrics.md` lists them.

Everything here runs on the recorder's loop. The registry is its own, never the process-wide one.
"""

from __future__ import annotations

import bisect
import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from recorder.latency import LatencyHistogram
from recorder.stats import (
    AlarmStats,
    BusCounts,
    LogDiskStats,
    RecorderStats,
    RetentionStats,
    TableStats,
    TaskDeaths,
)

LAG_BOUNDS_S = (
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    0.75,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
    300.0,
    3600.0,
)
INSERT_BOUNDS_S = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
BATCH_BOUNDS_ROWS = (1.0, 10.0, 100.0, 300.0, 1_000.0, 3_000.0, 10_000.0, 30_000.0, 100_000.0)


class Sample(NamedTuple):
    """One value for a row of `metrics_timeseries`."""

    name: str
    value: float
    labels: dict[str, str]


class _Buckets:
    """A Prometheus histogram that takes many equal values at once."""

    def __init__(self, bounds: Sequence[float]):
        self.bounds = (*bounds, math.inf)
        self.counts = [0] * len(self.bounds)
        self.sum = 0.0

    def add(self, value: float, count: int = 1) -> None:
        self.counts[bisect.bisect_left(self.bounds, value)] += count
        self.sum += value * count

    def cumulative(self) -> list[tuple[str, float]]:
        total = 0
        pairs: list[tuple[str, float]] = []
        for bound, count in zip(self.bounds, self.counts, strict=True):
            total += count
            pairs.append(("+Inf" if math.isinf(bound) else str(bound), total))
        return pairs


@dataclass
class _TableHistograms:
    lag: _Buckets = field(default_factory=lambda: _Buckets(LAG_BOUNDS_S))
    insert: _Buckets = field(default_factory=lambda: _Buckets(INSERT_BOUNDS_S))
    batch: _Buckets = field(default_factory=lambda: _Buckets(BATCH_BOUNDS_ROWS))
    recent_lag: LatencyHistogram = field(default_factory=LatencyHistogram)
    """Since the last `samples()`."""


class RecorderMetrics(Collector):
    """All metrics of one recorder.

    `read` gives what the pipelines count. `info` are the labels of `recorder_build_info`.
    """

    def __init__(
        self,
        registry: CollectorRegistry | None = None,
        *,
        read: Callable[[], RecorderStats] = RecorderStats,
        info: Mapping[str, str] | None = None,
    ):
        self.registry = registry if registry is not None else CollectorRegistry()
        self._read = read
        self._info = dict(info or {})
        self._histograms: dict[str, _TableHistograms] = defaultdict(_TableHistograms)
        self._errors: Counter[tuple[str, str, str]] = Counter()
        self._started_s = time.time()
        self._started_monotonic_s = time.monotonic()
        self.registry.register(self)
        if registry is None:
            ProcessCollector(registry=self.registry)
            GCCollector(registry=self.registry)

    # -- observed once a batch --

    def observe_insert(self, table: str, rows: int, seconds: float) -> None:
        """A successful insert of so many rows took so long."""
        histograms = self._histograms[table]
        histograms.insert.add(seconds)
        histograms.batch.add(rows)

    def observe_lag(self, table: str, seconds: float, rows: int = 1) -> None:
        """So many rows became queryable so long after their acceptance."""
        histograms = self._histograms[table]
        histograms.lag.add(max(0.0, seconds), rows)
        histograms.recent_lag.add(seconds, rows)

    def sink_error(self, table: str, code: int, kind: str) -> None:
        """An attempt failed with ClickHouse's code (0 where there is none); `kind` is the error's class."""
        self._errors[table, str(code), kind] += 1

    # -- read --

    def exposition(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self.registry)

    def describe(self) -> Iterable[Metric]:
        """Nothing: the registry need not collect in order to learn the names."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """All metrics, from one reading."""
        stats = self._read()
        yield from self._of_tables(stats.tables)
        yield from self._of_batches()
        yield from self._of_sources(stats)
        yield from self._of_buses(stats.buses)
        yield from self._of_alarms(stats.alarms)
        yield from self._of_tasks(stats.deaths, stats.loop_stalls)
        if stats.log_disk is not None:
            yield from self._of_log_disk(stats.log_disk)
        if stats.retention is not None:
            yield from self._of_retention(stats.retention)
        build = GaugeMetricFamily(
            "recorder_build_info", "Version and settings; always 1.", labels=list(self._info)
        )
        build.add_metric(list(self._info.values()), 1)
        yield build
        yield GaugeMetricFamily(
            "recorder_uptime_seconds",
            "Seconds since the start.",
            time.monotonic() - self._started_monotonic_s,
        )

    @staticmethod
    def _of_tables(tables: Sequence[TableStats]) -> Iterator[Metric]:
        gauges = {
            name: GaugeMetricFamily(name, help_text, labels=["table"])
            for name, help_text in (
                ("recorder_queue_usage", "Fullness of the table's queue, 0 to 1."),
                ("recorder_queue_rows", "Rows in the table's queue."),
                ("recorder_queue_bytes", "Bytes in the table's queue."),
                ("recorder_pending_rows", "Rows accepted and not yet inserted, shed or dead-lettered."),
                ("recorder_oldest_waiting_seconds", "How long the oldest row waits that is not in."),
                ("recorder_table_held", "1 while the table's inserts wait for a repair."),
                (
                    "recorder_wal_unsynced_rows",
                    "Rows that a power cut would take: not synced to the log yet.",
                ),
                ("recorder_wal_unsynced_seconds", "How long the oldest of them waits: the loss window."),
                ("recorder_wal_disk_bytes", "Bytes that the table's log takes on disk."),
                ("recorder_wal_segments", "Segments of the table's log."),
                ("recorder_wal_backlog_rows", "Rows on the log alone that wait for the database."),
                ("recorder_wal_refused_rows", "Rows that the log did not take, and that waited in memory."),
                ("recorder_wal_failures", "Calls of the file system that failed for the log."),
                (
                    "recorder_last_successful_insert_timestamp_seconds",
                    "Time of the table's last successful insert.",
                ),
            )
        }
        rows = CounterMetricFamily("recorder_rows", "Rows by outcome.", labels=["table", "outcome"])
        shed = CounterMetricFamily(
            "recorder_shed_rows", "Rows dropped on purpose.", labels=["table", "reason"]
        )
        loss = CounterMetricFamily(
            "recorder_critical_loss_rows", "Rows of critical tables shed.", labels=["table"]
        )
        redacted = CounterMetricFamily(
            "recorder_redacted_secrets", "Secrets cut out of rows.", labels=["table"]
        )
        for table in tables:
            for name, value in (
                ("recorder_queue_usage", table.queue_usage),
                ("recorder_queue_rows", table.queue_rows),
                ("recorder_queue_bytes", table.queue_bytes),
                ("recorder_pending_rows", table.pending_rows),
                ("recorder_oldest_waiting_seconds", table.oldest_s),
                ("recorder_table_held", int(table.held)),
            ):
                gauges[name].add_metric([table.table], value)
            if table.log is not None:
                for name, value in (
                    ("recorder_wal_unsynced_rows", table.log.unsynced_rows),
                    ("recorder_wal_unsynced_seconds", table.log.unsynced_s),
                    ("recorder_wal_disk_bytes", table.log.disk_bytes),
                    ("recorder_wal_segments", table.log.segments),
                    ("recorder_wal_backlog_rows", table.log.backlog_rows),
                    ("recorder_wal_refused_rows", table.log.refused_rows),
                    ("recorder_wal_failures", table.log.failures),
                ):
                    gauges[name].add_metric([table.table], value)
            if table.last_insert_s:
                gauges["recorder_last_successful_insert_timestamp_seconds"].add_metric(
                    [table.table], table.last_insert_s
                )
            for outcome, count in table.rows.items():
                rows.add_metric([table.table, outcome], count)
            for reason, count in table.shed.items():
                shed.add_metric([table.table, reason], count)
            redacted.add_metric([table.table], table.redacted)
            if table.critical:
                loss.add_metric([table.table], table.rows.get("shed", 0))
        yield from gauges.values()
        yield from (rows, shed, loss, redacted)

    @staticmethod
    def _of_sources(stats: RecorderStats) -> Iterator[Metric]:
        for name, help_text, label, counts in (
            ("recorder_filtered_rows", "Rows left out by the recording policy.", "reason", stats.filtered),
            (
                "recorder_ignored_messages",
                "Messages of a known kind that no table takes.",
                "event",
                stats.ignored,
            ),
            (
                "recorder_undecodable_messages",
                "Messages that could not be decoded.",
                "source",
                stats.undecodable,
            ),
            (
                "recorder_unresolved_rows",
                "Rows of orders and fills without a strategy that led to no known order.",
                "table",
                stats.unresolved,
            ),
        ):
            family = CounterMetricFamily(name, help_text, labels=[label])
            for key, count in counts.items():
                family.add_metric([key], count)
            yield family

    @staticmethod
    def _of_buses(buses: Mapping[str, BusCounts]) -> Iterator[Metric]:
        messages = CounterMetricFamily(
            "recorder_bus_messages", "Messages of a bus, by what they were.", labels=["bus", "kind"]
        )
        rows = CounterMetricFamily("recorder_bus_rows", "Rows that messages of a bus made.", labels=["bus"])
        restarts = CounterMetricFamily(
            "recorder_bus_restarts", "How often a subscription was opened again.", labels=["bus"]
        )
        up = GaugeMetricFamily("recorder_bus_up", "1 while the subscription delivers.", labels=["bus"])
        waiting = GaugeMetricFamily(
            "recorder_bus_unacknowledged_messages",
            "Messages whose rows are not durable yet.",
            labels=["bus"],
        )
        oldest = GaugeMetricFamily(
            "recorder_bus_oldest_unacknowledged_seconds",
            "How long the oldest message that is not acknowledged waits.",
            labels=["bus"],
        )
        for bus, counts in buses.items():
            for kind, count in (
                ("delivered", counts.messages),
                ("redelivered", counts.redelivered),
                ("duplicate", counts.duplicates),
                ("undecodable", counts.undecodable),
                ("ignored", counts.ignored),
            ):
                messages.add_metric([bus, kind], count)
            rows.add_metric([bus], counts.rows)
            restarts.add_metric([bus], counts.restarts)
            up.add_metric([bus], int(not counts.down))
            waiting.add_metric([bus], counts.unacknowledged)
            oldest.add_metric([bus], counts.oldest_unacknowledged_s)
        if buses:
            yield from (messages, rows, restarts, up, waiting, oldest)

    @staticmethod
    def _of_alarms(alarms: Sequence[AlarmStats]) -> Iterator[Metric]:
        standing = GaugeMetricFamily(
            "recorder_alarm",
            "1 while the alarm stands; table is empty for the recorder.",
            labels=["alarm", "table"],
        )
        raises = CounterMetricFamily(
            "recorder_alarm_raises", "How often the alarm was raised.", labels=["alarm", "table"]
        )
        for alarm in alarms:
            standing.add_metric([alarm.alarm, alarm.table], int(alarm.raised))
            raises.add_metric([alarm.alarm, alarm.table], alarm.raises)
        yield from (standing, raises)

    @staticmethod
    def _of_tasks(tasks: Sequence[TaskDeaths], loop_stalls: Mapping[str, int]) -> Iterator[Metric]:
        deaths = CounterMetricFamily(
            "recorder_task_deaths", "How often a task died and was started again.", labels=["task", "table"]
        )
        for task in tasks:
            deaths.add_metric([task.task, task.table], task.deaths)
        yield deaths
        stalls = CounterMetricFamily(
            "recorder_loop_stalls", "How often the event loop stood still.", labels=["loop"]
        )
        for loop, count in loop_stalls.items():
            stalls.add_metric([loop], count)
        yield stalls

    @staticmethod
    def _of_log_disk(disk: LogDiskStats) -> Iterator[Metric]:
        free = GaugeMetricFamily(
            "recorder_wal_disk_free_bytes",
            "Bytes that are free on the disk of the folder.",
            labels=["folder"],
        )
        for folder, nbytes in disk.free_bytes.items():
            free.add_metric([folder], nbytes)
        yield free
        yield GaugeMetricFamily(
            "recorder_wal_disk_room_bytes", "Bytes that the logs may take yet.", disk.room_bytes
        )
        yield GaugeMetricFamily(
            "recorder_wal_disk_level",
            "0 ok, 1 warning, 2 emergency, 3 the reserve is freed, 4 full.",
            disk.severity,
        )
        if disk.minutes is not None:
            yield GaugeMetricFamily(
                "recorder_wal_disk_minutes",
                "How long the room lasts at the recent rate of critical rows.",
                disk.minutes,
            )

    @staticmethod
    def _of_retention(retention: RetentionStats) -> Iterator[Metric]:
        runs = CounterMetricFamily(
            "recorder_retention_runs", "Runs of retention, by how they ended.", labels=["outcome"]
        )
        for outcome, count in retention.runs.items():
            runs.add_metric([outcome], count)
        actions = CounterMetricFamily(
            "recorder_retention_actions",
            "Actions of runs of retention, by what became of them.",
            labels=["action", "state"],
        )
        for (kind, state), count in retention.actions.items():
            actions.add_metric([kind, state], count)
        rows = CounterMetricFamily(
            "recorder_retention_rows", "Rows of partitions of which the action was done.", labels=["action"]
        )
        nbytes = CounterMetricFamily(
            "recorder_retention_bytes", "Bytes on disk that these partitions had.", labels=["action"]
        )
        for family, counts in ((rows, retention.rows), (nbytes, retention.nbytes)):
            for kind in dict.fromkeys(("archive", "drop", *counts)):
                family.add_metric([kind], counts.get(kind, 0))
        yield from (runs, actions, rows, nbytes)
        for name, help_text, seconds in (
            (
                "recorder_retention_last_success_timestamp_seconds",
                "Time of the last run that was done, whichever recorder ran it.",
                retention.last_success_s,
            ),
            (
                "recorder_retention_next_run_timestamp_seconds",
                "Time of the next run.",
                retention.next_run_s,
            ),
            (
                "recorder_retention_last_run_seconds",
                "How long this recorder's last run took.",
                retention.last_seconds if retention.last_outcome else 0,
            ),
        ):
            if seconds:
                yield GaugeMetricFamily(name, help_text, seconds)
        yield GaugeMetricFamily(
            "recorder_retention_running",
            "1 while this recorder runs retention.",
            int(bool(retention.running_since_s)),
        )

    def _of_batches(self) -> Iterator[Metric]:
        lag = HistogramMetricFamily(
            "recorder_lag_seconds",
            "From a row's acceptance to its being queryable, by row.",
            labels=["table"],
        )
        insert = HistogramMetricFamily("recorder_insert_seconds", "Successful inserts.", labels=["table"])
        batch = HistogramMetricFamily("recorder_batch_rows", "Rows of successful inserts.", labels=["table"])
        for table, histograms in self._histograms.items():
            for family, buckets in (
                (lag, histograms.lag),
                (insert, histograms.insert),
                (batch, histograms.batch),
            ):
                family.add_metric([table], buckets.cumulative(), buckets.sum)
        yield from (lag, insert, batch)
        errors = CounterMetricFamily(
            "recorder_sink_errors", "Failed attempts.", labels=["table", "code", "kind"]
        )
        for key, count in self._errors.items():
            errors.add_metric(list(key), count)
        yield errors

    def samples(self) -> list[Sample]:
        """What goes into `metrics_timeseries` now: tables with rows, and lag quantiles since the last call."""
        stats = self._read()
        active = [table for table in stats.tables if table.rows.get("received")]
        samples = [
            Sample(sample.name, float(sample.value), dict(sample.labels))
            for family in self._of_tables(active)
            for sample in family.samples
        ]
        for table, histograms in self._histograms.items():
            recent = histograms.recent_lag
            if recent.count:
                for label, share in (("0.5", 0.5), ("0.99", 0.99), ("1", 1.0)):
                    value = recent.max_s if share == 1.0 else recent.quantile(share)
                    samples.append(Sample("recorder_lag_seconds", value, {"table": table, "quantile": label}))
                histograms.recent_lag = LatencyHistogram()
            samples += [
                Sample("recorder_inserts_total", float(sum(histograms.insert.counts)), {"table": table}),
                Sample("recorder_insert_seconds_sum", histograms.insert.sum, {"table": table}),
            ]
        samples += [
            Sample("recorder_sink_errors_total", float(count), {"table": table, "code": code, "kind": kind})
            for (table, code, kind), count in self._errors.items()
        ]
        return samples
