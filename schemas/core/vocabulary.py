"""The words that columns with a fixed vocabulary take; any other word makes the row a dead letter."""

from __future__ import annotations

from typing import Annotated

from schemas.columns import choice

ORDER_STATUSES = (
    "Submitted",
    "Acked",
    "Open",
    "PartiallyFilled",
    "Filled",
    "Canceled",
    "Rejected",
    "Failed",
    "Expired",
)
"""`Submitted` sent to the venue; `Acked` received by it; `Open` resting; `Failed` never reached the venue."""
FINAL_ORDER_STATUSES = ("Filled", "Canceled", "Rejected", "Failed", "Expired")
"""An order leaves none of these again; the view `orders_current` has the same list."""

OrderStatus = Annotated[str, choice(*ORDER_STATUSES)]
Side = Annotated[str, choice("buy", "sell")]
PositionSide = Annotated[str, choice("long", "short")]
Liquidity = Annotated[str, choice("maker", "taker")]
"""Whether the own order rested in the book (maker) or met one that did (taker)."""
RiskDecision = Annotated[str, choice("allow", "deny", "resize", "defer")]
"""`resize` lets a smaller quantity through, `defer` asks again later."""
Severity = Annotated[str, choice("debug", "info", "warning", "error", "critical")]
PayloadFormat = Annotated[str, choice("json", "msgpack", "arrow", "text", "binary")]
