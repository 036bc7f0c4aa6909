"""A seeded trading session: the same seed makes the same rows, on any machine, at any time.

Pure: no clock (`start_ns` is given), no database, no thread. Rows come in order of `ts_local`, one at a time,
from a market, the trading on it, and what operations report about both. The end is clean: when the time or
the number of rows is up, markets stop, resting orders are cancelled, and every chain runs out, so that every
order has a final status; a session therefore ends with some rows more than `max_rows`.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from recorder.simulate.agenda import Agenda, TableRow
from recorder.simulate.instruments import DEFAULT_STRATEGIES, DEFAULT_SYMBOLS, instruments, strategies
from recorder.simulate.market import Market
from recorder.simulate.operations import Operations
from recorder.simulate.trading import MS, SECOND, US, Faults, Trading
from recorder.simulate.truth import Truth

TABLES = (
    "market_data",
    "risk_decisions",
    "orders",
    "fills",
    "positions_intraday",
    "account_state",
    "guardrail_transitions",
    "system_events",
    "metrics_timeseries",
)
"""The tables a session makes rows for; `book_deltas` too where the mix asks for it."""


@dataclass(frozen=True, slots=True)
class Mix:
    """How many rows of what: means per second of simulated time.

    `quotes_per_s`, `trades_per_s` and `book_deltas_per_s` are per symbol, the others for the whole session.
    One order makes about nine rows in five tables.
    """

    quotes_per_s: float = 25.0
    trades_per_s: float = 8.0
    book_deltas_per_s: float = 0.0
    orders_per_s: float = 5.0
    guardrails_per_min: float = 3.0
    system_events_per_min: float = 20.0
    metrics_every_s: float = 1.0
    marks_every_s: float = 5.0


class Session:
    """One simulated session; iterate `events()` once.

    Args:
        seed: any whole number.
        start_ns: the session's first moment, ns since the epoch.
        duration_s: simulated length; None where `max_rows` alone ends it.
        max_rows: stop opening new business after so many rows; None where `duration_s` alone ends it.
        symbols, strategies: names; known symbols have their own grids, others get one drawn from the name.
        run_id: written into every row; "" leaves it to the recorder.

    Raises:
        ValueError: neither end is given, or a name is empty or twice.
    """

    def __init__(
        self,
        seed: int,
        start_ns: int,
        *,
        duration_s: float | None = None,
        max_rows: int | None = None,
        symbols: Sequence[str] = DEFAULT_SYMBOLS,
        strategy_names: Sequence[str] = DEFAULT_STRATEGIES,
        mix: Mix | None = None,
        faults: Faults | None = None,
        run_id: str = "",
    ) -> None:
        if duration_s is None and max_rows is None:
            raise ValueError("a session needs an end: give duration_s, max_rows or both")
        self.seed = seed
        self.start_ns = start_ns
        self.truth = Truth()
        """What the rows handed out so far say."""
        self._end_ns = None if duration_s is None else start_ns + int(duration_s * SECOND)
        self._max_rows = max_rows
        self._mix = mix or Mix()
        # Ids begin with a tag of seed and start, so that two sessions in one database do not share them.
        tag = hashlib.blake2b(f"{seed}:{start_ns}".encode(), digest_size=4).hexdigest()
        self._agenda = Agenda(start_ns)
        self._rng = random.Random(f"{seed}/session")
        self._markets = tuple(
            Market(item, random.Random(f"{seed}/market/{item.symbol}"), run_id)
            for item in instruments(symbols)
        )
        self.trading = Trading(
            self._agenda,
            self._markets,
            strategies(strategy_names),
            self.truth,
            random.Random(f"{seed}/trading"),
            tag,
            faults or Faults(),
            run_id,
        )
        self._operations = Operations(
            self._agenda, self.trading, self._markets, random.Random(f"{seed}/operations"), run_id
        )
        self._now_ns = start_ns
        self._closing = False
        self._started = False

    @property
    def now_ns(self) -> int:
        """Simulated time of the row handed out last."""
        return self._now_ns

    @property
    def finished(self) -> bool:
        """Whether every row was handed out."""
        return self._started and not self._agenda

    @property
    def share(self) -> float:
        """How much of the session is over, from 0 to 1."""
        by_rows = self.truth.total_rows / self._max_rows if self._max_rows else 0.0
        by_time = (
            0.0 if self._end_ns is None else (self._now_ns - self.start_ns) / (self._end_ns - self.start_ns)
        )
        return min(1.0, max(by_rows, by_time))

    def events(self) -> Iterator[TableRow]:
        """(table, row) in order of time.

        Raises:
            RuntimeError: asked for a second time; make another session with the same seed instead.
        """
        if self._started:
            raise RuntimeError("a session's events can be read once; make another session with the same seed")
        self._started = True
        self._open()
        agenda, rows = self._agenda, self.truth.rows
        handed_out, limit = 0, self._max_rows
        while agenda:
            event = agenda.step()
            if event is None:
                continue
            rows[event[0]] += 1
            handed_out += 1
            self._now_ns = agenda.now_ns
            yield event
            if limit is not None and handed_out >= limit and not self._closing:
                self._close(agenda.now_ns)

    def _open(self) -> None:
        mix, start = self._mix, self.start_ns
        for market in self._markets:
            self._recur(mix.quotes_per_s, self._quote, market)
            self._recur(mix.trades_per_s, self._trade, market)
            if mix.book_deltas_per_s > 0:
                self._agenda.at(start, self._book_snapshot, market)
                self._recur(mix.book_deltas_per_s, self._delta, market)
        self._recur(mix.orders_per_s, lambda now, _: self.trading.decide(now), None)
        self._recur(mix.guardrails_per_min / 60, self._operations.guardrail, None)
        self._recur(mix.system_events_per_min / 60, self._operations.system_event, None)
        series = self._operations.series
        marks = self._operations.marks
        self._recur(
            len(series) / mix.metrics_every_s if mix.metrics_every_s else 0, self._operations.metric, None
        )
        self._recur(len(marks) / mix.marks_every_s if mix.marks_every_s else 0, self._operations.mark, None)
        if self._end_ns is not None:
            self._agenda.at(self._end_ns, self._end)

    def _end(self, now: int, _: object) -> None:
        self._close(now)

    def _close(self, now: int) -> None:
        if not self._closing:
            self._closing = True
            self.trading.cancel_all(now)

    def _recur(self, per_s: float, call: Callable[[int, object], TableRow | None], argument: object) -> None:
        """Do a step again and again at random intervals of that mean rate, until the session closes."""
        if per_s <= 0:
            return
        draw, agenda, rate = self._rng.expovariate, self._agenda, per_s / SECOND

        def again(now: int, what: object) -> TableRow | None:
            if self._closing:
                return None
            agenda.at(now + 1 + int(draw(rate)), again, what)
            return call(now, what)

        # What is rare happens early once, so that even a short session has a row in every table.
        agenda.at(self.start_ns + 1 + min(int(draw(rate)), 2 * SECOND), again, argument)

    def _quote(self, now: int, market: object) -> TableRow:
        assert isinstance(market, Market)
        row = market.quote(now, self._rng.randrange(400 * US, 6 * MS))
        self.trading.on_quote(now, market)
        return "market_data", row

    def _trade(self, now: int, market: object) -> TableRow:
        assert isinstance(market, Market)
        feed = self._rng.randrange(400 * US, 6 * MS)
        row, side, ticks, lots = market.trade(now, feed)
        self.trading.on_trade(now, market, side, ticks, lots, now - feed)
        return "market_data", row

    def _delta(self, now: int, market: object) -> TableRow:
        assert isinstance(market, Market)
        return "book_deltas", market.delta(now, self._rng.randrange(400 * US, 6 * MS))

    def _book_snapshot(self, now: int, market: object) -> TableRow:
        assert isinstance(market, Market)
        return "book_deltas", market.delta(now, 0, is_snapshot=True)
