"""What the venue sends about one's own orders and account: one struct per message, with the bounds a real one keeps.

Amounts stay the strings they come as, so that every digit survives; what is no plain decimal number of at most 20
digits before the point and 18 behind it (as the tables hold) is refused here, as are numbers where strings belong,
missing fields and other types. Fields that no row needs are not named and are skipped.

Sources: Binance's API documents, "User Data Streams" of spot, USD-M, COIN-M and portfolio margin.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from recorder.normalise.binance.messages import Symbol, VenueId, VenueTime

Amount = Annotated[str, Meta(pattern=r"\A[0-9]{1,20}(\.[0-9]{1,18})?\Z")]
"""A price, quantity or balance that cannot be below zero."""
Signed = Annotated[str, Meta(pattern=r"\A-?[0-9]{1,20}(\.[0-9]{1,18})?\Z")]
"""A change, a profit, a position: it can be."""
ClientId = Annotated[str, Meta(max_length=128)]
Asset = Annotated[str, Meta(min_length=1, max_length=64)]
Word = Annotated[str, Meta(min_length=1, max_length=64)]
"""A kind or a state in the venue's own words."""
Reason = Annotated[str, Meta(max_length=4_096)]
VenueSide = Literal["BUY", "SELL"]
Hedge = Literal["BOTH", "LONG", "SHORT"]
Unit = Literal["UM", "CM"]
"""The business a portfolio margin account's futures event is of: USD-M or COIN-M."""
MaybeId = Annotated[int, Meta(ge=-1, le=2**63 - 1)]
"""-1 where there is none."""


class ExecutionReport(Struct, gc=False):
    """Spot and margin: one change of an order. `c` is the order's id but when it is cancelled: then the cancel's own,
    and `C` is the order's. When it is amended `C` is the id it had, and `c` the one it has from now on."""

    e: Literal["executionReport"]
    E: VenueTime
    s: Symbol
    c: ClientId
    S: VenueSide
    o: Word
    f: Word
    q: Amount
    p: Amount
    x: Word
    X: Word
    i: MaybeId
    l: Amount  # noqa: E741 - the venue's name
    z: Amount
    L: Amount
    T: VenueTime
    t: MaybeId
    m: bool
    w: bool = False
    O: VenueTime | None = None  # noqa: E741 - the venue's name
    """When the order was made; before `T` where something becomes of an order that was there."""
    P: Amount | None = None
    Q: Amount | None = None
    C: ClientId | None = None
    r: Reason | None = None
    eR: Reason | int | None = None  # noqa: N815 - the venue's name
    n: Signed | None = None
    N: Asset | None = None
    g: int = -1
    """Number of the order list the order is of; -1 for none."""
    a: VenueId | None = None
    """Number of the allocation, where the venue filled the order from another book (it then has no trade id)."""
    pl: Amount | None = None
    pL: Amount | None = None  # noqa: N815 - the venue's name
    """What self-trade prevention kept from being executed: quantity and price."""


class FuturesOrder(Struct, gc=False):
    """The order of an ORDER_TRADE_UPDATE."""

    s: Symbol
    c: ClientId
    S: VenueSide
    o: Word
    f: Word
    q: Amount
    p: Amount
    x: Word
    X: Word
    i: VenueId
    l: Amount  # noqa: E741 - the venue's name
    z: Amount
    L: Amount
    T: VenueTime
    t: MaybeId
    m: bool
    ot: Word | None = None
    sp: Amount | None = None
    N: Asset | None = None
    n: Signed | None = None
    R: bool = False
    cp: bool = False
    ps: Hedge = "BOTH"
    er: Reason | int | None = None


class OrderTradeUpdate(Struct, gc=False):
    """Futures: one change of an order."""

    e: Literal["ORDER_TRADE_UPDATE"]
    E: VenueTime
    o: FuturesOrder
    T: VenueTime | None = None
    fs: Unit | None = None


class TradeLite(Struct, gc=False):
    """USD-M: a fill, sooner than its ORDER_TRADE_UPDATE and without fee and status."""

    e: Literal["TRADE_LITE"]
    E: VenueTime
    s: Symbol
    c: ClientId
    S: VenueSide
    l: Amount  # noqa: E741 - the venue's name
    L: Amount
    t: VenueId
    i: VenueId
    m: bool
    T: VenueTime | None = None


class AlgoOrder(Struct, gc=False):
    """The conditional order of an ALGO_UPDATE; `ai` is the order it became, `aq` what that has executed."""

    caid: ClientId
    aid: VenueId
    s: Symbol
    S: VenueSide
    o: Word
    f: Word
    X: Word
    q: Amount
    p: Amount = "0"
    tp: Amount | None = None
    ai: ClientId | VenueId | None = None
    aq: Annotated[str, Meta(pattern=r"\A([0-9]{1,20}(\.[0-9]{1,18})?)?\Z")] = ""
    act: ClientId | None = None
    R: bool = False
    ps: Hedge = "BOTH"
    rm: Reason | None = None


class AlgoUpdate(Struct, gc=False):
    """USD-M: one change of a conditional order, before and after it enters the book."""

    e: Literal["ALGO_UPDATE"]
    E: VenueTime
    o: AlgoOrder
    T: VenueTime | None = None


class RejectedTrigger(Struct, gc=False):
    """The order of a CONDITIONAL_ORDER_TRIGGER_REJECT."""

    s: Symbol
    i: VenueId
    r: Reason


class TriggerReject(Struct, gc=False, rename={"or_": "or"}):
    """USD-M: a conditional order was triggered and then refused."""

    e: Literal["CONDITIONAL_ORDER_TRIGGER_REJECT"]
    E: VenueTime
    or_: RejectedTrigger
    T: VenueTime | None = None


class ListOrder(Struct, gc=False):
    """One order of a list."""

    s: Symbol
    i: MaybeId
    c: ClientId


class ListStatus(Struct, gc=False):
    """Spot: one change of an order list (OCO and alike). Its orders have their own executionReports, unless the list
    was refused."""

    e: Literal["listStatus"]
    E: VenueTime
    s: Symbol
    g: int
    c: Word
    l: Word  # noqa: E741 - the venue's name
    L: Word
    O: Annotated[list[ListOrder], Meta(min_length=1)]  # noqa: E741 - the venue's name
    r: Reason | None = None
    T: VenueTime | None = None


class FuturesBalance(Struct, gc=False):
    """One wallet of an ACCOUNT_UPDATE: balance, and its change by anything but profit and commission."""

    a: Asset
    wb: Signed
    bc: Signed = "0"


class FuturesPosition(Struct, gc=False):
    """One position of an ACCOUNT_UPDATE."""

    s: Symbol
    pa: Signed
    ep: Signed
    cr: Signed | None = None
    up: Signed | None = None
    ps: Hedge = "BOTH"


class AccountChange(Struct, gc=False):
    """Why an ACCOUNT_UPDATE came (`m`) and what changed."""

    m: Word
    B: list[FuturesBalance] = []
    P: list[FuturesPosition] = []


class AccountUpdate(Struct, gc=False):
    """Futures: wallets and positions as they are after a change. `i` is the account's alias (COIN-M)."""

    e: Literal["ACCOUNT_UPDATE"]
    E: VenueTime
    a: AccountChange
    T: VenueTime | None = None
    i: str | None = None
    fs: Unit | None = None


class SpotBalance(Struct, gc=False):
    """One asset: what is free, and what open orders lock."""

    a: Asset
    f: Amount
    l: Amount  # noqa: E741 - the venue's name


class AccountPosition(Struct, gc=False):
    """Spot: the assets an event may have changed; `u` is when the account changed."""

    e: Literal["outboundAccountPosition"]
    E: VenueTime
    B: list[SpotBalance]
    u: VenueTime | None = None


class BalanceUpdate(Struct, gc=False):
    """Spot: a deposit, a withdrawal or a transfer, as a difference."""

    e: Literal["balanceUpdate"]
    E: VenueTime
    a: Asset
    d: Signed
    T: VenueTime | None = None


class MarginPosition(Struct, gc=False):
    """One position of a MARGIN_CALL."""

    s: Symbol
    pa: Signed
    ps: Hedge = "BOTH"
    mp: Amount | None = None
    up: Signed | None = None
    mm: Amount | None = None


class MarginCall(Struct, gc=False):
    """Futures: positions whose margin runs out."""

    e: Literal["MARGIN_CALL"]
    E: VenueTime
    p: list[MarginPosition]
    cw: Signed | None = None
    fs: Unit | None = None
    i: str | None = None


class LeverageChange(Struct, gc=False):
    """The leverage of a symbol."""

    s: Symbol
    l: int  # noqa: E741 - the venue's name


class MarginMode(Struct, gc=False):
    """Whether one margin serves all assets."""

    j: bool


class ConfigUpdate(Struct, gc=False):
    """Futures: the leverage of a symbol or the margin mode of the account was changed."""

    e: Literal["ACCOUNT_CONFIG_UPDATE"]
    E: VenueTime
    ac: LeverageChange | None = None
    ai: MarginMode | None = None
    fs: Unit | None = None


class StreamEnd(Struct, gc=False):
    """No more events come until someone subscribes anew. The listen key it names is a secret and is not read."""

    e: Literal["listenKeyExpired", "eventStreamTerminated"]
    E: VenueTime
