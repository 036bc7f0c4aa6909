"""Messages about one's own account to rows of `positions_intraday`, `account_state` and `system_events`.

Every message that states a position or a wallet makes its rows, changed or not: what makes no row would be
acknowledged before the row it repeats is durable. The last state of each is kept for `snapshots`, which a timer asks
for; those rows are the recorder's own and repeat the venue time of the state, so that they never pass for newer news
than a message on its way.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from decimal import Context, Decimal
from typing import Any, TypeVar

import msgspec

from recorder.normalise.base import BadMessage, NormalisedRow
from recorder.normalise.binance.private_messages import (
    AccountPosition,
    AccountUpdate,
    BalanceUpdate,
    ConfigUpdate,
    MarginCall,
    StreamEnd,
)
from recorder.normalise.binance.rows import POSITIONS_MAX, WALLETS_MAX, Slot
from recorder.normalise.binance.state import known_time_ns
from schemas.core.operations import SystemEvent
from schemas.core.trading import AccountState, PositionIntraday

STATES_MAX = 4_096
"""Positions, and wallets, whose state is kept for snapshots; one more takes the place of the one changed first."""

WHOLE_DIGITS = 20
"""Digits before the point that the tables hold."""

_WIDE = Context(prec=64)
_SIDES = {"BOTH": None, "LONG": "long", "SHORT": "short"}
S = TypeVar("S", PositionIntraday, AccountState)


class PrivateAccount:
    """What messages about the account become, and what of it still holds."""

    def __init__(
        self, account_id: str, spot: str, venue_of: Callable[[str, str | None], str], filtered: Counter[str]
    ):
        self._account_id = account_id
        self._spot = spot
        self._venue_of = venue_of
        self._filtered = filtered
        self._positions: dict[tuple[str, str, str | None], PositionIntraday] = {}
        self._wallets: dict[tuple[str, str], AccountState] = {}

    def account_update(self, message: AccountUpdate, ts_local: int, _: bytes) -> list[NormalisedRow]:
        """Futures: a row of each position and wallet, and the event where it is no order's doing."""
        found = message.a
        _bounded("positions", len(found.P), POSITIONS_MAX)
        _bounded("wallets", len(found.B), WALLETS_MAX)
        ts = known_time_ns(message.T, message.E)
        unit = message.fs or ("CM" if message.i else None)
        venue = self._venue_of(found.P[0].s if found.P else "", unit)
        positions = [
            PositionIntraday(
                ts_local=ts_local,
                ts=ts,
                account_id=self._account_id,
                symbol=position.s,
                position_qty=position.pa,
                avg_price=position.ep if position.pa.strip("-0.") else None,
                realized_pnl=position.cr,
                unrealized_pnl=position.up,
                venue=venue,
                position_side=_SIDES[position.ps],
            )
            for position in found.P
        ]
        wallets = [
            AccountState(
                ts_local=ts_local,
                ts=ts,
                account_id=self._account_id,
                cash=balance.wb,
                venue=venue,
                currency=balance.a,
            )
            for balance in found.B
        ]
        rows = [*self._position_rows(positions), *self._wallet_rows(wallets)]
        if found.m != "ORDER":
            changes = [
                {"currency": balance.a, "change": balance.bc, "balance": balance.wb} for balance in found.B
            ]
            payload = {"reason": found.m, "changes": changes}
            said = ", ".join(f"{one['change']} {one['currency']}" for one in changes)
            text = f"{found.m}: {said or 'no balance'}"
            rows.append(self._event("balance_change", "info", venue, text, payload, ts_local, ts))
        return rows

    def account_position(self, message: AccountPosition, ts_local: int, _: bytes) -> list[NormalisedRow]:
        """Spot: a row of each asset that may have changed."""
        _bounded("wallets", len(message.B), WALLETS_MAX)
        ts = known_time_ns(message.u, message.E)
        return self._wallet_rows([
            AccountState(
                ts_local=ts_local,
                ts=ts,
                account_id=self._account_id,
                cash=_sum(balance.f, balance.l),
                margin_used=balance.l,
                margin_available=balance.f,
                venue=self._spot,
                currency=balance.a,
            )
            for balance in message.B
        ])  # fmt: skip

    def balance_update(self, message: BalanceUpdate, ts_local: int, _: bytes) -> list[NormalisedRow]:
        """Spot: a deposit, withdrawal or transfer; what the balance is now an outboundAccountPosition says."""
        payload = {"reason": "TRANSFER", "changes": [{"currency": message.a, "change": message.d}]}
        ts = known_time_ns(message.T, message.E)
        text = f"deposit, withdrawal or transfer: {message.d} {message.a}"
        return [self._event("balance_change", "info", self._spot, text, payload, ts_local, ts)]

    def margin_call(self, message: MarginCall, ts_local: int, _: bytes) -> list[NormalisedRow]:
        """Futures: the venue warns of a liquidation."""
        unit = message.fs or ("CM" if message.i else None)
        venue = self._venue_of(message.p[0].s if message.p else "", unit)
        payload = {
            "cross_wallet": message.cw,
            "positions": [msgspec.structs.asdict(one) for one in message.p],
        }
        text = f"margin call on {', '.join(one.s for one in message.p)[:500] or 'the account'}"
        ts = known_time_ns(None, message.E)
        return [self._event("margin_call", "critical", venue, text, payload, ts_local, ts)]

    def config_update(self, message: ConfigUpdate, ts_local: int, _: bytes) -> list[NormalisedRow]:
        """Futures: leverage or margin mode."""
        payload: dict[str, Any] = {}
        if message.ac is not None:
            payload |= {"symbol": message.ac.s, "leverage": message.ac.l}
        if message.ai is not None:
            payload |= {"multi_assets_margin": message.ai.j}
        venue = self._venue_of(message.ac.s if message.ac is not None else "", message.fs)
        text = ", ".join(f"{name} {value}" for name, value in payload.items()) or "configuration changed"
        ts = known_time_ns(None, message.E)
        return [self._event("account_config", "info", venue, text, payload, ts_local, ts)]

    def stream_end(
        self, message: StreamEnd, ts_local: int, venues: frozenset[str] | None
    ) -> list[NormalisedRow]:
        """No news of these venues (None for all) comes any more, so what is known of them no longer holds."""
        ts = known_time_ns(None, message.E)
        _forget(self._positions, venues)
        _forget(self._wallets, venues)
        named = sorted(venues or ())
        text = (
            f"{message.e}: no more private events of {', '.join(named) or 'any venue'} until subscribed anew"
        )
        payload = {"event": message.e, "venues": named}
        component = named[0] if len(named) == 1 else "binance"
        return [self._event("private_stream_end", "error", component, text, payload, ts_local, ts)]

    def snapshots(self, now_ns: int) -> list[NormalisedRow]:
        """A row of every position that is not flat and every wallet that is not empty, as last heard."""
        positions = [row for row in self._positions.values() if not _empty(row.position_qty)]
        wallets = [row for row in self._wallets.values() if not _empty(row.cash)]
        return [
            *(NormalisedRow("positions_intraday", Slot.POSITION, _at(row, now_ns)) for row in positions),
            *(NormalisedRow("account_state", Slot.WALLET, _at(row, now_ns)) for row in wallets),
        ]

    # -- parts --------------------------------------------------------------------------------------------------

    def _position_rows(self, positions: Sequence[PositionIntraday]) -> list[NormalisedRow]:
        for row in positions:
            key = (row.venue or "", row.symbol, row.position_side)
            self._keep(self._positions, key, row)
        return [
            NormalisedRow("positions_intraday", Slot.POSITION + place, row)
            for place, row in enumerate(positions)
        ]

    def _wallet_rows(self, wallets: Sequence[AccountState]) -> list[NormalisedRow]:
        for row in wallets:
            key = (row.venue or "", row.currency or "")
            self._keep(self._wallets, key, row)
        return [NormalisedRow("account_state", Slot.WALLET + place, row) for place, row in enumerate(wallets)]

    def _keep(self, states: dict[Any, S], key: tuple[Any, ...], row: S) -> None:
        """Keep a state for snapshots, an empty one too: one from before it may come again."""
        known = states.get(key)
        if known is not None and (known.ts or 0) > (row.ts or 0):
            return
        states.pop(key, None)
        if len(states) >= STATES_MAX:
            del states[next(iter(states))]
            self._filtered["snapshot_evicted"] += 1
        states[key] = row

    def _event(
        self, kind: str, severity: str, venue: str, text: str, payload: dict[str, Any], ts_local: int, ts: int
    ) -> NormalisedRow:
        return NormalisedRow(
            "system_events",
            Slot.ACCOUNT_EVENT,
            SystemEvent(
                ts_local=ts_local,
                ts=ts,
                severity=severity,
                kind=kind,
                component=venue,
                message=text,
                payload=json.dumps({"account_id": self._account_id, **payload}),
            ),
        )


def _forget(states: dict[Any, Any], venues: frozenset[str] | None) -> None:
    for key in [key for key in states if venues is None or key[0] in venues]:
        del states[key]


def _empty(amount: object) -> bool:
    return not str(amount).strip("-0.")


def _at(row: S, now_ns: int) -> S:
    """A state once more, at another time. (A copy: what a normaliser gave away may wait in a queue.)"""
    return msgspec.structs.replace(row, ts_local=now_ns)


def _sum(free: str, locked: str) -> str:
    """Both together, to the last digit."""
    total = format(_WIDE.add(Decimal(free), Decimal(locked)), "f")
    if len(total.partition(".")[0]) > WHOLE_DIGITS:
        raise BadMessage("bad_field", f"a balance of {free} and {locked}: more than {WHOLE_DIGITS} digits")
    return total


def _bounded(what: str, count: int, most: int) -> None:
    if count > most:
        raise BadMessage("too_many_rows", f"{count} {what} in one message; at most {most}")
