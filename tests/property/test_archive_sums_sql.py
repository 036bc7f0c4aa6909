"""The sums that the database computes are those of `rowhash`, for any values."""

from __future__ import annotations

import decimal
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from retention.archive import Sums, sums_of
from retention.archive.rowhash_sql import sums_sql

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

COLUMNS = {
    "ts_local": "DateTime64(9, 'UTC')",
    "text": "String",
    "maybe": "Nullable(String)",
    "price": "Decimal(38, 18)",
    "rate": "Nullable(Float64)",
    "number": "Int64",
    "texts": "Array(Nullable(String))",
    "depth": "Array(Array(Float64))",
    "_log": "UInt64",
    "_seq": "UInt64",
}
SCHEMA = pa.schema(
    [
        pa.field("ts_local", pa.timestamp("ns", "UTC"), nullable=False),
        pa.field("text", pa.binary(), nullable=False),
        pa.field("maybe", pa.binary()),
        pa.field("price", pa.decimal128(38, 18), nullable=False),
        pa.field("rate", pa.float64()),
        pa.field("number", pa.int64(), nullable=False),
        pa.field("texts", pa.list_(pa.binary()), nullable=False),
        pa.field("depth", pa.list_(pa.list_(pa.float64())), nullable=False),
        pa.field("_log", pa.uint64(), nullable=False),
        pa.field("_seq", pa.uint64(), nullable=False),
    ]
)
BYTES = st.binary(max_size=40)
WORDS = st.integers(0, 2**64 - 1)
ROW = st.tuples(
    st.integers(-(2**62), 2**62),
    BYTES,
    st.none() | BYTES,
    st.integers(-(10**38) + 1, 10**38 - 1).map(lambda number: decimal.Decimal(number).scaleb(-18, CONTEXT)),
    st.none() | st.floats(),
    st.integers(-(2**63), 2**63 - 1),
    st.lists(st.none() | BYTES, max_size=4),
    st.lists(st.lists(st.floats(), max_size=3), max_size=3),
    WORDS,
    WORDS,
)
CONTEXT = decimal.Context(prec=40)
EMPTY: tuple[Any, ...] = (0, b"", None, decimal.Decimal(0), None, 0, [], [[]], 0, 0)


@pytest.fixture(scope="module")
def table(engine: Client) -> Iterator[str]:
    """A table of these columns."""
    told = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
    engine.command("CREATE DATABASE IF NOT EXISTS of_sums")
    engine.command(f"CREATE OR REPLACE TABLE of_sums.rows ({told}) ENGINE = Memory")
    yield "of_sums.rows"
    engine.command("DROP DATABASE of_sums SYNC")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ROW, min_size=1, max_size=20))
@example([EMPTY])
@example([EMPTY, EMPTY])
def test_the_database_comes_to_the_same_sums(engine: Client, table: str, rows: list[tuple[Any, ...]]) -> None:
    """Bytes of any length and value, NULLs, NaN and infinities, the widest numbers, nested and empty arrays."""
    columns = [
        pa.array(values, field.type) for values, field in zip(zip(*rows, strict=True), SCHEMA, strict=True)
    ]
    engine.command(f"TRUNCATE TABLE {table}")
    engine.insert_arrow(table, pa.Table.from_arrays(columns, schema=SCHEMA))
    asked = sums_sql(COLUMNS, f"FROM {table}")
    assert asked is not None
    ((count, row_sum, identity_sum, low, high),) = engine.query(asked).result_rows
    assert Sums(count, row_sum, identity_sum, low, high) == sums_of(
        pa.RecordBatch.from_arrays(columns, schema=SCHEMA)
    )


def test_what_has_no_rule_is_left_to_others() -> None:
    """Types that the engine's Parquet has otherwise, or whose hash is none; rows without identity; names of steps."""
    whole = {"_log": "UInt64", "_seq": "UInt64"}
    assert sums_sql(whole, "FROM t") is not None
    for kind in (
        "DateTime64(9)",
        "DateTime64(9, 'Asia/Tokyo')",
        "JSON",
        "Tuple(UInt8)",
        "Int128",
        "BFloat16",
    ):
        for within in ("{}", "Array({})", "Nullable({})", "Map(String, {})"):
            assert sums_sql({**whole, "x": within.format(kind)}, "FROM t") is None, kind
    assert sums_sql({"_log": "UInt64"}, "FROM t") is None
    assert sums_sql({**whole, "_w3": "String"}, "FROM t") is None


def test_long_texts_take_no_more_memory_than_a_few_times_themselves(engine: Client) -> None:
    """A block of texts of 4,000 bytes is 32 MB: a copy of each text for each of its words would be 16 GB."""
    kinds = {"text": "String", "_log": "UInt64", "_seq": "UInt64"}
    texts = "repeat(toString(number % 10), 4000) AS text"
    rows = f"FROM (SELECT {texts}, toUInt64(1) AS _log, number AS _seq FROM numbers(20000))"
    asked = sums_sql(kinds, rows)
    assert asked is not None
    limits = "max_memory_usage = 1073741824, max_threads = 1, max_block_size = 8192"
    ((count, row_sum, *_),) = engine.query(f"{asked} SETTINGS {limits}").result_rows
    batch = pa.record_batch(
        {
            "text": pa.array([b"%d" % (number % 10) * 4_000 for number in range(count)]),
            "_log": pa.array([1] * count, pa.uint64()),
            "_seq": pa.array(range(count), pa.uint64()),
        }
    )
    assert row_sum == sums_of(batch).row_sum
