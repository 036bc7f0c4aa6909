"""Partitions that the database writes by itself: the same rows, sums and types as those that the recorder writes."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recorder.cli.archive_source import TableSource
from retention.archive import (
    Archived,
    FolderStore,
    Place,
    Store,
    check,
    partition_of,
    read_files,
    write_partition,
)
from retention.archive.server_export import ServerExport
from schemas.executor import ClientExecutor

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

DAY = Place("trades", "2024-08-08")
SECRET = "not-a-secret"
TYPES = {
    "ts_local": (
        "DateTime64(9, 'UTC')",
        "toDateTime64('2024-08-08 12:00:00.123456789', 9, 'UTC') + number % 5",
    ),
    "symbol": ("LowCardinality(String)", "concat('S', toString(number % 7))"),
    "ts_venue": (
        "Nullable(DateTime64(9, 'UTC'))",
        "if(number % 3 = 0, NULL, toDateTime64(number - 50, 9, 'UTC'))",
    ),
    "ts_micro": ("DateTime64(6, 'UTC')", "toDateTime64(number, 6, 'UTC')"),
    "note": ("LowCardinality(Nullable(String))", "if(number % 4 = 0, NULL, if(number % 4 = 1, '', 'n'))"),
    "payload": ("Nullable(String)", "if(number % 5 = 0, NULL, concat(unhex('00FF80'), toString(number)))"),
    "text": ("String", "substring(unhex('FFFE00C328A0A1000000'), 1, number % 11)"),
    "price": (
        "Decimal(38, 18)",
        "CAST(if(number % 2 = 0, '99999999999999999999.999999999999999999', "
        "'-99999999999999999999.000000000000000001'), 'Decimal(38, 18)')",
    ),
    "size": ("Nullable(Decimal(38, 18))", "if(number % 2 = 0, NULL, toDecimal128(number, 18))"),
    "fee": ("Decimal(9, 2)", "toDecimal32(number, 2) - 3"),
    "bids": ("Array(Float64)", "range(number % 4)"),
    "names": ("Array(String)", "if(number % 2 = 0, [], [unhex('FF'), '', 'abcdefgh', 'abcdefghi'])"),
    "holes": ("Array(Nullable(Int64))", "[NULL, -number]"),
    "labels": (
        "Map(LowCardinality(String), String)",
        "if(number % 3 = 0, map(), map('k', toString(number)))",
    ),
    "live": ("Bool", "number % 2 = 0"),
    "kind": ("Enum8('buy' = 1, 'sell' = -2)", "if(number % 2 = 0, 'buy', 'sell')"),
    "state": ("Nullable(Enum16('a' = -300, 'b' = 300))", "if(number % 3 = 0, NULL, 'a')"),
    "rate": (
        "Nullable(Float64)",
        "multiIf(number % 6 = 0, NULL, number % 6 = 1, nan, number % 6 = 2, -inf, -0.0)",
    ),
    "small": ("Float32", "number / 3"),
    "count": ("UInt32", "4294967295 - number"),
    "level": ("Int8", "-128 + number % 3"),
    "wide": ("Int64", "-9223372036854775808 + number"),
    "number_8": ("UInt8", "255 - number % 3"),
    "trade_id": ("Nullable(UInt64)", "if(number % 2 = 0, NULL, 18446744073709551615)"),
    "day": ("Date", "toDate('2024-08-08') + number"),
    "long_ago": ("Date32", "toDate32('1924-08-08')"),
    "second": ("DateTime('UTC')", "toDateTime(4294967295 - number, 'UTC')"),
    "code": ("FixedString(5)", "toString(number % 3)"),
    "id": ("UUID", "toUUID('61f0c404-5cb3-11e7-907b-a6006ad3dba0')"),
    "host": ("IPv4", "toIPv4('1.2.3.4')"),
    "host_6": ("IPv6", "toIPv6('2001:db8::1')"),
    "a `strange` name": ("Nullable(Int64)", "number"),
    "_log": ("UInt64", "18446744073709551615 - number % 2"),
    "_seq": ("UInt64", "number"),
}
NAMES = {name: "`" + name.replace("`", "\\`") + "`" for name in TYPES}


class Asked:
    """The test's own connection to a database."""

    def __init__(self, client: Client):
        self._client = client

    def arrow(self, sql: str) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        answer = pa.ipc.open_stream(self._client.raw_query(sql, fmt="ArrowStream"))
        return answer.schema, iter(answer)

    def stream(self, sql: str, clickhouse_format: str) -> Iterator[bytes]:
        yield self._client.raw_query(sql, fmt=clickhouse_format)


class Heard(ClientExecutor):
    """Keeps every statement."""

    def __init__(self, client: Client):
        super().__init__(client)
        self.statements: list[str] = []

    def command(self, sql: str) -> object:
        self.statements.append(sql)
        return super().command(sql)

    def query(self, sql: str, parameters: Any = None) -> Any:
        self.statements.append(sql)
        return super().query(sql, parameters)


def fill(client: Client, database: str, start: int, stop: int) -> None:
    values = ", ".join(f"{value} AS {NAMES[name]}" for name, (_, value) in TYPES.items())
    client.command(
        f"INSERT INTO {database}.trades ({', '.join(NAMES.values())}) "
        f"SELECT {values} FROM numbers({start}, {stop - start})"
    )


@pytest.fixture
def trades(client: Client, database: str) -> str:
    columns = ", ".join(f"{NAMES[name]} {kind}" for name, (kind, _) in TYPES.items())
    client.command(
        f"CREATE TABLE {database}.trades ({columns}, twice UInt32 MATERIALIZED count * 2) ENGINE = MergeTree "
        "PARTITION BY toDate(ts_local) ORDER BY (symbol, ts_local)"
    )
    fill(client, database, 0, 2_000)
    fill(client, database, 2_000, 3_000)  # another part
    return database


class Told(list[str]):
    """Lines that were told."""


def export(
    client: Client, database: str, told: Told, *, collection: str | None = None, executor: Any = None
) -> ServerExport:
    source = TableSource(Asked(client), database, DAY)
    return ServerExport(
        executor or ClientExecutor(client),
        DAY,
        rows_sql=source.rows_sql,
        order_by=source.order_by,
        columns=source.columns,
        schema=source.schema(),
        collection=collection,
        told=told.append,
    )


def run(client: Client, database: str, store: Store, exporter: ServerExport | None = None) -> Archived:
    source = TableSource(Asked(client), database, DAY)
    return write_partition(source, store, recorder_version="1.2.3", exporter=exporter)


def rows_of(store: Store) -> pa.Table:
    known = partition_of(store, DAY)
    batches = [batch for piece in known.pieces for batch in read_files(piece.manifest, store, check=True)]
    return pa.Table.from_batches(batches)


def test_both_ways_give_equal_rows_sums_and_manifests(
    client: Client, trades: str, tmp_path: pathlib.Path
) -> None:
    """Every type that a table may have, extreme values and bytes that are no text: in the same order, under the same
    schema, with the same sums; and `verify` finds nothing.
    """
    told = Told()
    ours, theirs = FolderStore(tmp_path / "ours"), FolderStore(tmp_path / "theirs")
    done = run(client, trades, theirs, export(client, trades, told))
    assert told == []
    assert done.sums == run(client, trades, ours).sums
    assert done.sums.rows == 3_000
    (one,), (other,) = (partition_of(store, DAY).pieces for store in (ours, theirs))
    assert other.manifest.schema == one.manifest.schema
    assert other.manifest.columns == one.manifest.columns
    assert rows_of(theirs).equals(rows_of(ours)) or _equal(rows_of(theirs), rows_of(ours))
    assert check(theirs, DAY).faults == ()
    (file,) = other.manifest.files
    meta = pq.read_metadata(tmp_path / "theirs" / DAY.folder / file.name)
    assert meta.created_by.startswith("ClickHouse"), "the database wrote it"
    assert meta.row_group(0).column(0).compression == "ZSTD"
    assert run(client, trades, theirs, export(client, trades, told)).new == ()
    hidden = [path.name for path in (tmp_path / "theirs" / DAY.folder).iterdir() if path.name[0] == "."]
    assert hidden == [".lock"]


def _equal(one: pa.Table, other: pa.Table) -> bool:
    """Tables of which a float may be NaN."""
    return one.schema == other.schema and all(
        repr(left.to_pylist()) == repr(right.to_pylist())
        for left, right in zip(one.columns, other.columns, strict=True)
    )
