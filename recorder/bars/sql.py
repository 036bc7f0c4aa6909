"""The statements of bars: what is recorded by the hour, what is built by the hour, and the bars of an hour. No I/O.

A row's time is the venue's, `ts_local` where the venue sent none. Rows of one time are in the order of `ts_local`,
`_log` and `_seq`. What counts as a trade and as a quote is in docs/bars.md.
"""

from __future__ import annotations

from recorder.bars.due import Recorded, Verdict
from recorder.bars.windows import CARRY_NS, HOUR_NS, Bars, Hour
from schemas.core.flags import MarketFlag
from schemas.quote import quote_moment, quote_name, quote_text

DAY_NS = 24 * HOUR_NS
AT = "toUnixTimestamp64Nano(coalesce(ts_exchange, ts_local))"
_TRADED = (
    f"(bitAnd(flags, {int(MarketFlag.TRADE)}) != 0 AND bitAnd(flags, {int(MarketFlag.OFF_BOOK)}) = 0 "
    "AND isNotNull(last_price) AND isNotNull(last_qty))"
)
_QUOTED = f"(bitAnd(flags, {int(MarketFlag.QUOTE)}) != 0)"
_AGGREGATED = f"bitAnd(flags, {int(MarketFlag.AGGREGATED)}) != 0"
_IDENTITY = "cityHash64(_log, _seq)"

VALUES = (
    "ts", "source", "symbol", "open", "high", "low", "close", "volume", "notional", "vwap", "trade_count",
    "quote_count", "spread_mean", "quoted_ns", "aggregated", "rows", "ts_local_first", "ts_local_last", "basis",
)  # fmt: skip
"""The columns of a bar but `_version`."""
OWN_VALUES = tuple(name for name in VALUES if name not in ("spread_mean", "quoted_ns", "basis"))
"""Those that rows of the bar's own hour alone make."""


def recorded_hours(database: str, begin_ns: int, end_ns: int, local_ns: int | None = None) -> str:
    """Rows by hour from `begin_ns` on and before `end_ns`: hour, then the fields of `Recorded`, then trades, quotes and
    volumes to verify by: `singles`' and `aggregates`' volumes, and quotes.

    A local clock is trusted not to be more than a day behind its venue's, unless rows from `local_ns` on are asked for.
    """
    first_local_ns = begin_ns - DAY_NS if local_ns is None else min(local_ns, begin_ns - DAY_NS)
    return (
        f"SELECT toString(source), toString(symbol), at - positiveModulo(at, {HOUR_NS}) AS hour, "
        f"count(), sum({_IDENTITY}), "
        "toUnixTimestamp64Nano(min(ts_local)), toUnixTimestamp64Nano(max(ts_local)), "
        f"countIf({_TRADED} AND NOT {_AGGREGATED}), countIf({_TRADED} AND {_AGGREGATED}), "
        f"sumIf(assumeNotNull(last_qty), {_TRADED} AND NOT {_AGGREGATED}), "
        f"sumIf(assumeNotNull(last_qty), {_TRADED} AND {_AGGREGATED}), countIf({_QUOTED}) "
        f"FROM (SELECT *, {AT} AS at FROM {_table(database, 'market_data')} "
        f"WHERE ts_local >= {quote_moment(first_local_ns)}) "
        f"WHERE at >= {begin_ns} AND at < {end_ns} AND ({_TRADED} OR {_QUOTED}) GROUP BY 1, 2, 3"
    )


def hours_of_span(database: str, since_ns: int, until_ns: int) -> str:
    """Rows that count, with local times from `since_ns` on and before `until_ns`, by the hour that they lie in."""
    return (
        f"SELECT toString(source), toString(symbol), at - positiveModulo(at, {HOUR_NS}) AS hour, count() "
        f"FROM (SELECT *, {AT} AS at FROM {_table(database, 'market_data')} "
        f"WHERE ts_local >= {quote_moment(since_ns)} AND ts_local < {quote_moment(until_ns)}) "
        f"WHERE {_TRADED} OR {_QUOTED} GROUP BY 1, 2, 3"
    )


def count_of_built(database: str, bars: Bars, begin_ns: int, end_ns: int) -> str:
    """How many bars there are of this time, and of how many rows."""
    return (
        f"SELECT count(), sum(rows) FROM {_table(database, bars.name)} "
        f"WHERE ts >= {quote_moment(begin_ns)} AND ts < {quote_moment(end_ns)}"
    )


def built_hours(database: str, bars: Bars, begin_ns: int, end_ns: int) -> str:
    """Bars by hour: hour, then bars, rows, least and greatest basis, version, first and last local time, then sums
    of trades, volume and quotes to verify by."""
    return (
        "SELECT toString(source), toString(symbol), toUnixTimestamp64Nano(ts) - "
        f"positiveModulo(toUnixTimestamp64Nano(ts), {HOUR_NS}) AS hour, count(), sum(rows), min(basis), max(basis), "
        "max(_version), toUnixTimestamp64Nano(min(ts_local_first)), toUnixTimestamp64Nano(max(ts_local_last)), "
        "sum(trade_count), sum(volume), sum(quote_count) "
        f"FROM {_table(database, bars.name)} "
        f"WHERE ts >= {quote_moment(begin_ns)} AND ts < {quote_moment(end_ns)} GROUP BY 1, 2, 3"
    )


def bars_that_lack(database: str, bars: Bars, hour: Hour, recorded: Recorded) -> str:
    """How many bars of an hour are made of rows that are not all there.

    Rows go by partitions and parts, which are stretches of local time. So a bar has its rows still where they are no
    fewer than it counts, nor its trades, nor its quotes, and where there are rows of exactly the first and the last
    local time of its own. What came late for the same window does not hide one that is gone: it has another nanosecond.
    """
    window_ns = bars.window_ns
    had = (
        "SELECT toUnixTimestamp64Nano(ts) AS begin, rows, trade_count, quote_count, "
        "toUnixTimestamp64Nano(ts_local_first) AS first_ns, toUnixTimestamp64Nano(ts_local_last) AS last_ns "
        f"FROM {_table(database, bars.name)} WHERE {_feed_of(hour)} "
        f"AND ts >= {quote_moment(hour.begin_ns)} AND ts < {quote_moment(hour.end_ns)}"
    )
    there = (
        f"SELECT at - positiveModulo(at, {window_ns}) AS begin, toUnixTimestamp64Nano(ts_local) AS local_ns, "
        f"{_TRADED} AS traded, {_QUOTED} AS quoted, 1 AS is_there "
        f"FROM (SELECT *, {AT} AS at FROM {_table(database, 'market_data')} WHERE {_feed_of(hour)} "
        f"AND ts_local >= {quote_moment(recorded.first_local_ns)} "
        f"AND ts_local <= {quote_moment(recorded.last_local_ns)}) "
        f"WHERE at >= {hour.begin_ns} AND at < {hour.end_ns} AND (traded OR quoted)"
    )
    return (
        f"SELECT count() FROM (SELECT begin FROM ({had}) AS had LEFT JOIN ({there}) AS there USING (begin) "
        "GROUP BY begin, rows, trade_count, quote_count, first_ns, last_ns "
        "HAVING sum(is_there) < rows OR sum(traded) < trade_count OR sum(quoted) < quote_count "
        "OR countIf(is_there AND local_ns = first_ns) = 0 OR countIf(is_there AND local_ns = last_ns) = 0) "
        "SETTINGS join_use_nulls = 0"
    )


def oldest_local(database: str) -> str:
    """The oldest local time of any row of `market_data`."""
    return f"SELECT toUnixTimestamp64Nano(min(ts_local)) FROM {_table(database, 'market_data')}"


def insert_hour(database: str, bars: Bars, verdict: Verdict, closed_ns: int) -> str:
    """Compute the bars of an hour and insert them, in one part: all of them are there or none.

    Nothing is inserted where rows went since they were counted, of it or of the hour before: bars are not made again of
    fewer, nor, where late rows came in their place, of others.
    """
    lacking = bars_that_lack(database, bars, verdict.hour, verdict.recorded) if verdict.version else "0"
    before = (
        f"SELECT count() FROM {_table(database, 'market_data')} WHERE {_rows_of(verdict)} "
        f"AND {AT} >= {verdict.hour.begin_ns - HOUR_NS} AND {AT} < {verdict.hour.begin_ns} AND ({_TRADED} OR {_QUOTED})"
    )
    columns = ", ".join(VALUES)
    # An hour has too few bars for two blocks. Equal bars are no duplicates to be left out: their version is new.
    return (
        f"INSERT INTO {_table(database, bars.stored)} ({columns}, _version) "
        f"SELECT {columns}, greatest(toUInt64(toUnixTimestamp64Nano(now64(9))), toUInt64({verdict.version})) "
        f"FROM (SELECT *, sum(rows) OVER () AS present FROM ({hour_of_bars(database, bars, verdict, closed_ns)})) "
        f"WHERE present >= {verdict.recorded.rows} AND ({before}) >= {verdict.rows_before} AND ({lacking}) = 0 "
        "SETTINGS max_threads = 1, max_insert_threads = 1, insert_deduplicate = 0, async_insert = 0"
    )


def digest_of_computed(
    database: str, bars: Bars, verdict: Verdict, closed_ns: int, names: tuple[str, ...] = VALUES
) -> str:
    """How many bars the rows of an hour make, and a sum over these of their values."""
    return (
        f"SELECT count(), {_digest(names)} FROM ({hour_of_bars(database, bars, verdict, closed_ns)}) "
        "SETTINGS max_threads = 1"
    )


def digest_of_built(database: str, bars: Bars, verdict: Verdict, names: tuple[str, ...] = VALUES) -> str:
    """How many bars of an hour are built, and the same sum."""
    hour = verdict.hour
    return (
        f"SELECT count(), {_digest(names)} FROM {_table(database, bars.name)} "
        f"WHERE {_feed_of(hour)} "
        f"AND ts >= {quote_moment(hour.begin_ns)} AND ts < {quote_moment(hour.end_ns)}"
    )


def hour_of_bars(database: str, bars: Bars, verdict: Verdict, closed_ns: int) -> str:
    """The bars of an hour, up to `closed_ns`, as a SELECT. With one thread the same rows make the same bits.

    One read of the table. Each row is in its own window; a quote is also in those that it holds in, until the next one
    or for `CARRY_NS`. A window without a row of its own makes no bar.
    """
    hour, window_ns = verdict.hour, bars.window_ns
    end_ns = min(hour.end_ns, closed_ns)
    traded = f"{_TRADED} AND {'' if verdict.aggregates else 'NOT '}{_AGGREGATED}"
    rows = (
        f"SELECT {AT} AS at, toUnixTimestamp64Nano(ts_local) AS local_ns, _log, _seq, "
        f"{traded} AS traded, assumeNotNull(last_price) AS px, assumeNotNull(last_qty) AS qty, {_QUOTED} AS quoted, "
        "isNotNull(bid_px1) AND isNotNull(ask_px1) AND bid_px1 < ask_px1 AS two_sided, "
        "assumeNotNull(ask_px1) - assumeNotNull(bid_px1) AS spread "
        f"FROM {_table(database, 'market_data')} "
        f"WHERE {_rows_of(verdict)} "
        f"AND at >= {hour.begin_ns - CARRY_NS} AND at < {end_ns} AND ({_TRADED} OR {_QUOTED})"
    )
    order = "at, local_ns, _log, _seq"
    held = (
        f"SELECT *, least(leadInFrame(at, 1, toInt64({end_ns})) OVER (PARTITION BY quoted ORDER BY {order} "
        f"ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING), at + {CARRY_NS}) AS until FROM ({rows})"
    )
    placed = (
        f"SELECT *, at - positiveModulo(at, {window_ns}) AS mine, arrayJoin(range("
        f"greatest(mine, toInt64({hour.begin_ns})), "
        f"if(quoted, greatest(until, at + 1), at + 1), {window_ns})) AS begin, "
        f"mine = begin AS own, (at, local_ns, _log, _seq) AS place, "
        f"if(quoted AND two_sided, greatest(least(until, begin + {window_ns}) - greatest(at, begin), 0), 0) AS held_ns "
        f"FROM ({held} ORDER BY {order})"
    )
    return (
        "SELECT fromUnixTimestamp64Nano(begin, 'UTC') AS ts, "
        f"{quote_text(hour.source)} AS source, {quote_text(hour.symbol)} AS symbol, "
        "argMinOrNullIf(px, place, own AND traded) AS open, maxOrNullIf(px, own AND traded) AS high, "
        "minOrNullIf(px, own AND traded) AS low, argMaxOrNullIf(px, place, own AND traded) AS close, "
        "sumIf(qty, own AND traded) AS volume, sumIf(px * qty, own AND traded) AS notional, "
        "if(volume > 0, notional / volume, NULL) AS vwap, "
        "countIf(own AND traded) AS trade_count, countIf(own AND quoted) AS quote_count, "
        "toUInt64(sum(held_ns)) AS quoted_ns, "
        "if(quoted_ns > 0, sumIf(spread * held_ns, held_ns > 0) / quoted_ns, NULL) AS spread_mean, "
        f"{'trade_count > 0' if verdict.aggregates else 'false'} AS aggregated, countIf(own) AS rows, "
        "fromUnixTimestamp64Nano(minIf(local_ns, own), 'UTC') AS ts_local_first, "
        "fromUnixTimestamp64Nano(maxIf(local_ns, own), 'UTC') AS ts_local_last, "
        f"toUInt64({verdict.basis}) AS basis "
        f"FROM ({placed}) GROUP BY begin HAVING rows > 0 ORDER BY begin"
    )


def _rows_of(verdict: Verdict) -> str:
    """Of the feed, and of the local times that an hour and the one before it have."""
    return (
        f"{_feed_of(verdict.hour)} "
        f"AND ts_local >= {quote_moment(verdict.first_local_ns)} AND ts_local <= {quote_moment(verdict.last_local_ns)}"
    )


def _feed_of(hour: Hour) -> str:
    return f"symbol = {quote_text(hour.symbol)} AND source = {quote_text(hour.source)}"


def _digest(names: tuple[str, ...]) -> str:
    texts = (f"toString({name})" for name in names if name not in ("aggregated", "source", "symbol"))
    return f"sum(cityHash64({', '.join(f'ifNull({text}, char(0))' for text in texts)}, toUInt8(aggregated)))"


def _table(database: str, name: str) -> str:
    return f"{quote_name(database)}.{quote_name(name)}"
