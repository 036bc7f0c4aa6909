"""Positions and accounts, exact: average cost, realised profit and fees follow from the fills and nothing
else.

The rule, the same in tests that count again: a fill that enlarges a position moves the average price to
`(|position| x average + quantity x price) / (|position| + quantity)`, rounded half-even to 9 decimals; a fill
that reduces it realises `quantity x (price - average)`, with the sign of the position, and leaves the
average; one that crosses zero does both. Fees do not enter the realised profit.

`cash = opening + realised - fees`, `equity = cash + unrealised`, `margin_available = equity - margin_used`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from recorder.simulate.amount import ATTO, rounded_quotient

OPENING_CASH = 1_000_000 * ATTO
LEVERAGE = 5


@dataclass(slots=True)
class Position:
    """A position in one symbol; `qty` and `avg_price` in 1e-9, money in 1e-18."""

    qty: int = 0
    avg_price: int = 0
    realized: int = 0
    fees: int = 0

    def apply(self, signed_qty: int, price: int, fee: int) -> None:
        """Take one fill: quantity above zero bought, below zero sold."""
        self.fees += fee
        if self.qty and (self.qty > 0) != (signed_qty > 0):
            closed = min(abs(self.qty), abs(signed_qty))
            self.realized += closed * (price - self.avg_price) * (1 if self.qty > 0 else -1)
            opened = abs(signed_qty) - closed
            if opened:
                self.avg_price = price
        else:
            held, added = abs(self.qty), abs(signed_qty)
            self.avg_price = rounded_quotient(held * self.avg_price + added * price, held + added)
        self.qty += signed_qty
        if self.qty == 0:
            self.avg_price = 0

    def unrealized(self, mark: int) -> int:
        """Profit at the mark price (1e-9), in 1e-18."""
        return self.qty * (mark - self.avg_price)


@dataclass(slots=True)
class Account:
    """One account: the positions of all its strategies, by (symbol, strategy)."""

    account_id: str
    opening: int = OPENING_CASH
    positions: dict[tuple[str, str], Position] = field(default_factory=dict)

    def position(self, symbol: str, strategy: str) -> Position:
        """The position of a strategy in a symbol, flat when there was none."""
        return self.positions.setdefault((symbol, strategy), Position())

    def cash(self) -> int:
        """Opening balance plus realised profit minus fees."""
        return self.opening + sum(p.realized - p.fees for p in self.positions.values())
