"""Laws of the metrics: names are an interface, values are what the pipelines count, every name is documented."""

from __future__ import annotations

import pathlib

import pytest
from prometheus_client.parser import text_string_to_metric_families

from recorder.metrics import RecorderMetrics
from recorder.stats import (
    AlarmStats,
    BusCounts,
    LogDiskStats,
    RecorderStats,
    RetentionStats,
    TableLogStats,
    TableStats,
    TaskDeaths,
)

DOCS = pathlib.Path(__file__).parents[2] / "docs" / "metrics.md"

NAMES = {
    "recorder_queue_usage": ("gauge", {"table"}),
    "recorder_queue_rows": ("gauge", {"table"}),
    "recorder_queue_bytes": ("gauge", {"table"}),
    "recorder_wal_unsynced_rows": ("gauge", {"table"}),
    "recorder_wal_unsynced_seconds": ("gauge", {"table"}),
    "recorder_wal_disk_bytes": ("gauge", {"table"}),
    "recorder_wal_segments": ("gauge", {"table"}),
    "recorder_wal_backlog_rows": ("gauge", {"table"}),
    "recorder_wal_refused_rows": ("gauge", {"table"}),
    "recorder_wal_failures": ("gauge", {"table"}),
    "recorder_wal_disk_free_bytes": ("gauge", {"folder"}),
    "recorder_wal_disk_room_bytes": ("gauge", set()),
    "recorder_wal_disk_minutes": ("gauge", set()),
    "recorder_wal_disk_level": ("gauge", set()),
    "recorder_pending_rows": ("gauge", {"table"}),
    "recorder_oldest_waiting_seconds": ("gauge", {"table"}),
    "recorder_table_held": ("gauge", {"table"}),
    "recorder_last_successful_insert_timestamp_seconds": ("gauge", {"table"}),
    "recorder_rows": ("counter", {"table", "outcome"}),
    "recorder_shed_rows": ("counter", {"table", "reason"}),
    "recorder_redacted_secrets": ("counter", {"table"}),
    "recorder_critical_loss_rows": ("counter", {"table"}),
    "recorder_lag_seconds": ("histogram", {"table"}),
    "recorder_insert_seconds": ("histogram", {"table"}),
    "recorder_batch_rows": ("histogram", {"table"}),
    "recorder_sink_errors": ("counter", {"table", "code", "kind"}),
    "recorder_filtered_rows": ("counter", {"reason"}),
    "recorder_ignored_messages": ("counter", {"event"}),
    "recorder_undecodable_messages": ("counter", {"source"}),
    "recorder_unresolved_rows": ("counter", {"table"}),
    "recorder_alarm": ("gauge", {"alarm", "table"}),
    "recorder_alarm_raises": ("counter", {"alarm", "table"}),
    "recorder_task_deaths": ("counter", {"task", "table"}),
    "recorder_loop_stalls": ("counter", {"loop"}),
    "recorder_retention_runs": ("counter", {"outcome"}),
    "recorder_retention_actions": ("counter", {"action", "state"}),
    "recorder_retention_rows": ("counter", {"action"}),
    "recorder_retention_bytes": ("counter", {"action"}),
    "recorder_retention_last_success_timestamp_seconds": ("gauge", set()),
    "recorder_retention_next_run_timestamp_seconds": ("gauge", set()),
    "recorder_retention_last_run_seconds": ("gauge", set()),
    "recorder_retention_running": ("gauge", set()),
    "recorder_build_info": ("gauge", {"version"}),
    "recorder_uptime_seconds": ("gauge", set()),
    "recorder_bus_messages": ("counter", {"bus", "kind"}),
    "recorder_bus_rows": ("counter", {"bus"}),
    "recorder_bus_restarts": ("counter", {"bus"}),
    "recorder_bus_up": ("gauge", {"bus"}),
    "recorder_bus_unacknowledged_messages": ("gauge", {"bus"}),
    "recorder_bus_oldest_unacknowledged_seconds": ("gauge", {"bus"}),
}


def _stats() -> RecorderStats:
    fills = TableStats(
        table="fills",
        critical=True,
        queue_rows=3,
        queue_bytes=300,
        queue_usage=0.25,
        pending_rows=4,
        rows={"received": 10, "inserted": 5, "shed": 1},
        shed={"queue_full": 1},
        held=True,
        last_insert_s=1_700_000_000.5,
        log=TableLogStats(
            unsynced_rows=2,
            unsynced_s=0.5,
            disk_bytes=4_096,
            segments=1,
            backlog_rows=6,
            refused_rows=7,
            failures=8,
        ),
    )
    idle = TableStats(
        table="orders",
        critical=True,
        queue_rows=0,
        queue_bytes=0,
        queue_usage=0,
        pending_rows=0,
        rows={"received": 0},
    )
    return RecorderStats(
        tables=(fills, idle),
        filtered={"unchanged": 7},
        ignored={"kline": 2},
        undecodable={"f": 1},
        unresolved={"fills": 3},
        alarms=[
            AlarmStats("RecorderFailure", "fills", raised=True, raises=2),
            AlarmStats("RecorderLag", "fills", raised=False, raises=1),
        ],
        deaths=[TaskDeaths("worker", "fills", 4)],
        loop_stalls={"recorder": 3},
        retention=RetentionStats(
            schedule="0 2 * * *",
            next_run_s=1_800_000_000.0,
            last_run_s=1_700_000_100.0,
            last_outcome="done",
            last_seconds=7.5,
            last_success_s=1_700_000_100.0,
            runs={"done": 2, "failed": 0},
            actions={("drop", "done"): 3},
            rows={"drop": 30},
            nbytes={"drop": 300},
        ),
        log_disk=LogDiskStats(
            level="warning",
            severity=1,
            free_bytes={"/data/wal": 9_000},
            room_bytes=6_000,
            bytes_per_s=10.0,
            minutes=10.0,
            reserve_bytes=100,
            why="the disk of /data/wal is nearly full",
        ),
        buses={
            "zmq://here": BusCounts(
                guarantee="at-least-once",
                down="",
                restarts=1,
                messages=12,
                redelivered=3,
                duplicates=2,
                undecodable=4,
                ignored=5,
                rows=34,
                unacknowledged=6,
                oldest_unacknowledged_s=0.25,
            )
        },
    )


@pytest.fixture
def metrics() -> RecorderMetrics:
    metrics = RecorderMetrics(read=_stats, info={"version": "1.2.3"})
    metrics.observe_insert("fills", rows=5, seconds=0.02)
    metrics.observe_lag("fills", 0.2, rows=4)
    metrics.observe_lag("fills", 2.0, rows=1)
    metrics.sink_error("fills", 60, "HoldError")
    return metrics


def _families(metrics: RecorderMetrics) -> dict[str, object]:
    return {family.name: family for family in text_string_to_metric_families(metrics.exposition().decode())}


def test_names_types_and_labels_are_stable(metrics: RecorderMetrics) -> None:
    """Exactly these metrics of ours are exposed, with these types and labels: dashboards and alerts stand on them."""
    ours = {name: family for name, family in _families(metrics).items() if name.startswith("recorder_")}
    assert set(ours) == set(NAMES)
    for name, (kind, labels) in NAMES.items():
        family = ours[name]
        assert family.type == kind, name  # type: ignore[attr-defined]
        assert family.samples, name  # type: ignore[attr-defined]
        for sample in family.samples:  # type: ignore[attr-defined]
            assert set(sample.labels) - {"le"} == labels, name


def test_values_are_what_was_counted(metrics: RecorderMetrics) -> None:
    """A scrape shows the counts as they are when it is made."""
    value = metrics.registry.get_sample_value
    assert value("recorder_queue_usage", {"table": "fills"}) == 0.25
    assert value("recorder_rows_total", {"table": "fills", "outcome": "inserted"}) == 5
    assert value("recorder_critical_loss_rows_total", {"table": "fills"}) == 1
    assert value("recorder_shed_rows_total", {"table": "fills", "reason": "queue_full"}) == 1
    assert value("recorder_table_held", {"table": "fills"}) == 1
    assert value("recorder_table_held", {"table": "orders"}) == 0
    assert value("recorder_last_successful_insert_timestamp_seconds", {"table": "orders"}) is None
    assert value("recorder_alarm", {"alarm": "RecorderFailure", "table": "fills"}) == 1
    assert value("recorder_alarm", {"alarm": "RecorderLag", "table": "fills"}) == 0
    assert value("recorder_alarm_raises_total", {"alarm": "RecorderLag", "table": "fills"}) == 1
    assert value("recorder_task_deaths_total", {"task": "worker", "table": "fills"}) == 4
    assert value("recorder_loop_stalls_total", {"loop": "recorder"}) == 3
    assert value("recorder_retention_runs_total", {"outcome": "done"}) == 2
    assert value("recorder_retention_actions_total", {"action": "drop", "state": "done"}) == 3
    assert value("recorder_retention_rows_total", {"action": "drop"}) == 30
    assert value("recorder_retention_rows_total", {"action": "archive"}) == 0
    assert value("recorder_retention_last_success_timestamp_seconds") == 1_700_000_100
    assert value("recorder_sink_errors_total", {"table": "fills", "code": "60", "kind": "HoldError"}) == 1


def test_lag_counts_rows_and_inserts_count_inserts(metrics: RecorderMetrics) -> None:
    """The lag histogram has a value a row, the insert and batch histograms one an insert, bounds included."""
    value = metrics.registry.get_sample_value
    assert value("recorder_lag_seconds_count", {"table": "fills"}) == 5
    assert value("recorder_lag_seconds_bucket", {"table": "fills", "le": "0.25"}) == 4
    assert value("recorder_lag_seconds_sum", {"table": "fills"}) == pytest.approx(2.8)
    assert value("recorder_insert_seconds_count", {"table": "fills"}) == 1
    assert value("recorder_batch_rows_sum", {"table": "fills"}) == 5
    metrics.observe_insert("fills", rows=1_000, seconds=0.01)
    assert value("recorder_batch_rows_bucket", {"table": "fills", "le": "1000.0"}) == 2


def test_every_metric_is_documented(metrics: RecorderMetrics) -> None:
    """docs/metrics.md names every metric as Prometheus shows it, and no other of ours."""
    shown = {f"{name}_total" if kind == "counter" else name for name, (kind, _) in NAMES.items()}
    named = {
        word.strip("`").split("{")[0]
        for line in DOCS.read_text(encoding="utf-8").splitlines()
        if line.startswith("| `recorder_")
        for word in [line.split("|")[1].strip()]
    }
    assert named == shown


def test_samples_leave_out_idle_tables_and_take_lag_anew(metrics: RecorderMetrics) -> None:
    """Rows for `metrics_timeseries` tell of tables that have rows, and of the lag since the last sampling."""
    first = metrics.samples()
    assert {sample.labels["table"] for sample in first if "table" in sample.labels} == {"fills"}
    lag = {
        sample.labels["quantile"]: sample.value for sample in first if sample.name == "recorder_lag_seconds"
    }
    assert lag["0.5"] == pytest.approx(0.2, rel=0.02)
    assert lag["1"] == 2.0
    assert all(isinstance(value, str) for sample in first for value in sample.labels.values())
    assert not [sample for sample in metrics.samples() if sample.name == "recorder_lag_seconds"]


def test_two_recorders_do_not_share_a_registry() -> None:
    """Each recorder has metrics of its own, so that two in one process do not collide."""
    one, two = RecorderMetrics(), RecorderMetrics()
    one.sink_error("fills", 1, "DataError")
    assert b'code="1"' not in two.exposition()
