"""A trading session as its two sides tell it: the trading process's own order rows, and the venue's private messages.

Numbers of orders and trades are the same in every market and symbol, as a venue's may be; TRADE_LITE and the full event
of a fill come in either order, and some messages come twice.
"""

from __future__ import annotations

import json
import pathlib
import random
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from .binance_private import account_update, execution_report, order_update, position, raw, trade_lite
from .ingest_files import write_lines, write_rows

START_NS = 1_723_161_255_030_314_667
ACCOUNT = "main"
MARKETS = (("binance.spot", "BTCUSDT"), ("binance.usdm", "BTCUSDT"), ("binance.usdm", "ETHUSDT"))
STRATEGIES = ("mm", "momentum", "basis")
ENDS = {"FILLED": "Filled", "CANCELED": "Canceled", "EXPIRED": "Expired", "REJECTED": "Rejected", "": "Open"}
FillKey = tuple[str, str, str]
"""Venue, symbol, fill id."""


@dataclass
class Session:
    """Both sides, and what a reader of the tables is to find."""

    own: list[dict[str, Any]] = field(default_factory=list)
    venue: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    statuses: dict[str, str] = field(default_factory=dict)
    """By client id; of every order with an own row."""
    strategies: dict[str, str] = field(default_factory=dict)
    latencies: dict[str, int] = field(default_factory=dict)
    """From the sending to the arrival of the acknowledgement, ns."""
    fills: dict[FillKey, tuple[str, Decimal, Decimal, Decimal]] = field(default_factory=dict)
    """Client id, quantity, price, fee."""

    def write(self, folder: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
        """The two as files: rows of `orders` as NDJSON, and a capture."""
        lines = [b"%d %s" % (at, raw(message)) for at, message in self.venue]
        return write_rows(folder / "own.ndjson", self.own), write_lines(folder / "private.log", lines)


def make_session(orders: int, seed: int = 7) -> Session:
    """A session of so many orders, and one liquidation that nobody here asked for."""
    chance = random.Random(seed)
    session = Session()
    now = START_NS
    trades = dict.fromkeys(MARKETS, 1_000)
    for number in range(orders):
        venue, symbol = market = MARKETS[number % len(MARKETS)]
        client, strategy = f"c-{number}", chance.choice(STRATEGIES)
        now += chance.randrange(1_000_000, 9_000_000)
        end = chance.choice([*ENDS, "FILLED", "FILLED"])
        parts = chance.randint(1, 3) if end not in ("REJECTED",) else 0
        if end in ("CANCELED", "EXPIRED", ""):
            parts = chance.randint(0, 1)
        wanted = Decimal("0.003") * 3
        order = _Order(venue, symbol, client, 500 + number // len(MARKETS), str(wanted), chance)
        session.own.append(_own_row(order, strategy, now))
        session.strategies[client] = strategy
        sent = now
        now += chance.randrange(200_000, 5_000_000)
        if end == "REJECTED":
            session.venue.append(
                (now, order.event(now, x="REJECTED", X="REJECTED", r="INSUFFICIENT_BALANCES"))
            )
            session.statuses[client] = "Rejected"
            continue
        session.venue.append((now, order.event(now, x="NEW", X="NEW")))
        session.latencies[client] = now - sent
        done = Decimal(0)
        for part in range(parts):
            now += chance.randrange(1_000, 3_000_000)
            last = end == "FILLED" and part == parts - 1
            qty = wanted - done if last else Decimal("0.003")
            done += qty
            trades[market] += 1
            fill = order.fill(now, trades[market], qty, done, "FILLED" if last else "PARTIALLY_FILLED")
            session.fills[venue, symbol, str(trades[market])] = (client, qty, order.price, order.fee)
            for message in fill:
                session.venue.append((now, message))
                now += chance.randrange(1, 50_000)
        session.statuses[client] = ENDS[end] if not (end == "" and parts) else "PartiallyFilled"
        if end in ("CANCELED", "EXPIRED"):
            now += chance.randrange(1_000, 3_000_000)
            session.venue.append((now, order.event(now, x=end, X=end, z=str(done))))
    _liquidate(session, now + 1_000_000)
    return session


class _Order:
    """One order, and the venue's messages about it."""

    def __init__(self, venue: str, symbol: str, client: str, number: int, qty: str, chance: random.Random):
        self.venue, self.symbol, self.client, self.number, self.qty = venue, symbol, client, number, qty
        self.price = Decimal(chance.randrange(6_000_000, 6_100_000)) / 100
        self.fee = Decimal("0.00000123")
        self.side = chance.choice(["BUY", "SELL"])
        self._chance = chance

    def event(self, now: int, **changes: Any) -> dict[str, Any]:
        """Its change as the market's full event."""
        ms = now // 1_000_000
        common = {
            "s": self.symbol, "c": self.client, "S": self.side, "o": "LIMIT", "f": "GTC", "q": self.qty,
            "p": str(self.price), "i": self.number, "T": ms - 2,
        } | changes  # fmt: skip
        if self.venue == "binance.spot":
            if changes["X"] == "CANCELED":
                common |= {"c": f"cancel-{self.client}", "C": self.client}
            return execution_report(E=ms - 1, **common)
        reason = common.pop("r", None)
        event = order_update({"E": ms - 1, "T": ms - 2}, **common, ot="LIMIT")
        return event if reason is None else {"stream": "user", "data": event}

    def fill(self, now: int, trade: int, qty: Decimal, done: Decimal, status: str) -> list[dict[str, Any]]:
        """A fill as the venue tells it: spot once, futures twice, in either order; now and then once more."""
        fee = {"n": str(self.fee), "N": "BNB"}
        full = self.event(
            now, x="TRADE", X=status, t=trade, l=str(qty), z=str(done), L=str(self.price), m=True, **fee
        )
        told = [full]
        if self.venue != "binance.spot":
            told.append(
                trade_lite(
                    trade, s=self.symbol, c=self.client, S=self.side, i=self.number, l=str(qty), L=str(self.price),
                    m=True, E=full["E"], T=full["T"],
                )
            )  # fmt: skip
        self._chance.shuffle(told)
        return told + told[: self._chance.choice([0, 0, 0, 1, 2])]


def _own_row(order: _Order, strategy: str, now: int) -> dict[str, Any]:
    client = order.client
    return {
        "table": "orders", "ts_local": now, "run_id": "bot-1", "correlation_id": f"k-{client}",
        "ts_intent": now - 700_000, "ts_send": now, "client_order_id": client, "intent_id": f"i-{client}",
        "approved_id": f"a-{client}", "decision_id": f"d-{client}", "account_id": ACCOUNT, "strategy": strategy,
        "symbol": order.symbol, "venue": order.venue, "side": order.side.lower(), "status": "Submitted",
    }  # fmt: skip


def _liquidate(session: Session, now: int) -> None:
    order = _Order("binance.usdm", "ETHUSDT", "autoclose-17231612", 9_999, "2.000", random.Random(0))
    done = {
        "x": "CALCULATED",
        "X": "FILLED",
        "l": "2.000",
        "z": "2.000",
        "L": str(order.price),
        "t": 9_999_999,
    }
    event = order.event(now, **done, o="LIQUIDATION", f="IOC", n="0", N="USDT", m=False)
    session.venue.append((now, event))
    session.fills["binance.usdm", "ETHUSDT", "9999999"] = (order.client, Decimal(2), order.price, Decimal(0))
    flat = account_update([position("ETHUSDT", "0.000")], reason="ORDER", E=event["E"], T=event["T"])
    session.venue.append((now + 1, {"stream": "user", "data": json.loads(raw(flat))}))
