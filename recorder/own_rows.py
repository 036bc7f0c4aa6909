"""The recorder's own rows: what it writes about itself into its own tables. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from recorder.bad_rows import BadRow
from recorder.shed import Gap

GAPS = "recorder_gaps"
DEAD_LETTERS = "dead_letters"
RUNS = "recorder_runs"
EVENTS = "system_events"
METRICS = "metrics_timeseries"
OWN_TABLES = (RUNS, EVENTS, METRICS, GAPS, DEAD_LETTERS)
"""Flushed last, in this order: flushing the others may still write rows here, and each of these may have bad rows."""

Fields = dict[str, Any]


def gap_row(recorder_run_id: str, table: str, gap: Gap) -> Fields:
    """One window of shed rows, so that a reader of the table sees the hole."""
    return {
        "recorder_run_id": recorder_run_id,
        "table_name": table,
        "reason": gap.reason,
        "ts_first": gap.first_ns,
        "ts_last": gap.last_ns,
        "rows": gap.rows,
        "detail": gap.detail,
    }


def dead_letter_row(recorder_run_id: str, table: str, bad: BadRow, origin: str = "") -> Fields:
    """A row that can never be inserted, with its identity and its bytes."""
    return {
        "correlation_id": _text_of(bad.correlation_id),  # it may be the very thing that is wrong with the row
        "recorder_run_id": recorder_run_id,
        "table_name": table,
        "reason": bad.reason,
        "detail": _clean(bad.detail),
        "origin": _clean(origin),
        "source_log": bad.log,
        "source_seq": bad.seq,
        "payload": bad.payload,
        "payload_format": bad.payload_format,
    }


def event_row(
    kind: str, severity: str, component: str, message: str, payload: Mapping[str, Any] | None = None
) -> Fields:
    """Something that happened to the recorder."""
    return {
        "severity": severity,
        "kind": kind,
        "component": component,
        "message": _clean(message),
        "payload": json.dumps(payload, default=str) if payload else None,
    }


def _text_of(value: object) -> str | None:
    """Whatever came as a correlation id, as text; it may be an object that cannot even be shown."""
    try:
        return None if value is None else _clean(str(value))
    except Exception as error:  # noqa: BLE001 - a producer's object may raise anything
        return f"<{type(value).__name__}: {type(error).__name__} in its text>"


def _clean(text: str) -> str:
    """A text that a column takes, whatever was quoted in it."""
    return text.encode("utf-8", "backslashreplace").decode()
