"""Messages about one's own orders to rows of `orders` and `fills`.

A fill's id is the venue's trade id, the same in every message about it: of TRADE_LITE, the full event and any repeat
the view `fills_unique` makes one fill, in whatever order they come and whoever records them. An account that trades
with itself has two fills of one trade, told apart by their side. No row depends on what came before, with one
exception: a TRADE_LITE whose full event was seen is left out, for it says less. That is safe, because the full event is
a message of its own, delivered again until its rows are durable.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from decimal import Decimal

from recorder.normalise.base import BadMessage, NormalisedRow
from recorder.normalise.binance.private_messages import (
    AlgoOrder,
    AlgoUpdate,
    ExecutionReport,
    FuturesOrder,
    ListStatus,
    OrderTradeUpdate,
    TradeLite,
    TriggerReject,
)
from recorder.normalise.binance.private_words import (
    ALGO_STATUSES,
    LIST_STATUSES,
    RESTING_TIFS,
    STATUSES,
    TRIGGERED,
    futures_notes,
    futures_reason,
    reason_of,
    spot_notes,
    spot_reason,
)
from recorder.normalise.binance.rows import LEGS_MAX, Slot
from recorder.normalise.binance.state import known_time_ns
from schemas.core.trading import Fill, Order
from schemas.core.vocabulary import FINAL_ORDER_STATUSES

FULL_FILLS_MAX = 16_384
"""Fills whose full event is remembered: 4 MB. A TRADE_LITE that comes later than that many makes its row, and
`fills_unique` still one fill."""

FullFill = tuple[str, str, str, int]
"""Venue, symbol, side and trade id: all that is in the key of `fills_unique` but the account."""

SIDES = {"BUY": "buy", "SELL": "sell"}
_FINAL = frozenset(FINAL_ORDER_STATUSES)
_CONDITIONAL = ("STOP_LOSS", "TAKE_PROFIT")
_EXECUTIONS = ("TRADE", "CALCULATED")
"""Execution types that are a fill; CALCULATED is the venue's own, of a liquidation or deleveraging."""


class PrivateOrders:
    """What messages about orders become. `venue_of` names the venue of a futures symbol, `spot` is that of spot."""

    def __init__(
        self,
        account_id: str,
        spot: str,
        venue_of: Callable[[str, str | None], str],
        filtered: Counter[str],
        ignored: Counter[str],
    ):
        self._account_id = account_id
        self._spot = spot
        self._venue_of = venue_of
        self._filtered = filtered
        self._ignored = ignored
        self._full_fills: OrderedDict[FullFill, None] = OrderedDict()

    def execution_report(self, message: ExecutionReport, ts_local: int, body: bytes) -> list[NormalisedRow]:
        """Spot: the order's transition, its fill, and where an amended order goes on under another id that one."""
        status = self._status(message.X, message.w and message.o != "MARKET", message.f)
        named = message.c
        if message.x in ("CANCELED", "REPLACED") and message.C not in (None, "", "null"):
            named = message.C or message.c
        amended = message.x == "REPLACED" and named != message.c
        order = self._order(self._spot, message, message.c, status, ts_local, message.o)
        order.reject_reason = spot_reason(message, status)
        order.notes = spot_notes(message)
        if message.x == "NEW" and not _acknowledged_before(message):
            order.ts_ack = ts_local
        rows = [NormalisedRow("orders", Slot.ORDER, order)]
        if amended:
            # One id is one order: the one it had ends here. Its fills stay under it, by the venue's id they are one.
            before = self._order(self._spot, message, named, "Canceled", ts_local, message.o)
            before.notes = f"amended; goes on as {message.c}"
            before.qty = before.limit_px = None
            rows.append(NormalisedRow("orders", Slot.AMENDED, before))
        else:
            order.client_order_id = named or None
        if message.x == "TRADE":
            fill_id = str(message.t) if message.t >= 0 else ""
            if not fill_id and message.a is not None:
                fill_id = f"allocation-{message.a}"
            rows.append(
                self._fill(self._spot, message, fill_id, order.client_order_id, ts_local, message.T, body)
            )
        return rows

    def order_trade_update(
        self, message: OrderTradeUpdate, ts_local: int, body: bytes
    ) -> list[NormalisedRow]:
        """Futures: the order's transition, and its fill."""
        found = message.o
        venue = self._venue_of(found.s, message.fs)
        status = self._status(found.X, found.o == "LIMIT", found.f)
        if status == "Expired" and str(found.er) == TRIGGERED:
            status = "Acked"  # under the same ids it goes on as the order that it became
        order = self._order(venue, found, found.c, status, ts_local, found.ot or found.o)
        order.reject_reason = futures_reason(found, status)
        order.notes = futures_notes(found)
        if found.x == "NEW" and found.ot in (None, found.o):
            order.ts_ack = ts_local  # not again when a conditional order becomes what it was to become
        rows = [NormalisedRow("orders", Slot.ORDER, order)]
        if found.x in _EXECUTIONS and (found.x == "TRADE" or found.l.strip("0.")):
            # The venue's own executions may have no trade id; what the order had executed by then is as good.
            fill_id = (
                str(found.t) if found.t > 0 else f"{found.i}-{found.z}" if found.x == "CALCULATED" else ""
            )
            rows.append(self._fill(venue, found, fill_id, order.client_order_id, ts_local, found.T, body))
            if found.t > 0:
                self._remember((venue, found.s, found.S, found.t))
        return rows

    def trade_lite(self, message: TradeLite, ts_local: int, body: bytes) -> list[NormalisedRow]:
        """USD-M: a fill without its fee, unless the full event was seen."""
        venue = self._venue_of(message.s, None)
        fill_id = str(message.t) if message.t else ""
        time = message.E if message.T is None else message.T
        row = self._fill(venue, message, fill_id, message.c or None, ts_local, time, body)
        if (venue, message.s, message.S, message.t) in self._full_fills:
            self._filtered["trade_lite_after_full"] += 1
            return []
        return [row]

    def algo_update(self, message: AlgoUpdate, ts_local: int, _: bytes) -> list[NormalisedRow]:
        """USD-M: the transition of a conditional order. The numbers of these are not those of orders."""
        found = message.o
        status = self._algo_status(found)
        order = Order(
            ts_local=ts_local,
            client_order_id=found.caid or None,
            broker_order_id=f"algo-{found.aid}",
            account_id=self._account_id,
            symbol=found.s,
            venue=self._venue_of(found.s, None),
            side=SIDES[found.S],
            qty=_unless_zero(found.q),
            limit_px=_unless_zero(found.p),
            order_type=found.o,
            tif=found.f,
            status=status,
            reject_reason=(found.rm or None) if status in _FINAL and status != "Filled" else None,
            ts_ack=ts_local if found.X == "NEW" else None,
            ts_final=ts_local if status in _FINAL else None,
        )
        notes = ["conditional order"]
        if found.tp is not None and found.tp.strip("0."):
            notes.append(f"trigger price {found.tp}")
        if found.ai:
            notes.append(f"became order {found.ai}")
        order.notes = "; ".join(notes)
        return [NormalisedRow("orders", Slot.ORDER, order)]

    def trigger_reject(self, message: TriggerReject, ts_local: int, _: bytes) -> list[NormalisedRow]:
        """USD-M: a conditional order was triggered and then refused."""
        found = message.or_
        order = Order(
            ts_local=ts_local,
            broker_order_id=str(found.i),
            account_id=self._account_id,
            symbol=found.s,
            venue=self._venue_of(found.s, None),
            status="Rejected",
            reject_reason=found.r or "refused when it was triggered",
            ts_final=ts_local,
        )
        return [NormalisedRow("orders", Slot.ORDER, order)]

    def list_status(self, message: ListStatus, ts_local: int, _: bytes) -> list[NormalisedRow]:
        """Spot: the orders of a list that was refused. In all else each order of a list speaks for itself: the list
        does not know whether its orders rest, and a row of it would hide what they said. A refusal without a reason
        may be that of a cancellation: the orders then go on."""
        if message.L not in LIST_STATUSES:
            raise BadMessage(
                "bad_field", f'status "{message.L}" of an order list is none the venue is known for'
            )
        reason = reason_of(message.r)
        if message.L != "REJECT" or reason is None:
            self._ignored[f"listStatus.{message.L}"] += 1
            return []
        if len(message.O) > LEGS_MAX:
            raise BadMessage("too_many_rows", f"a list of {len(message.O)} orders; at most {LEGS_MAX}")
        return [
            NormalisedRow(
                "orders",
                Slot.LEG + place,
                Order(
                    ts_local=ts_local,
                    client_order_id=leg.c or None,
                    broker_order_id=_number(leg.i),
                    account_id=self._account_id,
                    symbol=leg.s,
                    venue=self._spot,
                    status="Rejected",
                    reject_reason=reason,
                    ts_final=ts_local,
                    notes=f"order list {message.g} ({message.c})",
                ),
            )
            for place, leg in enumerate(message.O)
        ]

    # -- parts --------------------------------------------------------------------------------------------------

    def _order(
        self,
        venue: str,
        message: ExecutionReport | FuturesOrder,
        client_order_id: str | None,
        status: str,
        ts_local: int,
        order_type: str,
    ) -> Order:
        return Order(
            ts_local=ts_local,
            client_order_id=client_order_id or None,
            broker_order_id=_number(message.i),
            account_id=self._account_id,
            symbol=message.s,
            venue=venue,
            side=SIDES[message.S],
            qty=_unless_zero(message.q),
            limit_px=_unless_zero(message.p),
            order_type=order_type,
            tif=message.f,
            status=status,
            ts_final=ts_local if status in _FINAL else None,
        )

    def _fill(
        self,
        venue: str,
        message: ExecutionReport | FuturesOrder | TradeLite,
        fill_id: str,
        client_order_id: str | None,
        ts_local: int,
        time: int,
        body: bytes,
    ) -> NormalisedRow:
        if not fill_id:
            raise BadMessage(
                "bad_field", f"a fill of order {message.i} without a trade id (t is {message.t})"
            )
        if not message.l.strip("0.") or not message.L.strip("0."):
            raise BadMessage(
                "bad_field", f"fill {fill_id} of {message.l} at {message.L}: both are above zero"
            )
        if isinstance(message, TradeLite):
            source, fees, fee_currency = "TRADE_LITE", None, None
        else:
            source = "executionReport" if isinstance(message, ExecutionReport) else "ORDER_TRADE_UPDATE"
            fees, fee_currency = message.n, message.N
        return NormalisedRow(
            "fills",
            Slot.FILL,
            Fill(
                ts_local=ts_local,
                ts_exchange=known_time_ns(None, time),
                client_order_id=client_order_id,
                broker_order_id=_number(message.i),
                fill_id=fill_id,
                account_id=self._account_id,
                symbol=message.s,
                venue=venue,
                side=SIDES[message.S],
                fill_qty=message.l,
                fill_price=message.L,
                fees=fees,
                fee_currency=fee_currency,
                liquidity="maker" if message.m else "taker",
                source=source,
                raw_json=body,
            ),
        )

    def _status(self, word: str, rests: bool, tif: str) -> str:
        status = STATUSES.get(word)
        if status is None:
            raise BadMessage("bad_field", f'order status "{word}" is none the venue is known for')
        if status == "Open" and not (rests and tif in RESTING_TIFS):
            return "Acked"
        return status

    def _algo_status(self, order: AlgoOrder) -> str:
        if order.X == "TRIGGERED":
            return "Open" if order.act == "LIMIT" and order.f in RESTING_TIFS else "Acked"
        if order.X == "FINISHED":
            # The order it became is done: executed, or cancelled with a rest (none is known where all is closed).
            done, wanted = Decimal(order.aq or "0"), Decimal(order.q)
            return "Filled" if done and done >= wanted else "Canceled"
        status = ALGO_STATUSES.get(order.X)
        if status is None:
            raise BadMessage(
                "bad_field", f'status "{order.X}" of a conditional order is none the venue is known for'
            )
        return status

    def _remember(self, fill: FullFill) -> None:
        self._full_fills[fill] = None
        self._full_fills.move_to_end(fill)
        if len(self._full_fills) > FULL_FILLS_MAX:
            self._full_fills.popitem(last=False)


def _acknowledged_before(message: ExecutionReport) -> bool:
    """Whether a NEW is not the first one of its order: a conditional order comes into the book when it is triggered,
    one that waited for another of its list when that one is filled."""
    if message.w and message.o.startswith(_CONDITIONAL):
        return True
    return message.g >= 0 and message.O is not None and message.O < message.T


def _number(order_id: int) -> str | None:
    """The venue's number of an order; None where it gave none."""
    return str(order_id) if order_id >= 0 else None


def _unless_zero(amount: str) -> str | None:
    """An amount; None for zero, which the venue writes where there is none."""
    return amount if amount.strip("0.") else None
