"""`recorder archive`: partitions of real tables, on the embedded engine and over HTTP, to Parquet and back."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import types
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from recorder.cli import archive as archive_command
from recorder.cli.errors import Failure
from recorder.cli.options import Invocation
from recorder.retaining.source import TableSource
from retention.archive import FolderStore, Place, identity_sum_sql, partition_of, read_files, write_partition

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client
    from harness.backends import Place as Database

DAY = Place("trades", "2024-08-08")
COLUMNS = """
    ts_local DateTime64(9, 'UTC'), ts_venue Nullable(DateTime64(9, 'UTC')), symbol LowCardinality(String),
    note LowCardinality(Nullable(String)), payload Nullable(String),
    price Decimal(38, 18), size Nullable(Decimal(38, 18)),
    bids Array(Float64), labels Map(LowCardinality(String), String), live Bool, kind Enum8('buy' = 1, 'sell' = -2),
    rate Nullable(Float64), count UInt32, twice UInt32 MATERIALIZED count * 2, _log UInt64, _seq UInt64
"""
VALUES = """
    toDateTime64('2024-08-08 12:00:00.123456789', 9, 'UTC') + number AS ts_local,
    if(number % 3 = 0, NULL, ts_local) AS ts_venue, concat('S', toString(number % 7)) AS symbol,
    if(number % 4 = 0, NULL, 'n') AS note,
    if(number % 5 = 0, NULL, concat(unhex('00FF80'), toString(number))) AS payload,
    toDecimal128(number, 18) + toDecimal128('0.000000000000000001', 18) AS price,
    if(number % 2 = 0, NULL, price) AS size, range(number % 4) AS bids, map('k', toString(number)) AS labels,
    number % 2 = 0 AS live, if(number % 2 = 0, 'buy', 'sell') AS kind, if(number % 6 = 0, NULL, number / 3) AS rate,
    number AS count, 18446744073709551615 - number % 2 AS _log, number AS _seq
"""
NAMES = "ts_local, ts_venue, symbol, note, payload, price, size, bids, labels, live, kind, rate, count, _log, _seq"


class Asked:
    """The test's own connection to a database."""

    def __init__(self, client: Client):
        self._client = client

    def arrow(self, sql: str) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        answer = pa.ipc.open_stream(self._client.raw_query(sql, fmt="ArrowStream"))
        return answer.schema, iter(answer)

    def stream(self, sql: str, clickhouse_format: str) -> Iterator[bytes]:
        yield self._client.raw_query(sql, fmt=clickhouse_format)


def fill(client: Client, database: str, start: int, stop: int) -> None:
    client.command(
        f"INSERT INTO {database}.trades ({NAMES}) SELECT {VALUES} FROM numbers({start}, {stop - start})"
    )


@pytest.fixture
def trades(client: Client, database: str) -> str:
    client.command(
        f"CREATE TABLE {database}.trades ({COLUMNS}) ENGINE = MergeTree PARTITION BY toDate(ts_local) "
        "ORDER BY (symbol, ts_local)"
    )
    fill(client, database, 0, 5_000)
    return database


def archive(client: Client, database: str, root: pathlib.Path) -> FolderStore:
    store = FolderStore(root)
    write_partition(TableSource(Asked(client), database, DAY), store, recorder_version="1.2.3")
    return store


def test_every_value_of_every_type_comes_back(client: Client, trades: str, tmp_path: pathlib.Path) -> None:
    """What ClickHouse makes of the archived rows again is, column by column, what the table has."""
    store = archive(client, trades, tmp_path)
    (piece,) = partition_of(store, DAY).pieces
    back = pa.Table.from_batches(read_files(piece.manifest, store))
    client.command(f"CREATE TABLE {trades}.again AS {trades}.trades")
    given = back.set_column(
        back.schema.get_field_index("kind"),
        "kind",
        pa.array([{1: "buy", -2: "sell"}[value.as_py()] for value in back["kind"]]),
    )
    client.insert_arrow(f"{trades}.again", given, settings={"input_format_null_as_default": 0})
    for one, other in (("trades", "again"), ("again", "trades")):
        left = f"SELECT {NAMES} FROM {trades}.{one} EXCEPT SELECT {NAMES} FROM {trades}.{other}"
        assert client.query(f"SELECT count() FROM ({left})").result_rows == [(0,)]
    symbols = back["symbol"].to_pylist()
    assert symbols == sorted(symbols)
    assert "twice" not in back.schema.names


def test_the_database_computes_the_same_sum_of_identities(
    client: Client, trades: str, tmp_path: pathlib.Path
) -> None:
    """`identity_sum_sql` comes to what the manifest says: whoever drops can compare without reading the archive."""
    store = archive(client, trades, tmp_path)
    sums = partition_of(store, DAY).sums
    sql = f"SELECT {identity_sum_sql()} FROM {trades}.trades WHERE _partition_id = '{DAY.id}'"
    assert client.query(sql).result_rows == [(sums.rows, sums.identity_sum)]


def test_rows_inserted_later_make_an_addendum(client: Client, trades: str, tmp_path: pathlib.Path) -> None:
    """Archive, insert, archive, drop, insert some again with others, archive: each row once."""
    archive(client, trades, tmp_path)
    fill(client, trades, 5_000, 5_100)
    archive(client, trades, tmp_path)
    client.command(f"ALTER TABLE {trades}.trades DROP PARTITION ID '{DAY.id}'")
    fill(client, trades, 5_050, 5_200)
    store = archive(client, trades, tmp_path)
    known = partition_of(store, DAY)
    assert [piece.manifest.sums.rows for piece in known.pieces] == [5_000, 100, 100]
    seqs = [
        seq
        for piece in known.pieces
        for part in read_files(piece.manifest, store)
        for seq in part["_seq"].to_pylist()
    ]
    assert sorted(seqs) == list(range(5_200))


def test_what_cannot_be_archived_is_told(client: Client, trades: str) -> None:
    """No such table, no such partition, rows without identity: each says what there is, or what is missing."""
    client.command(
        f"CREATE TABLE {trades}.plain (ts_local DateTime64(9, 'UTC')) ENGINE = MergeTree ORDER BY ts_local"
    )
    asked = Asked(client)
    for place, told in (
        (Place("plain", "2024-08-08"), "no column _log"),
        (Place("absent", "2024-08-08"), "no table absent"),
        (Place("trades", "2024-08-09"), "it has: 20240808$"),
        (Place("trades", "2024-08"), "it has: 20240808$"),
    ):
        with pytest.raises(Failure, match=told):
            TableSource(asked, trades, place)


def recorder(place: Database, data: pathlib.Path, *arguments: str, code: int = 0) -> Any:
    """What a command answers in JSON."""
    ended = subprocess.run(
        [sys.executable, "-m", "recorder", "--data-dir", str(data), *arguments, "--json"],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **place.variables, "RECORDER_LOG_LEVEL": "error"},
    )
    assert ended.returncode == code, ended.stderr + ended.stdout
    return json.loads(ended.stdout or ended.stderr)


def test_the_commands_archive_list_and_verify(place: Database, tmp_path: pathlib.Path) -> None:
    """create, create again, ls, verify; then a flipped bit makes verify end with 1 and name the file."""
    data = tmp_path / "data"
    recorder(place, data, "simulate", "--minutes", "0.2")
    assert "nothing is archived" in recorder(place, data, "archive", "verify", code=1)["error"]
    sql = "SELECT _partition_id AS id, toUInt32(count()) AS rows FROM fills GROUP BY id"
    (there,) = recorder(place, data, "query", sql)
    made = recorder(place, data, "archive", "create", "fills", there["id"])
    assert made["rows"] == there["rows"] > 0
    assert len(made["new"]) == 1
    assert recorder(place, data, "archive", "create", "fills", there["id"])["new"] == []
    (listed,) = recorder(place, data, "archive", "ls")
    assert (listed["table"], listed["rows"], listed["receipt"]) == ("fills", there["rows"], True)
    assert recorder(place, data, "archive", "verify", "fills")["whole"]
    (file,) = (data / "archive").rglob("*.parquet")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    (found,) = recorder(place, data, "archive", "verify", code=1)["partitions"]
    assert file.name in found["faults"][0]


def test_progress_without_a_terminal_is_a_line_in_ten_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """After a long silence, as while the engine sorts, there is one line and none for each that was due."""
    now_s = [100]
    monkeypatch.setattr(archive_command, "time", types.SimpleNamespace(monotonic=lambda: now_s[0]))
    with archive_command.told(Invocation(), "fills 2024-08") as tell:
        for after_s in (9, 60, 1, 1, 8):
            now_s[0] += after_s
            tell("archiving", now_s[0])
    assert capsys.readouterr().err.splitlines() == [
        "archiving fills 2024-08: 169 rows",
        "archiving fills 2024-08: 179 rows",
    ]
