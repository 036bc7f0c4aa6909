"""Laws of a dev server's parts: encodings, bodies, requests, credentials, errors, sessions, spools."""

from __future__ import annotations

import base64
import pathlib
from collections.abc import Mapping

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from recorder.devserver import codecs, request
from recorder.devserver.body import Body, ExternalTable
from recorder.devserver.errors import Code, StatementError
from recorder.devserver.running import Run, Running
from recorder.devserver.sessions import Sessions
from recorder.devserver.spool import Spool

ENCODINGS = ("lz4", "zstd", "gzip", "deflate", "xz", "bz2")


def compressed(encoding: str, data: bytes, piece: int = 1 << 16) -> bytes:
    compressor = codecs.compressor(encoding)
    parts = [compressor.compress(data[at : at + piece]) for at in range(0, len(data), piece)]
    return b"".join(parts) + compressor.finish()


@pytest.mark.parametrize("encoding", ENCODINGS)
@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=2_000), st.integers(1, 300), st.integers(1, 300))
@example(b"", 1, 1)
def test_what_is_compressed_comes_back(encoding: str, data: bytes, piece: int, cut: int) -> None:
    """However it is cut on the way, and twice in a row as files of these encodings may be."""
    wire = compressed(encoding, data, piece) * 2
    undo = codecs.decompressor(encoding)
    got = b"".join(part for at in range(0, len(wire), cut) for part in undo.feed(wire[at : at + cut]))
    undo.finish()
    assert got == data * 2


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_small_body_that_holds_a_huge_one_comes_in_small_pieces(encoding: str) -> None:
    """Memory is bounded by the piece, whatever the ratio."""
    wire = compressed(encoding, bytes(50_000_000), 1 << 20)
    undo = codecs.decompressor(encoding)
    sizes = [len(part) for part in undo.feed(wire)]
    undo.finish()
    assert sum(sizes) == 50_000_000
    assert max(sizes) <= codecs.PIECE_BYTES


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_body_that_is_cut_or_is_something_else_is_refused(encoding: str) -> None:
    """With ClickHouse's code for it; an empty body of an encoding is empty."""
    wire = compressed(encoding, b"some rows, and some more" * 100)
    undo = codecs.decompressor(encoding)
    with pytest.raises(StatementError) as cut:  # noqa: PT012 - either may see it
        list(undo.feed(wire[:-3]))
        undo.finish()
    assert cut.value.code == Code.CANNOT_DECOMPRESS
    with pytest.raises(StatementError) as other:
        list(codecs.decompressor(encoding).feed(b"1,2,3\n" * 20))
    assert other.value.code == Code.CANNOT_DECOMPRESS
    codecs.decompressor(encoding).finish()


def test_an_encoding_that_is_not_served_says_which_are() -> None:
    """As 501."""
    with pytest.raises(StatementError, match=r"br is not served; send lz4, zstd") as error:
        codecs.decompressor("br")
    assert error.value.status == 501


@pytest.mark.parametrize(
    ("header", "encoding"),
    [
        ("", None),
        ("gzip, deflate", "gzip"),
        ("deflate", "deflate"),
        ("lz4,zstd,br,gzip", "lz4"),
        ("ZSTD;q=0.5", "zstd"),
        ("lz4;q=0, gzip", "gzip"),
        ("br, identity", None),
    ],
)
def test_an_answer_is_compressed_as_the_client_takes_it(header: str, encoding: str | None) -> None:
    """The best of what it names, or not at all."""
    assert codecs.wanted(header) == encoding


@given(
    head=st.sampled_from(["INSERT INTO t FORMAT CSV\n", "INSERT INTO t (a) VALUES "]),
    data=st.binary(min_size=1, max_size=400).filter(lambda data: data[:1] not in b" \t\f\r\n"),
    in_url=st.booleans(),
    cut=st.integers(1, 50),
)
@settings(deadline=None)
def test_a_body_is_told_apart_however_it_comes(head: str, data: bytes, in_url: bool, cut: int) -> None:
    """The statement in the URL or in the body, in pieces of any size: the same insert with the same data."""
    with Spool(pathlib.Path("/nowhere"), limit_bytes=10_000) as spool:
        sent = data if in_url else head.encode() + data
        body = Body(head.rstrip().encode() if in_url else b"", "", spool, 1_000)
        for at in range(0, len(sent), cut):
            body.feed(sent[at : at + cut])
        whole = body.finish()
        assert whole.insert is not None
        assert whole.text.decode().split() == head.split()
        stored = spool.read_at(0)
        # A space or a line break stands between the two; rows in brackets do not mind it.
        assert (stored[1:] if "VALUES" in head else stored) == data


def test_a_statement_may_be_so_long_and_data_longer(tmp_path: pathlib.Path) -> None:
    """Data count nothing against `max_query_size`, and have a limit of their own."""
    with Spool(tmp_path, limit_bytes=5_000) as spool:
        body = Body(b"", "", spool, 100)
        body.feed(b"INSERT INTO t FORMAT CSV\n" + b"1\n" * 400)
        body.feed(b"2\n" * 400)
        assert body.finish().insert is not None
        assert spool.size == 1_600
        body = Body(b"", "", spool, 100)
        with pytest.raises(StatementError, match="Max query size exceeded") as long:
            body.feed(b"SELECT '" + b"x" * 200)
        assert long.value.status == 400
        body = Body(b"INSERT INTO t FORMAT CSV", "", spool, 100)
        with pytest.raises(StatementError, match="larger than 5000 bytes") as large:
            body.feed(b"x" * 6_000)
        assert large.value.status == 413


def test_a_spool_moves_to_disk_when_it_grows(tmp_path: pathlib.Path) -> None:
    """Its bytes stay, its path is read by others, and nothing is left in the folder."""
    with Spool(tmp_path / "new", limit_bytes=1 << 20, memory_bytes=1_000) as spool:
        for number in range(100):
            spool.write(bytes([number]) * 50)
        expected = b"".join(bytes([number]) * 50 for number in range(100))
        assert pathlib.Path(spool.path).read_bytes() == expected
        assert spool.read_at(4_990) == bytes([99]) * 10
        assert list((tmp_path / "new").iterdir()) == []
    spool.close()


def asked(
    query_string: str, headers: Mapping[str, str] | None = None, method: str = "POST"
) -> request.Request:
    return request.parse(method, query_string, headers or {})


def test_parameters_are_settings_unless_they_have_a_meaning() -> None:
    """As in ClickHouse; encoded bytes, pluses and repeated names included."""
    got = asked(
        "query=SELECT+%7Bx%3AInt8%7D%2B1&param_x=%2B5&max_threads=3&log_comment=a%26b%3D&database=d&&default_format=CSV"
        "&query_id=q&wait_end_of_query=1&quota_key=k&session_id=s&session_timeout=7&client_protocol_version=54405"
    )
    assert got.query == b"SELECT {x:Int8}+1"
    assert got.parameters == {"x": "+5"}
    assert got.settings == {"max_threads": "3", "log_comment": "a&b="}
    assert (got.database, got.default_format, got.query_id, got.wait_end) == ("d", "CSV", "q", True)
    assert (got.session_id, got.session_s, got.session_check, got.readonly_method) == ("s", 7, False, False)
    assert got.log_comment == "a&b="


def test_headers_win_over_parameters() -> None:
    """As in ClickHouse."""
    headers = {"X-ClickHouse-Database": "h", "X-ClickHouse-Format": "JSON", "X-ClickHouse-Query-Id": "id"}
    got = asked("database=d&default_format=CSV", headers, "GET")
    assert (got.database, got.default_format, got.query_id, got.readonly_method) == ("h", "JSON", "id", True)


def test_bytes_of_a_query_survive_the_url() -> None:
    """Those that are no UTF-8 too."""
    assert asked("query=SELECT+%27%FF%27").query == b"SELECT '\xff'"


@pytest.mark.parametrize(
    ("query_string", "code"),
    [
        ("session_timeout=x", 374),
        ("session_timeout=3601", 374),
        ("compress=1", 48),
        ("decompress=1", 48),
        ("role=x", 511),
        ("a-b=1", 115),
    ],
)
def test_what_a_request_cannot_say(query_string: str, code: int) -> None:
    """Each with its code."""
    with pytest.raises(StatementError) as error:
        asked(query_string)
    assert error.value.code == code


def basic(text: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(text.encode()).decode()}


@pytest.mark.parametrize(
    ("query_string", "headers", "user", "password"),
    [
        ("", {}, "default", ""),
        ("", {"X-ClickHouse-User": "u", "X-ClickHouse-Key": "p"}, "u", "p"),
        ("", {"X-ClickHouse-Key": "p"}, "default", "p"),
        ("user=u&password=p%26", {}, "u", "p&"),
        ("", basic("u:p:q"), "u", "p:q"),
    ],
)
def test_credentials_come_one_of_three_ways(
    query_string: str, headers: dict[str, str], user: str, password: str
) -> None:
    """Headers of ClickHouse, basic authentication, or the URL."""
    who = request.credentials(query_string, headers)
    assert (who.user, who.password) == (user, password)
    assert "p" not in repr(who).replace("password", "")


@pytest.mark.parametrize(
    ("query_string", "headers"),
    [
        ("user=u", basic("u:p")),
        ("user=u", {"X-ClickHouse-User": "u"}),
        ("", {**basic("u:p"), "X-ClickHouse-User": "u"}),
        ("", {"Authorization": "Bearer x"}),
        ("", {"Authorization": "Basic !"}),
    ],
)
def test_two_ways_at_once_and_other_schemes_are_refused(query_string: str, headers: dict[str, str]) -> None:
    """With the code of failed authentication."""
    with pytest.raises(StatementError) as error:
        request.credentials(query_string, headers)
    assert (error.value.code, error.value.status) == (516, 403)


@pytest.mark.parametrize(
    ("said", "code", "text"),
    [
        ("Code: 60. DB::Exception: No t. (TABLE)", 60, "Code: 60. DB::Exception: No t. (TABLE)"),
        (
            "Code: 73. DB::Exception: Code: 73. DB::Exception: No. (X_Y) (version 26.9.2.1). (X_Y)",
            73,
            "Code: 73. DB::Exception: No. (X_Y)",
        ),
        (
            "Streaming query failed: Code: 6. DB::Exception: bad: (in file/uri /proc/self/fd/9): row 1. (X)",
            6,
            "Code: 6. DB::Exception: bad: row 1. (X)",
        ),
        ("something else", 1001, "Code: 1001. DB::Exception: something else (STD_EXCEPTION)"),
    ],
)
def test_the_engines_errors_read_as_a_servers(said: str, code: int, text: str) -> None:
    """Once, without files that the client has never seen, the version at the end."""
    error = StatementError.of_engine(RuntimeError(said))
    assert (error.code, error.text) == (code, text)
    assert error.told("1.2") == text + " (version 1.2 (official build))\n"


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (60, 404), (81, 404), (115, 404), (47, 404), (516, 403), (497, 403), (194, 401), (62, 400), (27, 400),
        (53, 400), (159, 408), (48, 501), (229, 413), (381, 411), (209, 503), (394, 500), (202, 500),
        (241, 500), (164, 500),
    ],
)  # fmt: skip
def test_statuses_are_those_of_clickhouse(code: int, status: int) -> None:
    """By the exception's code."""
    assert StatementError(code, "").status == status


def test_sessions_are_for_one_at_a_time_and_end_unused() -> None:
    """The clock counts from the end of the last request."""
    now = [100.0]
    sessions = Sessions(clock=lambda: now[0])
    with pytest.raises(StatementError, match="Session not found"):
        sessions.take("s", must_exist=True)
    session = sessions.take("s", must_exist=False)
    with pytest.raises(StatementError, match="Session s is locked") as locked:
        sessions.take("s", must_exist=False)
    assert locked.value.code == 373
    now[0] += 1_000
    assert sessions.expired() == []
    sessions.give_back(session, 60)
    assert sessions.take("s", must_exist=True) is session
    sessions.give_back(session, 60)
    now[0] += 59
    assert sessions.expired() == []
    now[0] += 1
    assert sessions.expired() == [session]
    assert sessions.take("s", must_exist=False) is not session
    assert sessions.all() != []
    with pytest.raises(StatementError, match="Session not found"):
        sessions.take("s", must_exist=True)


def test_sessions_are_bounded() -> None:
    """One more ends the one that would end first; where all are in use it is refused."""
    sessions = Sessions(clock=lambda: 0.0, limit=2)
    first, second = sessions.take("a", must_exist=False), sessions.take("b", must_exist=False)
    with pytest.raises(StatementError, match="Too many sessions"):
        sessions.take("c", must_exist=False)
    sessions.give_back(first, 60)
    sessions.give_back(second, 30)
    sessions.take("c", must_exist=False)
    assert sessions.expired() == [second]
    assert sessions.take("a", must_exist=True) is first


async def test_as_many_run_as_may_and_each_under_its_own_id() -> None:
    """One more is refused; those that look after the others do not count."""
    running = Running(2)
    first, second, third = Run("a"), Run("b"), Run("c")
    running.begin(first, counts=True)
    with pytest.raises(StatementError, match="Query with id = a is already running") as same:
        running.begin(Run("a"), counts=True)
    assert same.value.code == 216
    running.begin(second, counts=True)
    with pytest.raises(StatementError, match=r"Too many simultaneous queries\. Maximum: 2") as many:
        running.begin(third, counts=True)
    assert many.value.code == 202
    running.begin(third, counts=False)
    running.end(first)
    running.begin(Run("d"), counts=True)
    assert running.by_id("a") is None
    assert running.by_id("b") is second


async def test_those_that_look_after_the_others_are_few_too() -> None:
    """Beyond eight they count like any."""
    running = Running(1)
    for number in range(9):
        running.begin(Run(f"look {number}"), counts=False)
    with pytest.raises(StatementError, match=r"Too many simultaneous queries\. Maximum: 1"):
        running.begin(Run("look on"), counts=False)


@pytest.mark.parametrize(
    ("said", "most"),
    [
        ("", 262_144),
        ("x", 262_144),
        ("1000", 1000),
        ("0", 16 << 20),
        ("1073741824", 16 << 20),
        ("9" * 5000, 16 << 20),
    ],
)
def test_a_client_cannot_make_statements_as_long_as_it_likes(said: str, most: int) -> None:
    """They are held and read in memory."""
    assert asked(f"max_query_size={said}").max_query_bytes == most


def test_an_external_table_says_its_columns() -> None:
    """By structure, or by types alone; without either there is no table."""
    table = ExternalTable.of("x", "/f", {"x_types": "Int8,String", "x_format": "CSV"})
    assert (table.structure, table.format) == ("_1 Int8, _2 String", "CSV")
    assert ExternalTable.of("x", "/f", {"x_structure": "a Int8"}).format == "TabSeparated"
    with pytest.raises(StatementError, match="columns of external table x are missing"):
        ExternalTable.of("x", "/f", {})
