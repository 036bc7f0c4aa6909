"""Trading: orders, fills, positions, the account, and what risk control decided about them."""

from __future__ import annotations

from schemas.columns import Float, Id, Money, Name, Payload, Text, TimeNs
from schemas.core.rows import Event
from schemas.core.vocabulary import Liquidity, OrderStatus, PositionSide, RiskDecision, Side
from schemas.policy import Durability, Overflow, Partition, TablePolicy
from schemas.table import table

SEVEN_YEARS_DAYS = 2_557
"""Seven years with two leap days, so that no row goes before its seventh anniversary."""
THREE_YEARS_DAYS = 1_096
"""Three years with a leap day."""


class Order(Event, kw_only=True):
    """One transition of an order. A row carries what its event knows; the view `orders_current` puts them together.

    An order's key is (account_id, client_order_id), else (account_id, venue, symbol, broker_order_id): venues number
    orders within a symbol.
    """

    ts_intent: TimeNs | None = None
    """When the strategy wanted the order, ns, producer's clock."""
    ts_send: TimeNs | None = None
    """When the order was handed to the network, ns, producer's clock."""
    ts_ack: TimeNs | None = None
    """When the venue's acknowledgement arrived, ns, producer's clock."""
    ts_final: TimeNs | None = None
    """When news of the final status arrived, ns, producer's clock."""
    client_order_id: Id | None = None
    """The order's id as the producer chose it; with `account_id` its key."""
    broker_order_id: Id | None = None
    """The order's id as the venue gave it; null before the acknowledgement."""
    intent_id: Id | None = None
    """The intent the order came from."""
    approved_id: Id | None = None
    """The approval that let it pass."""
    decision_id: Id | None = None
    """The trade decision behind it."""
    account_id: Name = ""
    """The account at the venue or broker; empty where there is only one."""
    strategy: Name | None = None
    """The strategy that owns the order."""
    symbol: Name
    """The instrument, as the venue writes it."""
    venue: Name | None = None
    """Where the order was sent."""
    side: Side | None = None
    """buy or sell; null in a transition that does not repeat it."""
    qty: Money | None = None
    """Ordered quantity, in the venue's unit."""
    limit_px: Money | None = None
    """Limit price, in the quote currency; null for a market order."""
    order_type: Name | None = None
    """Kind of order, such as limit or market, as the producer names it."""
    tif: Name | None = None
    """Time in force, such as GTC or IOC, as the producer names it."""
    status: OrderStatus
    """The status this transition led to."""
    reject_reason: Text | None = None
    """Why the venue or the gateway refused it."""
    risk_mode: Name | None = None
    """The risk mode that held when the order was made."""
    risk_decision_id: Id | None = None
    """The row of `risk_decisions` that allowed or denied it."""
    notes: Text | None = None
    """Anything a person should know."""


class Fill(Event, kw_only=True):
    """One execution report as it came; the venue may send it twice, the view `fills_unique` has each fill once."""

    ts_exchange: TimeNs | None = None
    """Venue time of the execution, ns; null where the venue sends none."""
    client_order_id: Id | None = None
    """The order's id as the producer chose it."""
    broker_order_id: Id | None = None
    """The order's id as the venue gave it."""
    fill_id: Id
    """The venue's id of the execution; with venue, account, symbol and side its key: who trades with itself has two
    fills of one id."""
    strategy: Name | None = None
    """The strategy that owns the fill."""
    account_id: Name = ""
    """The account at the venue or broker; empty where there is only one."""
    symbol: Name
    """The instrument, as the venue writes it."""
    venue: Name = ""
    """Where it was executed; empty where there is only one."""
    side: Side
    """buy or sell, of the own order."""
    fill_qty: Money
    """Executed quantity, in the venue's unit; above zero."""
    fill_price: Money
    """Price of the execution, in the quote currency."""
    fees: Money | None = None
    """Fee of this execution in `fee_currency`; a rebate is negative."""
    fee_currency: Name | None = None
    """Currency of `fees`."""
    tax: Money | None = None
    """Tax of this execution, in the quote currency."""
    liquidity: Liquidity | None = None
    """maker or taker."""
    source: Name | None = None
    """The feed the fill came from, such as a private stream or a REST poll."""
    raw_json: Payload | None = None
    """The venue's message, byte for byte, without its secrets."""


class PositionIntraday(Event, kw_only=True):
    """A position as it stood at one moment, after each change or on a timer."""

    ts: TimeNs | None = None
    """The moment the position held, ns; null where the producer states none, `ts_local` then stands for it."""
    account_id: Name = ""
    """The account at the venue or broker; empty where there is only one."""
    symbol: Name
    """The instrument, as the venue writes it."""
    strategy: Name | None = None
    """The strategy that owns the position; null for the account's net position."""
    position_qty: Money
    """Signed quantity: above zero long, below zero short."""
    avg_price: Money | None = None
    """Average entry price, in the quote currency; null when flat."""
    realized_pnl: Money | None = None
    """Realised profit and loss since the session began, in the quote currency, before fees."""
    unrealized_pnl: Money | None = None
    """Profit and loss at the mark price, in the quote currency."""
    fees_accum: Money | None = None
    """Fees since the session began, in the quote currency."""
    gross_exposure: Money | None = None
    """Absolute market value, in the quote currency."""
    net_exposure: Money | None = None
    """Signed market value, in the quote currency."""
    venue: Name | None = None
    """Where the position is held; null where there is only one."""
    position_side: PositionSide | None = None
    """Which of the two positions a hedged account holds in a symbol: long or short; null for its only one."""


class AccountState(Event, kw_only=True):
    """An account, or its wallet in one currency, as it stood at one moment. A row carries what its event knows."""

    ts: TimeNs | None = None
    """The moment the state held, ns; null where the producer states none, `ts_local` then stands for it."""
    account_id: Name
    """The account at the venue or broker."""
    equity: Money | None = None
    """Value of the account with open positions at mark, in its currency."""
    cash: Money | None = None
    """Cash balance, in the account's currency."""
    margin_used: Money | None = None
    """Margin bound by positions and orders, in the account's currency."""
    margin_available: Money | None = None
    """Margin still free, in the account's currency."""
    day_pnl: Money | None = None
    """Profit and loss since the trading day began, in the account's currency."""
    risk_mode: Name | None = None
    """The risk mode that held."""
    venue: Name | None = None
    """Where the wallet is, such as `binance.usdm`; null where the account has only one."""
    currency: Name | None = None
    """The currency all amounts of the row are in, where an account has a wallet in each; else null."""


class RiskDecisionRow(Event, kw_only=True):
    """One decision of pre-trade risk control, with the inputs it saw."""

    ts: TimeNs | None = None
    """When it was decided, ns; null where the producer states none, `ts_local` then stands for it."""
    risk_decision_id: Id | None = None
    """Id of this decision; orders name it."""
    strategy: Name | None = None
    """The strategy that asked."""
    symbol: Name | None = None
    """The instrument asked about; null for a decision about the whole book."""
    client_order_id: Id | None = None
    """The order asked about."""
    intent_id: Id | None = None
    """The intent asked about."""
    decision: RiskDecision
    """allow, deny, resize or defer."""
    reason_code: Name | None = None
    """Short code of the rule that decided."""
    risk_mode: Name | None = None
    """The risk mode that held."""
    position: Money | None = None
    """Signed position that the rule saw, in the venue's unit."""
    notional: Money | None = None
    """Value of the order, in the quote currency."""
    pnl: Money | None = None
    """Profit and loss of the day that the rule saw, in the account's currency."""
    order_rate: Float | None = None
    """Orders a second that the rule saw."""


class GuardrailTransition(Event, kw_only=True):
    """One change of the risk mode, and what triggered it."""

    ts: TimeNs | None = None
    """When the mode changed, ns; null where the producer states none, `ts_local` then stands for it."""
    prev_mode: Name
    """The mode before."""
    next_mode: Name
    """The mode after."""
    trigger_metric: Name | None = None
    """The metric that crossed its limit; null for a change by hand."""
    value: Float | None = None
    """The metric's value, in its own unit."""
    reason: Text | None = None
    """Why, for people."""


ORDERS = table(
    "orders",
    Order,
    TablePolicy(
        durability=Durability.WAL,
        overflow=Overflow.SPILL,
        partition=Partition.MONTH,
        order_by=("account_id", "symbol", "ts_local"),
        keep_days=SEVEN_YEARS_DAYS,
    ),
)
FILLS = table(
    "fills",
    Fill,
    TablePolicy(
        durability=Durability.WAL,
        overflow=Overflow.SPILL,
        partition=Partition.MONTH,
        order_by=("account_id", "symbol", "ts_local"),
        keep_days=SEVEN_YEARS_DAYS,
    ),
)
POSITIONS_INTRADAY = table(
    "positions_intraday",
    PositionIntraday,
    TablePolicy(
        durability=Durability.WAL,
        overflow=Overflow.SPILL,
        partition=Partition.MONTH,
        order_by=("account_id", "symbol", "ts_local"),
        keep_days=THREE_YEARS_DAYS,
    ),
)
ACCOUNT_STATE = table(
    "account_state",
    AccountState,
    TablePolicy(
        durability=Durability.WAL,
        overflow=Overflow.SPILL,
        partition=Partition.MONTH,
        order_by=("account_id", "ts_local"),
        keep_days=THREE_YEARS_DAYS,
    ),
)
RISK_DECISIONS = table(
    "risk_decisions",
    RiskDecisionRow,
    TablePolicy(
        durability=Durability.WAL,
        overflow=Overflow.SPILL,
        partition=Partition.MONTH,
        order_by=("decision", "ts_local"),
        keep_days=SEVEN_YEARS_DAYS,
    ),
)
GUARDRAIL_TRANSITIONS = table(
    "guardrail_transitions",
    GuardrailTransition,
    TablePolicy(
        durability=Durability.WAL,
        overflow=Overflow.SPILL,
        partition=Partition.MONTH,
        order_by=("ts_local",),
        keep_days=SEVEN_YEARS_DAYS,
    ),
)
