"""A dev server's HTTP, request by request, as ClickHouse's documentation of its HTTP interface describes it."""

from __future__ import annotations

import base64
import bz2
import gzip
import http.client
import json
import pathlib
import socket
import threading
import time
import urllib.parse
import zlib
from collections.abc import Iterator

import lz4.frame
import pyarrow as pa
import pyarrow.parquet
import pytest
import requests
from harness.dev_server_command import Started, module_server

from recorder.devserver import codecs
from recorder.devserver.codecs import zstd

server = module_server


@pytest.fixture
def table(server: Started) -> Iterator[str]:
    """A table with a number and a text, dropped afterwards."""
    name = f"t{time.monotonic_ns()}"
    server.text(f"CREATE TABLE {name} (a Int32, b String) ENGINE = MergeTree ORDER BY a")
    yield name
    server.text(f"DROP TABLE {name} SYNC")


def failed(answer: requests.Response) -> tuple[int, int]:
    """Status and code of a failure, which its text must have too."""
    code = int(answer.headers["X-ClickHouse-Exception-Code"])
    assert answer.text.startswith(f"Code: {code}. DB::Exception: ")
    assert "(version " in answer.text
    return answer.status_code, code


def test_health_checks_need_no_credentials(server: Started) -> None:
    for path in ("/", "/ping", "/replicas_status"):
        for method in ("GET", "HEAD"):
            answer = requests.request(method, server.url + path, timeout=10)
            assert answer.status_code == 200
            assert answer.text == ("Ok.\n" if method == "GET" else "")
    nowhere = requests.get(server.url + "/nowhere", timeout=10)
    assert nowhere.status_code == 404
    assert "There is no handle /nowhere" in nowhere.text


def test_a_query_comes_in_the_url_or_the_body_or_both(server: Started) -> None:
    """The URL's part and the body's are one text, with a line break between them."""
    assert requests.get(server.url, params={"query": "SELECT 1"}, timeout=10).text == "1\n"
    assert server.text("SELECT 1") == "1\n"
    assert server.text("1 + 1", query="SELECT") == "2\n"
    assert server.text(" AS x FORMAT JSONEachRow", query="SELECT 'a' -- comment") == '{"x":"a"}\n'
    assert requests.put(server.url, data=b"SELECT 3", timeout=10).text == "3\n"


def test_the_answer_says_what_it_is(server: Started) -> None:
    answer = server.ask("SELECT number FROM numbers(10) FORMAT CSV", query_id="my-id")
    said = answer.headers
    assert said["X-ClickHouse-Query-Id"] == "my-id"
    assert said["X-ClickHouse-Format"] == "CSV"
    assert said["X-ClickHouse-Server-Display-Name"] == socket.gethostname()
    assert said["X-ClickHouse-Timezone"] == server.text("SELECT timezone()").strip()
    assert said["Content-Type"].startswith("text/csv")
    summary = json.loads(said["X-ClickHouse-Summary"])
    assert (summary["read_rows"], summary["result_rows"], summary["written_rows"]) == ("10", "10", "0")
    assert int(summary["elapsed_ns"]) > 0
    assert (
        server.ask("SELECT 1").headers["X-ClickHouse-Query-Id"]
        != server.ask("SELECT 1").headers["X-ClickHouse-Query-Id"]
    )


def test_the_format_is_the_querys_then_the_headers_then_the_urls(server: Started) -> None:
    headers = {"X-ClickHouse-Format": "JSONEachRow"}

    def ask(sql: str, **more: dict[str, str]) -> requests.Response:
        return requests.post(server.url, data=sql, timeout=10, **more)  # type: ignore[arg-type]

    assert ask("SELECT 1 AS x").headers["X-ClickHouse-Format"] == "TabSeparated"
    assert ask("SELECT 1 AS x", params={"default_format": "CSV"}).headers["X-ClickHouse-Format"] == "CSV"
    both = ask("SELECT 1 AS x", params={"default_format": "CSV"}, headers=headers)
    assert (both.text, both.headers["X-ClickHouse-Format"]) == ('{"x":1}\n', "JSONEachRow")
    assert ask("SELECT 'y' AS x FORMAT TSVWithNames", headers=headers).text == "x\ny\n"


def test_settings_and_parameters_in_the_url(server: Started) -> None:
    """Settings hold for the request alone; parameters are values, never SQL."""
    assert server.text("SELECT getSetting('max_block_size')", max_block_size=77) == "77\n"
    assert server.text("SELECT getSetting('max_block_size')") != "77\n"
    evil = "1'; DROP TABLE x; -- \\ "
    said = server.text(
        "SELECT {a:String}, {b:Array(UInt8)}", param_a=evil.replace("\\", "\\\\"), param_b="[1,2]"
    )
    assert said == evil.replace("\\", "\\\\").replace("'", "\\'") + "\t[1,2]\n"
    assert failed(server.ask("SELECT 1", no_such_setting=1)) == (404, 115)
    assert failed(server.ask("SELECT {a:UInt8}", param_a="x")) == (500, 457)
    assert failed(server.ask("SELECT {a:UInt8}")) == (500, 456)


def test_the_database_of_a_request(server: Started) -> None:
    """By parameter or header; one that is not there is an error."""
    assert server.text("SELECT currentDatabase()", database="system") == "system\n"
    by_header = requests.post(
        server.url, data="SELECT currentDatabase()", headers={"X-ClickHouse-Database": "system"}, timeout=10
    )
    assert by_header.text == "system\n"
    assert server.text("SELECT currentDatabase()") == "default\n"
    assert failed(server.ask("SELECT 1", database="nope")) == (404, 81)


def test_get_only_reads(server: Started, table: str) -> None:
    """As ClickHouse has it; INTO OUTFILE and FROM INFILE are the client's, never the server's."""

    def get(sql: str, **more: str) -> requests.Response:
        return requests.get(server.url, params={"query": sql, **more}, timeout=10)

    for sql in (
        f"INSERT INTO {table} VALUES (1, 'x')",
        f"DROP TABLE {table}",
        f"INSERT INTO {table} SELECT 1, 'x'",
        f"ALTER TABLE {table} DELETE WHERE 1",
        "CREATE TABLE no (a Int8) ENGINE = Memory",
        "INSERT INTO FUNCTION file('/tmp/recorder-no') SELECT 1",
    ):
        assert failed(get(sql)) == (500, 164), sql
        assert failed(get(sql, session_id="readers")) == (500, 164), sql
    assert get("SELECT getSetting('max_threads')", max_threads="3").text == "3\n"
    assert failed(server.ask(f"INSERT INTO {table} VALUES (1, 'x')", readonly=1)) == (500, 164)
    assert server.text(f"SELECT count() FROM {table}") == "0\n"


def test_no_statement_writes_or_reads_files_by_a_clause(
    server: Started, table: str, tmp_path: pathlib.Path
) -> None:
    target = tmp_path / "out"
    for sql in (
        f"SELECT 1 INTO OUTFILE '{target}'",
        f"SELECT 1 INTO /* x */ OUTFILE '{target}' FORMAT CSV",
        f"SHOW TABLES INTO OUTFILE '{target}'",
        f"DROP TABLE IF EXISTS no INTO OUTFILE '{target}'",
    ):
        assert failed(server.ask(sql)) == (500, 358), sql
    assert failed(server.ask(f"INSERT INTO {table} FROM INFILE '/etc/passwd' FORMAT CSV")) == (404, 78)
    assert failed(server.ask("SELECT * FROM Python(request)")) == (500, 344)
    assert not target.exists()


@pytest.mark.parametrize(
    ("sql", "status", "code"),
    [
        ("SELECT (", 400, 62),
        ("", 400, 62),
        (" -- nothing", 400, 62),
        ("SELEC 1", 400, 62),
        ("SELECT 1; SELECT 2", 400, 62),
        ("SELECT * FROM nope", 404, 60),
        ("SELECT nope", 404, 47),
        ("SELECT nope(1)", 404, 46),
        ("SELECT 1 FORMAT Nope", 404, 73),
        ("DROP DATABASE nope", 404, 81),
        ("SELECT toInt8('x')", 400, 6),
        ("SELECT throwIf(1)", 500, 395),
        (
            "SELECT sleepEachRow(0.1) FROM numbers(100) SETTINGS max_execution_time = 0.3, max_block_size = 1",
            408,
            159,
        ),
        ("SELECT 1 SETTINGS nope = 1", 404, 115),
    ],
)
def test_errors_have_clickhouses_code_and_status(server: Started, sql: str, status: int, code: int) -> None:
    """And its text, once, without files or frames of the server."""
    answer = server.ask(sql)
    assert failed(answer) == (status, code)
    assert answer.text.count("(version ") == 1
    assert "/proc/" not in answer.text
    assert answer.headers["X-ClickHouse-Query-Id"]


def test_a_post_without_length_is_411(server: Started) -> None:
    port = urllib.parse.urlsplit(server.url).port
    with socket.create_connection(("127.0.0.1", port or 0), 10) as bare:
        bare.sendall(b"POST /?query=SELECT+1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = bare.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 411 ")
    assert b"Code: 381." in answer


INPUT = {
    "TSV": b"1\tx\n2\ty\n",
    "CSV": b'1,"x"\n2,y\n',
    "CSVWithNames": b"b,a\nx,1\ny,2\n",
    "JSONEachRow": b'{"a":1,"b":"x"}\n{"a":2,"b":"y"}\n',
    "JSONCompactEachRow": b'[1,"x"]\n[2,"y"]',
    "Values": b"(1,'x'),(2,'y')",
    "TSKV": b"a=1\tb=x\na=2\tb=y\n",
    "RowBinary": b"\1\0\0\0\1x\2\0\0\0\1y",
}


@pytest.mark.parametrize("name", INPUT)
@pytest.mark.parametrize("place", ["body", "url", "split"])
def test_rows_come_in_in_any_format(server: Started, table: str, name: str, place: str) -> None:
    """With the statement in the URL, in the body, or begun in the one and ended in the other."""
    head = f"INSERT INTO {table}" + (" VALUES" if name == "Values" else f" FORMAT {name}")
    if place == "url":
        answer = server.ask(INPUT[name], query=head)
    elif place == "body":
        answer = server.ask(head.encode() + b"\n" + INPUT[name])
    else:
        start, _, rest = head.partition(" INTO ")
        answer = server.ask(b"INTO " + rest.encode() + b"\n" + INPUT[name], query=start)
    assert (answer.status_code, answer.text) == (200, "")
    assert json.loads(answer.headers["X-ClickHouse-Summary"])["written_rows"] == "2"
    assert server.text(f"SELECT * FROM {table} ORDER BY a") == "1\tx\n2\ty\n"


def test_arrow_and_parquet_both_ways(server: Started, table: str) -> None:
    """Frames of formats come as one stream, however many blocks they have."""
    rows = pa.table({"a": pa.array(range(200_000), pa.int32()), "b": [str(n) for n in range(200_000)]})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows, max_chunksize=1_000)
    assert (
        server.ask(sink.getvalue().to_pybytes(), query=f"INSERT INTO {table} FORMAT ArrowStream").status_code
        == 200
    )
    for name, read in (
        ("ArrowStream", lambda data: pa.ipc.open_stream(data).read_all()),
        ("Arrow", lambda data: pa.ipc.open_file(data).read_all()),
        ("Parquet", lambda data: pyarrow.parquet.read_table(pa.BufferReader(data))),
    ):
        got = read(
            server.ask(
                f"SELECT a FROM {table} ORDER BY a FORMAT {name} SETTINGS max_block_size = 1000"
            ).content
        )
        assert got.column("a").to_pylist() == list(range(200_000)), name
    as_json = server.ask(f"SELECT a FROM {table} FORMAT JSON").json()
    assert as_json["rows"] == len(as_json["data"]) == 200_000


def test_bytes_survive(server: Started, table: str) -> None:
    """All 256 of them, in the statement and in the data."""
    every = bytes(range(256))
    row = every.replace(b"\\", b"\\\\").replace(b"'", b"\\'")
    server.text(b"INSERT INTO " + table.encode() + b" VALUES (1, '" + row + b"')")
    server.text(b"\2\0\0\0\x80\2" + every, query=f"INSERT INTO {table} FORMAT RowBinary")
    answer = server.ask(f"SELECT b FROM {table} ORDER BY a FORMAT RowBinary")
    assert answer.content == (b"\x80\2" + every) * 2
    assert server.ask(b"SELECT '" + row + b"' FORMAT RawBLOB").content == every


COMPRESSED = {
    "gzip": (gzip.compress, gzip.decompress),
    "deflate": (zlib.compress, zlib.decompress),
    "bz2": (bz2.compress, bz2.decompress),
    "lz4": (lz4.frame.compress, lz4.frame.decompress),
    "zstd": (zstd.compress, zstd.decompress),
}


@pytest.mark.parametrize("encoding", COMPRESSED)
def test_bodies_and_answers_compressed(server: Started, table: str, encoding: str) -> None:
    """Both ways, short and long, the statement in the body too; not compressed where the setting forbids it."""
    compress, decompress = COMPRESSED[encoding]

    def ask(data: bytes, accept: str = encoding, **parameters: object) -> tuple[bytes, str | None]:
        answer = requests.post(
            server.url,
            params=parameters,  # type: ignore[arg-type]
            data=compress(data),
            headers={"Content-Encoding": encoding, "Accept-Encoding": accept},
            stream=True,
            timeout=30,
        )
        body = answer.raw.read(decode_content=False)
        assert answer.status_code == 200, body
        return body, answer.headers.get("Content-Encoding")

    ask(b"".join(b"%d\tx\n" % n for n in range(100_000)), query=f"INSERT INTO {table} FORMAT TSV")
    for limit in (3, 100_000):
        body, said = ask(
            f"SELECT a FROM {table} ORDER BY a LIMIT {limit}".encode(), enable_http_compression=1
        )
        assert said == encoding
        assert decompress(body) == b"".join(b"%d\n" % n for n in range(limit))
    assert ask(b"SELECT 1", enable_http_compression=0) == (b"1\n", None)
    assert ask(b"SELECT 1", accept="identity", enable_http_compression=1) == (b"1\n", None)
    whole, said = ask(f"SELECT a FROM {table}".encode(), enable_http_compression=1, wait_end_of_query=1)
    assert (said, decompress(whole).count(b"\n")) == (encoding, 100_000)


def test_a_body_that_is_not_what_its_encoding_says(server: Started, table: str) -> None:
    headers = {"Content-Encoding": "zstd"}
    answer = requests.post(server.url, data=b"SELECT 1", headers=headers, timeout=10)
    assert failed(answer) == (500, 271)
    half = zstd.compress(b"1\tx\n" * 100)[:-4]
    answer = requests.post(
        server.url,
        params={"query": f"INSERT INTO {table} FORMAT TSV"},
        data=half,
        headers=headers,
        timeout=10,
    )
    assert failed(answer) == (500, 271)
    assert server.text(f"SELECT count() FROM {table}") == "0\n"
    assert failed(requests.post(server.url, data=b"x", headers={"Content-Encoding": "br"}, timeout=10)) == (
        501,
        48,
    )
    assert failed(server.ask("SELECT 1", compress=1)) == (501, 48)
    assert set(COMPRESSED) < set(codecs._COMPRESSORS)


def test_input_is_a_table_of_the_body(server: Started, table: str) -> None:
    sql = f"INSERT INTO {table} SELECT a * 10, upper(b) FROM input('a Int32, b String') WHERE a > 1 FORMAT CSV\n"
    assert server.text(sql + "1,x\n2,y\n") == ""
    assert server.text(b"3,z\n", query=sql.rstrip()) == ""
    assert server.text(f"SELECT * FROM {table} ORDER BY a") == "20\tY\n30\tZ\n"


def test_bad_rows_are_the_clients_error_and_insert_nothing(server: Started, table: str) -> None:
    assert failed(server.ask(f"INSERT INTO {table} FORMAT JSONEachRow\n" + '{"a":"no number"}'))[0] == 400
    assert failed(server.ask(f"INSERT INTO {table} FORMAT ArrowStream\nno arrow"))[0] in (400, 500)
    assert server.text(f"SELECT count() FROM {table}") == "0\n"


def test_a_form_brings_parameters_and_tables(server: Started) -> None:
    """The query and its parameters as fields, external tables as files."""
    fields = {"query": (None, "SELECT {x:UInt8} + 1"), "param_x": (None, "4")}
    assert requests.post(server.url, files=fields, timeout=10).text == "5\n"
    files = {"ext": ("ext.tsv", b"1\ta\n2\tb\n"), "other": ("x", b"7,z\n")}
    parameters = {
        "query": "SELECT sum(ext.n), any(other._1) FROM ext, other",
        "ext_structure": "n UInt8, s String",
        "other_types": "UInt8,String",
        "other_format": "CSV",
    }
    for session in ({}, {"session_id": "forms"}):
        for _ in range(2):
            answer = requests.post(server.url, params={**parameters, **session}, files=files, timeout=10)
            assert answer.text == "3\t7\n"
    bad = requests.post(server.url, params={"query": "SELECT 1"}, files={"e": ("e", b"")}, timeout=10)
    assert failed(bad) == (400, 36)


def test_a_session_keeps_tables_and_settings(server: Started) -> None:
    """Its own, and nothing of what single requests say; nor what a failed statement left."""

    def ask(sql: str, **more: object) -> requests.Response:
        return server.ask(sql, session_id="keeper", **more)

    assert ask("CREATE TEMPORARY TABLE tt (a Int32)").status_code == 200
    assert ask("INSERT INTO tt VALUES (1), (2)").status_code == 200
    assert ask("SET max_block_size = 77").status_code == 200
    assert ask("USE system").status_code == 200
    assert ask("SELECT throwIf(number = 3) FROM numbers(9)", max_block_size=1).status_code == 500
    assert failed(ask("SELECT 1", max_block_size=3, nope=1)) == (404, 115)
    assert ask("SELECT getSetting('max_block_size')", max_block_size=3).text == "3\n"
    assert ask("SELECT getSetting('max_block_size')").text == "77\n"
    assert ask("SELECT currentDatabase()", database="default").text == "default\n"
    assert ask("SELECT currentDatabase()").text == "system\n"
    assert ask("SELECT sum(a) FROM tt", session_check=1).text == "3\n"
    assert failed(server.ask("SELECT * FROM tt")) == (404, 60)
    assert failed(server.ask("SELECT 1", session_id="nobody", session_check=1)) == (500, 372)
    assert failed(ask("SELECT 1", session_timeout=99_999)) == (500, 374)
    assert ask("SELECT 1", close_session=1).text == "1\n"
    assert failed(ask("SELECT 1", session_check=1)) == (500, 372)


def test_a_session_that_nobody_uses_ends(server: Started) -> None:
    assert server.text("CREATE TEMPORARY TABLE tt (a Int32)", session_id="short", session_timeout=1) == ""
    deadline_s = time.monotonic() + 30
    # Each look would use it and so prolong it: a look comes after more than its time.
    while server.ask("SELECT 1 FROM tt", session_id="short", session_timeout=1).status_code == 200:
        assert time.monotonic() < deadline_s
        time.sleep(1.1)


def test_a_session_is_for_one_at_a_time(server: Started) -> None:
    first = threading.Thread(
        target=server.ask,
        args=["SELECT sleepEachRow(0.05) FROM numbers(40) SETTINGS max_block_size = 1"],
        kwargs={"session_id": "busy", "log_comment": "busy"},
    )
    first.start()
    server.wait_for("SELECT count() FROM system.processes WHERE Settings['log_comment'] = 'busy'", "1\n")
    assert failed(server.ask("SELECT 1", session_id="busy")) == (500, 373)
    server.text("KILL QUERY WHERE Settings['log_comment'] = 'busy' SYNC")
    first.join()
    assert server.text("SELECT 1", session_id="busy") == "1\n"


def test_connections_are_kept_alive(server: Started) -> None:
    """After answers and after errors, so that clients' pools work."""
    port = urllib.parse.urlsplit(server.url).port
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    for sql, status in (("SELECT 1", 200), ("SELECT nope", 404), ("SELECT 2", 200)):
        connection.request("POST", "/", body=sql)
        assert connection.sock is not None
        sock = connection.sock
        answer = connection.getresponse()
        answer.read()
        assert answer.status == status
        assert connection.sock is sock
    connection.close()


def test_another_name_of_this_machine_is_refused(server: Started) -> None:
    """A web site whose name leads to 127.0.0.1 must not have a browser ask a server that trusts everybody."""
    answer = requests.get(
        server.url, params={"query": "SELECT 1"}, headers={"Host": "evil.example"}, timeout=10
    )
    assert answer.status_code == 403
    local = requests.get(
        server.url, params={"query": "SELECT 1"}, headers={"Host": "localhost:1"}, timeout=10
    )
    assert local.text == "1\n"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1.evil.example"}, 403),
        ({"Origin": "http://[bad"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:3000"}, 403),
        ({"Origin": "http://localhost:3000"}, 200),
        ({"Origin": "http://[::1]:3000", "Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
    ],
)
def test_a_web_page_cannot_ask(server: Started, table: str, headers: dict[str, str], status: int) -> None:
    """A page that somebody looks at on this machine must not write to a server that trusts everybody."""
    answer = requests.post(server.url, f"INSERT INTO {table} VALUES (1, 'x')", headers=headers, timeout=10)
    assert answer.status_code == status
    assert server.text(f"SELECT count() FROM {table}") == ("1\n" if status == 200 else "0\n")


@pytest.mark.parametrize("space", ["\u00a0", "\u0085", "\u2003", "\u3000", "\ufeff", "\u200b\u180e"])
def test_space_beyond_ascii_is_space(server: Started, tmp_path: pathlib.Path, space: str) -> None:
    """As to ClickHouse, so that nothing hides behind it."""
    assert server.text(f"SELECT{space}1{space}FORMAT{space}CSV{space}") == "1\n"
    out = server.ask(f"SELECT 1 INTO{space}OUTFILE '{tmp_path}/out'".encode())
    assert failed(out)[1] == 358
    assert failed(server.ask(f"SELECT * FROM Python{space}(x)".encode()))[1] == 344
    assert not (tmp_path / "out").exists()


def test_brackets_without_end_are_an_error_of_syntax(server: Started) -> None:
    assert failed(server.ask("INSERT INTO t " + "(" * 5000))[1] in (62, 306)


def test_wait_end_of_query_turns_a_late_error_into_a_status(server: Started) -> None:
    sql = "SELECT throwIf(number = 3000000) FROM numbers(5000000)"
    assert failed(server.ask(sql, wait_end_of_query=1)) == (500, 395)
    answer = server.ask("SELECT number FROM numbers(300000)", wait_end_of_query=1)
    assert json.loads(answer.headers["X-ClickHouse-Summary"])["result_rows"] == "300000"
    assert answer.text.count("\n") == 300_000


def test_a_late_error_breaks_the_body(server: Started) -> None:
    """Its text stands between the marks that the header announced, and the last chunk never comes."""
    answer = requests.post(
        server.url,
        data="SELECT throwIf(number = 3000000) FROM numbers(5000000) FORMAT CSV",
        headers={"Accept-Encoding": "identity"},
        stream=True,
        timeout=60,
    )
    assert answer.status_code == 200
    tag = answer.headers["X-ClickHouse-Exception-Tag"]
    tail = b""
    with pytest.raises(requests.exceptions.ChunkedEncodingError):  # noqa: PT012
        for piece in answer.iter_content(1 << 16):
            tail = (tail + piece)[-2_000:]
    told = tail.split(b"\r\n__exception__\r\n%s\r\n" % tag.encode())[1]
    assert told.startswith(b"Code: 395. DB::Exception: ")
    length = int(told.removesuffix(b" %s\r\n__exception__\r\n" % tag.encode()).rsplit(b"\n", 1)[1])
    assert told[length:] == b"%d %s\r\n__exception__\r\n" % (length, tag.encode())


def test_credentials_of_an_open_server(server: Started) -> None:
    """It has one user without a password, who may name any."""
    for headers in ({"X-ClickHouse-User": "default", "X-ClickHouse-Key": "any"}, {}):
        assert requests.post(server.url, data="SELECT 1", headers=headers, timeout=10).text == "1\n"
    basic = base64.b64encode(b"default:").decode()
    assert requests.post(
        server.url, data="SELECT 1", headers={"Authorization": f"Basic {basic}"}, timeout=10
    ).ok
    assert failed(server.ask("SELECT 1", user="other")) == (403, 516)
