"""What is traded in a simulated session: instruments with their grids, and strategies with their ways.

Venues and accounts are named `SIM…`, so that simulated rows never pass for real ones.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from recorder.simulate.amount import NANO


@dataclass(frozen=True)
class Instrument:
    """One symbol at one venue. Prices and quantities are in 1e-9 (see `recorder.simulate.amount`).

    `start_ticks` is the middle price at the start, `step_ticks` the standard deviation of one move of it,
    `lot` the quantity step and `order_lots` a usual order.
    """

    symbol: str
    venue: str
    quote_currency: str
    tick: int
    lot: int
    start_ticks: int
    step_ticks: float
    order_lots: int
    max_lots: int


def _known(symbol: str, venue: str, tick: str, lot: str, price: str, order_value: int) -> Instrument:
    tick_n, lot_n, price_n = (_nano(value) for value in (tick, lot, price))
    lots = max(4, order_value * NANO * NANO // (price_n * lot_n))
    start = price_n // tick_n
    return Instrument(symbol, venue, "USDT", tick_n, lot_n, start, max(0.6, start * 3e-5), lots, lots * 12)


def _nano(value: str) -> int:
    whole, _, fraction = value.partition(".")
    return int(whole + fraction.ljust(9, "0"))


_KNOWN = {
    item.symbol: item
    for item in (
        _known("BTCUSDT", "SIMX", "0.1", "0.001", "61800", 12_000),
        _known("ETHUSDT", "SIMX", "0.01", "0.001", "2650", 9_000),
        _known("SOLUSDT", "SIMX", "0.01", "0.01", "152.4", 6_000),
        _known("XRPUSDT", "SIMY", "0.0001", "1", "0.6125", 4_000),
        _known("ADAUSDT", "SIMY", "0.0001", "1", "0.3555", 3_000),
        _known("DOGEUSDT", "SIMY", "0.00001", "1", "0.10412", 3_000),
    )
}
DEFAULT_SYMBOLS = tuple(_KNOWN)
DEFAULT_STRATEGIES = ("market_maker", "momentum", "mean_reversion", "basis")


def instruments(symbols: Sequence[str]) -> tuple[Instrument, ...]:
    """The instruments of those names; a name that is not known gets a grid and a price drawn from the name
    itself.

    Raises:
        ValueError: no symbol, an empty one, or one named twice.
    """
    if not symbols or not all(symbols) or len(set(symbols)) < len(symbols):
        raise ValueError(f"symbols must be one or more different names, got {list(symbols)!r}")
    return tuple(_KNOWN.get(symbol) or _drawn(symbol) for symbol in symbols)


def _drawn(symbol: str) -> Instrument:
    number = zlib.crc32(symbol.encode())
    price = f"{5 + number % 40_000 / 100:.2f}"
    return _known(symbol, ("SIMX", "SIMY")[number % 2], "0.01", "0.01", price, 5_000)


@dataclass(frozen=True)
class Strategy:
    """One strategy: its orders are resting with the probability `passive`, and run in account `slot` of each
    venue."""

    name: str
    passive: float
    slot: int

    def account_id(self, venue: str) -> str:
        """The account it trades in at a venue."""
        return f"{venue}-{self.slot + 1:02d}"


def strategies(names: Sequence[str]) -> tuple[Strategy, ...]:
    """The strategies of those names, from mostly passive to mostly aggressive; two accounts a venue are
    shared.

    Raises:
        ValueError: no name, an empty one, or one given twice.
    """
    if not names or not all(names) or len(set(names)) < len(names):
        raise ValueError(f"strategies must be one or more different names, got {list(names)!r}")
    return tuple(Strategy(name, (0.95, 0.15, 0.6, 0.4)[i % 4], i % 2) for i, name in enumerate(names))
