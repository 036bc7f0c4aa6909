"""What symbol groups cost and what they save: inserts, queries of one symbol and of all, and what merges leave.

    python -m benchmarks.symbol_groups [ROWS]     # of one day of market data; 2,000,000 by default

Tables that are alike but for their groups take turns, in one process and one engine: what is compared was measured
beside each other. The table of docs/partitions.md is its output. It measures the embedded engine, on quotes of 40
symbols of which the first makes a quarter of all rows.
"""

from __future__ import annotations

import dataclasses
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable

import clickhouse_connect
from clickhouse_connect.driver.client import Client

from schemas.core.market import MARKET_DATA
from schemas.render import partition_expression

GROUPS = (1, 4, 8, 16, 32)
BATCH_ROWS = 10_000
TIMES = 15
HOT = "SYM0USDT"
ROWS = """
SELECT toDateTime64('2024-08-08 00:00:00', 9, 'UTC') + (number + {first}) * 86400 / {rows} AS ts_local,
    concat('SYM', toString(if(number % 4 = 0, 0, cityHash64(number) % 40)), 'USDT') AS symbol,
    60000 + sin(number / 1000) * 100 + number % 7 AS bid_px1, 1 + number % 13 AS bid_sz1,
    bid_px1 + 0.1 AS ask_px1, 2 + number % 11 AS ask_sz1, 7 AS _log, toUInt64(number + {first}) AS _seq
FROM numbers({count})
"""
COLUMNS = "ts_local, symbol, bid_px1, bid_sz1, ask_px1, ask_sz1, _log, _seq"
QUERIES = {
    "one symbol, the day": "SELECT count(), avg(bid_px1) FROM {t} WHERE symbol = '{hot}'",
    "one symbol, an hour": "SELECT count(), avg(bid_px1) FROM {t} WHERE symbol = '{hot}' AND ts_local BETWEEN "
    "'2024-08-08 10:00:00' AND '2024-08-08 11:00:00'",
    "all symbols, the day": "SELECT symbol, count(), avg(bid_px1) FROM {t} GROUP BY symbol",
}


def measure(client: Client, rows: int) -> dict[int, dict[str, float]]:
    """Of each number of groups: seconds of each query (median), of an insert, and how many parts there are."""
    found: dict[int, dict[str, float]] = {groups: {} for groups in GROUPS}
    for groups in GROUPS:
        key = partition_expression(dataclasses.replace(MARKET_DATA.policy, symbol_groups=groups))
        client.command(
            f"CREATE TABLE g{groups} (ts_local DateTime64(9, 'UTC') CODEC(Delta, ZSTD(1)), "
            "symbol LowCardinality(String), bid_px1 Float64 CODEC(ZSTD(1)), bid_sz1 Float64 CODEC(ZSTD(1)), "
            "ask_px1 Float64 CODEC(ZSTD(1)), ask_sz1 Float64 CODEC(ZSTD(1)), _log UInt64 CODEC(ZSTD(1)), "
            f"_seq UInt64 CODEC(DoubleDelta, ZSTD(1))) ENGINE = MergeTree PARTITION BY {key} "
            "ORDER BY (symbol, ts_local)"
        )
    seconds: dict[int, list[float]] = {groups: [] for groups in GROUPS}
    for first in range(0, rows, BATCH_ROWS):
        batch = ROWS.format(first=first, rows=rows, count=min(BATCH_ROWS, rows - first))
        for groups in GROUPS:
            sql = f"INSERT INTO g{groups} ({COLUMNS}) SELECT {COLUMNS} FROM ({batch})"
            seconds[groups].append(_took(lambda sql=sql: client.command(sql)))  # type: ignore[misc]
    for groups in GROUPS:
        found[groups]["insert"] = statistics.median(seconds[groups])
    _measure_queries(client, found, "")
    for groups in GROUPS:
        client.command(f"OPTIMIZE TABLE g{groups} FINAL")
    _measure_queries(client, found, ", merged")
    return found


def _measure_queries(client: Client, found: dict[int, dict[str, float]], when: str) -> None:
    for groups in GROUPS:
        sql = f"SELECT count() FROM system.parts WHERE table = 'g{groups}' AND active"
        found[groups][f"parts{when}"] = int(client.query(sql).result_rows[0][0])
    for name, query in QUERIES.items():
        seconds: dict[int, list[float]] = {groups: [] for groups in GROUPS}
        for _ in range(TIMES):
            for groups in GROUPS:
                sql = query.format(t=f"g{groups}", hot=HOT)
                seconds[groups].append(_took(lambda sql=sql: client.query(sql)))  # type: ignore[misc]
        for groups in GROUPS:
            found[groups][name + when] = statistics.median(seconds[groups])


def _took(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def main() -> None:
    """Measure, and print the table."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 2_000_000
    with tempfile.TemporaryDirectory() as folder:
        client = clickhouse_connect.get_client(interface="chdb", path=str(pathlib.Path(folder) / "db"))
        try:
            found = measure(client, rows)
        finally:
            client.close()
    print(f"| {rows:,} rows | {' | '.join(f'groups: {groups}' for groups in GROUPS)} |")
    print(f"|---|{'---|' * len(GROUPS)}")
    for name in found[1]:
        shown = [
            f"{found[groups][name]:,.0f}"
            if name.startswith("parts")
            else f"{found[groups][name] * 1e3:.1f} ms"
            for groups in GROUPS
        ]
        print(f"| {name} | {' | '.join(shown)} |")


if __name__ == "__main__":
    main()
