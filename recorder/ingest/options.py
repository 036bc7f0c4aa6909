"""How files are recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from recorder.ingest.source import Format


@dataclass(frozen=True, kw_only=True)
class IngestOptions:
    """Options of one run.

    `speed` replays at so many times real time by `ts_local`; None is as fast as rows are taken. `limit` ends the run
    after so many records. `normaliser` names who reads a capture's messages, `normaliser_options` goes to it.
    `skip_old` leaves rows out that their table's TTL would delete at once, and counts them; otherwise they end the
    run. `held_patience_s` is how long a held table is waited for.
    """

    format: Format | None = None
    table: str | None = None
    speed: float | None = None
    limit: int | None = None
    normaliser: str = "binance"
    normaliser_options: Mapping[str, Any] = field(default_factory=dict)
    skip_old: bool = False
    held_patience_s: float = 15.0
