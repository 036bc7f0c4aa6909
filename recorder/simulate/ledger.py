"""What fills do to positions and accounts, and the rows that report how these stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from recorder.simulate.amount import atto_decimal, atto_text, nano_decimal, nano_text
from recorder.simulate.instruments import Strategy
from recorder.simulate.lifecycle import LiveOrder
from recorder.simulate.market import Market
from recorder.simulate.portfolio import LEVERAGE, Account, Position
from recorder.simulate.truth import PositionTruth, StrategyTruth, Truth
from schemas.core.trading import AccountState, PositionIntraday


class Ledger:
    """All accounts of a session, marked at its markets; it tells the truth what each fill did."""

    def __init__(
        self, markets: Mapping[str, Market], strategies: Sequence[Strategy], truth: Truth, run_id: str = ""
    ) -> None:
        self.accounts: dict[str, Account] = {}
        self._markets = markets
        self._truth = truth
        self._run_id = run_id
        for market in markets.values():
            for strategy in strategies:
                account_id = strategy.account_id(market.instrument.venue)
                self.accounts.setdefault(account_id, Account(account_id))

    def position(self, order: LiveOrder) -> Position:
        """The position that an order changes."""
        return self.accounts[order.account_id].position(order.instrument.symbol, order.strategy.name)

    def day_pnl(self, account: Account) -> int:
        """Equity over the opening balance, in 1e-18."""
        return account.cash() + self._unrealized(account) - account.opening

    def book_fill(self, order: LiveOrder, qty: int, price: int, fee: int) -> None:
        """Take one fill of an order: quantity and price in 1e-9, the fee in 1e-18."""
        position = self.position(order)
        position.apply(qty if order.side == "buy" else -qty, price, fee)
        of_order = self._truth.orders[order.client_order_id]
        of_order.fills += 1
        of_order.filled_n += qty
        of_strategy = self._truth.fills.setdefault(order.strategy.name, StrategyTruth())
        of_strategy.fills += 1
        of_strategy.qty_n += qty
        of_strategy.notional_a += qty * price
        of_strategy.fees_a += fee
        key = (order.account_id, order.instrument.symbol, order.strategy.name)
        self._truth.positions[key] = PositionTruth(
            nano_decimal(position.qty),
            nano_decimal(position.avg_price),
            atto_decimal(position.realized),
            atto_decimal(position.fees),
        )

    def position_row(
        self,
        ts: int,
        ts_local: int,
        account_id: str,
        symbol: str,
        strategy: str,
        correlation_id: str | None = None,
    ) -> PositionIntraday:
        """A position as it stands; `ts` is the moment, `ts_local` when the row is written."""
        position = self.accounts[account_id].position(symbol, strategy)
        mark = self._markets[symbol].mark
        return PositionIntraday(
            ts_local=ts_local,
            run_id=self._run_id,
            correlation_id=correlation_id,
            ts=ts,
            account_id=account_id,
            symbol=symbol,
            strategy=strategy,
            position_qty=nano_text(position.qty),
            avg_price=nano_text(position.avg_price) if position.qty else None,
            realized_pnl=atto_text(position.realized),
            unrealized_pnl=atto_text(position.unrealized(mark)),
            fees_accum=atto_text(position.fees),
            gross_exposure=atto_text(abs(position.qty) * mark),
            net_exposure=atto_text(position.qty * mark),
        )

    def account_row(
        self, ts: int, ts_local: int, account: Account, risk_mode: str, correlation_id: str | None = None
    ) -> AccountState:
        """An account as it stands; `ts` is the moment, `ts_local` when the row is written."""
        cash = account.cash()
        equity = cash + self._unrealized(account)
        gross = sum(abs(p.qty) * self._markets[symbol].mark for (symbol, _), p in account.positions.items())
        used = gross // LEVERAGE
        return AccountState(
            ts_local=ts_local,
            run_id=self._run_id,
            correlation_id=correlation_id,
            ts=ts,
            account_id=account.account_id,
            equity=atto_text(equity),
            cash=atto_text(cash),
            margin_used=atto_text(used),
            margin_available=atto_text(equity - used),
            day_pnl=atto_text(equity - account.opening),
            risk_mode=risk_mode,
        )

    def _unrealized(self, account: Account) -> int:
        return sum(p.unrealized(self._markets[symbol].mark) for (symbol, _), p in account.positions.items())
