"""The trading of a session: from a strategy's decision over risk control and the venue to positions and
accounts.

One chain, all of it under one correlation id, each arrow a step of the agenda some time later:

    market_data row ─► intent ─► risk_decisions row ─► orders: Submitted ─► Acked ─► Open ─┬─► Canceled,
    Expired
                                  └─ deny: it ends       └─► Rejected, Failed              │
        account_state row ◄─ positions_intraday row ◄─ orders: PartiallyFilled, Filled ◄─ fills row

Reports of one order never overtake each other. What the venue does (`execute`) and what its reports say
(`_fill`) are kept apart, as they are in life: an order can be full at the venue while its last fill is still
under way.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass

from recorder.simulate.agenda import Agenda, TableRow
from recorder.simulate.amount import nano_decimal
from recorder.simulate.instruments import Strategy
from recorder.simulate.ledger import Ledger
from recorder.simulate.lifecycle import LiveOrder, is_final
from recorder.simulate.market import Market
from recorder.simulate.order_rows import fill_row, repeated_fill_row, risk_row, transition_row
from recorder.simulate.portfolio import Position
from recorder.simulate.truth import OrderTruth, Truth
from schemas.core.trading import Fill

US = 1_000
MS = 1_000_000
SECOND = 1_000_000_000
_FEES_PPM = {"SIMX": (180, 450), "SIMY": (-40, 500)}  # maker and taker; a maker at SIMY is paid
_ORDERS_PER_S_LIMIT = 25
_REPORT_SPACING = 20 * US  # a fill's own four rows lie within 6 us, so two fills of an order never mix


@dataclass(frozen=True, slots=True)
class Faults:
    """How often things go wrong, as probabilities."""

    fill_repeats: float = 0.01
    venue_rejects: float = 0.015
    gateway_failures: float = 0.004
    risk_denials: float = 0.02


@dataclass(frozen=True, slots=True)
class _Execution:
    order: LiveOrder
    lots: int
    ticks: int
    liquidity: str
    ts_exchange: int


class Trading:
    """Strategies, orders, positions and accounts of one session. One owner, one thread, no clock."""

    def __init__(
        self,
        agenda: Agenda,
        markets: tuple[Market, ...],
        strategies: tuple[Strategy, ...],
        truth: Truth,
        rng: random.Random,
        tag: str,
        faults: Faults,
        run_id: str = "",
    ) -> None:
        self.mode = "normal"
        self.closing = False
        self._agenda = agenda
        self._markets = {market.instrument.symbol: market for market in markets}
        self._strategies = strategies
        self._truth = truth
        self._rng = rng
        self._tag = tag
        self._faults = faults
        self._run_id = run_id
        self._chains = 0
        self._fills = 0
        self._broker_ids = 10_000_000_000 + rng.randrange(10**9)
        self._resting: dict[str, list[LiveOrder]] = {symbol: [] for symbol in self._markets}
        self._sent: dict[str, deque[int]] = {strategy.name: deque(maxlen=200) for strategy in strategies}
        self.ledger = Ledger(self._markets, strategies, truth, run_id)

    @property
    def resting_orders(self) -> int:
        """Orders that rest at a venue now."""
        return sum(len(orders) for orders in self._resting.values())

    # -- decision and risk
    # ---------------------------------------------------------------------------------------

    def decide(self, now: int, _: object = None) -> TableRow:
        """A quote on which a strategy acts; its row begins the chain."""
        rng = self._rng
        strategy = rng.choice(self._strategies)
        market = rng.choice(tuple(self._markets.values()))
        self._chains += 1
        chain = f"{self._tag}-{self._chains:07d}"
        row = market.quote(now, rng.randrange(400 * US, 6 * MS), f"corr-{chain}")
        self.on_quote(now, market)
        instrument = market.instrument
        account = self.ledger.accounts[strategy.account_id(instrument.venue)]
        held = account.position(instrument.symbol, strategy.name).qty // instrument.lot
        # The larger the position, the more likely the strategy is to reduce it.
        side = (
            "buy" if rng.random() < 0.5 - 0.42 * max(-1.0, min(1.0, held / instrument.max_lots)) else "sell"
        )
        passive = rng.random() < strategy.passive
        touch = market.bid if (side == "buy") == passive else market.ask
        slip = 0 if passive else (1 if side == "buy" else -1) * (1 + int(2 * instrument.step_ticks))
        tif = ("GTC" if rng.random() < 0.8 else "GTD") if passive else "IOC"
        order = LiveOrder(
            correlation_id=f"corr-{chain}",
            intent_id=f"int-{chain}",
            risk_decision_id=f"risk-{chain}",
            client_order_id=f"ord-{chain}",
            broker_order_id="",
            strategy=strategy,
            instrument=instrument,
            account_id=account.account_id,
            side=side,
            lots=max(1, int(instrument.order_lots * rng.uniform(0.4, 2.5))),
            limit_ticks=touch + slip,
            order_type="limit" if passive or rng.random() < 0.7 else "market",
            tif=tif,
            risk_mode=self.mode,
            ts_intent=now + rng.randrange(40 * US, 400 * US),
        )
        self._agenda.at(order.ts_intent + rng.randrange(15 * US, 120 * US), self._risk, order)
        return "market_data", row

    def _risk(self, now: int, order: LiveOrder) -> TableRow:
        instrument, ledger = order.instrument, self.ledger
        position = ledger.position(order)
        sent = self._sent[order.strategy.name]
        rate = sum(1 for time_ns in sent if now - time_ns <= SECOND)
        order.risk_mode = self.mode
        asked = order.lots
        decision, reason = self._judge(order, position, rate)
        mark = self._markets[instrument.symbol].mark
        price = mark if order.order_type == "market" else order.limit_ticks * instrument.tick
        self._truth.decisions[decision] += 1
        if decision != "deny":
            order.approved_id = f"appr-{order.intent_id.removeprefix('int-')}"
            sent.append(now)
            self._agenda.at(now + self._rng.randrange(8 * US, 60 * US), self._submit, order)
        return "risk_decisions", risk_row(
            order,
            now,
            self._run_id,
            decision=decision,
            reason=reason,
            position=position.qty,
            notional=asked * instrument.lot * price,
            pnl=ledger.day_pnl(ledger.accounts[order.account_id]),
            rate=rate,
        )

    def _judge(self, order: LiveOrder, position: Position, rate: int) -> tuple[str, str]:
        """Decide, and cut the order's lots where it may pass only smaller."""
        held = position.qty // order.instrument.lot
        toward = held if order.side == "buy" else -held
        if self.mode == "halted":
            return "deny", "trading_halted"
        if self.mode == "reduce_only" and toward >= 0:
            return "deny", "reduce_only"
        if rate >= _ORDERS_PER_S_LIMIT:
            return "deny", "order_rate"
        if self._rng.random() < self._faults.risk_denials:
            return "deny", "price_band"
        room = order.instrument.max_lots - toward
        if room <= 0:
            return "deny", "position_limit"
        if order.lots > room:
            order.lots = room
            return "resize", "position_limit"
        return "allow", "within_limits"

    # -- the order and its venue
    # ---------------------------------------------------------------------------------

    def _submit(self, now: int, order: LiveOrder) -> TableRow:
        rng, faults = self._rng, self._faults
        order.ts_send = now
        fate = rng.random()
        round_trip = int(rng.lognormvariate(1.6, 0.45) * MS)
        if fate < faults.gateway_failures:
            self._agenda.at(
                now + rng.randrange(20, 80) * MS, self._refuse, (order, "Failed", "gateway: no connection")
            )
        elif fate < faults.gateway_failures + faults.venue_rejects:
            reason = rng.choice(
                ("insufficient margin", "price outside the venue's band", "too many open orders")
            )
            self._agenda.at(now + round_trip, self._refuse, (order, "Rejected", reason))
        else:
            self._agenda.at(now + round_trip, self._acknowledge, order)
        self._truth.orders[order.client_order_id] = OrderTruth(
            order.account_id,
            order.strategy.name,
            order.instrument.symbol,
            order.side,
            nano_decimal(order.lots * order.instrument.lot),
            order.correlation_id,
        )
        return self._transition(now, order, "Submitted")

    def _refuse(self, now: int, argument: tuple[LiveOrder, str, str]) -> TableRow:
        order, status, reason = argument
        return self._transition(now, order, status, reason)

    def _acknowledge(self, now: int, order: LiveOrder) -> TableRow:
        self._broker_ids += 1 + self._rng.randrange(900)
        order.broker_order_id = str(self._broker_ids)
        order.ts_ack = now
        row = self._transition(now, order, "Acked")
        if order.tif == "IOC":
            self._take(now, order)
        else:
            order.next_report = now + self._rng.randrange(20 * US, 200 * US)
            self._agenda.at(order.next_report, self._rest, order)
        return row

    def _take(self, now: int, order: LiveOrder) -> None:
        """Execute against the levels the book shows, as far as the limit reaches; what is left expires."""
        market = self._markets[order.instrument.symbol]
        buying, any_price = order.side == "buy", order.order_type == "market"
        levels = market.ask_levels() if buying else market.bid_levels()
        for number, (ticks, lots) in enumerate(levels, 1):
            if not any_price and (ticks > order.limit_ticks if buying else ticks < order.limit_ticks):
                break
            # A market order takes all it needs from the last level shown: the book goes on behind it.
            lots = order.left_lots if any_price and number == len(levels) else min(lots, order.left_lots)
            if lots:
                self.execute(now, order, lots, ticks, "taker", now)
        if order.left_lots:
            self._close(now, order, "Expired")

    def _rest(self, now: int, order: LiveOrder) -> TableRow:
        self._resting[order.instrument.symbol].append(order)
        life = MS if self.closing else int(self._rng.expovariate(1 / 4.0) * SECOND)
        self._agenda.at(now + life, self._end_of_life, order)
        return self._transition(now, order, "Open")

    def _end_of_life(self, now: int, order: LiveOrder) -> None:
        if order.left_lots:
            self._resting[order.instrument.symbol].remove(order)
            self._close(now, order, "Expired" if order.tif == "GTD" else "Canceled")

    def _close(self, now: int, order: LiveOrder, status: str) -> None:
        order.closed_at_venue = True
        self._agenda.at(self._report_at(now, order), self._finish, (order, status))

    def _finish(self, now: int, argument: tuple[LiveOrder, str]) -> TableRow:
        return self._transition(now, *argument)

    def _report_at(self, now: int, order: LiveOrder) -> int:
        """When news of what happens to an order now arrives: never before earlier news of it."""
        order.next_report = max(
            now + self._rng.randrange(300 * US, 4 * MS), order.next_report + _REPORT_SPACING
        )
        return order.next_report

    def on_quote(self, now: int, market: Market) -> None:
        """Fill what the market has gone through."""
        resting = self._resting[market.instrument.symbol]
        for order in resting[:]:
            crossed = (
                order.limit_ticks >= market.ask if order.side == "buy" else order.limit_ticks <= market.bid
            )
            if crossed:
                self.execute(now, order, order.left_lots, order.limit_ticks, "maker", now)
                resting.remove(order)

    def on_trade(
        self, now: int, market: Market, aggressor: str, ticks: int, lots: int, ts_exchange: int
    ) -> None:
        """Fill what rests at or behind the price of a trade, as far as its quantity reaches."""
        resting = self._resting[market.instrument.symbol]
        for order in resting[:]:
            if order.side == aggressor or lots == 0:
                continue
            reached = order.limit_ticks >= ticks if order.side == "buy" else order.limit_ticks <= ticks
            if reached and self._rng.random() < 0.7:  # others stand before it in the queue
                taken = min(lots, order.left_lots)
                lots -= taken
                self.execute(now, order, taken, order.limit_ticks, "maker", ts_exchange)
                if not order.left_lots:
                    resting.remove(order)

    def cancel_all(self, now: int) -> None:
        """Cancel what rests; from now on nothing rests for long."""
        self.closing = True
        for resting in self._resting.values():
            for order in resting[:]:
                self._end_of_life(now, order)

    # -- fills, positions, accounts
    # ------------------------------------------------------------------------------

    def execute(
        self, now: int, order: LiveOrder, lots: int, ticks: int, liquidity: str, ts_exchange: int
    ) -> None:
        """The venue executes part of an order; the report follows."""
        order.done_lots += lots
        ts_exchange = max(ts_exchange, order.ts_ack or 0)
        self._agenda.at(
            self._report_at(now, order), self._fill, _Execution(order, lots, ticks, liquidity, ts_exchange)
        )

    def _fill(self, now: int, execution: _Execution) -> TableRow:
        order, instrument, ledger, agenda = (
            execution.order,
            execution.order.instrument,
            self.ledger,
            self._agenda,
        )
        self._fills += 1
        qty, price = execution.lots * instrument.lot, execution.ticks * instrument.tick
        maker_ppm, taker_ppm = _FEES_PPM[instrument.venue]
        fee = qty * price * (maker_ppm if execution.liquidity == "maker" else taker_ppm) // 1_000_000
        order.reported_lots += execution.lots
        ledger.book_fill(order, qty, price, fee)
        row = fill_row(
            order,
            now,
            self._run_id,
            fill_id=f"{self._tag}{self._fills:08d}",
            ts_exchange=min(execution.ts_exchange, now),
            qty=qty,
            price=price,
            fee=fee,
            liquidity=execution.liquidity,
        )
        # Position and account are taken now, at the fill, and written some microseconds later.
        status = "Filled" if order.reported_lots == order.lots else "PartiallyFilled"
        agenda.at(now + 2 * US, self._finish, (order, status))
        position_row = ledger.position_row(
            now, now + 4 * US, order.account_id, instrument.symbol, order.strategy.name, order.correlation_id
        )
        agenda.at(now + 4 * US, self._ready, ("positions_intraday", position_row))
        account_row = ledger.account_row(
            now, now + 6 * US, ledger.accounts[order.account_id], self.mode, order.correlation_id
        )
        agenda.at(now + 6 * US, self._ready, ("account_state", account_row))
        if self._rng.random() < self._faults.fill_repeats:
            agenda.at(now + self._rng.randrange(300 * MS, 3 * SECOND), self._repeat, row)
        return "fills", row

    def _repeat(self, now: int, row: Fill) -> TableRow:
        self._truth.repeated_fills += 1
        return "fills", repeated_fill_row(row, now)

    @staticmethod
    def _ready(_: int, row: TableRow) -> TableRow:
        return row

    def _transition(self, now: int, order: LiveOrder, status: str, reason: str | None = None) -> TableRow:
        order.move(status)
        if is_final(status):
            order.ts_final = now
        truth = self._truth.orders[order.client_order_id]
        truth.status = status
        truth.transitions += 1
        return "orders", transition_row(order, now, self._run_id, reason)
