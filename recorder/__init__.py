"""A flight recorder for trading systems: every order, fill and risk decision into ClickHouse, once.

    from recorder import Recorder, Settings

    with Recorder(Settings(target="chdb:///data/db", data_dir="/data")) as rec:
        rec.record("fills", {"fill_id": "f-1", "symbol": "BTCUSDT", ...})
        rec.sync(timeout_s=5)

The names below load what they need when they are first used, so that the command line answers at once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recorder.async_recorder import AsyncRecorder
    from recorder.balance import Balance
    from recorder.bus.publisher import Publisher
    from recorder.correlation import correlated
    from recorder.errors import (
        NotDurable,
        RecorderClosed,
        RecorderError,
        RecorderForked,
        SettingsError,
        UnknownTable,
        WrongColumns,
    )
    from recorder.recorder import Recorder
    from recorder.settings import Settings
    from recorder.source_rows import SourceRow
    from recorder.ticket import Ticket

_HOMES = {
    "AsyncRecorder": "recorder.async_recorder",
    "Balance": "recorder.balance",
    "NotDurable": "recorder.errors",
    "Publisher": "recorder.bus.publisher",
    "Recorder": "recorder.recorder",
    "RecorderClosed": "recorder.errors",
    "RecorderError": "recorder.errors",
    "RecorderForked": "recorder.errors",
    "Settings": "recorder.settings",
    "SettingsError": "recorder.errors",
    "SourceRow": "recorder.source_rows",
    "Ticket": "recorder.ticket",
    "UnknownTable": "recorder.errors",
    "WrongColumns": "recorder.errors",
    "correlated": "recorder.correlation",
}

__all__ = [
    "AsyncRecorder",
    "Balance",
    "NotDurable",
    "Publisher",
    "Recorder",
    "RecorderClosed",
    "RecorderError",
    "RecorderForked",
    "Settings",
    "SettingsError",
    "SourceRow",
    "Ticket",
    "UnknownTable",
    "WrongColumns",
    "correlated",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'recorder' has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)
