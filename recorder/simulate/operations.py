"""What stands beside the trading: risk modes, system events, metrics, and positions and accounts marked on a
timer."""

from __future__ import annotations

import random
from itertools import count

from recorder.simulate.agenda import Agenda, TableRow
from recorder.simulate.market import Market
from recorder.simulate.trading import Trading
from schemas.core.operations import MetricSample, SystemEvent
from schemas.core.trading import GuardrailTransition

_MODES = ("normal", "reduce_only", "halted")
"""From free to stopped; the mode steps to a neighbour at a time."""
_TRIGGERS = {"drawdown_pct": (1.5, 4.0), "feed_age_ms": (250.0, 900.0), "reject_ratio": (0.05, 0.2)}


class Operations:
    """Makes the rows of everything that is not a chain. Same rules as `Trading`: one owner, no clock."""

    def __init__(
        self,
        agenda: Agenda,
        trading: Trading,
        markets: tuple[Market, ...],
        rng: random.Random,
        run_id: str = "",
    ) -> None:
        self._agenda = agenda
        self._trading = trading
        self._rng = rng
        self._run_id = run_id
        self._turn = count()
        self._mark_turn = count()
        venues = sorted({market.instrument.venue for market in markets})
        self.series: tuple[tuple[str, dict[str, str]], ...] = (
            ("strategy_loop_us", {}),
            ("open_orders", {}),
            *(("feed_latency_ms", {"venue": venue}) for venue in venues),
            *(("order_round_trip_ms", {"venue": venue}) for venue in venues),
        )
        """The metrics sampled in turn: name and labels."""
        self.marks = tuple(trading.ledger.accounts)
        """The accounts marked in turn."""
        self._venues = venues

    def guardrail(self, now: int, _: object) -> TableRow | None:
        """Something crosses its limit: the risk mode gets stricter, and relaxes again some seconds later."""
        rng, level = self._rng, _MODES.index(self._trading.mode)
        if level == len(_MODES) - 1 or (level > 0 and rng.random() < 0.6):
            return None
        metric = rng.choice(tuple(_TRIGGERS))
        low, high = _TRIGGERS[metric]
        self._agenda.at(now + rng.randrange(500, 4_000) * 1_000_000, self._relax, metric)
        return self._switch(now, _MODES[level + 1], metric, rng.uniform(low, high), f"{metric} above {low}")

    def _relax(self, now: int, metric: object) -> TableRow:
        low, _ = _TRIGGERS[str(metric)]
        level = _MODES.index(self._trading.mode)
        return self._switch(
            now, _MODES[level - 1], str(metric), low * self._rng.random(), f"{metric} back below {low}"
        )

    def _switch(self, now: int, mode: str, metric: str, value: float, reason: str) -> TableRow:
        before, self._trading.mode = self._trading.mode, mode
        return "guardrail_transitions", GuardrailTransition(
            ts_local=now,
            run_id=self._run_id,
            ts=now,
            prev_mode=before,
            next_mode=mode,
            trigger_metric=metric,
            value=round(value, 4),
            reason=reason,
        )

    def system_event(self, now: int, _: object) -> TableRow:
        """Report something about the infrastructure."""
        rng = self._rng
        venue = rng.choice(self._venues)
        kind = rng.choice(("api_weight", "api_weight", "api_weight", "feed_reconnected", "feed_gap"))
        if kind == "api_weight":
            weight = rng.randrange(20, 2_400)
            severity, message = (
                "info" if weight < 1_800 else "warning",
                f"{weight} of 2400 request weight used",
            )
            payload = f'{{"used":{weight},"limit":2400}}'
        elif kind == "feed_gap":
            first = rng.randrange(10**6, 10**7)
            missing = rng.randrange(1, 9)
            severity, message = "warning", f"{missing} update ids missing from {first}"
            payload = f'{{"first":{first},"missing":{missing}}}'
        else:
            severity, message, payload = "info", "connection re-established", '{"attempts":1}'
        return "system_events", SystemEvent(
            ts_local=now,
            run_id=self._run_id,
            ts=now,
            severity=severity,
            kind=kind,
            component=f"feed.{venue}",
            message=message,
            payload=payload.encode(),
        )

    def metric(self, now: int, _: object) -> TableRow:
        """Sample the next metric."""
        name, labels = self.series[next(self._turn) % len(self.series)]
        value = (
            float(self._trading.resting_orders)
            if name == "open_orders"
            else round(
                self._rng.lognormvariate(
                    {"strategy_loop_us": 3.4, "feed_latency_ms": 1.0}.get(name, 1.6), 0.4
                ),
                3,
            )
        )
        return "metrics_timeseries", MetricSample(
            ts_local=now, run_id=self._run_id, ts=now, name=name, value=value, labels=labels
        )

    def mark(self, now: int, _: object) -> TableRow:
        """Mark an account, or one of its positions, at the market."""
        ledger = self._trading.ledger
        account = ledger.accounts[self.marks[next(self._mark_turn) % len(self.marks)]]
        held = [key for key, position in account.positions.items() if position.qty]
        if held and self._rng.random() < 0.5:
            symbol, strategy = self._rng.choice(held)
            return "positions_intraday", ledger.position_row(now, now, account.account_id, symbol, strategy)
        return "account_state", ledger.account_row(now, now, account, self._trading.mode)
