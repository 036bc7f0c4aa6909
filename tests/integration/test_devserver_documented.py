"""What clickhouse-connect's documentation promises, call by call: commands, time zones, binding, types, errors, DB-API.

`test_devserver_client` has the common ways; this has the rest of what the pages show.
"""

from __future__ import annotations

import datetime
import decimal
import gzip
import io
import ipaddress
import pathlib
import threading
import uuid
import zoneinfo
from collections.abc import Callable, Iterator
from typing import Any

import clickhouse_connect
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from clickhouse_connect import dbapi
from clickhouse_connect.dbapi.connection import Connection
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError, OperationalError, ProgrammingError
from clickhouse_connect.driver.external import ExternalData
from clickhouse_connect.driver.summary import QuerySummary
from clickhouse_connect.driver.tools import insert_file
from harness.dev_server_command import Started, module_client, module_server

UTC = datetime.UTC
NOON = datetime.datetime(2024, 7, 1, 12, tzinfo=UTC)

server, client = module_server, module_client


@pytest.fixture
def numbers(client: Client) -> Iterator[str]:
    """A table of one number."""
    name = f"n_{uuid.uuid4().hex[:8]}"
    client.command(f"CREATE TABLE {name} (a Int32) ENGINE MergeTree ORDER BY a")
    yield name
    client.command(f"DROP TABLE IF EXISTS {name} SYNC")


def test_a_command_without_rows_gives_a_summary(client: Client, numbers: str) -> None:
    """And one whose answer is empty an empty text: the format in the header tells them apart."""
    for sql in (
        f"CREATE TABLE IF NOT EXISTS {numbers} (a Int32) ENGINE MergeTree ORDER BY a",
        f"INSERT INTO {numbers} VALUES (1), (2)",
        f"INSERT INTO {numbers} SELECT 3",
        f"OPTIMIZE TABLE {numbers} FINAL",
        f"ALTER TABLE {numbers} DELETE WHERE a = 3 SETTINGS mutations_sync = 1",
        "SET max_block_size = 100",
        "USE default",
    ):
        said = client.command(sql)
        assert isinstance(said, QuerySummary), sql
        assert said.query_id()
    said = client.command(f"INSERT INTO {numbers} FORMAT TSV", data=b"5\n6\n")
    assert isinstance(said, QuerySummary)
    assert said.written_rows == 2
    for sql in (
        f"SELECT a FROM {numbers} WHERE a > 9",
        "SHOW TABLES LIKE 'nope'",
        "KILL QUERY WHERE query_id = 'nope'",
    ):
        assert client.command(sql) == "", sql
    assert client.query(f"OPTIMIZE TABLE {numbers}").row_count == 1  # the summary, as a result


@pytest.mark.parametrize("compress", [True, False])
def test_a_summary_whether_compressed_or_not(server: Started, numbers: str, compress: bool) -> None:
    with clickhouse_connect.get_client(dsn=server.url, compress=compress) as client:
        assert isinstance(client.command(f"INSERT INTO {numbers} VALUES (1)"), QuerySummary)
        assert isinstance(client.command("SELECT 1", settings={"wait_end_of_query": 1}), int)


def test_time_zones_of_results(server: Started, client: Client) -> None:
    """By precedence: of a column's argument, its type, the query, the session, the server; and their modes."""
    client.command(
        "CREATE TEMPORARY TABLE z (a DateTime, b DateTime('America/Denver'), c DateTime64(3, 'Asia/Tokyo'))"
    )
    client.insert("z", [[NOON] * 3])
    plain, denver, tokyo = client.query("SELECT * FROM z").first_row
    assert (plain, tokyo) == (datetime.datetime(2024, 7, 1, 12), NOON)
    assert tokyo.utcoffset() == datetime.timedelta(hours=9)
    assert denver == NOON
    assert denver.utcoffset() == datetime.timedelta(hours=-6)
    berlin = client.query("SELECT a FROM z", query_tz="Europe/Berlin").first_row[0]
    assert (berlin, berlin.utcoffset()) == (NOON, datetime.timedelta(hours=2))
    london = client.query("SELECT a FROM z", column_tzs={"a": "Europe/London"}).first_row[0]
    assert (london, london.utcoffset()) == (NOON, datetime.timedelta(hours=1))
    with clickhouse_connect.get_client(dsn=server.url, tz_mode="aware") as aware:
        assert aware.query("SELECT toDateTime(0)").first_row == (datetime.datetime(1970, 1, 1, tzinfo=UTC),)


BEFORE = {
    "nothing": "1",
    "numbers": "1, 2.5, 'x', NULL::Nullable(Int64), 1::Decimal(38, 18), 'ab'::FixedString(2), true",
    "arrays": "[1], [[1], []], emptyArrayString(), ['a', NULL], map('a', [1]), (1, 'x')::Tuple(a Int8, b String)",
    "dictionaries": "'a'::LowCardinality(String), [NULL, 'a']::Array(LowCardinality(Nullable(String)))",
    "rare": "toIntervalDay(1), (1., 2.)::Point, generateUUIDv4(), toIPv6('::1'), repeat('x', 300)",
    "many": "number, toString(number) AS s, toLowCardinality(s), arrayMap(x -> toString(x), range(number % 5))",
}


@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("rows", [1, 100_000])
def test_the_zone_of_a_column_survives_whatever_stands_before_it(
    client: Client, before: str, rows: int
) -> None:
    """`DateTime` with one is named in the answer's first block, behind columns of any type, however large it is."""
    sql = f"SELECT {BEFORE[before]}, toDateTime(number, 'Asia/Tokyo') AS `t t`, now() FROM numbers({rows}) -- end"
    result = client.query(sql)
    assert [kind.name for kind in result.column_types][-2:] == ["DateTime('Asia/Tokyo')", "DateTime"]
    *_, last = (row[-2] for row in result.result_rows)
    assert last.utcoffset() == datetime.timedelta(hours=9)
    assert int(last.timestamp()) == rows - 1
    assert len(result.result_rows) == rows


@pytest.mark.parametrize(("zone", "named"), [(", 'Asia/Tokyo'", "DateTime('Asia/Tokyo')"), ("", "DateTime")])
def test_the_zone_of_a_column_behind_a_first_block_of_megabytes(
    client: Client, zone: str, named: str
) -> None:
    """It is read to its end where there is a zone to tell; nothing changes where there is none."""
    sql = f"SELECT repeat('x', 400) AS s, toDateTime(number{zone}) AS t FROM numbers(200000)"
    with client.query_column_block_stream(sql) as blocks:
        assert [kind.name for kind in blocks.source.column_types] == ["String", named]
        assert sum(len(block[1]) for block in blocks) == 200_000


def test_behind_types_of_any_length_times_are_in_utc(client: Client) -> None:
    """The answer is as it was; only the zone is missing."""
    row = client.query("SELECT '{\"a\": 1}'::JSON, toDateTime(0, 'Asia/Tokyo')").first_row
    assert row == ({"a": 1}, datetime.datetime(1970, 1, 1))


@pytest.mark.parametrize("way", ["setting of a call", "setting of a client", "clause", "session"])
def test_the_sessions_time_zone_is_that_of_results(server: Started, way: str) -> None:
    """Whoever sets it, the answer's header says so and the driver applies it."""
    zone = "America/New_York"
    given = {"session_timezone": zone}
    sql = "SELECT toDateTime('2024-01-01 00:00:00') AS t"
    with clickhouse_connect.get_client(
        dsn=server.url, settings=given if way == "setting of a client" else {}
    ) as client:
        if way == "session":
            client.command(f"SET session_timezone = '{zone}'")
        clause = f" SETTINGS session_timezone = '{zone}'" if way == "clause" else ""
        got = client.query(sql + clause, settings=given if way == "setting of a call" else {}).first_row[0]
    assert got == datetime.datetime(2024, 1, 1, tzinfo=zoneinfo.ZoneInfo(zone))
    assert got.utcoffset() == datetime.timedelta(hours=-5)
    assert server.ask("SELECT 1").headers["X-ClickHouse-Timezone"] == server.text("SELECT timezone()").strip()


BOUND = {
    "Int64": -5,
    "UInt64": 2**64 - 1,
    "Float64": 1.5,
    "String": "it's \\ \n \t \0 é",
    "Date": datetime.date(2024, 1, 2),
    "DateTime": datetime.datetime(2024, 1, 2, 3, 4, 5),
    "DateTime64(6)": datetime.datetime(2024, 1, 2, 3, 4, 5, 123456),
    "Decimal(38, 10)": decimal.Decimal("1.1"),
    "UUID": uuid.UUID(int=5),
    "IPv4": ipaddress.IPv4Address("1.2.3.4"),
    "IPv6": ipaddress.IPv6Address("::5"),
    "Array(String)": ["a'", "b\\", "\t"],
    "Array(Array(Int8))": [[1], [2, 3]],
    "Array(Nullable(Int8))": [1, None],
    "Array(Date)": [datetime.date(2024, 1, 1)],
    "Tuple(Int8, String)": (1, "x"),
    "Bool": True,
    "Nullable(String)": None,
    "Enum8('a' = 1)": "a",
    "LowCardinality(String)": "zz",
}


@pytest.mark.parametrize("kind", BOUND)
@pytest.mark.parametrize("form", [False, True], ids=["url", "form"])
def test_values_bound_by_the_server(server: Started, kind: str, form: bool) -> None:
    """In the URL or in a form; each comes back as it was given."""
    with clickhouse_connect.get_client(dsn=server.url, form_encode_query_params=form) as client:
        assert client.query(f"SELECT {{v:{kind}}}", {"v": BOUND[kind]}).result_rows == [(BOUND[kind],)]


def test_values_bound_by_the_client(client: Client) -> None:
    """As literals of SQL, by name and by place."""
    values: list[Any] = [1, -5, 1.5, "it's \\ \n \t %", ["a'", "b"], (1, "x"), True, None]
    for value in values:
        assert client.query("SELECT %(v)s AS v", {"v": value}).result_rows == [(value,)]
    assert client.query("SELECT %s, %s", ("a", 2)).result_rows == [("a", 2)]
    day = datetime.datetime(2024, 1, 2, 3, 4, 5)
    assert client.query("SELECT toDateTime(%(t)s)", {"t": day}).result_rows == [(day,)]


STORED = {
    "Int256": -(2**200),
    "UInt256": 2**255,
    "BFloat16": 1.5,
    "Float32": 1.5,
    "FixedString(4)": b"abcd",
    "Decimal(76, 20)": decimal.Decimal("1.00000000000000000001"),
    "IPv4": ipaddress.IPv4Address("1.2.3.4"),
    "Enum16('a' = 1, 'b' = 1000)": "b",
    "Tuple(a Int8, b String)": {"a": 1, "b": "x"},
    "Nested(a Int8, b String)": [{"a": 1, "b": "x"}],
    "Map(String, Array(UInt8))": {"x": [1, 2]},
    "Array(Nullable(String))": ["a", None],
    "LowCardinality(Nullable(String))": None,
    "JSON": {"a": {"b": 1}},
    "Variant(Int64, String)": 5,
    "Dynamic": "x",
    "Point": (1.0, 2.0),
    "Time64(6)": datetime.timedelta(hours=5, microseconds=5),
}


@pytest.mark.parametrize("kind", STORED)
def test_values_of_every_type_go_in_and_come_out(client: Client, kind: str) -> None:
    client.command(
        f"CREATE TEMPORARY TABLE typed (v {kind})",
        settings={"flatten_nested": 0, "enable_time_time64_type": 1},
    )
    client.insert("typed", [[STORED[kind]], [STORED[kind]]], settings={"enable_time_time64_type": 1})
    assert client.query("SELECT v FROM typed").result_rows == [(STORED[kind],)] * 2


def test_shapes_and_formats_of_results(client: Client) -> None:
    columns = client.query("SELECT number, toString(number) FROM numbers(3)", column_oriented=True)
    assert columns.result_set == [[0, 1, 2], ["0", "1", "2"]]
    named = client.query("SELECT number AS n FROM numbers(2)")
    assert (list(named.named_results()), named.first_item) == ([{"n": 0}, {"n": 1}], {"n": 0})
    assert client.query(
        "SELECT toUUID('00000000-0000-0000-0000-000000000005')", query_formats={"UUID": "string"}
    ).first_row
    assert client.query("SELECT toDate(3) AS d", column_formats={"d": "int"}).first_row == (3,)
    assert client.query("SELECT NULL::Nullable(Int8)", use_none=False).first_row == (0,)
    context = client.create_query_context(
        "SELECT number FROM numbers(3) WHERE number = {k:Int32}", parameters={"k": 2}, column_oriented=True
    )
    assert client.query(context=context).result_set == [[2]]
    context.set_parameter("k", 1)
    assert client.query(context=context).result_set == [[1]]
    with client.query_df_arrow_stream("SELECT number FROM numbers(100000)") as frames:
        assert sum(len(frame) for frame in frames) == 100_000
    with client.query_row_block_stream(
        "SELECT 1 FROM numbers(5000)", settings={"max_block_size": 1000}
    ) as blocks:
        assert blocks.source.column_names == ("1",)
        assert sum(1 for _ in blocks) == 5


def test_clients_options(server: Started) -> None:
    def made(**options: Any) -> Client:
        return clickhouse_connect.get_client(dsn=server.url, **options)

    with made(query_limit=5) as client:
        assert client.query("SELECT number FROM numbers(100);").row_count == 5
    with made(rename_response_column="remove_prefix", client_name="me") as client:
        assert client.query("SELECT number AS `a.b` FROM numbers(2)").column_names == ("b",)
    with made(show_clickhouse_errors=False) as client:
        with pytest.raises(DatabaseError, match=r"^The ClickHouse server returned an error$") as error:
            client.query("SELECT nope")
        assert error.value.code == 47
    transport = {"buffer_size": 1_000, "quota_key": "k", "session_timeout": 100, "wait_end_of_query": 1}
    with made(
        session_id=uuid.uuid4().hex, settings={**transport, "distributed_ddl_task_timeout": 300}
    ) as client:
        assert client.command("SELECT getSetting('distributed_ddl_task_timeout')") == 300
        client.set_client_setting("max_block_size", 100)
        assert client.get_client_setting("max_block_size") == "100"
        assert client.command("SELECT getSetting('max_block_size')") == 100
        assert client.min_version("24.8")
        assert client.query("SELECT 1", settings={"query_id": "mine"}).query_id == "mine"
    made(query_retries=0, autogenerate_session_id=False, autogenerate_query_id=True).close()


def test_external_tables_of_several_files(client: Client, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "movies.csv"
    file.write_text('"x",2000,1.5\n')
    data = ExternalData(
        file_path=str(file), fmt="CSV", structure=["movie String", "year UInt16", "r Decimal32(3)"]
    )
    data.add_file(file_name="two", data=b"5\n6\n", types="UInt8")
    row = client.query(
        "SELECT *, (SELECT sum(_1) FROM two) + {x:Int8} FROM movies", {"x": 1}, external_data=data
    ).first_row
    assert row == ("x", 2000, decimal.Decimal("1.500"), 12)
    one = ExternalData(file_name="one", data=b"7\n", structure="n Int8")
    assert client.query_df("SELECT n FROM one", external_data=one)["n"].tolist() == [7]
    assert client.command("SELECT n FROM one", external_data=one) == 7
    assert client.raw_query("SELECT n FROM one", external_data=one) == b"7\n"


def test_frames_in(client: Client) -> None:
    client.command(
        "CREATE TEMPORARY TABLE f (id Int64, ts DateTime64(9), s Nullable(String), b Bool, v Nullable(Float64))"
    )
    times = pd.to_datetime(["2024-01-01 00:00:00.123456789", "2024-01-02 00:00:00.000000001"])
    frame = pd.DataFrame(
        {"id": [1, 2], "ts": times, "s": ["A", None], "b": [True, False], "v": [1.5, np.nan]}
    )
    assert client.insert_df("f", frame).written_rows == 2
    back = client.query_df("SELECT * FROM f ORDER BY id")
    assert back["ts"].astype("int64").tolist() == times.astype("int64").tolist()
    assert client.query("SELECT id, s, b, v FROM f ORDER BY id").result_rows == [
        (1, "A", True, 1.5),
        (2, None, False, None),
    ]
    client.command("CREATE TEMPORARY TABLE g (id Int64, name String)")
    arrow = pd.DataFrame({"id": [1, 2], "name": ["A", "é"]}).convert_dtypes(dtype_backend="pyarrow")
    assert client.insert_df_arrow("g", arrow).written_rows == 2
    assert client.query_df_arrow("SELECT * FROM g ORDER BY id")["name"].tolist() == ["A", "é"]
    columns = [np.arange(3, 100_003), ["x"] * 100_000]
    assert (
        client.insert("g", columns, column_names=["id", "name"], column_oriented=True).written_rows == 100_000
    )


def test_raw_inserts_of_every_kind(client: Client, numbers: str, tmp_path: pathlib.Path) -> None:
    assert (
        client.raw_insert(numbers, ["a"], gzip.compress(b"1\n"), fmt="TSV", compression="gzip").written_rows
        == 1
    )
    client.raw_insert(numbers, None, "2\n", fmt="TSV")
    client.raw_insert(numbers, ["a"], (b"%d\n" % n for n in range(3, 50)), fmt="TSV")
    client.raw_insert(numbers, ["a"], io.BytesIO(b"50\n"), fmt="TSV")
    client.raw_insert(numbers, ["a"], b"", fmt="TSV")
    client.insert(numbers, [])
    file = tmp_path / "rows.csv"
    file.write_text("51\nbad\n52\n")
    insert_file(client, numbers, str(file), column_names=["a"], settings={"input_format_allow_errors_num": 5})
    zipped = tmp_path / "rows.csv.gz"
    zipped.write_bytes(gzip.compress(b"53\n"))
    insert_file(client, numbers, str(zipped), column_names=["a"], compression="gzip")
    assert client.query(f"SELECT count(), sum(a) FROM {numbers}").result_rows == [(53, sum(range(54)))]


SLEEPS = "SELECT sleepEachRow(0.1) FROM numbers(100)"
GREEDY = "SELECT groupArray(number) FROM numbers(10000000)"
ERRORS: dict[str, tuple[int, Callable[[Client, str], object]]] = {
    "time": (159, lambda c, t: c.query(SLEEPS, settings={"max_execution_time": 1, "max_block_size": 1})),
    "memory": (241, lambda c, t: c.query(GREEDY, settings={"max_memory_usage": 1_000_000})),
    "rows of the result": (396, lambda c, t: c.query("SELECT 1 FROM numbers(9)", settings={"max_result_rows": 5})),
    "rows read": (158, lambda c, t: c.query("SELECT number FROM numbers(100000)", settings={"max_rows_to_read": 5})),
    "unknown table": (60, lambda c, t: c.insert("nope", [[1]])),
    "unknown database": (81, lambda c, t: c.query("SELECT * FROM nope.t")),
    "unknown function": (46, lambda c, t: c.query("SELECT nope(1)")),
    "unknown format": (73, lambda c, t: c.raw_query("SELECT 1", fmt="Nope")),
    "unknown engine": (56, lambda c, t: c.command("CREATE TABLE z (a Int8) ENGINE = Nope")),
    "unknown column of Arrow": (16, lambda c, t: c.insert_arrow(t, pa.table({"zz": [1]}))),
    "wrong type of Arrow": (6, lambda c, t: c.insert_arrow(t, pa.table({"a": ["x"]}))),
    "wrong type": (43, lambda c, t: c.query("SELECT 1 + 'a'")),
    "bad SQL": (62, lambda c, t: c.command("SELEC 1")),
    "two statements": (62, lambda c, t: c.command("SELECT 1; SELECT 2")),
    "there already": (57, lambda c, t: c.command(f"CREATE TABLE {t} (a Int8) ENGINE = Memory")),
    "no parameter": (456, lambda c, t: c.query("SELECT {x:Int8}")),
    "bad parameter": (457, lambda c, t: c.query("SELECT {x:Int8}", {"x": "y"})),
    "readonly": (164, lambda c, t: c.command(f"INSERT INTO {t} VALUES (1)", settings={"readonly": 1})),
    "role": (511, lambda c, t: c.query("SELECT 1", settings={"role": "nope"})),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_errors_have_the_drivers_class_and_clickhouses_code_and_name(
    client: Client, numbers: str, name: str
) -> None:
    code, call = ERRORS[name]
    with pytest.raises(DatabaseError) as error:
        call(client, numbers)
    assert error.value.code == code
    assert error.value.name
    assert error.value.name in str(error.value)
    assert client.command(f"SELECT count() FROM {numbers}") == 0


def test_a_client_does_not_wait_longer_than_it_says(server: Started) -> None:
    with clickhouse_connect.get_client(dsn=server.url, send_receive_timeout=1) as client:
        with pytest.raises(OperationalError, match="Read timed out"):
            client.query("SELECT sleep(3)")
        assert clickhouse_connect.get_client(dsn=server.url).command("SELECT 1") == 1


def test_a_query_that_is_killed_and_a_session_in_use(server: Started, client: Client) -> None:
    """394 to whoever asked; the driver itself refuses two at a time in one session."""
    failures: list[DatabaseError] = []

    def ask() -> None:
        try:
            client.query(
                "SELECT sleepEachRow(0.1) FROM numbers(1000)",
                settings={"max_block_size": 1, "query_id": "kill-me"},
            )
        except DatabaseError as error:
            failures.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    server.wait_for("SELECT count() FROM system.processes WHERE query_id = 'kill-me'", "1\n")
    with pytest.raises(ProgrammingError, match="concurrent queries within the same session"):
        client.query("SELECT 1")
    with clickhouse_connect.get_client(dsn=server.url) as other:
        other.command("KILL QUERY WHERE query_id = 'kill-me' SYNC")
    asking.join(30)
    assert [error.code for error in failures] == [394]


def test_an_unknown_database_and_a_wrong_setting_at_once(server: Started) -> None:
    """As the client is made."""
    with pytest.raises(DatabaseError) as error:
        clickhouse_connect.get_client(dsn=server.url, database="nope")
    assert error.value.code == 81
    with pytest.raises(DatabaseError) as error:
        clickhouse_connect.get_client(dsn=server.url, access_token="tok")
    assert error.value.code == 516
    with pytest.raises(ProgrammingError):
        clickhouse_connect.get_client(dsn=server.url, compress="nope")


@pytest.fixture
def connection(server: Started) -> Iterator[Connection]:
    opened = dbapi.connect(host="127.0.0.1", port=int(server.url.rsplit(":", 1)[1]), database="default")
    yield opened
    opened.close()


def test_the_db_api(connection: Connection, numbers: str) -> None:
    """Cursors, their fetches, parameters of both kinds, many rows, and what there is no transaction of."""
    cursor = connection.cursor()
    cursor.execute("SELECT number, toString(number) AS str FROM system.numbers LIMIT 5")
    assert [column[:2] for column in cursor.description] == [("number", "UInt64"), ("str", "String")]
    assert cursor.rowcount == 5
    assert cursor.fetchone() == (0, "0")
    assert cursor.fetchmany(size=3) == [(1, "1"), (2, "2"), (3, "3")]
    assert cursor.fetchall() == [(4, "4")]
    cursor.executemany(f"INSERT INTO {numbers} (a) VALUES", [{"a": 1}, {"a": 2}])
    cursor.execute(f"INSERT INTO {numbers} (a) VALUES (%(a)s)", {"a": 3})
    cursor.execute(f"SELECT a FROM {numbers} WHERE a > {{a:Int32}} ORDER BY a", {"a": 1})
    assert cursor.fetchall() == [(2,), (3,)]
    assert cursor.summary[-1]["result_rows"] == "2"
    connection.commit()
    connection.rollback()
    assert connection.command(f"SELECT count() FROM {numbers}") == 3
    with pytest.raises(dbapi.Error):
        cursor.execute("SELECT * FROM nope")
    cursor.close()


async def test_every_call_of_the_async_client(server: Started, numbers: str) -> None:
    async with await clickhouse_connect.get_async_client(dsn=server.url, connector_limit=5) as client:
        assert isinstance(await client.command(f"INSERT INTO {numbers} VALUES (1)"), QuerySummary)
        await client.insert_df(numbers, pd.DataFrame({"a": [2]}))
        await client.insert_arrow(numbers, pa.table({"a": pa.array([3], pa.int32())}))
        await client.raw_insert(numbers, ["a"], b"4\n", fmt="TSV")
        sql = f"SELECT a FROM {numbers} ORDER BY a"
        assert (await client.query(sql)).result_rows == [(1,), (2,), (3,), (4,)]
        assert (await client.query_np(sql)).tolist() == [[1], [2], [3], [4]]
        assert (await client.query_arrow(sql)).column("a").to_pylist() == [1, 2, 3, 4]
        assert await client.raw_query(sql, fmt="CSV") == b"1\n2\n3\n4\n"
        async with await client.query_df_stream(sql) as frames:
            assert [number async for frame in frames for number in frame["a"].tolist()] == [1, 2, 3, 4]
        async with await client.query_row_block_stream(sql) as blocks:
            assert [row async for block in blocks for row in block] == [(1,), (2,), (3,), (4,)]
        async with await client.raw_stream("SELECT number FROM numbers(100000)", fmt="CSV") as pieces:
            assert b"".join([piece async for piece in pieces]).count(b"\n") == 100_000
        assert await client.ping()
        zone = {"session_timezone": "Asia/Tokyo"}
        assert (await client.query("SELECT toDateTime(0)", settings=zone)).first_row[0].tzinfo is not None
        for sql, code in (("SELECT * FROM nope", 60), ("SELEC", 62)):
            with pytest.raises(DatabaseError) as error:
                await client.query(sql)
            assert error.value.code == code
