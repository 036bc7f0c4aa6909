"""What an export asks the database. The only module here with I/O, by a function that it is given.

Rows are asked for in slices of time, so that no answer of the database is large; all of them together are held.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from recorder.export_hftbacktest.errors import NothingRecorded, SeveralSources
from schemas.core.flags import MarketFlag
from schemas.quote import quote_moment, quote_text

Ask = Callable[[str], pa.Table]
"""Asks the recorder's database one SELECT. Its errors pass through."""
Show = Callable[[int, int], None]
"""Told how many rows were read, of how many."""

SLICE_ROWS = 500_000
SLICES_MAX = 10_000
ANSWER_NS = 3_600 * 10**9
"""Rows of an order are looked for this long behind the time that is asked for."""
_TIMES = (
    "toUnixTimestamp64Nano(ts_local) AS local_ns, toUnixTimestamp64Nano(ts_exchange) AS venue_ns, _log, _seq"
)
_TRADES = (
    f"SELECT {_TIMES}, last_price AS px, last_qty AS qty, last_side = 'sell' AS is_sell, "
    f"bitAnd(flags, {int(MarketFlag.AGGREGATED)}) != 0 AS is_aggregated FROM market_data "
    f"WHERE bitAnd(flags, {int(MarketFlag.TRADE)}) != 0 AND bitAnd(flags, {int(MarketFlag.OFF_BOOK)}) = 0 "
    "AND isNotNull(last_price) AND isNotNull(last_qty) AND isNotNull(last_side)"
)
_QUOTES = (
    f"SELECT {_TIMES}, bid_px1 AS bid_px, bid_sz1 AS bid_sz, ask_px1 AS ask_px, ask_sz1 AS ask_sz FROM market_data "
    f"WHERE bitAnd(flags, {int(MarketFlag.QUOTE)}) != 0"
)
_DELTAS = f"SELECT {_TIMES}, bid_pxs, bid_szs, ask_pxs, ask_szs, is_snapshot FROM book_deltas WHERE 1"


@dataclass(frozen=True)
class Wanted:
    """Which rows: of one symbol, of a source if it has several, from `since_ns` to before `until_ns` by `ts_local`."""

    symbol: str
    source: str | None = None
    since_ns: int | None = None
    until_ns: int | None = None


@dataclass(frozen=True)
class Found:
    """What there is of it: the source, rows of each table, and the first and last `ts_local`, ns."""

    source: str
    quotes_and_trades: int
    deltas: int
    first_ns: int
    last_ns: int


def find(ask: Ask, wanted: Wanted) -> Found:
    """What the database has of the rows wanted.

    Raises:
        NothingRecorded: it has none.
        SeveralSources: it has rows of several sources, and none was chosen.
    """
    by_source: dict[str, dict[str, tuple[int, int, int]]] = {}
    for table in ("market_data", "book_deltas"):
        rows = ask(
            "SELECT toString(source) AS name, count() AS rows, toUnixTimestamp64Nano(min(ts_local)) AS first, "
            f"toUnixTimestamp64Nano(max(ts_local)) AS last FROM {table} WHERE {_of(wanted)} GROUP BY name ORDER BY name"
        )
        for row in rows.to_pylist():
            by_source.setdefault(row["name"], {})[table] = (row["rows"], row["first"], row["last"])
    if not by_source:
        what = wanted.symbol if wanted.source is None else f"{wanted.symbol} of {wanted.source}"
        raise NothingRecorded(
            f"market_data and book_deltas have no row of {what} in that time; "
            "see \"recorder query 'SELECT symbol, source, min(ts_local), max(ts_local) FROM market_data GROUP BY ALL'\""
        )
    if len(by_source) > 1:
        raise SeveralSources(
            f"{wanted.symbol} was recorded from {', '.join(by_source)}; choose one with --source"
        )
    ((source, tables),) = by_source.items()
    return Found(
        source,
        tables.get("market_data", (0, 0, 0))[0],
        tables.get("book_deltas", (0, 0, 0))[0],
        min(first for _, first, _ in tables.values()),
        max(last for _, _, last in tables.values()),
    )


@dataclass(frozen=True)
class Rows:
    """Rows as `events` and `top` take them; `trades` also has `is_aggregated`."""

    trades: pa.Table
    quotes: pa.Table
    deltas: pa.Table


def read(ask: Ask, wanted: Wanted, found: Found, show: Show, *, quotes: bool) -> Rows:
    """The rows that were found; those of quotes only if they are wanted."""
    parts: dict[str, list[pa.Table]] = {"trades": [], "quotes": [], "deltas": []}
    total = found.quotes_and_trades + found.deltas
    slices = list(_slices(found, min(SLICES_MAX, 1 + total // SLICE_ROWS)))
    for number, (begin, end) in enumerate(slices):
        show(total * number // len(slices), total)
        where = f" AND {_of(Wanted(wanted.symbol, found.source, begin, end))}"
        parts["trades"].append(ask(_TRADES + where))
        # An answer without rows has the columns all the same.
        parts["quotes"].append(ask(_QUOTES + where + ("" if quotes else " LIMIT 0")))
        parts["deltas"].append(ask(_DELTAS + where))
    show(total, total)
    return Rows(**{name: pa.concat_tables(tables) for name, tables in parts.items()})


def read_orders(ask: Ask, wanted: Wanted) -> pa.Table:
    """When each order of the symbol was sent and first acknowledged, ns, null where not known: `sent_ns`, `acked_ns`.

    An order's rows are those of one account, venue and client's order id, else broker's; it counts by when it was sent.
    """
    until_ns = None if wanted.until_ns is None else wanted.until_ns + ANSWER_NS
    rows = _of(Wanted(wanted.symbol, None, wanted.since_ns, until_ns))
    sent = "toUnixTimestamp64Nano(min(ts_send))"
    within = [f"sent_ns >= {wanted.since_ns}"] if wanted.since_ns is not None else []
    within += [f"sent_ns < {wanted.until_ns}"] if wanted.until_ns is not None else []
    return ask(
        f"SELECT {sent} AS sent_ns, toUnixTimestamp64Nano(min(ts_ack)) AS acked_ns FROM orders WHERE {rows} "
        "AND coalesce(nullIf(client_order_id, ''), nullIf(broker_order_id, '')) IS NOT NULL "
        "GROUP BY account_id, coalesce(nullIf(client_order_id, ''), nullIf(broker_order_id, ''))"
        + (f" HAVING sent_ns IS NULL OR ({' AND '.join(within)})" if within else "")
    )


def shed_rows(ask: Ask, found: Found) -> int:
    """How many rows of market data the recorder shed in that time, of whatever symbol."""
    rows = ask(
        "SELECT sum(rows) AS shed FROM recorder_gaps WHERE table_name IN ('market_data', 'book_deltas') "
        f"AND ts_last >= {quote_moment(found.first_ns)} AND ts_first <= {quote_moment(found.last_ns)}"
    )
    return int(rows["shed"][0].as_py() or 0)


def _slices(found: Found, count: int) -> Iterator[Sequence[int]]:
    """Spans of equal length that cover the rows found: begin, and end, which is not in it."""
    span_ns = found.last_ns + 1 - found.first_ns
    edges = [found.first_ns + span_ns * number // count for number in range(count + 1)]
    yield from ((begin, end) for begin, end in itertools.pairwise(edges) if begin < end)


def _of(wanted: Wanted) -> str:
    parts = [f"symbol = {quote_text(wanted.symbol)}"]
    if wanted.source is not None:
        parts.append(f"source = {quote_text(wanted.source)}")
    if wanted.since_ns is not None:
        parts.append(f"ts_local >= {quote_moment(wanted.since_ns)}")
    if wanted.until_ns is not None:
        parts.append(f"ts_local < {quote_moment(wanted.until_ns)}")
    return " AND ".join(parts)
