"""The core pack: the tables of the recorder itself, by subject."""

from __future__ import annotations

from pathlib import Path

from schemas.core.market import BOOK_DELTAS, MARKET_DATA, BookDelta, MarketData
from schemas.core.operations import (
    DEAD_LETTERS,
    METRICS_TIMESERIES,
    RECORDER_GAPS,
    RECORDER_RUNS,
    SYSTEM_EVENTS,
    DeadLetter,
    MetricSample,
    RecorderGap,
    RecorderRun,
    SystemEvent,
)
from schemas.core.rows import Event
from schemas.core.trading import (
    ACCOUNT_STATE,
    FILLS,
    GUARDRAIL_TRANSITIONS,
    ORDERS,
    POSITIONS_INTRADAY,
    RISK_DECISIONS,
    AccountState,
    Fill,
    GuardrailTransition,
    Order,
    PositionIntraday,
    RiskDecisionRow,
)
from schemas.pack import Pack

PACK = Pack(
    name="core",
    folder=Path(__file__).parent,
    tables=(
        MARKET_DATA,
        BOOK_DELTAS,
        ORDERS,
        FILLS,
        POSITIONS_INTRADAY,
        ACCOUNT_STATE,
        RISK_DECISIONS,
        GUARDRAIL_TRANSITIONS,
        SYSTEM_EVENTS,
        METRICS_TIMESERIES,
        RECORDER_GAPS,
        DEAD_LETTERS,
        RECORDER_RUNS,
    ),
)

__all__ = [
    "PACK",
    "AccountState",
    "BookDelta",
    "DeadLetter",
    "Event",
    "Fill",
    "GuardrailTransition",
    "MarketData",
    "MetricSample",
    "Order",
    "PositionIntraday",
    "RecorderGap",
    "RecorderRun",
    "RiskDecisionRow",
    "SystemEvent",
]
