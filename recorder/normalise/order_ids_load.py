"""Fills the map of order ids from the database, so that a recorder that starts knows the orders from before.

Two queries, bounded: how many rows there are in each hour of the table's last days, and then the newest rows of each
order from so far back as the map can hold. Grouping in the database was tried: five times slower than to sort and let
the map put an order's rows together, newest first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from recorder.log import get_logger
from recorder.normalise.order_ids import CONTEXT, TIMES, OrderIdentity, OrderIds
from recorder.sink.errors import SinkError
from schemas.quote import quote_name

log = get_logger("recorder.order_ids")

DAYS = 7
"""How far back, from the newest row of the table: an order that rested for longer is not known at start."""
ROWS_PER_ORDER = 4
"""No more rows than this for each order of the map are looked through (in whole hours)."""
ROWS_TAKEN = 2
"""The newest rows of an order that are taken: one may have the venue's number, the other the context."""
MAX_SECONDS = 20
"""How long a query may take; a start waits for it."""
MAX_QUERY_BYTES = 2_000_000_000
"""Memory of the server it may take."""


class Queries(Protocol):
    """What is needed of a sink."""

    async def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Sequence[Sequence[Any]]:
        """Rows of a statement, its parameters bound."""


LEARNT_AT_ONCE = 256

_BOUNDS = f"SETTINGS max_execution_time = {MAX_SECONDS}, max_memory_usage = {MAX_QUERY_BYTES}"
_NO_CLOCK_GONE_WILD = "ts_local <= now64(9) + toIntervalDay(1)"


def hours_statement(orders: str) -> str:
    """Rows of each hour, newest first, of the `days` before the newest row."""
    return f"""SELECT toUnixTimestamp(toStartOfHour(ts_local)) AS hour, count()
FROM {orders}
WHERE ts_local >= (SELECT max(ts_local) FROM {orders} WHERE {_NO_CLOCK_GONE_WILD}) - toIntervalDay({{days:UInt32}})
  AND {_NO_CLOCK_GONE_WILD}
GROUP BY hour
ORDER BY hour DESC
{_BOUNDS}"""


def rows_statement(orders: str) -> str:
    """The newest rows that say something, `rows` at most, since the time `since`."""
    context = ", ".join(f"toUnixTimestamp64Nano({name})" if name in TIMES else name for name in CONTEXT)
    says_something = " OR ".join(f"{name} IS NOT NULL" for name in CONTEXT)
    return f"""SELECT account_id, client_order_id, venue, symbol, broker_order_id, {context}
FROM {orders}
WHERE client_order_id != '' AND ({says_something})
  AND ts_local >= fromUnixTimestamp64Second({{since:Int64}}) AND {_NO_CLOCK_GONE_WILD}
ORDER BY ts_local DESC, _log DESC, _seq DESC
LIMIT {ROWS_TAKEN} BY account_id, client_order_id
LIMIT {{rows:UInt32}}
{_BOUNDS}"""


async def load_order_ids(sink: Queries, database: str, ids: OrderIds, *, days: int = DAYS) -> int | None:
    """Fill the map; how many orders that added, or None where the database did not answer (one line in the log).

    What rows said meanwhile stands: calling late, or again, is safe.
    """
    if not ids.max_entries:
        return 0
    orders = f"{quote_name(database)}.orders"
    known = len(ids)
    try:
        hours = await sink.query(hours_statement(orders), {"days": days})
        since = _since(hours, ids.max_entries * ROWS_PER_ORDER)
        bounds = {"since": since, "rows": ids.max_entries * ROWS_TAKEN}
        rows = await sink.query(rows_statement(orders), bounds)
    except (SinkError, TimeoutError) as error:
        log.warning(
            "orders from before the start are not known: rows of their venue stay without strategy",
            error=str(error)[:300],
        )
        return None
    for place, (account, client, venue, symbol, number, *context) in enumerate(rows):
        if place % LEARNT_AT_ONCE == 0:
            await asyncio.sleep(0)  # a service that learns late is recording meanwhile
        values = {
            "account_id": account,
            "client_order_id": client,
            **dict(zip(CONTEXT, context, strict=True)),
        }
        ids.learn(OrderIdentity(account, client, venue or "", symbol, number or ""), values, old=True)
    return len(ids) - known


def _since(hours: Sequence[Sequence[Any]], most: int) -> int:
    """The beginning of the hour, in seconds since the epoch, from which on there are about so many rows."""
    since = total = 0
    for hour, rows in hours:
        if since and total + rows > most:
            break
        since = int(hour)
        total += rows
    return since
