"""What a session really did, for tests and readers to compare a database with.

It is kept from the simulator's own state, row by row as rows are handed out, so that it speaks of exactly the
rows handed out so far. After the session's end it is complete: no order is left without a final status.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from recorder.simulate.amount import atto_decimal, nano_decimal


@dataclass(slots=True)
class OrderTruth:
    """One order: its last status, how many transitions and fills it had, and the quantity filled."""

    account_id: str
    strategy: str
    symbol: str
    side: str
    qty: Decimal
    correlation_id: str
    status: str = "New"
    transitions: int = 0
    fills: int = 0
    filled_n: int = 0

    @property
    def filled_qty(self) -> Decimal:
        """Sum of its fills."""
        return nano_decimal(self.filled_n)


@dataclass(slots=True)
class StrategyTruth:
    """The fills of one strategy, each counted once."""

    fills: int = 0
    qty_n: int = 0
    notional_a: int = 0
    fees_a: int = 0

    @property
    def qty(self) -> Decimal:
        """Sum of quantities, bought and sold alike."""
        return nano_decimal(self.qty_n)

    @property
    def notional(self) -> Decimal:
        """Sum of price x quantity."""
        return atto_decimal(self.notional_a)

    @property
    def fees(self) -> Decimal:
        """Sum of fees; rebates are negative."""
        return atto_decimal(self.fees_a)


@dataclass(frozen=True, slots=True)
class PositionTruth:
    """A position after its last fill; `avg_price` is 0 when flat."""

    qty: Decimal
    avg_price: Decimal
    realized_pnl: Decimal
    fees: Decimal


@dataclass(slots=True)
class Truth:
    """What the rows handed out so far say.

    `orders` by client_order_id, `fills` by strategy, `positions` by (account_id, symbol, strategy).
    `repeated_fills` counts the fills that were reported twice: `rows["fills"]` has them, `fills` and `orders` do
    not. `decisions` counts risk decisions by what was decided.
    """

    rows: Counter[str] = field(default_factory=Counter)
    orders: dict[str, OrderTruth] = field(default_factory=dict)
    fills: dict[str, StrategyTruth] = field(default_factory=dict)
    positions: dict[tuple[str, str, str], PositionTruth] = field(default_factory=dict)
    decisions: Counter[str] = field(default_factory=Counter)
    repeated_fills: int = 0

    @property
    def total_rows(self) -> int:
        """Rows of all tables."""
        return self.rows.total()

    def statuses(self) -> Counter[str]:
        """Orders by their last status."""
        return Counter(order.status for order in self.orders.values())

    def as_dict(self) -> dict[str, Any]:
        """A summary for JSON; amounts as text, so that no digit is lost."""
        return {
            "rows": dict(sorted(self.rows.items())),
            "orders": len(self.orders),
            "orders_by_status": dict(sorted(self.statuses().items())),
            "risk_decisions": dict(sorted(self.decisions.items())),
            "repeated_fills": self.repeated_fills,
            "strategies": {
                name: {
                    "fills": s.fills,
                    "qty": f"{s.qty:f}",
                    "notional": f"{s.notional:f}",
                    "fees": f"{s.fees:f}",
                }
                for name, s in sorted(self.fills.items())
            },
            "positions": [
                {
                    "account_id": key[0],
                    "symbol": key[1],
                    "strategy": key[2],
                    "position_qty": f"{p.qty:f}",
                    "avg_price": f"{p.avg_price:f}",
                    "realized_pnl": f"{p.realized_pnl:f}",
                    "fees": f"{p.fees:f}",
                }
                for key, p in sorted(self.positions.items())
            ],
        }
