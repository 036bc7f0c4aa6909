"""What a recorder says of its alarms, in each place where it says so."""

from __future__ import annotations

import json
from typing import Any

from recorder import Recorder

from .recorders import rows

QUICK: dict[str, Any] = {"alarm_retry_s": 0.1, "alarm_clear_s": 0.2, "alarm_loss_s": 0.6}
LOOK_S = 0.01
"""For `recorder.housekeeping.ALARM_LOOK_S`: no test waits for the next look."""

Place = tuple[str, str]
"""An alarm and its table."""


def standing(recorder: Recorder) -> dict[Place, str]:
    """The alarms that stand, and why."""
    return {(one["alarm"], one["table"]): one["why"] for one in recorder.status()["alarms"]}


def metric(recorder: Recorder, name: str, **labels: str) -> float:
    """The value of one sample as Prometheus sees it."""
    value = recorder._life.ask(lambda runtime: runtime.health.metrics.registry.get_sample_value(name, labels))
    assert value is not None, f"{name}{labels}"
    return float(value)


def raises(recorder: Recorder, alarm: str, table: str) -> int:
    """How often an alarm was raised."""
    return int(metric(recorder, "recorder_alarm_raises_total", alarm=alarm, table=table))


def events(recorder: Recorder) -> list[tuple[str, str, str, str]]:
    """Rows of `system_events` about alarms, in their order: alarm, table, whether raised or cleared, severity."""
    found = rows(
        recorder,
        "SELECT kind, component, payload, severity FROM system_events WHERE kind LIKE 'Recorder%' ORDER BY _seq",
    )
    return [(str(kind), str(table), json.loads(payload)["alarm"], str(severity))
            for kind, table, payload, severity in found]  # fmt: skip
