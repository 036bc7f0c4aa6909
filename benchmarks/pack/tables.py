"""The one table of the pack: the ten columns that most market data has."""

from __future__ import annotations

from pathlib import Path

from schemas.columns import Float, Id, Name, TimeNs, UInt32, UInt64
from schemas.pack import Pack
from schemas.policy import Durability, Overflow, Partition, TablePolicy
from schemas.table import Row, table


class BenchTick(Row, kw_only=True):
    """A quote with the number of a trade: a time, texts, integers and floats, nothing nullable."""

    ts_local: TimeNs = 0
    """When the row was made."""
    run_id: Name = ""
    """The producer's run."""
    symbol: Name
    """The instrument, one of a few."""
    venue: Name
    """The venue, one of a few."""
    order_id: Id
    """A text that is different in every row."""
    trade_id: UInt64
    """A number that grows."""
    level: UInt32
    """A small number."""
    bid: Float
    """A price."""
    ask: Float
    """A price."""
    qty: Float
    """A quantity."""


BENCH_TICKS = table(
    "bench_ticks",
    BenchTick,
    TablePolicy(
        durability=Durability.MEMORY,
        overflow=Overflow.DROP_OLDEST,
        partition=Partition.DAY,
        order_by=("symbol", "ts_local"),
    ),
)
PACK = Pack(name="bench", folder=Path(__file__).parent, tables=(BENCH_TICKS,))
