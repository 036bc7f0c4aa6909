"""The venue's words for what happens to an order, and ours."""

from __future__ import annotations

from recorder.normalise.binance.private_messages import ExecutionReport, FuturesOrder

STATUSES = {
    "NEW": "Open",
    "PENDING_NEW": "Acked",
    "NEW_INSURANCE": "Acked",
    "NEW_ADL": "Acked",
    "PARTIALLY_FILLED": "PartiallyFilled",
    "FILLED": "Filled",
    "PENDING_CANCEL": "Open",
    "CANCELED": "Canceled",
    "REJECTED": "Rejected",
    "EXPIRED": "Expired",
    "EXPIRED_IN_MATCH": "Expired",
}
"""Statuses of spot and futures orders; `Open` only where the order rests in the book, else `Acked`."""

ALGO_STATUSES = {
    "NEW": "Acked",
    "TRIGGERING": "Acked",
    "CANCELED": "Canceled",
    "REJECTED": "Rejected",
    "EXPIRED": "Expired",
}
"""Statuses of conditional orders; TRIGGERED and FINISHED depend on what became of the order."""

LIST_STATUSES = frozenset({"EXECUTING", "ALL_DONE", "REJECT"})
"""Statuses of spot's order lists."""

SELF_TRADE = "self-trade prevention"

RESTING_TIFS = frozenset({"GTC", "GTX", "GTD", "GTE_GTC", "RPI"})
"""Times in force under which an order waits in the book."""

EXPIRY_REASONS = {
    "1": SELF_TRADE,
    "2": "IOC could not be filled completely",
    "3": "IOC could not be filled completely because of self-trade prevention",
    "4": "knocked out by a reduce-only order of higher priority, or it would have reversed the position",
    "5": "the account was liquidated",
    "6": "its GTE condition is not met",
    "7": "the symbol is delisted",
    "9": "market order could not be filled completely",
    "10": "FOK could not be filled completely",
    "11": "post-only order would have taken liquidity",
}
"""Futures: the numbers of `er`, but for the one below."""
TRIGGERED = "8"
"""Futures: `er` of a conditional order that expired because it was triggered."""

_OWN_ORDERS = (
    ("autoclose-", "liquidation"),
    ("adl_autoclose", "auto-deleveraging"),
    ("settlement_autoclose-", "settlement"),
    ("delivery_autoclose-", "settlement"),
    ("delivery-", "delivery"),
)
"""Client ids of orders that the venue makes itself begin with these."""


def reason_of(word: str | None) -> str | None:
    """Why an order was refused; None where the venue says that it was not."""
    return word if word and word != "NONE" else None


def _told(code: str | int | None, status: str) -> str | None:
    if status not in ("Expired", "Canceled", "Rejected") or code in (None, "", "0", 0, "NONE"):
        return None
    return str(code)


def spot_reason(message: ExecutionReport, status: str) -> str | None:
    """Why a spot order was refused, expired or was cancelled, in the venue's word; its numbers are not the futures'."""
    said = reason_of(message.r) or _told(message.eR, status)
    return said or (SELF_TRADE if message.X == "EXPIRED_IN_MATCH" else None)


def futures_reason(order: FuturesOrder, status: str) -> str | None:
    """Why a futures order expired or was cancelled; None where the venue does not say."""
    code = _told(order.er, status)
    if code is not None:
        return EXPIRY_REASONS.get(code, code)
    return SELF_TRADE if order.X == "EXPIRED_IN_MATCH" else None


def spot_notes(message: ExecutionReport) -> str | None:
    """What a person should know of a spot order."""
    notes = []
    if message.P is not None and message.P.strip("0."):
        notes.append(f"stop price {message.P}")
    if message.Q is not None and message.Q.strip("0."):
        notes.append(f"for {message.Q} of the quote currency")
    if message.g >= 0:
        notes.append(f"order list {message.g}")
    if message.x == "REPLACED":
        notes.append("amended")
    if message.x == "TRADE_PREVENTION":
        prevented = f": {message.pl} at {message.pL} not executed" if message.pl and message.pL else ""
        notes.append(f"{SELF_TRADE}{prevented}")
    return "; ".join(notes) or None


def futures_notes(order: FuturesOrder) -> str | None:
    """What a person should know of a futures order."""
    notes = [what for start, what in _OWN_ORDERS if order.c.startswith(start)][:1]
    if order.o == "LIQUIDATION" and not notes:
        notes.append("liquidation")
    if order.x == "CALCULATED":
        notes.append("executed by the venue outside the order book")
    if str(order.er) == TRIGGERED:
        notes.append("triggered")
    if order.x == "AMENDMENT":
        notes.append("amended")
    if order.sp is not None and order.sp.strip("0."):
        notes.append(f"stop price {order.sp}")
    if order.R:
        notes.append("reduce only")
    if order.cp:
        notes.append("closes the position")
    if order.ps != "BOTH":
        notes.append(f"{order.ps.lower()} position")
    return "; ".join(notes) or None
