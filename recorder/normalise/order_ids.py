"""From an order's ids to who wanted it: completes the venue's rows of `orders` and `fills` from the producer's.

A venue knows an order by its client id and by its own number. Strategy, intent, approval, decision, correlation and
send times only the producer's own order rows say. Each row passes through `take`: an order row that says any of these
is remembered, a row that lacks them gets them, by its client id, else by the venue's number (unique within account,
venue and symbol). What a row says itself always stands. A row that comes before the row that would explain it stays as
it is, and is counted.

The account is part of the key of orders and fills. A row without one takes that of the one account in which its client
id is known, but only from the first row of that order on: two messages about one fill never end under two accounts.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from schemas.core.trading import Fill, Order

MAX_ENTRIES = 100_000
"""Orders remembered unless told otherwise."""
ENTRY_BYTES = 3_000
"""What one takes in memory at most, with ids of up to about 40 characters (measured: 1.3 kB usually, 2.4 kB with four
numbers of the venue and an account nobody named)."""
VENUE_IDS_MAX = 4
"""Numbers of the venue that one order may be known by."""

WORDS = ("strategy", "intent_id", "approved_id", "decision_id", "correlation_id")
TIMES = ("ts_intent", "ts_send")
CONTEXT = (*WORDS, *TIMES)
"""What is remembered of an order."""

_COLUMNS = {"orders": Order.__struct_fields__, "fills": Fill.__struct_fields__}
_COMPLETED = {table: tuple(name for name in CONTEXT if name in fields) for table, fields in _COLUMNS.items()}

ClientKey = tuple[str, str]
"""Account and client id."""
VenueKey = tuple[str, str, str, str]
"""Account, venue (empty where a row does not say it), symbol, and the venue's number."""


class OrderIdentity(NamedTuple):
    """The ids that a row gives; empty where it gives none."""

    account: str
    client: str
    venue: str
    symbol: str
    number: str


class _Known:
    """What is known of one order: values in the order of `CONTEXT`, and the venue's numbers that lead to it."""

    __slots__ = ("context", "numbers")

    def __init__(self) -> None:
        self.context: list[Any] = [None] * len(CONTEXT)
        self.numbers: tuple[VenueKey, ...] = ()


class OrderIds:
    """The map, of at most `max_entries` orders; the one not seen for longest gives way. 0 completes nothing.

    Not for several threads at once. Memory stays below `max_entries` x `ENTRY_BYTES`.
    """

    def __init__(self, max_entries: int = MAX_ENTRIES):
        if max_entries < 0:
            raise ValueError(f"max_entries is {max_entries}; it is 0 or more")
        self.unresolved: Counter[str] = Counter()
        """Rows that passed without a strategy of their own and led to no known order, per table."""
        self.completed: Counter[str] = Counter()
        """Rows that got something, per table."""
        self.max_entries = max_entries
        self._orders: OrderedDict[ClientKey, _Known] = OrderedDict()
        self._numbers: dict[VenueKey, ClientKey] = {}
        self._accounts: dict[str, tuple[str, ...]] = {}
        self._nameless: OrderedDict[str, None] = OrderedDict()
        """Client ids whose first row without an account found none: they stay without."""

    def __len__(self) -> int:
        return len(self._orders)

    def wants(self, table: str) -> bool:
        """Whether rows of a table are remembered or completed."""
        return table in _COLUMNS and self.max_entries > 0

    def take(self, table: str, row: Any) -> Any:
        """The row, or a completed copy of it; rows of other tables, and what is no row, as they are. Never raises."""
        columns = _COLUMNS.get(table)
        if columns is None or not self.max_entries:
            return row
        values = _values(row, columns)
        if values is None:
            return row
        ids = _ids(values)
        key = self._find(ids)
        changes: dict[str, Any] = {}
        if key is not None:
            known = self._orders[key]
            self._orders.move_to_end(key)
            for name in _COMPLETED[table]:
                value = known.context[CONTEXT.index(name)]
                if value is not None and values.get(name) is None:
                    changes[name] = value
            if not ids.client:
                changes["client_order_id"] = key[1]
            if not ids.account and key[0] and ids.client not in self._nameless:
                changes["account_id"] = key[0]
        else:
            if values.get("strategy") is None:
                self.unresolved[table] += 1
            if ids.client and not ids.account:
                self._stay_nameless(ids.client)
        if table == "orders":
            self.learn(ids, {**values, **changes} if changes else values)
        if not changes:
            return row
        self.completed[table] += 1
        return _changed(row, columns, changes)

    def learn(self, ids: OrderIdentity, values: Mapping[str, Any], *, old: bool = False) -> None:
        """Remember what an order row says. `old` rows add what is not known and never push a newer order out."""
        client, account = values.get("client_order_id"), values.get("account_id")
        if account is None:
            account = ""
        if not isinstance(client, str) or not client or not isinstance(account, str):
            return
        key = (account, client)
        known = self._orders.get(key)
        if known is None:
            if not any(_fits(name, values.get(name)) for name in CONTEXT) or (
                old and len(self._orders) >= self.max_entries
            ):
                return
            known = self._add(key, old=old)
        for place, name in enumerate(CONTEXT):
            value = values.get(name)
            if _fits(name, value) and (not old or known.context[place] is None):
                known.context[place] = value
        if ids.number and ids.symbol:
            # Under the account the row came with too: the next row may come without, and with the number alone.
            for owner in {account, ids.account}:
                self._name(known, key, (owner, ids.venue, ids.symbol, ids.number))

    # -- parts --------------------------------------------------------------------------------------------------

    def _find(self, ids: OrderIdentity) -> ClientKey | None:
        """The order a row is about, if it is known."""
        if ids.client:
            if (ids.account, ids.client) in self._orders:
                return ids.account, ids.client
            accounts = self._accounts.get(ids.client, ())
            if not ids.account and len(accounts) == 1:
                return accounts[0], ids.client
        if not ids.number:
            return None
        key = self._numbers.get((ids.account, ids.venue, ids.symbol, ids.number))
        if key is None and ids.venue:
            key = self._numbers.get((ids.account, "", ids.symbol, ids.number))
        return key

    def _stay_nameless(self, client: str) -> None:
        self._nameless[client] = None
        if len(self._nameless) > self.max_entries:
            self._nameless.popitem(last=False)

    def _add(self, key: ClientKey, *, old: bool) -> _Known:
        known = self._orders[key] = _Known()
        account, client = key
        self._accounts[client] = (*self._accounts.get(client, ()), account)
        if old:
            self._orders.move_to_end(key, last=False)
        while len(self._orders) > self.max_entries:
            self._forget(*self._orders.popitem(last=False))
        return known

    def _forget(self, key: ClientKey, known: _Known) -> None:
        for number in known.numbers:
            self._numbers.pop(number, None)
        account, client = key
        left = tuple(other for other in self._accounts.get(client, ()) if other != account)
        if left:
            self._accounts[client] = left
        else:
            self._accounts.pop(client, None)

    def _name(self, known: _Known, key: ClientKey, number: VenueKey) -> None:
        """Let a number of the venue lead to an order: to the one that said so first."""
        if number in self._numbers:
            return
        self._numbers[number] = key
        known.numbers = (*known.numbers, number)
        if len(known.numbers) > VENUE_IDS_MAX:
            self._numbers.pop(known.numbers[0], None)
            known.numbers = known.numbers[1:]


def _fits(name: str, value: Any) -> bool:
    """Whether a value is what a column of that name holds, and not null."""
    return (isinstance(value, str) and bool(value)) if name in WORDS else type(value) is int


def _values(row: Any, columns: tuple[str, ...]) -> Mapping[str, Any] | None:
    """A row by column name; None for what is no row."""
    if isinstance(row, Mapping):
        return row
    if isinstance(row, msgspec.Struct):
        return {name: getattr(row, name, None) for name in columns}
    if isinstance(row, tuple) and len(row) == len(columns):
        return dict(zip(columns, row, strict=True))
    return None


def _changed(row: Any, columns: tuple[str, ...], changes: dict[str, Any]) -> Any:
    """A copy of a row with other values."""
    if isinstance(row, Mapping):
        return {**row, **changes}
    if isinstance(row, tuple):
        return tuple(changes.get(name, value) for name, value in zip(columns, row, strict=True))
    return msgspec.structs.replace(row, **changes)


def _ids(values: Mapping[str, Any]) -> OrderIdentity:
    texts = (
        value if isinstance(value, str) else ""
        for value in (
            values.get("account_id"), values.get("client_order_id"), values.get("venue"), values.get("symbol"),
            values.get("broker_order_id"),
        )
    )  # fmt: skip
    return OrderIdentity(*texts)
