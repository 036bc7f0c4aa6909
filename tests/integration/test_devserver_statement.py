"""Laws of telling statements, formats and data apart, against the engine's own parser."""

from __future__ import annotations

import contextlib
import pathlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import chdb
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from recorder.devserver.engine import Connection, Judged
from recorder.devserver.lexer import tokens
from recorder.devserver.statement import insert_of, query_of

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

NOISE = st.lists(
    st.sampled_from(
        [" ", "\n", "\t", "/* FORMAT CSV */", "-- INTO OUTFILE 'x'\n", "# FORMAT x ; y\n", "#! )\n"]
    ),
    min_size=1,
    max_size=3,
).map(lambda parts: " " + "".join(parts) + " ")
PIECES = [*"aF'\"`\\;-#/*()[]{}$ \n\u2018\u2019\u201c", "FORMAT ", "VALUES", "SETTINGS"]
TEXT = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)
FORMATS = st.sampled_from(["CSV", "JSONEachRow", "Native", "TSVRaw", "`Parquet`", "Null"])


@pytest.fixture(scope="module")
def parser(engine: Client, chdb_path: pathlib.Path) -> Iterator[Connection]:
    """The engine's own parser."""
    connection = Connection(chdb.connect(str(chdb_path)))
    yield connection
    connection.close()


def literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def quoted(text: str, quote: str) -> str:
    return quote + text.replace("\\", "\\\\").replace(quote, "\\" + quote) + quote


EXPRESSION = st.one_of(
    TEXT.map(literal),
    TEXT.map(lambda text: f"$tag${text}$tag$"),
    TEXT.map(lambda text: "1 AS " + quoted("c" + text, "`")),
    TEXT.map(lambda text: "2 AS " + quoted("c" + text, '"')),
    st.sampled_from(
        ["1", "1.5e3", "format", "[1, 2]", "(1, 'x')", "{p:String}", "1 AS format", "format('{}', 'x')"]
    ),
)


@st.composite
def selects(draw: st.DrawFn) -> tuple[str, str | None]:
    """A statement, and the format it names."""
    parts = [
        "SELECT",
        draw(NOISE),
        ("," + draw(NOISE)).join(draw(st.lists(EXPRESSION, min_size=1, max_size=4))),
    ]
    if draw(st.booleans()):
        parts += [
            draw(NOISE),
            "FROM",
            draw(NOISE),
            draw(st.sampled_from(["format", "t", "numbers(1)", "(SELECT 1)"])),
        ]
    if draw(st.booleans()):
        parts += [
            draw(NOISE),
            draw(st.sampled_from(["ORDER BY 1 DESC", "ORDER BY ALL", "LIMIT 1", "LIMIT 1 BY 1"])),
        ]
    if draw(st.booleans()):
        parts += [
            draw(NOISE),
            "SETTINGS",
            draw(NOISE),
            "max_threads = 1, log_comment = ",
            draw(TEXT.map(literal)),
        ]
    name = draw(st.none() | FORMATS)
    if name is not None:
        parts += [draw(NOISE), draw(st.sampled_from(["FORMAT", "format", "Format"])), draw(NOISE), name]
    parts += [draw(st.sampled_from(["", ";", " ;\n", " -- FORMAT x", "; /* SELECT 2 */"]))]
    return "".join(parts), name.strip("`") if name else None


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(selects())
@example(("SELECT 1 FORMAT JSON SETTINGS max_threads = 1", "JSON"))
@example(("SELECT * FROM t AS format FORMAT CSV", "CSV"))
@example(("SELECT 1 AS format", None))
@example(("SELECT 1 AS n ORDER BY n DESC FORMAT CSV", "CSV"))
def test_an_answer_is_led_away_where_the_engines_parser_reads_the_clause(
    parser: Connection, made: tuple[str, str | None]
) -> None:
    """INTO OUTFILE goes in where the engine takes it for one; the FORMAT found is the one that was written."""
    sql, name = made
    assert parser.judge(sql.encode()) == Judged("READ_ONLY", 1), "the strategy wrote no SQL"
    query = query_of(sql.encode())
    assert query.format == name
    assert query.answers
    assert not query.outfile
    led = next(query.into_file("/tmp/x"))
    assert parser.judge(led) == Judged("CONTROL", 1), led.decode()
    assert query_of(led).outfile


@pytest.mark.parametrize(
    "sql",
    [
        b"SELECT 1 AS limit FORMAT CSV",
        b"SELECT * FROM t AS view FORMAT CSV",
        b"DESC format x",
        b"SELECT 1 AS x, format x",
        b"(SELECT 1) UNION ALL (SELECT 2 FORMAT x) FORMAT CSV",
        b"SELECT sum(a) OVER w FROM t WINDOW w AS (ORDER BY a DESC) ORDER BY a DESC, b ASC NULLS LAST FORMAT CSV",
    ],
)
def test_where_words_do_not_tell_the_engines_parser_does(parser: Connection, sql: bytes) -> None:
    """Of the places that are tried, one is right wherever the statement is."""
    if parser.judge(sql).count == 1:
        assert any(parser.judge(led).count == 1 for led in query_of(sql).into_file("/tmp/x"))


TABLES = st.sampled_from(
    [
        "t",
        "db.t",
        "`a FORMAT b`",
        '"x"."VALUES"',
        "{t:Identifier}",
        "format",
        "d.format",
        "FUNCTION null('a Int8')",
    ]
)
COLUMNS = st.sampled_from(["", "(a, b)", '(`FORMAT`, "VALUES")', "(* EXCEPT(a))", "(a.b, c)"])
DATA = st.binary(max_size=40) | st.sampled_from([b"FORMAT CSV\n1", b"(1, ';')", b"'", b"/*", b"SELECT 1"])


@st.composite
def inserts(draw: st.DrawFn) -> tuple[bytes, str, bytes]:
    """The head of an insert, its format, and what may follow as data."""
    parts = ["INSERT", draw(NOISE), "INTO", draw(NOISE)]
    parts += [draw(st.sampled_from(["", "TABLE "])), draw(TABLES), draw(NOISE), draw(COLUMNS), draw(NOISE)]
    if draw(st.booleans()):
        parts += [
            "SETTINGS",
            draw(NOISE),
            "async_insert=0, log_comment =",
            draw(TEXT.map(literal)),
            draw(NOISE),
        ]
    if draw(st.booleans()):
        name = draw(FORMATS)
        parts += [draw(st.sampled_from(["FORMAT", "format"])), draw(NOISE), name]
        parts += [draw(st.sampled_from(["\n", " \n", "\t\r\n", " "]))]
        data = draw(DATA).lstrip(b" \t\f\r\n")
        return "".join(parts).encode(), name.strip("`"), data
    parts += [draw(st.sampled_from(["VALUES", "values"]))]
    return (
        "".join(parts).encode(),
        "Values",
        draw(DATA.filter(lambda data: not data[:1].isalnum() and data[:1] not in b"_$")),
    )


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(inserts())
@example((b"INSERT INTO t FORMAT CSV\n", "CSV", b"FORMAT TSV\n"))
def test_an_inserts_data_is_what_follows_its_last_word(
    parser: Connection, made: tuple[bytes, str, bytes]
) -> None:
    """Whatever data hold; and the engine reads the insert from a file as one insert."""
    head, name, data = made
    insert = insert_of(head + data)
    assert insert is not None
    assert insert.format == name
    assert (head + data)[insert.data_start :] == data
    judged = parser.judge(insert.from_file("/tmp/x"))
    assert (judged.count, judged.reads) == (1, False), insert.from_file("/tmp/x").decode()


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200) | st.lists(TEXT, max_size=6).map(lambda parts: " ".join(parts).encode()))
def test_any_bytes_can_be_read(text: bytes) -> None:
    """No text makes the lexer fail, loop or overlap; nor those that use it."""
    at = 0
    for token in tokens(text):
        assert at <= token.start < token.end <= len(text)
        assert token.depth >= 0
        at = token.end
    query_of(text)
    for sql in (text, b"INSERT INTO t " + text):
        with contextlib.suppress(ValueError):  # it names a file
            insert_of(sql)


@pytest.mark.parametrize(
    "sql",
    [
        b"INSERT INTO t SELECT 1",
        b"INSERT INTO t (a) SELECT * FROM s",
        b"INSERT INTO t (SELECT 1)",
        b"INSERT INTO t WITH x AS (SELECT 1) SELECT * FROM x",
        b"INSERT INTO t",
        b"SELECT 1 FORMAT CSV",
        b"WITH 1 AS x INSERT INTO t SELECT x",
        b"",
        b"-- INSERT INTO t FORMAT CSV\nSELECT 1",
    ],
)
def test_without_data_there_is_no_insert_with_data(sql: bytes) -> None:
    """Statements that bring no rows along are run as they are."""
    assert insert_of(sql) is None


def test_a_file_of_the_client_is_refused() -> None:
    """FROM INFILE would read a file of the server's."""
    with pytest.raises(ValueError, match="INFILE"):
        insert_of(b"INSERT INTO t (a) FROM /* x */ INFILE 'x' FORMAT CSV")


def test_rows_of_input_become_a_file() -> None:
    """`input()` is the table function of ClickHouse over HTTP; chDB has `file()`."""
    insert = insert_of(
        b"INSERT INTO t SELECT lower(a) FROM input('a String') WHERE a != '' FORMAT CSV\nX,1\n"
    )
    assert insert is not None
    assert (
        insert.from_file("/f")
        == b"INSERT INTO t SELECT lower(a) FROM  file('/f', 'CSV', 'a String')  WHERE a != '' "
    )
    assert insert.sql == b"INSERT INTO t SELECT lower(a) FROM input('a String') WHERE a != '' FORMAT CSV\n"


@pytest.mark.parametrize(
    ("sql", "outfile"),
    [
        (b"SELECT 1 INTO OUTFILE 'x'", True),
        (b"SELECT 1 into/* */\n outfile 'x' FORMAT CSV", True),
        (b"EXPLAIN AST SELECT 1 FORMAT CSV INTO OUTFILE 'x'", True),
        (b"SELECT 'INTO OUTFILE'", False),
        (b"SELECT 1 -- INTO OUTFILE 'x'", False),
        (b"SELECT `INTO` OUTFILE FROM t", False),
    ],
)
def test_an_outfile_is_seen_in_code_alone(sql: bytes, outfile: bool) -> None:
    """Nothing a client writes may become a file of the server."""
    assert query_of(sql).outfile is outfile


@pytest.mark.parametrize(
    "piece",
    [
        b"FORMAT x SETTINGS ",
        b"a FORMAT x ",
        b"/*",
        b"\\'",
        b"\\`",
        b"\xe2\x80\x98",
        b"$%d$",
        b"(",
        b"( FORMAT x ",
    ],
)
def test_reading_takes_as_long_as_the_text_is(piece: bytes) -> None:
    """Ten times the text, about ten times as long (in time of this thread), whatever is in it or not closed in it."""

    def took_s(count: int) -> float:
        body = b"".join(piece % number if b"%" in piece else piece for number in range(count))
        begun_s = time.thread_time()
        query = query_of(b"SELECT 'x " + body)
        query_of(b"SELECT " + body)
        insert_of(b"INSERT INTO t " + body)
        assert len(query.places) <= 17
        return time.thread_time() - begun_s

    small = max(took_s(3_000), 0.002)
    # The best of some: what runs beside slows a thread down in its own time too.
    assert min(took_s(30_000) for _ in range(3)) < 40 * small


@pytest.mark.parametrize(
    ("sql", "looks"),
    [
        (b"SELECT * FROM system.processes", True),
        (b'SELECT * FROM `system` /* */ . "processes"', True),
        (b"show /**/ processlist", True),
        (b"KILL QUERY WHERE 1", True),
        (b"SELECT 1 /* system.processes */", False),
        (b"SELECT 'system.processes PROCESSLIST'", False),
        (b"SELECT 1 AS PROCESSLIST", False),
    ],
)
def test_a_look_at_the_others_is_seen_in_code_alone(sql: bytes, looks: bool) -> None:
    """It runs beside as many as may, so a comment must not make one."""
    assert query_of(sql).looks_at_others is looks


def test_calls_are_the_names_before_brackets() -> None:
    """Quoted or not, with comments between or not; a column is no call."""
    query = query_of(b"SELECT file, `File` /* x */ ('a'), x(1), 'python('")
    assert query.calls == {"file", "x"}
