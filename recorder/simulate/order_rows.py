"""The rows of one order: what risk control said, its transitions, its fills."""

from __future__ import annotations

import msgspec

from recorder.simulate.amount import atto_text, nano_text
from recorder.simulate.lifecycle import LiveOrder
from schemas.core.trading import Fill, Order, RiskDecisionRow


def risk_row(
    order: LiveOrder,
    now: int,
    run_id: str,
    *,
    decision: str,
    reason: str,
    position: int,
    notional: int,
    pnl: int,
    rate: int,
) -> RiskDecisionRow:
    """What risk control decided on an intent, and what it saw: position in 1e-9, money in 1e-18."""
    return RiskDecisionRow(
        ts_local=now,
        run_id=run_id,
        correlation_id=order.correlation_id,
        ts=now,
        risk_decision_id=order.risk_decision_id,
        strategy=order.strategy.name,
        symbol=order.instrument.symbol,
        client_order_id=order.client_order_id,
        intent_id=order.intent_id,
        decision=decision,
        reason_code=reason,
        risk_mode=order.risk_mode,
        position=nano_text(position),
        notional=atto_text(notional),
        pnl=atto_text(pnl),
        order_rate=float(rate),
    )


def transition_row(order: LiveOrder, now: int, run_id: str, reject_reason: str | None) -> Order:
    """An order as it stands after a transition."""
    limit = None if order.order_type == "market" else nano_text(order.limit_ticks * order.instrument.tick)
    return Order(
        ts_local=now,
        run_id=run_id,
        correlation_id=order.correlation_id,
        ts_intent=order.ts_intent,
        ts_send=order.ts_send,
        ts_ack=order.ts_ack,
        ts_final=order.ts_final,
        client_order_id=order.client_order_id,
        broker_order_id=order.broker_order_id or None,
        intent_id=order.intent_id,
        approved_id=order.approved_id,
        account_id=order.account_id,
        strategy=order.strategy.name,
        symbol=order.instrument.symbol,
        venue=order.instrument.venue,
        side=order.side,
        qty=nano_text(order.lots * order.instrument.lot),
        limit_px=limit,
        order_type=order.order_type,
        tif=order.tif,
        status=order.status,
        reject_reason=reject_reason,
        risk_mode=order.risk_mode,
        risk_decision_id=order.risk_decision_id,
    )


def fill_row(
    order: LiveOrder,
    now: int,
    run_id: str,
    *,
    fill_id: str,
    ts_exchange: int,
    qty: int,
    price: int,
    fee: int,
    liquidity: str,
) -> Fill:
    """An execution report: quantity and price in 1e-9, the fee in 1e-18."""
    qty_text, price_text, symbol = nano_text(qty), nano_text(price), order.instrument.symbol
    message = (
        f'{{"e":"execution","i":"{fill_id}","c":"{order.client_order_id}","s":"{symbol}",'
        f'"q":"{qty_text}","p":"{price_text}","T":{ts_exchange // 1_000_000}}}'
    )
    return Fill(
        ts_local=now,
        run_id=run_id,
        correlation_id=order.correlation_id,
        ts_exchange=ts_exchange,
        client_order_id=order.client_order_id,
        broker_order_id=order.broker_order_id,
        fill_id=fill_id,
        strategy=order.strategy.name,
        account_id=order.account_id,
        symbol=symbol,
        venue=order.instrument.venue,
        side=order.side,
        fill_qty=qty_text,
        fill_price=price_text,
        fees=atto_text(fee),
        fee_currency=order.instrument.quote_currency,
        liquidity=liquidity,
        source="simulate.stream",
        raw_json=message.encode(),
    )


def repeated_fill_row(row: Fill, now: int) -> Fill:
    """The same execution once more, as a reconciling poll finds it later."""
    return msgspec.structs.replace(row, ts_local=now, source="simulate.poll")
