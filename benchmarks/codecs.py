"""Bytes a row and scan time of each market data column under each codec, measured on recorded market data.

    python -m benchmarks.codecs FOLDER     # a folder of captures: gzip lines "<receive ns> <raw message>"

It parses the captures for itself, in the plainest way, because it measures columns and not normalisers: a quote row
for each best-quote message, a trade row for each trade, a delta row for each depth message. Trades stand in for own
fills where a column of an audit table is measured. The tables of docs/codecs.md are its output.
"""

from __future__ import annotations

import gzip
import pathlib
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

import clickhouse_connect
import orjson
import pyarrow as pa
from clickhouse_connect.driver.client import Client

LZ4 = "LZ4"
ZSTD = "ZSTD(1)"
TIMES = (LZ4, ZSTD, f"Delta, {ZSTD}", f"DoubleDelta, {ZSTD}", "DoubleDelta", f"T64, {ZSTD}", "Delta, ZSTD(3)")
FLOATS = (
    LZ4,
    ZSTD,
    f"Gorilla, {ZSTD}",
    "Gorilla",
    f"FPC, {ZSTD}",
    f"Delta, {ZSTD}",
    "ZSTD(3)",
    "Delta, ZSTD(3)",
)
IDS = (LZ4, ZSTD, f"Delta, {ZSTD}", f"DoubleDelta, {ZSTD}", f"T64, {ZSTD}", "Delta, ZSTD(3)")
ARRAYS = (LZ4, ZSTD, f"Gorilla, {ZSTD}", f"FPC, {ZSTD}", f"Delta, {ZSTD}", "ZSTD(3)", "Delta, ZSTD(3)")
DELTA_CODED = ("ts_", "bid_sz", "ask_sz", "trade_id", "update_id")
"""Columns of market_data that the migration codes by Delta."""
TEXTS = (LZ4, ZSTD, "ZSTD(3)")

MARKET = {
    "ts_local": ("DateTime64(9, 'UTC')", TIMES),
    "ts_exchange": ("Nullable(DateTime64(9, 'UTC'))", TIMES),
    "bid_px1": ("Nullable(Float64)", FLOATS),
    "bid_sz1": ("Nullable(Float64)", FLOATS),
    "ask_px1": ("Nullable(Float64)", FLOATS),
    "ask_sz1": ("Nullable(Float64)", FLOATS),
    "last_price": ("Nullable(Float64)", FLOATS),
    "last_qty": ("Nullable(Float64)", FLOATS),
    "trade_id": ("Nullable(UInt64)", IDS),
    "update_id": ("Nullable(UInt64)", IDS),
    "flags": ("UInt32", IDS),
    "_log": ("UInt64", IDS),
    "_seq": ("UInt64", IDS),
}
DELTAS = {
    "ts_local": ("DateTime64(9, 'UTC')", TIMES),
    "ts_exchange": ("Nullable(DateTime64(9, 'UTC'))", TIMES),
    "first_update_id": ("Nullable(UInt64)", IDS),
    "last_update_id": ("Nullable(UInt64)", IDS),
    "bid_pxs": ("Array(Float64)", ARRAYS),
    "bid_szs": ("Array(Float64)", ARRAYS),
    "ask_pxs": ("Array(Float64)", ARRAYS),
    "ask_szs": ("Array(Float64)", ARRAYS),
    "_seq": ("UInt64", IDS),
}
FILLS = {
    "fill_price": ("Decimal(38, 18)", (*TEXTS, f"Delta, {ZSTD}")),
    "fill_qty": ("Decimal(38, 18)", (*TEXTS, f"Delta, {ZSTD}")),
    "fill_id": ("String", TEXTS),
    "raw_json": ("Nullable(String)", TEXTS),
}


def main(folder: pathlib.Path) -> None:
    """Measure and print Markdown."""
    market, deltas, fills = read(
        sorted((folder / "binance-captures").glob("*.gz")) or sorted(folder.glob("*.gz"))
    )
    with tempfile.TemporaryDirectory() as temporary:
        client = clickhouse_connect.get_client(interface="chdb", path=f"{temporary}/db")
        try:
            measure(client, "market_data", market, MARKET)
            measure_order(client)
            measure(client, "book_deltas", deltas, DELTAS)
            measure(client, "fills (stood in for by trades)", fills, FILLS)
        finally:
            client.close()


def read(
    paths: Sequence[pathlib.Path],
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows of all captures: market data, book deltas, fills."""
    market: list[dict[str, Any]] = []
    deltas: list[dict[str, Any]] = []
    fills: list[dict[str, Any]] = []
    for number, path in enumerate(paths):
        top: dict[str, Any] = {}
        for position, (ts_local, raw, data) in enumerate(_messages(path)):
            venue_ms = data.get("T", data.get("E"))
            row = {
                "ts_local": ts_local,
                "ts_exchange": None if venue_ms is None else venue_ms * 1_000_000,
                "symbol": f"{data.get('s')}.{path.name.split('_')[0]}",
                "_log": number * 0x9E3779B97F4A7C15 % 2**64,
                "_seq": position * 4096,
            }
            if data.get("e") == "depthUpdate":
                deltas.append(
                    row | _levels(data) | {"first_update_id": data["U"], "last_update_id": data["u"]}
                )
            elif data.get("e") == "trade":
                price, quantity = float(data["p"]), float(data["q"])
                trade = {"last_price": price, "last_qty": quantity, "trade_id": data["t"], "flags": 1}
                market.append(row | top | trade)
                fills.append(
                    row
                    | {
                        "fill_price": data["p"],
                        "fill_qty": data["q"],
                        "fill_id": str(data["t"]),
                        "raw_json": raw,
                    }
                )
            elif "B" in data and "u" in data:
                names = {"bid_px1": "b", "bid_sz1": "B", "ask_px1": "a", "ask_sz1": "A"}
                top = {name: float(data[key]) for name, key in names.items()}
                market.append(row | top | {"update_id": data["u"], "flags": 2})
    return market, deltas, fills


def _messages(path: pathlib.Path) -> Iterator[tuple[int, bytes, dict[str, Any]]]:
    with gzip.open(path) as lines:
        for line in lines:
            ts_local, _, raw = line.partition(b" ")
            message = orjson.loads(raw)
            data = message.get("data")
            if isinstance(data, dict):
                yield int(ts_local), raw.strip(), data


def _levels(data: dict[str, Any]) -> dict[str, list[float]]:
    return {
        f"{side}_{what}": [float(level[index]) for level in data[key]]
        for side, key in (("bid", "b"), ("ask", "a"))
        for index, what in enumerate(("pxs", "szs"))
    }


def measure(
    client: Client, title: str, rows: list[dict[str, Any]], columns: dict[str, tuple[str, tuple[str, ...]]]
) -> None:
    """Print bytes a row and scan time of every column under every codec, all rows in one merged part."""
    names = ["ts_local", "symbol", *(name for name in columns if name != "ts_local")]
    client.command("DROP TABLE IF EXISTS plain")
    kinds = {"ts_local": "DateTime64(9, 'UTC')", "symbol": "LowCardinality(String)"} | {
        name: kind for name, (kind, _) in columns.items()
    }
    definition = ", ".join(f"{name} {kinds[name]}" for name in names)
    client.command(f"CREATE TABLE plain ({definition}) ENGINE = MergeTree ORDER BY tuple()")
    client.insert_arrow("plain", pa.table({name: _array(rows, name, kinds[name]) for name in names}))
    print(
        f"\n### {title}: {len(rows):,} rows\n\n| column | codec | bytes a row | scan ms |\n|---|---|---:|---:|"
    )
    for name, (kind, codecs) in columns.items():
        for codec in codecs:
            try:
                stored, scan_ms = _one(client, name, kind, codec)
            except Exception as error:  # noqa: BLE001 - a codec this engine has not, or not for this type
                print(f"| {name} | {codec} | {str(error).split('(')[-1].split(')')[0].lower()} | |")
                continue
            print(f"| {name} | {codec} | {stored / len(rows):.3f} | {scan_ms:.1f} |")


def _array(rows: list[dict[str, Any]], name: str, kind: str) -> pa.Array:
    values = [row.get(name) for row in rows]
    if "DateTime64" in kind:
        return pa.array(values, pa.timestamp("ns", tz="UTC"))
    if kind.startswith("Decimal"):
        return pa.array(values, pa.string()).cast(pa.decimal128(38, 18))
    if "UInt" in kind:
        return pa.array(values, pa.uint64())
    return pa.array(values)


def measure_order(client: Client, symbols: int = 20) -> None:
    """Print bytes a row and query times of market data under other sorting keys; the capture stands in for each symbol.

    Copies are a few ms apart, and the last query asks for the look-up that precedes a retry.
    """
    print(f"\n### market_data by sorting key, {symbols} symbols\n")
    print(
        "| ORDER BY | bytes a row | top of book at a time, ms | one symbol's hour, ms | look-up of 10,000 rows, ms |"
    )
    print("|---|---:|---:|---:|---:|")
    columns = ", ".join(
        f"{name} {kind} CODEC({'Delta, ' if name.startswith(DELTA_CODED) else ''}{ZSTD})"
        for name, (kind, _) in MARKET.items()
        if name not in ("_log", "_seq")
    )
    names = ", ".join(name for name in MARKET if name not in ("ts_local", "_log", "_seq"))
    for order in ("symbol, ts_local", "ts_local", "toStartOfHour(ts_local), symbol, ts_local"):
        client.command("DROP TABLE IF EXISTS ordered SYNC")
        client.command(
            f"CREATE TABLE ordered ({columns}, symbol LowCardinality(String), _log UInt64 CODEC({ZSTD}), "
            f"_seq UInt64 CODEC(DoubleDelta, {ZSTD})) "
            f"ENGINE = MergeTree PARTITION BY toYYYYMMDD(ts_local) ORDER BY ({order}) SETTINGS "
            "min_bytes_for_wide_part = 0, min_rows_for_wide_part = 0"
        )
        client.command(
            f"INSERT INTO ordered (ts_local, symbol, _log, _seq, {names}) "
            "SELECT at, concat('S', toString(copy), symbol), 1, rowNumberInAllBlocks(), * EXCEPT (at, copy, symbol) "
            "FROM "
            f"(SELECT ts_local + toIntervalMillisecond(copy * 3) AS at, copy, symbol, {names} FROM plain "
            f"ARRAY JOIN range({symbols}) AS copy ORDER BY at)"
        )
        client.command("OPTIMIZE TABLE ordered FINAL")
        size = client.query(
            "SELECT sum(data_compressed_bytes) / sum(rows) FROM system.parts WHERE active AND table = 'ordered'"
        )
        middle = "(SELECT toDateTime64(avg(toFloat64(ts_local)), 9, 'UTC') FROM plain)"
        one = "symbol = (SELECT any(concat('S7', symbol)) FROM plain)"
        times = [
            _query_ms(
                client,
                f"SELECT bid_px1 FROM ordered WHERE {one} AND ts_local <= {middle} ORDER BY ts_local DESC LIMIT 1",
            ),
            _query_ms(
                client,
                f"SELECT avg(bid_px1) FROM ordered WHERE {one} AND ts_local >= {middle} - INTERVAL 1 HOUR",
            ),
            _query_ms(
                client,
                "SELECT count() FROM ordered WHERE _log = 1 AND _seq BETWEEN 1000000 AND 1009999 AND ts_local BETWEEN "
                "(SELECT min(ts_local) FROM ordered WHERE _seq = 1000000) AND "
                "(SELECT max(ts_local) FROM ordered WHERE _seq = 1009999)",
            ),
        ]
        print(f"| {order} | {size.result_rows[0][0]:.2f} | {' | '.join(f'{ms:.1f}' for ms in times)} |")


def _query_ms(client: Client, sql: str) -> float:
    """The best of five."""
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        client.query(sql)
        times.append(time.perf_counter() - begin)
    return min(times) * 1000


def _one(client: Client, name: str, kind: str, codec: str) -> tuple[int, float]:
    """Stored bytes of one column under one codec, sorted as the real table is, and the best of five scans."""
    client.command("DROP TABLE IF EXISTS coded SYNC")
    order = "" if name == "ts_local" else "ts_local DateTime64(9, 'UTC'), "
    client.command(
        f"CREATE TABLE coded ({order}symbol LowCardinality(String), {name} {kind} CODEC({codec})) "
        "ENGINE = MergeTree ORDER BY (symbol, ts_local) SETTINGS min_bytes_for_wide_part = 0, "
        "min_rows_for_wide_part = 0"
    )
    chosen = "symbol, ts_local" if name == "ts_local" else f"ts_local, symbol, {name}"
    target = "symbol, ts_local" if name == "ts_local" else f"ts_local, symbol, {name}"
    client.command(f"INSERT INTO coded ({target}) SELECT {chosen} FROM plain ORDER BY symbol, ts_local")
    client.command("OPTIMIZE TABLE coded FINAL")
    stored = int(
        str(
            client.command(
                "SELECT sum(column_data_compressed_bytes) FROM system.parts_columns "
                f"WHERE active AND table = 'coded' AND column = '{name}'"
            )
        )
    )
    best = min(_scan_s(client, name) for _ in range(5))
    return stored, best * 1000


def _scan_s(client: Client, name: str) -> float:
    begin = time.perf_counter()
    client.command(f"SELECT count() FROM coded WHERE NOT ignore({name})")
    return time.perf_counter() - begin


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
