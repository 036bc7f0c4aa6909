"""Fills the map of order ids from the database, so that a recorder that starts knows the orders from before.

One query, bounded: the newest orders of the table's last days, at most as many as the map holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from recorder.log import get_logger
from recorder.normalise.order_ids import CONTEXT, TIMES, OrderIdentity, OrderIds
from recorder.sink.errors import SinkError
from schemas.render import quote_name

log = get_logger("recorder.order_ids")

DAYS = 7
"""How far back, from the newest row of the table: an order that rested for longer is not known at start."""
MAX_SECONDS = 20
"""How long the query may take; a start waits for it."""
MAX_QUERY_BYTES = 2_000_000_000
"""Memory of the server it may take."""


class Queries(Protocol):
    """What is needed of a sink."""

    async def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Sequence[Sequence[Any]]:
        """Rows of a statement, its parameters bound."""


def statement(database: str) -> str:
    """The query; parameters are `days` and `orders`."""
    context = ",\n    ".join(
        f"argMax(toUnixTimestamp64Nano(o.{name}), o.place)" if name in TIMES else f"argMax(o.{name}, o.place)"
        for name in CONTEXT
    )
    says_something = " OR ".join(f"o.{name} IS NOT NULL" for name in CONTEXT)
    orders = f"{quote_name(database)}.orders"
    return f"""SELECT
    toString(o.account_id), o.client_order_id, groupUniqArray(4)(o.number),
    {context}
FROM
(
    SELECT
        *, (ts_local, _log, _seq) AS place,
        (toString(coalesce(venue, '')), toString(symbol), coalesce(broker_order_id, '')) AS number
    FROM {orders}
    WHERE client_order_id != ''
      AND ts_local >= (SELECT max(ts_local) FROM {orders}) - toIntervalDay({{days:UInt32}})
) AS o
GROUP BY o.account_id, o.client_order_id
HAVING countIf({says_something}) > 0
ORDER BY max(o.ts_local) DESC
LIMIT {{orders:UInt32}}
SETTINGS max_execution_time = {MAX_SECONDS}, max_memory_usage = {MAX_QUERY_BYTES}"""


async def load_order_ids(sink: Queries, database: str, ids: OrderIds, *, days: int = DAYS) -> int | None:
    """Fill the map; how many orders the query gave, or None where it could not be asked (one line in the log).

    What rows said meanwhile stands: calling late, or again, is safe.
    """
    if not ids.max_entries:
        return 0
    try:
        rows = await sink.query(statement(database), {"days": days, "orders": ids.max_entries})
    except (SinkError, TimeoutError) as error:
        log.warning(
            "orders from before the start are not known: rows of their venue stay without strategy",
            error=str(error)[:300],
        )
        return None
    for account, client, numbers, *context in rows:
        values = {
            "account_id": account,
            "client_order_id": client,
            **dict(zip(CONTEXT, context, strict=True)),
        }
        for venue, symbol, number in numbers:
            ids.learn(OrderIdentity(account, client, venue, symbol, number), values, old=True)
    return len(rows)
