"""Bars in plain Python, by the words of docs/bars.md and another route than the recorder's, to check it against."""

from __future__ import annotations

import gzip
import json
import math
import pathlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

HOUR_NS = 3_600 * 10**9
Key = tuple[str, str, int]
"""Source, symbol and when the window begins."""


class Said(NamedTuple):
    """One message, or one recorded row: its time, its place among those of one time, and what it says."""

    source: str
    symbol: str
    at: int
    place: tuple[int, ...]
    trade: tuple[float, float] | None = None
    aggregated: bool = False
    quote: tuple[float | None, float | None] | None = None


@dataclass
class Bar:
    """A bar as it should be."""

    rows: int = 0
    trades: list[tuple[float, float]] | None = None
    quote_count: int = 0
    spread_ns: float = 0.0
    quoted_ns: int = 0

    def values(self) -> dict[str, Any]:
        """By the names of the columns."""
        trades = self.trades or []
        volume = math.fsum(qty for _, qty in trades)
        notional = math.fsum(px * qty for px, qty in trades)
        prices = [px for px, _ in trades]
        return {
            "open": prices[0] if trades else None,
            "high": max(prices, default=None),
            "low": min(prices, default=None),
            "close": prices[-1] if trades else None,
            "volume": volume,
            "notional": notional,
            "vwap": notional / volume if volume else None,
            "trade_count": len(trades),
            "quote_count": self.quote_count,
            "spread_mean": self.spread_ns / self.quoted_ns if self.quoted_ns else None,
            "quoted_ns": self.quoted_ns,
            "rows": self.rows,
        }


def plain_bars(said: Iterable[Said], window_ns: int) -> dict[Key, dict[str, Any]]:
    """The bars of everything that was said; each feed in the order of its times."""
    feeds: dict[tuple[str, str], list[Said]] = defaultdict(list)
    for one in said:
        feeds[one.source, one.symbol].append(one)
    made: dict[Key, dict[str, Any]] = {}
    for (source, symbol), each in feeds.items():
        for begin, bar in _of_feed(sorted(each, key=lambda one: (one.at, one.place)), window_ns).items():
            made[source, symbol, begin] = bar.values()
    return made


def _of_feed(said: list[Said], window_ns: int) -> dict[int, Bar]:
    single_hours = {one.at // HOUR_NS for one in said if one.trade and not one.aggregated}
    bars: dict[int, Bar] = {}
    for one in said:
        bar = bars.setdefault(one.at // window_ns * window_ns, Bar(trades=[]))
        bar.rows += 1
        bar.quote_count += one.quote is not None
        hour = one.at // HOUR_NS
        if one.trade and not (one.aggregated and single_hours & {hour - 1, hour, hour + 1}):
            assert bar.trades is not None
            bar.trades.append(one.trade)
    quotes = [one for one in said if one.quote is not None]
    for number, one in enumerate(quotes):
        after = quotes[number + 1] if number + 1 < len(quotes) else None
        bid, ask = one.quote or (None, None)
        if bid is None or ask is None or bid >= ask:
            continue
        # The last one holds on, as far as there is a window.
        end = min(after.at if after else one.at + HOUR_NS, one.at + HOUR_NS)
        begin = one.at
        while begin < end:
            window = begin // window_ns * window_ns
            until = min(end, window + window_ns)
            if window in bars:
                bars[window].spread_ns += (ask - bid) * (until - begin)
                bars[window].quoted_ns += until - begin
            begin = until
    return bars


def capture(path: pathlib.Path) -> Iterator[Said]:
    """What a capture of Binance says, message by message: trades of the order book, and quotes."""
    futures = "usdm" in path.name
    source = "binance.usdm" if futures else "binance.spot"
    last = None
    with gzip.open(path, "rb") as lines:
        for number, line in enumerate(lines):
            local, _, text = line.partition(b" ")
            stream = text[:60]
            if b"@trade" not in stream and b"@bookTicker" not in stream:
                continue
            data = json.loads(text)["data"]
            place = (int(local), number)
            if b"@trade" in stream:
                if data.get("X", "MARKET") != "MARKET":
                    continue
                trade = float(data["p"]), float(data["q"])
                yield Said(source, data["s"], data["T"] * 10**6, place, trade=trade)
                continue
            best = data["b"], data["B"], data["a"], data["A"]
            if best == last:
                continue  # a quote is a change of the best prices or sizes
            last = best
            at = data["T"] * 10**6 if "T" in data else int(local)
            yield Said(source, data["s"], at, place, quote=(float(data["b"]), float(data["a"])))


def differences(expected: dict[Key, dict[str, Any]], found: dict[Key, dict[str, Any]]) -> list[str]:
    """What differs, a line each: counts, times and prices to the last bit, sums and means to twelve digits."""
    told = [f"{key} is missing" for key in expected.keys() - found.keys()]
    told += [f"{key} should not be" for key in found.keys() - expected.keys()]
    for key in expected.keys() & found.keys():
        for name, value in expected[key].items():
            other = found[key][name]
            sums = name in ("volume", "notional", "vwap", "spread_mean")
            same = (
                math.isclose(value, other, rel_tol=1e-12)
                if sums and None not in (value, other)
                else value == other
            )
            if not same:
                told.append(f"{key} {name}: expected {value!r}, observed {other!r}")
    return sorted(told)
