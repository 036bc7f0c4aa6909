"""A dev server on an engine that this process records with: it answers questions and changes nothing."""

from __future__ import annotations

import asyncio
import pathlib
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import clickhouse_connect
import pytest
import requests
from clickhouse_connect.driver.exceptions import DatabaseError

from recorder.devserver.server import DevServer

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client


@pytest.fixture
async def server(chdb_path: pathlib.Path, engine: Client) -> AsyncIterator[DevServer]:
    async with DevServer(chdb_path, read_only=True) as started:
        yield started


@pytest.fixture
def table(engine: Client, database: str) -> str:
    name = f"{database}.t"
    engine.command(f"CREATE TABLE {name} (a Int32) ENGINE = MergeTree ORDER BY a")
    engine.command(f"INSERT INTO {name} VALUES (1), (2)")
    return name


async def ask(server: DevServer, sql: str, method: str = "POST", **parameters: object) -> requests.Response:
    return await asyncio.to_thread(
        requests.request, method, server.url, params=parameters, data=sql, timeout=60  # type: ignore[arg-type]
    )  # fmt: skip


async def code(server: DevServer, sql: str, **parameters: object) -> int:
    answer = await ask(server, sql, **parameters)
    return int(answer.headers.get("X-ClickHouse-Exception-Code", 0))


async def test_it_answers_what_is_recorded_meanwhile(server: DevServer, engine: Client, table: str) -> None:
    """Rows that the process inserts while it serves are there for the next question; settings in the URL hold."""
    assert (await ask(server, f"SELECT sum(a) FROM {table}")).text == "3\n"
    await asyncio.to_thread(engine.command, f"INSERT INTO {table} VALUES (7)")
    assert (await ask(server, f"SELECT sum(a) FROM {table}")).text == "10\n"
    assert (await ask(server, "SELECT getSetting('max_execution_time')", max_execution_time=7)).text == "7\n"
    assert (await ask(server, "SELECT getSetting('max_threads')", max_threads=64)).text == "1\n"

    def with_the_driver() -> list[tuple[int, ...]]:
        with clickhouse_connect.get_client(dsn=server.url) as client:
            assert client.query_df(f"SELECT a FROM {table} ORDER BY a")["a"].tolist() == [1, 2, 7]
            with pytest.raises(DatabaseError) as error:
                client.command(f"DROP TABLE {table}")
            assert error.value.code == 164
            return [tuple(row) for row in client.query("SELECT {x:Int32}", {"x": 5}).result_rows]

    assert await asyncio.to_thread(with_the_driver) == [(5,)]


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO {t} VALUES (9)",
        "INSERT INTO {t} SELECT 9",
        "WITH 9 AS x INSERT INTO {t} SELECT x",
        "INSERT INTO FUNCTION file('{out}', 'CSV', 'a Int8') SELECT 1",
        "INSERT INTO FUNCTION null('a Int8') VALUES (1)",
        "SELECT 1 INTO OUTFILE '{out}'",
        "SELECT 1 INTO /**/ OUTFILE '{out}' -- x",
        "DROP TABLE {t}",
        "TRUNCATE TABLE {t}",
        "OPTIMIZE TABLE {t} FINAL",
        "ALTER TABLE {t} DELETE WHERE 1",
        "CREATE TABLE {t}2 (a Int8) ENGINE = Memory",
        "CREATE TEMPORARY TABLE tt (a Int8)",
        "CREATE FUNCTION f AS x -> x",
        "DETACH TABLE {t}",
        "RENAME TABLE {t} TO {t}2",
        "SYSTEM STOP MERGES {t}",
        "SYSTEM FLUSH LOGS",
        "SYSTEM ENABLE FAILPOINT dummy_failpoint",
        "KILL QUERY WHERE 1",
        "SET readonly = 0",
        "SET max_threads = 8",
        "SELECT 1 SETTINGS readonly = 0",
        "BACKUP TABLE {t} TO File('{out}')",
        "SELECT * FROM file('{secret}', 'LineAsString')",
        "SELECT * FROM `file` /* x */ ('{secret}', 'LineAsString')",
        "SELECT file('{secret}')",
        "SELECT `file`('{secret}')",
        "SELECT * FROM '{secret}'",
        "SELECT * FROM `{secret}`",
        "DESCRIBE TABLE `{secret}`",
        "SELECT * FROM url('http://127.0.0.1:1/', 'CSV', 'a Int8')",
        "SELECT * FROM remote('127.0.0.1', system.one)",
        "SELECT * FROM executable('ls', 'CSV', 'a String')",
        "SELECT * FROM Python(server)",
        "EXPLAIN SELECT * FROM file('{secret}')",
        "SELECT * FROM (SELECT * FROM file('{secret}', 'LineAsString'))",
        "SHOW TABLES; DROP TABLE {t}",
        "SELECT file\u00a0('{secret}')",
        "SELECT file\u0085('{secret}')",
        "SELECT file\u2003\u3000('{secret}')",
        "SELECT file\ufeff/**/\u180e('{secret}')",
        "SELECT * FROM file\u200b('{secret}', 'LineAsString')",
        "SELECT * FROM Python\u00a0(server)",
        "SELECT 1 INTO\u00a0OUTFILE '{out}'",
        "INSERT\u00a0INTO {t} VALUES (9)",
        "SELECT $a$, file('{secret}')",
        "SELECT arrayMap(file, ['{secret}'])",
        "SELECT arrayMap((/**/`file` AS f), ['{secret}'])",
        "SELECT * APPLY file FROM (SELECT '{secret}')",
        "SELECT COLUMNS('x') APPLY(\"file\") FROM (SELECT '{secret}' AS x)",
        "SELECT `f\\x69le`('{secret}')",
        "SELECT \"\\x66ile\"('{secret}')",
        "SELECT arrayMap(`fil\\x65`, ['{secret}'])",
        "SELECT * FROM eval('SELECT file(''{secret}'')')",
        "SELECT * FROM (SELECT 1 SETTINGS max_threads = 8)",
        "SELECT * FROM (SELECT 1 /**/ settings additional_result_filter = 'file(''{secret}'') = 1')",
    ],
)
async def test_nothing_can_be_changed_and_no_file_read(
    server: DevServer, table: str, tmp_path: pathlib.Path, sql: str
) -> None:
    """By no statement, whatever the request sets, in a session or not, by POST or GET."""
    secret, out = tmp_path / "secret.csv", tmp_path / "out"
    secret.write_text("the secret\n")
    said = sql.format(t=table, out=out, secret=secret)
    for parameters in ({}, {"readonly": 0}, {"readonly": 2}, {"session_id": "s"}):
        answer = await ask(server, said, **parameters)
        assert answer.headers["X-ClickHouse-Exception-Code"] in ("164", "358", "344", "62"), answer.text
        assert "the secret" not in answer.text
    assert (await ask(server, "", "GET", query=said)).status_code >= 400
    assert (await ask(server, f"SELECT count(), sum(a) FROM {table}")).text == "2\t3\n"
    assert not out.exists()


async def test_a_parameter_names_no_function(server: DevServer, tmp_path: pathlib.Path) -> None:
    """Where a function may be handed to another one; a column in such a place is fine."""
    secret = tmp_path / "secret.csv"
    secret.write_text("the secret\n")
    for value in ("file", "`file`", " file", "\\x66ile"):
        answer = await ask(server, f"SELECT arrayMap({{f:Identifier}}, ['{secret}'])", param_f=value)
        assert answer.headers["X-ClickHouse-Exception-Code"] == "164"
        assert "the secret" not in answer.text
    assert (await ask(server, "SELECT sum({c:Identifier}) FROM (SELECT 3 AS x)", param_c="x")).text == "3\n"
    assert (await ask(server, "SELECT lower(t.file), file FROM (SELECT 'A' AS file) AS t")).text == "a\tA\n"


@pytest.mark.parametrize(
    ("name", "value", "sql"),
    [
        ("additional_result_filter", "startsWith(file('{secret}'), 'the')", "SELECT 1"),
        (
            "additional_table_filters",
            "{{'system.one': 'throwIf(1, file(\\'{secret}\\'))'}}",
            "SELECT * FROM system.one",
        ),
        ("format_template_resultset", "{secret}", "SELECT 1 FORMAT Template"),
        ("format_schema", "{secret}:M", "SELECT 1 AS a FORMAT Protobuf"),
        ("format_schema_source", "query", "SELECT 1 AS a FORMAT Protobuf"),
        ("output_format_schema", "{out}", "SELECT 1 AS a FORMAT Protobuf"),
        ("allow_experimental_eval_table_function", "1", "SELECT 1"),
        ("dialect", "kusto", "SELECT 1"),
        ("implicit_select", "1", "SELECT 1"),
        ("os_threads_nice_value_query", "-10", "SELECT 1"),
        ("use_query_cache", "1", "SELECT 1"),
        ("profile", "default", "SELECT 1"),
        ("allow_introspection_functions", "1", "SELECT 1"),
    ],
)
async def test_settings_of_a_url_that_could_do_harm_are_refused(
    server: DevServer, tmp_path: pathlib.Path, name: str, value: str, sql: str
) -> None:
    """Some are SQL, name files to read or write, or raise a priority, and the engine's `readonly` comes after them."""
    secret, out = tmp_path / "secret.csv", tmp_path / "out"
    secret.write_text("the secret\n")
    answer = await ask(server, sql, **{name: value.format(secret=secret, out=out)})
    assert answer.headers["X-ClickHouse-Exception-Code"] == "164"
    assert f"Cannot modify '{name}' setting in readonly mode" in answer.text
    assert "the secret" not in answer.text
    assert not out.exists()


async def test_settings_that_clients_need_hold(server: DevServer) -> None:
    """Limits, what a statement means, and how it is answered."""
    sql = "SELECT 18446744073709551615 AS x, toDateTime(0) AS t FORMAT JSONCompactEachRow"
    said = await ask(
        server,
        sql,
        output_format_json_quote_64bit_integers=1,
        date_time_output_format="iso",
        max_result_rows=10,
        result_overflow_mode="break",
        session_timezone="UTC",
        join_use_nulls=1,
        log_comment="me",
    )
    assert said.text == '["18446744073709551615", "1970-01-01T00:00:00Z"]\n'


async def test_a_form_brings_no_tables(server: DevServer) -> None:
    """They would be made in the engine that records."""
    answer = await asyncio.to_thread(
        lambda: requests.post(
            server.url,
            params={"query": "SELECT * FROM e", "e_structure": "a Int8"},
            files={"e": ("e", b"1\n")},
            timeout=30,
        )
    )
    assert answer.headers["X-ClickHouse-Exception-Code"] == "164"


async def test_text_beyond_ascii_is_asked_for(server: DevServer) -> None:
    """In strings, quoted names and comments."""
    assert (await ask(server, "SELECT 'é\u00a0' AS `ß` -- \u00a0ø")).text == "é\u00a0\n"


async def test_few_run_at_a_time(server: DevServer) -> None:
    """So that questions leave the engine to the recorder; more are refused at once, but questions about them."""

    def begun() -> requests.Response:
        """A statement whose answer has begun: it runs until somebody reads on."""
        return requests.post(server.url, "SELECT number FROM numbers(1000000000)", stream=True, timeout=60)

    held = [await asyncio.to_thread(begun) for _ in range(4)]
    try:
        assert [answer.status_code for answer in held] == [200] * 4
        assert await code(server, "SELECT 1") == 202
        assert await code(server, "SELECT 1 -- system.processes") == 202
        assert await code(server, "SELECT 'SHOW PROCESSLIST'") == 202
        assert int((await ask(server, "SELECT count() FROM `system` . processes")).text) >= 4
        assert await code(server, "SHOW PROCESSLIST") == 0
    finally:
        for answer in held:
            answer.close()
    async with asyncio.timeout(60):
        while True:
            answer = await ask(server, "SELECT 1")
            if answer.status_code == 200:
                break
            await asyncio.sleep(0.05)
    assert answer.text == "1\n"


async def test_a_question_has_limits_that_the_url_cannot_lift(server: DevServer) -> None:
    """Memory, time and disk are the recorder's; a question may say that it wants less."""
    limits = {
        "max_memory_usage": 1 << 30,
        "max_execution_time": 60,
        "max_temporary_data_on_disk_size_for_query": 256 << 20,
        "max_untracked_memory": 4 << 20,
    }
    for name, most in limits.items():
        for asked in ("0", str(most + 1), "9" * 5000, "18446744073709551615"):
            said = await ask(server, f"SELECT getSetting('{name}')", **{name: asked})
            assert said.text == f"{most}\n", name
        assert (await ask(server, f"SELECT getSetting('{name}')")).text == f"{most}\n"
        assert (await ask(server, f"SELECT getSetting('{name}')", **{name: 50})).text == "50\n"
    greedy = "SELECT length(groupArray(toString(number) || repeat('x', 1000))) FROM numbers(3000000)"
    assert await code(server, greedy, max_memory_usage=0) == 241


async def test_a_body_is_as_large_as_a_question(server: DevServer) -> None:
    """What is larger, and rows or tables of any size, are refused before they fill the recorder's disk."""
    large = "SELECT 1 -- " + "x" * (1 << 20)
    answer = await ask(server, large, max_query_size=0)
    assert (answer.status_code, answer.headers["X-ClickHouse-Exception-Code"]) == (413, "229")
    insert = "INSERT INTO nowhere FORMAT TSV"
    assert await code(server, "1\n" * 100, query=insert) == 164


async def test_an_answer_that_is_held_back_has_a_limit(chdb_path: pathlib.Path, engine: Client) -> None:
    """A client cannot fill the disk by asking for all of an answer at once; piece by piece it may be any size."""
    sql = "SELECT number FROM numbers(3000000)"
    async with DevServer(chdb_path, read_only=True, max_answer_bytes=20 << 20) as server:
        assert (await ask(server, "SELECT 1", wait_end_of_query=1)).text == "1\n"
        answer = await ask(server, sql, wait_end_of_query=1)
        assert answer.headers["X-ClickHouse-Exception-Code"] == "396"
        assert "The answer is larger than 20971520 bytes" in answer.text
        assert (await ask(server, sql)).text.count("\n") == 3_000_000


async def test_it_comes_and_goes_beside_the_engine(
    chdb_path: pathlib.Path, engine: Client, table: str
) -> None:
    """Threads and descriptors with it; the engine stays."""
    for _ in range(3):
        async with DevServer(chdb_path, read_only=True) as server:
            assert (await ask(server, f"SELECT count() FROM {table}", session_id="x")).text == "2\n"
        await asyncio.to_thread(no_threads_left)
    assert engine.command(f"SELECT count() FROM {table}") == 2
    with pytest.raises(requests.ConnectionError):
        await ask(server, "SELECT 1")


def no_threads_left() -> None:
    """Each ends right after its last word to the loop."""
    for thread in threading.enumerate():
        if thread.name.startswith("devserver"):
            thread.join(30)
            assert not thread.is_alive()


async def test_a_password_is_asked_of_readers_too(chdb_path: pathlib.Path, engine: Client) -> None:
    async with DevServer(chdb_path, read_only=True, user="grafana", password="secret") as server:
        assert await code(server, "SELECT 1") == 516
        assert (await ask(server, "SELECT 1", user="grafana", password="secret")).text == "1\n"


async def test_the_command_query_asks_it(server: DevServer, table: str, tmp_path: pathlib.Path) -> None:
    """In every form; a table stops at its rows without a setting that the server would refuse."""

    async def query(*arguments: str) -> tuple[int | None, bytes, bytes]:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "recorder", "--target", server.url, "query", *arguments,
            cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        out, errors = await asyncio.wait_for(process.communicate(), 60)
        return process.returncode, out, errors

    assert await query("--format", "tsv", f"SELECT sum(a) FROM {table}") == (0, b"sum(a)\n3\n", b"")
    assert await query("--json", f"SELECT a FROM {table} WHERE a = 1") == (0, b'[\n{"a":1}\n]\n', b"")
    code, out, errors = await query("--max-rows", "2", "SELECT number FROM numbers(1000000000000)")
    assert (code, out.split()[-2:]) == (0, [b"0", b"1"]), errors
    assert b"the first 2 rows" in errors
    code, _, errors = await query(f"DROP TABLE {table}")
    assert (code, errors.count(b"\n")) == (1, 1)
    assert b"query only reads" in errors
