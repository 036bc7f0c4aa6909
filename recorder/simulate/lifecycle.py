"""The life of an order: its states, which follows which, and one order's own record."""

from __future__ import annotations

from dataclasses import dataclass, field

from recorder.simulate.instruments import Instrument, Strategy

NEW = "New"
"""Before the first transition; never stored."""

TRANSITIONS: dict[str, frozenset[str]] = {
    NEW: frozenset({"Submitted"}),
    "Submitted": frozenset({"Acked", "Rejected", "Failed"}),
    "Acked": frozenset({"Open", "PartiallyFilled", "Filled", "Expired"}),
    "Open": frozenset({"PartiallyFilled", "Filled", "Canceled", "Expired"}),
    "PartiallyFilled": frozenset({"PartiallyFilled", "Filled", "Canceled", "Expired"}),
    "Filled": frozenset(),
    "Canceled": frozenset(),
    "Rejected": frozenset(),
    "Failed": frozenset(),
    "Expired": frozenset(),
}
"""Which status may follow which; a final status is followed by none."""


def is_final(status: str) -> bool:
    """Whether nothing follows."""
    return not TRANSITIONS[status]


@dataclass(slots=True)
class LiveOrder:
    """One order as the simulated system knows it; lots are whole, times in ns.

    `status` is the last *reported* one and `reported_lots` what its fills add up to; `done_lots` is what the
    venue has executed, whose reports may still be on their way. `next_report` is when the latest of these
    arrives.
    """

    correlation_id: str
    intent_id: str
    risk_decision_id: str
    client_order_id: str
    broker_order_id: str
    strategy: Strategy
    instrument: Instrument
    account_id: str
    side: str
    lots: int
    limit_ticks: int
    order_type: str
    tif: str
    risk_mode: str
    ts_intent: int
    approved_id: str = ""
    ts_send: int | None = None
    ts_ack: int | None = None
    ts_final: int | None = None
    status: str = NEW
    done_lots: int = 0
    reported_lots: int = 0
    closed_at_venue: bool = False
    next_report: int = 0
    history: list[str] = field(default_factory=list)

    @property
    def left_lots(self) -> int:
        """What the venue can still execute."""
        return 0 if self.closed_at_venue else self.lots - self.done_lots

    def move(self, status: str) -> None:
        """Take the next status.

        Raises:
            ValueError: it may not follow the present one.
        """
        if status not in TRANSITIONS[self.status]:
            raise ValueError(f"order {self.client_order_id}: {status} cannot follow {self.status}")
        self.status = status
        self.history.append(status)
