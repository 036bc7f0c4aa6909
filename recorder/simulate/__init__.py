"""A trading session from a seed, with consistent chains and a truth to compare with; pacing to send it."""

from recorder.simulate.instruments import DEFAULT_STRATEGIES, DEFAULT_SYMBOLS, instruments
from recorder.simulate.pace import Phase, Progress, Schedule, drive
from recorder.simulate.reel import LOAD_MIX, Reel, pregenerate
from recorder.simulate.run import (
    RecordsRows,
    SimulationOptions,
    SimulationResult,
    make_session,
    run_simulation,
)
from recorder.simulate.session import TABLES, Mix, Session
from recorder.simulate.steady import Steady
from recorder.simulate.trading import Faults
from recorder.simulate.truth import OrderTruth, PositionTruth, StrategyTruth, Truth

__all__ = [
    "DEFAULT_STRATEGIES",
    "DEFAULT_SYMBOLS",
    "LOAD_MIX",
    "TABLES",
    "Faults",
    "Mix",
    "OrderTruth",
    "Phase",
    "PositionTruth",
    "Progress",
    "RecordsRows",
    "Reel",
    "Schedule",
    "Session",
    "SimulationOptions",
    "SimulationResult",
    "Steady",
    "StrategyTruth",
    "Truth",
    "drive",
    "instruments",
    "make_session",
    "pregenerate",
    "run_simulation",
]
