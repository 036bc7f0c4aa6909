"""What may change while the service runs, and what needs a restart. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

from recorder.settings import Settings
from recorder.settings_explain import explain

LIVE = frozenset({"log_level", "log_format", "retention_schedule", "topics"})
LIVE_OF_TABLES = frozenset(
    {
        "enabled",
        "overflow",
        "overflow_second",
        "linger_ms",
        "linger_max_ms",
        "batch_rows",
        "batch_bytes",
        "queue_rows",
        "queue_bytes",
        "high_watermark",
        "low_watermark",
        "block_timeout_ms",
    }
)
"""Keys in `defaults` and `tables.<name>`; durability, keep_days and unknown_fields are fixed at start."""


class Changes(NamedTuple):
    """What other settings would change: `live` now, by key, from and to; `restart` only after a restart."""

    live: dict[str, tuple[Any, Any]]
    restart: list[str]


def changes(started: Settings, now: Settings, new: Settings) -> Changes:
    """Compare settings read again with those in force, and, for what is fixed, with those of the start."""
    return Changes(
        {key: pair for key, pair in _differing(now, new).items() if is_live(key)},
        sorted(key for key in _differing(started, new) if not is_live(key)),
    )


def is_live(key: str) -> bool:
    """Whether a setting, named with dots, can change while the service runs."""
    first, *rest = key.split(".")
    if first in ("defaults", "tables"):
        return rest[-1] in LIVE_OF_TABLES
    return first in LIVE


def _differing(one: Settings, other: Settings) -> dict[str, tuple[Any, Any]]:
    before = {entry.key: entry.value for entry in explain(one)}
    after = {entry.key: entry.value for entry in explain(other)}
    return {
        key: (before.get(key), after.get(key))
        for key in {**before, **after}
        if before.get(key) != after.get(key)
    }
