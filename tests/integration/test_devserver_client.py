"""clickhouse-connect, unchanged, against a dev server: its public API as its documentation shows it."""

from __future__ import annotations

import asyncio
import datetime
import decimal
import ipaddress
import pathlib
import uuid
from collections.abc import Iterator

import clickhouse_connect
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError, OperationalError
from clickhouse_connect.driver.external import ExternalData
from clickhouse_connect.driver.tools import insert_file
from harness.dev_server_command import Started, dev_server, module_client, module_server

PASSWORD = "p:ä&=%2B \\'\""

server, client = module_server, module_client


@pytest.fixture
def table(client: Client) -> Iterator[str]:
    name = f"t_{uuid.uuid4().hex[:8]}"
    client.command(
        f"CREATE TABLE {name} (key UInt32, value String, metric Float64) ENGINE MergeTree ORDER BY key"
    )
    yield name
    client.command(f"DROP TABLE {name} SYNC")


def test_what_a_client_learns_when_it_connects(server: Started, client: Client) -> None:
    assert client.ping()
    assert client.server_version == server.text("SELECT version()").strip()
    assert client.command("SELECT timezone()") == server.text("SELECT timezone()").strip()
    with clickhouse_connect.get_client(dsn=f"{server.url}/system") as other:
        assert other.query("SELECT count() FROM one").result_rows == [(1,)]
    assert client.command("SELECT 1") == 1
    assert client.command("SELECT 'a', 'b'") == ["a", "b"]


@pytest.mark.parametrize("compress", [True, False, "lz4", "zstd", "gzip"])
def test_rows_in_and_out_with_each_compression(server: Started, table: str, compress: bool | str) -> None:
    rows = [[number, f"value {number}", number / 7] for number in range(20_000)]
    with clickhouse_connect.get_client(dsn=server.url, compress=compress) as client:
        summary = client.insert(table, rows, column_names=["key", "value", "metric"])
        assert summary.written_rows == 20_000
        result = client.query(f"SELECT * FROM {table} ORDER BY key")
    assert result.result_rows == [tuple(row) for row in rows]
    assert result.column_names == ("key", "value", "metric")
    assert [kind.name for kind in result.column_types] == ["UInt32", "String", "Float64"]
    assert result.summary["result_rows"] == "20000"
    assert result.query_id


def test_types_survive_the_way_there_and_back(client: Client) -> None:
    """Those that traders use, in Native both ways."""
    columns = {
        "u": ("UInt64", 2**64 - 1),
        "i": ("Int128", -(2**100)),
        "d": ("Decimal(38, 18)", decimal.Decimal("12345678901234567890.123456789012345678")),
        "t": ("DateTime64(9, 'UTC')", np.datetime64("2024-05-06T07:08:09.123456789")),
        "s": ("LowCardinality(String)", "BTCUSDT"),
        "n": ("Nullable(Float64)", None),
        "e": ("Enum8('buy' = 1, 'sell' = 2)", "sell"),
        "a": ("Array(Tuple(Float64, Float64))", [(1.5, 2.5)]),
        "m": ("Map(String, Int64)", {"a": 1}),
        "g": ("UUID", uuid.uuid4()),
        "p": ("IPv6", ipaddress.IPv6Address("::1")),
        "b": ("Bool", True),
        "y": ("Date32", datetime.date(1950, 1, 2)),
    }
    client.command(
        "CREATE TEMPORARY TABLE types ("
        + ", ".join(f"{name} {kind}" for name, (kind, _) in columns.items())
        + ")"
    )
    given = [value if name != "t" else 1_714_979_289_123_456_789 for name, (_, value) in columns.items()]
    client.insert("types", [given], column_names=list(columns))
    got = client.query("SELECT * EXCEPT t FROM types").first_row
    assert list(got) == [value for name, (_, value) in columns.items() if name != "t"]
    assert client.query_np("SELECT t FROM types")[0] == [columns["t"][1]]


def test_frames_arrays_and_arrow(client: Client, table: str) -> None:
    frame = pd.DataFrame({"key": [1, 2], "value": ["a", "b"], "metric": [0.5, 1.5]})
    client.insert_df(table, frame)
    client.insert_arrow(table, pa.table({"key": pa.array([3], pa.uint32()), "value": ["c"], "metric": [2.5]}))
    read = client.query_df(f"SELECT * FROM {table} ORDER BY key")
    assert read["value"].tolist() == ["a", "b", "c"]
    assert client.query_np(f"SELECT metric FROM {table} ORDER BY key").tolist() == [[0.5], [1.5], [2.5]]
    arrow = client.query_arrow(f"SELECT * FROM {table} ORDER BY key", use_strings=True)
    assert arrow.column("value").to_pylist() == ["a", "b", "c"]
    assert client.query_df_arrow(f"SELECT key FROM {table} ORDER BY key")["key"].tolist() == [1, 2, 3]
    assert client.query(f"SELECT * FROM {table} WHERE key > 9").result_rows == []
    assert client.query(f"SELECT * FROM {table} LIMIT 0").column_names == ("key", "value", "metric")


def test_streams_of_every_kind(client: Client) -> None:
    sql = "SELECT number AS n, toString(number) AS s FROM numbers(200000)"
    expected = sum(range(200_000))
    with client.query_rows_stream(sql) as rows:
        assert sum(row[0] for row in rows) == expected
    with client.query_row_block_stream(sql) as blocks:
        assert sum(row[0] for block in blocks for row in block) == expected
    with client.query_column_block_stream(sql) as blocks:
        assert sum(sum(block[0]) for block in blocks) == expected
    with client.query_df_stream(sql) as frames:
        assert sum(int(frame["n"].sum()) for frame in frames) == expected
    with client.query_np_stream(sql) as arrays:
        assert sum(int(array["n"].sum()) for array in arrays) == expected
    with client.query_arrow_stream(sql) as batches:
        assert sum(pa.compute.sum(batch["n"]).as_py() for batch in batches) == expected
    with client.raw_stream(sql, fmt="CSV") as raw:
        assert raw.read().count(b"\n") == 200_000


def test_parameters_of_both_sides(client: Client) -> None:
    evil = "o'clock \\ {x:String} %(y)s \n\t\0"
    assert client.query("SELECT %(x)s, %(y)s", {"x": evil, "y": 3}).result_rows == [(evil, 3)]
    bound = client.query(
        "SELECT {x:String}, {n:Int64}, {l:Array(String)}, {t:DateTime}, {i:Identifier} FROM (SELECT 5 AS five)",
        {"x": evil, "n": -5, "l": ["a'", "b"], "t": datetime.datetime(2024, 1, 2, 3, 4, 5), "i": "five"},
    )
    assert bound.result_rows == [(evil, -5, ["a'", "b"], datetime.datetime(2024, 1, 2, 3, 4, 5), 5)]
    assert client.command("SELECT {db:String}", parameters={"db": "x"}) == "x"


def test_settings_of_the_client_and_of_a_call(server: Started, table: str) -> None:
    with clickhouse_connect.get_client(dsn=server.url, settings={"max_block_size": 55}) as client:
        assert client.command("SELECT getSetting('max_block_size')") == 55
        assert client.command("SELECT getSetting('max_block_size')", settings={"max_block_size": 66}) == 66
        assert client.command("SELECT getSetting('max_block_size')") == 55
        client.insert(table, [[1, "a", 0.5]], column_names="*", settings={"insert_deduplicate": 0})
        assert client.command(f"SELECT count() FROM {table}") == 1
        client.command("SET max_block_size = 77")
        with pytest.raises(DatabaseError, match="no_such_setting") as error:
            client.query("SELECT 1", settings={"no_such_setting": 1})
        assert error.value.code == 115


def test_raw_queries_and_raw_inserts(client: Client, table: str) -> None:
    client.raw_insert(table, ["key", "value", "metric"], b"1,a,0.5\n2,b,1.5\n", fmt="CSV")
    client.raw_insert(table, ["key", "value", "metric"], iter([b"3\tc\t", b"2.5\n"]), fmt="TSV")
    stored = client.raw_query(f"SELECT key FROM {table} ORDER BY key", fmt="CSV")
    assert stored == b"1\n2\n3\n"
    context = client.create_insert_context(table, column_names=["key", "value", "metric"])
    for key in (4, 5):
        context.data = [[key, "x", 0.0]]
        client.insert(context=context)
    asked = client.create_query_context(
        f"SELECT key FROM {table} WHERE key = {{k:UInt32}}", parameters={"k": 4}
    )
    assert client.query(context=asked).result_rows == [(4,)]
    assert client.command(f"SELECT count() FROM {table}") == 5


def test_a_file_and_external_data(client: Client, table: str, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text('"key","value","metric"\n7,x,0.5\n8,y,1\n')
    insert_file(client, table, str(file))
    ids = ExternalData(file_name="ids.csv", data=b"7\n", fmt="CSV", structure=["id UInt32"])
    assert client.query(f"SELECT value FROM {table} WHERE key IN ids", external_data=ids).result_rows == [
        ("x",)
    ]


def test_a_query_too_long_for_a_url_goes_as_a_form(server: Started) -> None:
    with clickhouse_connect.get_client(dsn=server.url, form_encode_query_params=True) as client:
        text = "x" * 300_000
        assert client.query("SELECT length({t:String})", {"t": text}).result_rows == [(300_000,)]


def test_sessions(server: Started) -> None:
    with clickhouse_connect.get_client(dsn=server.url, session_id=uuid.uuid4().hex) as client:
        client.command("CREATE TEMPORARY TABLE mine (a Int32)")
        client.insert("mine", [[1], [2]], column_names=["a"])
        assert client.query("SELECT sum(a) FROM mine").result_rows == [(3,)]
    with clickhouse_connect.get_client(dsn=server.url, autogenerate_session_id=False) as client:
        with pytest.raises(DatabaseError) as error:
            client.query("SELECT * FROM mine")
        assert error.value.code == 60


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("SELECT * FROM nope", 60),
        ("SELECT nope", 47),
        ("SELECT (", 62),
        ("SELECT 1 FROM nope.nope", 81),
        ("SELECT throwIf(number = 3000000) FROM numbers(5000000)", 395),
        ("SELECT toInt8('x')", 6),
    ],
)
def test_errors_are_the_drivers_own_with_clickhouses_codes(client: Client, sql: str, code: int) -> None:
    with pytest.raises(DatabaseError, match=f"Code: {code}") as error:
        client.query(sql)
    assert error.value.code == code
    assert client.command("SELECT 1") == 1


def test_an_error_in_the_middle_of_a_stream_reaches_the_reader(client: Client) -> None:
    stream = client.query_row_block_stream("SELECT throwIf(number = 9000000) FROM numbers(10000000)")
    with pytest.raises(OperationalError, match="Code: 395"), stream:
        for _ in stream:
            pass


def test_inserts_that_fail(client: Client, table: str) -> None:
    with pytest.raises(DatabaseError) as error:
        client.insert("nope", [[1]], column_names=["a"], column_type_names=["UInt8"])
    assert error.value.code == 60
    with pytest.raises(DatabaseError) as error:
        client.raw_insert(table, ["key"], b"x\n", fmt="CSV")
    assert error.value.code in (27, 117)
    assert client.command(f"SELECT count() FROM {table}") == 0


async def test_the_async_client(server: Started, table: str) -> None:
    client = await clickhouse_connect.get_async_client(dsn=server.url, autogenerate_session_id=False)
    try:
        await client.insert(
            table, [[n, "x", 0.5] for n in range(100)], column_names=["key", "value", "metric"]
        )
        answers = await asyncio.gather(
            *(client.query("SELECT {n:Int32}, sleep(0.05)", {"n": number}) for number in range(8))
        )
        assert [answer.result_rows[0][0] for answer in answers] == list(range(8))
        assert (await client.query_df(f"SELECT count() AS c FROM {table}"))["c"][0] == 100
        async with await client.query_rows_stream("SELECT number FROM numbers(100000)") as rows:
            assert sum([row[0] async for row in rows]) == sum(range(100_000))
        with pytest.raises(DatabaseError) as error:
            await client.query("SELECT * FROM nope")
        assert error.value.code == 60
    finally:
        await client.close()


def test_a_server_with_a_password(tmp_path: pathlib.Path) -> None:
    """The right one by the driver and by the URL; a wrong one is ClickHouse's 516, and appears nowhere."""
    env = {"DEV_PASSWORD": PASSWORD}
    with dev_server(tmp_path, "--user", "jo", "--password-env", "DEV_PASSWORD", env=env) as server:
        port = int(server.url.rsplit(":", 1)[1])
        with clickhouse_connect.get_client(
            host="127.0.0.1", port=port, username="jo", password=PASSWORD
        ) as client:
            assert client.command("SELECT 1") == 1
        for user, password in (("jo", "wrong"), ("default", PASSWORD), ("jo", "")):
            with pytest.raises(DatabaseError, match="Authentication failed") as error:
                clickhouse_connect.get_client(host="127.0.0.1", port=port, username=user, password=password)
            assert error.value.code == 516
        assert server.text("SELECT 1", user="jo", password=PASSWORD) == "1\n"
        assert PASSWORD not in server.log.read_text()
        assert "wrong" not in server.log.read_text()
