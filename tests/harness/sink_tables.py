"""Tables and batches for tests of sinks."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa

from recorder.batch import NS_PER_DAY, Batch

DAY_NS = NS_PER_DAY
START_NS = int(datetime.datetime(2026, 1, 5, 12, tzinfo=datetime.UTC).timestamp()) * 1_000_000_000

PLAIN_COLUMNS = "ts_local DateTime64(9, 'UTC'), v Int64, _log UInt64, _seq UInt64"


def create(
    name: str,
    columns: str = PLAIN_COLUMNS,
    *,
    extra: str = "",
    settings: str = "",
    order_by: str = "ts_local",
) -> str:
    """The statement for a table as the recorder keeps them: by day, with a dedup window."""
    return (
        f"CREATE TABLE {name} ({columns}{extra}) ENGINE = MergeTree PARTITION BY toDate(ts_local) "
        f"ORDER BY {order_by} SETTINGS non_replicated_deduplication_window = 1000{settings}"
    )


def plain(
    table: str, rows: int = 10, *, log: int = 7, first_seq: int = 0, days: int = 1, start_ns: int = START_NS
) -> Batch:
    """A batch for `PLAIN_COLUMNS`, its rows spread over `days` partitions."""
    numbers = np.arange(rows)
    data = {
        "ts_local": pa.array(start_ns + numbers + numbers % days * DAY_NS).cast(pa.timestamp("ns", tz="UTC")),
        "v": pa.array(numbers, pa.int64()),
        "_log": pa.array(np.full(rows, log, dtype=np.uint64)),
        "_seq": pa.array(np.arange(first_seq, first_seq + rows, dtype=np.uint64)),
    }
    return Batch(table, pa.record_batch(data), accepted_ns=0)


WIDE_COLUMNS: Mapping[str, tuple[str, pa.DataType, Sequence[Any]]] = {
    "ts_venue": (
        "Nullable(DateTime64(9, 'UTC'))",
        pa.timestamp("ns", tz="UTC"),
        [1_700_000_000_123_456_789, None, 0],
    ),
    "money": (
        "Decimal(38, 18)",
        pa.decimal128(38, 18),
        [
            Decimal("9" * 20 + "." + "9" * 18),
            Decimal("-" + "9" * 20 + "." + "9" * 18),
            Decimal("0.000000000000000001"),
        ],
    ),
    "money_or_null": (
        "Nullable(Decimal(38, 18))",
        pa.decimal128(38, 18),
        [Decimal("61800.2"), None, Decimal(0)],
    ),
    "f": ("Float64", pa.float64(), [0.1, -1.7976931348623157e308, 5e-324]),
    "f_or_null": ("Nullable(Float64)", pa.float64(), [None, -0.0, 1.5]),
    "u8": ("UInt8", pa.uint8(), [0, 255, 1]),
    "u16": ("UInt16", pa.uint16(), [0, 65_535, 1]),
    "u32": ("UInt32", pa.uint32(), [0, 2**32 - 1, 1]),
    "u64": ("UInt64", pa.uint64(), [0, 2**64 - 1, 2**63]),
    "i64": ("Int64", pa.int64(), [-(2**63), 2**63 - 1, 0]),
    "i64_or_null": ("Nullable(Int64)", pa.int64(), [None, 2**63 - 1, 0]),
    "id": ("String", pa.string(), ["", "żółć 漢字 🚀", "a\tb\n'\\\"\0c"]),
    "id_or_null": ("Nullable(String)", pa.string(), [None, "", "x"]),
    "name": ("LowCardinality(String)", pa.string(), ["BTCUSDT", "", "BTCUSDT"]),
    "name_or_null": ("LowCardinality(Nullable(String))", pa.string(), ["BTCUSDT", None, ""]),
    "payload": ("String", pa.binary(), [bytes(range(256)), b"", b"\xff\xfe\x00"]),
    "payload_or_null": ("Nullable(String)", pa.binary(), [None, bytes(reversed(range(256))), b"\0"]),
    "flag": ("Bool", pa.bool_(), [True, False, True]),
    "flag_or_null": ("Nullable(Bool)", pa.bool_(), [None, False, True]),
    "floats": ("Array(Float64)", pa.list_(pa.float64()), [[], [0.1, -2.5], [1e308]]),
    "tags": (
        "Map(LowCardinality(String), String)",
        pa.map_(pa.string(), pa.string()),
        [[], [("a", "1"), ("ż", "")], [("k", "v")]],
    ),
}
"""One column of each kind: ClickHouse type, Arrow type, and values at its edges."""


def wide(table: str) -> tuple[str, Batch]:
    """The statement for a table with every kind of column, and a batch of its values."""
    columns = "ts_local DateTime64(9, 'UTC'), " + "".join(
        f"{name} {clickhouse}, " for name, (clickhouse, _, _) in WIDE_COLUMNS.items()
    )
    arrays = {name: pa.array(values, arrow) for name, (_, arrow, values) in WIDE_COLUMNS.items()}
    identity = plain(table, 3).data
    data = {"ts_local": identity["ts_local"], **arrays, "_log": identity["_log"], "_seq": identity["_seq"]}
    return create(table, columns + "_log UInt64, _seq UInt64"), Batch(
        table, pa.record_batch(data), accepted_ns=0
    )
