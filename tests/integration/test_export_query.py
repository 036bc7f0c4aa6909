"""Laws of `recorder export parquet | csv | arrow`: every value exact, a file only when complete, memory bounded."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import datetime
import io
import json
import os
import pathlib
import pty
import re
import signal
from collections.abc import Iterator
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from harness.backends import Backend, Backends, Place
from harness.exporting import DAY_NS, EVERY_BYTE, ROWS, Exporting, rows_of
from harness.recorders import wait_until
from harness.tcp_proxy import TcpProxy

from recorder.devserver.server import DevServer
from recorder.target import parse_target
from schemas.columns import Kind
from schemas.core.tables import PACK

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

MARKET = next(table for table in PACK.tables if table.name == "market_data")
A_DAY_NS = 86_400_000_000_000
ENDLESS = "SELECT number, toString(number) AS text FROM numbers(1000000000000)"
BREAKS = "SELECT throwIf(number = 900000) AS a, number FROM numbers(1000000)"


@pytest.fixture(scope="module")
def made(backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exporting]:
    """A migrated database with the oddest values in every table."""
    folder = tmp_path_factory.mktemp("made")
    with backend.place(folder) as place:
        made = Exporting(folder, place)
        done = made.run("migrate", "up", "--no-ttl")
        assert done.returncode == 0, done.stderr
        made.insert({table.name: rows_of(table) for table in PACK.tables})
        yield made


@pytest.fixture
def out(tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder to write to."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def read(file: pathlib.Path) -> pa.Table:
    if file.suffix == ".parquet":
        return pq.read_table(file)
    return pa.ipc.open_file(pa.memory_map(str(file))).read_all()


def same(exported: pa.Table, given: pa.Table) -> None:
    """Value by value, and type by type."""
    order = exported["_seq"].to_numpy().argsort()
    exported = exported.take(order)
    for field in given.schema:
        assert _bare(exported.schema.field(field.name).type) == _bare(field.type), field.name
        assert exported[field.name].to_pylist() == given[field.name].to_pylist(), field.name
    assert exported.column_names == given.column_names


def _bare(kind: pa.DataType) -> str:
    """A type, whatever what is inside of it is called and whether it may be NULL."""
    return re.sub(r" not null| \('\w+'\)", "", str(kind)).replace("<element: ", "<item: ")


# -- exact --


def test_every_column_of_every_table_is_exact(made: Exporting, out: pathlib.Path) -> None:
    """Decimals, nanoseconds, bytes, texts, lists and maps are read back as they were recorded, each of its own type."""
    commands = [
        [form, "--table", table.name, "--out", str(out / f"{table.name}.{form}")]
        for table in PACK.tables
        for form in ("parquet", "arrow")
    ]
    made.export_all(commands)
    for table in PACK.tables:
        for form in ("parquet", "arrow"):
            same(read(out / f"{table.name}.{form}"), rows_of(table))
    assert {column.type.kind for table in PACK.tables for column in table.columns} == set(Kind)


def test_csv_is_exact(made: Exporting, out: pathlib.Path) -> None:
    """CSV has a header, CRLF, quotes doubled, NULL apart from empty text; numbers and times with all their digits."""
    tables = [table for table in PACK.tables if table.name in ("orders", "fills", "dead_letters")]
    made.export_all([["csv", "-t", one.name, "--out", str(out / f"{one.name}.csv")] for one in tables])
    for table in tables:
        content = (out / f"{table.name}.csv").read_bytes()
        assert content.endswith(b"\r\n")
        header, *rows = csv.reader(io.StringIO(content.decode("latin-1"), newline=""))
        assert header == [column.name for column in table.all_columns]
        given = rows_of(table).to_pylist()
        assert len(rows) == ROWS
        for row in rows:
            values = dict(zip(header, row, strict=True))
            expected = given[int(values["_seq"])]
            for column in table.all_columns:
                assert _parsed(column.type.kind, values[column.name]) == _plain(
                    column.type.kind, expected[column.name]
                )
    nulls = made.run("export", "csv", "SELECT NULL AS a, '' AS b, 'x\"' AS c", "--out", "-")
    assert nulls.stdout == b'"a","b","c"\r\n,"","x"""\r\n'


def _parsed(kind: Kind, text: str) -> Any:
    if text == "":
        return ""
    if kind is Kind.TIME:
        moment, _, fraction = text.partition(".")
        at = datetime.datetime.fromisoformat(moment).replace(tzinfo=datetime.UTC)
        return int(at.timestamp()) * 10**9 + int(fraction)
    return Decimal(text) if kind is Kind.DECIMAL else text.encode("latin-1")


def _plain(kind: Kind, value: Any) -> Any:
    if value is None or value in ("", b""):
        return ""
    if kind is Kind.TIME:
        return pa.scalar(value, pa.timestamp("ns", tz="UTC")).value
    if kind is Kind.DECIMAL:
        return value
    if kind is Kind.BOOL:
        return b"true" if value else b"false"
    return value if isinstance(value, bytes) else str(value).encode()


ODD_TYPES = {
    "CAST('b', 'Enum8(\\'a\\' = -1, \\'b\\' = 2)')": "b",
    "CAST('it''s', 'Nullable(Enum16(\\'it\\\\\\'s\\' = 1000))')": "it's",
    "toDate('2024-08-08')": datetime.date(2024, 8, 8),
    "toDateTime('2024-08-08 12:00:00', 'UTC')": datetime.datetime(2024, 8, 8, 12, tzinfo=datetime.UTC),
    "toIPv4('10.1.2.3')": "10.1.2.3",
    "toIPv6('2001:db8::1')": "2001:db8::1",
    "toInt256('-57896044618658097711785492504343953926634992332820282019728792003956564819968')": str(
        -(2**255)
    ),
    "toUInt128('340282366920938463463374607431768211455')": str(2**128 - 1),
    "toDecimal256('0.0000000000000000000000000000000000000001', 40)": Decimal("1e-40"),
    "CAST('x', 'LowCardinality(Nullable(String))')": "x",
    "CAST(NULL, 'LowCardinality(Nullable(String))')": None,
    "[1.5, -0.0]": [1.5, -0.0],
    "map('a', 1)": [("a", 1)],
    "true": True,
}


def test_types_that_arrow_lacks_are_what_they_say(made: Exporting, out: pathlib.Path) -> None:
    """Enumerations leave by name, days and moments as such, addresses and wide integers as text: never bare numbers."""
    sql = "SELECT " + ", ".join(f"{text} AS c{n}" for n, text in enumerate(ODD_TYPES))
    sql += ", toUUID('00112233-4455-6677-8899-aabbccddeeff') AS u"
    made.export_all([[form, sql, "--out", str(out / f"x.{form}")] for form in ("parquet", "arrow")])
    for form in ("parquet", "arrow"):
        (row,) = read(out / f"x.{form}").to_pylist()
        assert str(row.pop("u")) == "00112233-4455-6677-8899-aabbccddeeff"
        assert list(row.values()) == list(ODD_TYPES.values())


def test_what_has_no_exact_form_is_refused(made: Exporting, out: pathlib.Path) -> None:
    """A type that would leave as something else, and bytes that are no text unless taken as bytes: no file."""
    nested = "SELECT [toDateTime('2024-08-08 12:00:00')] AS d"
    assert "column d: DateTime in Array(DateTime)" in made.refused("parquet", nested, "--out", out / "x")
    no_text = "SELECT unhex('ff00') AS note"
    assert "--binary note" in made.refused("arrow", no_text, "--out", out / "x")
    assert list(out.iterdir()) == []
    made.export("arrow", no_text, "--binary", "note", "--out", out / "x.arrow")
    assert read(out / "x.arrow")["note"].to_pylist() == [b"\xff\x00"]


# -- what is asked --


@pytest.mark.parametrize("form", ["parquet", "arrow", "csv"])
def test_a_long_answer_keeps_its_order(made: Exporting, out: pathlib.Path, form: str) -> None:
    """Rows stand as the query sorts them, every row once, in groups that fit in memory; the file says what it is."""
    sql = "SELECT number AS n, 'x' AS s FROM numbers(400000) ORDER BY n DESC"
    file = out / f"x.{form}"
    said = made.export(form, sql, "--out", file)
    assert said["rows"] == 400_000
    assert said["bytes"] == file.stat().st_size
    assert said["file"] == str(file)
    if form == "csv":
        with file.open(newline="") as lines:
            assert [int(row[0]) for row in list(csv.reader(lines))[1:]] == list(range(399_999, -1, -1))
        return
    exported = read(file)
    assert exported["n"].to_pylist() == list(range(399_999, -1, -1))
    assert exported.schema.metadata[b"recorder.query"].decode() == sql
    assert exported.schema.metadata[b"recorder.database"].decode() == made.place.database
    assert b"recorder.version" in exported.schema.metadata
    assert b"recorder.exported_at" in exported.schema.metadata
    if form == "parquet":
        found = pq.ParquetFile(file).metadata
        assert 2 <= found.num_row_groups <= 8
        column = found.row_group(0).column(0)
        assert (column.compression, column.statistics.max) == ("ZSTD", 399_999)


def test_an_empty_answer_is_a_file(made: Exporting, out: pathlib.Path) -> None:
    """Without rows the file has the columns all the same; and a statement that is no SELECT has its rows."""
    forms = {"parquet", "arrow", "csv"}
    nothing = "SELECT fill_id, fees FROM fills WHERE 0 -- none"
    made.export_all(
        [[form, nothing, "--out", str(out / f"none.{form}")] for form in forms]
        + [[form, "SHOW TABLES", "--out", str(out / f"show.{form}")] for form in forms]
    )
    assert (out / "none.csv").read_bytes() == b'"fill_id","fees"\r\n'
    tables = {table.name for table in PACK.tables}
    header, *shown = csv.reader(io.StringIO((out / "show.csv").read_text(), newline=""))
    assert header == ["name"]
    assert tables <= {name for (name,) in shown}
    for form in forms - {"csv"}:
        none = read(out / f"none.{form}")
        assert (none.num_rows, none.column_names) == (0, ["fill_id", "fees"])
        assert none.schema.field("fees").type == pa.decimal128(38, 18)
        assert tables <= set(read(out / f"show.{form}")["name"].to_pylist())


def test_a_table_between_two_times(made: Exporting, out: pathlib.Path) -> None:
    """--since is the first that is wanted, --until the first that is not, to the nanosecond."""
    given = sorted(one.value for one in rows_of(MARKET)["ts_local"])
    bounds = ["--since", str(given[7]), "--until", str(given[-3])]
    made.export_all(
        [
            ["parquet", "-t", MARKET.name, *bounds, "--out", str(out / "x.parquet")],
            ["arrow", "-t", MARKET.name, "--since", "2024-08-09", "--out", str(out / "x.arrow")],
            ["csv", "-t", MARKET.name, "--since", "2030-01-01", "--out", str(out / "none.csv")],
        ]
    )
    assert sorted(one.value for one in read(out / "x.parquet")["ts_local"]) == given[7:-3]
    assert read(out / "x.arrow").num_rows == sum(at_ns >= DAY_NS + A_DAY_NS for at_ns in given)
    assert (out / "none.csv").read_bytes().count(b"\n") == 1


def test_a_table_keeps_its_order(made: Exporting, out: pathlib.Path) -> None:
    """Day by day, and within a day in the order of the table's key, however many parts it has; a view has rows too."""
    made.export("parquet", "-t", MARKET.name, "--out", out / "x.parquet")
    found = read(out / "x.parquet")
    times = [one.value for one in found["ts_local"]]
    rows = [
        (at_ns // A_DAY_NS, symbol, at_ns)
        for at_ns, symbol in zip(times, found["symbol"].to_pylist(), strict=True)
    ]
    assert rows == sorted(rows)
    assert len({day for day, _, _ in rows}) == 2
    assert made.export("csv", "-t", "fills_unique", "--out", out / "view.csv")["rows"] > 0


def test_bytes_are_binary_by_query_too(made: Exporting, out: pathlib.Path) -> None:
    """Columns that tables keep as bytes are binary under their names, whatever the query does around them."""
    column, table = next(
        (column, table) for table in PACK.tables for column in table.columns if column.type.kind is Kind.BYTES
    )
    made.export(
        "parquet", f"SELECT {column.name} FROM {table.name} ORDER BY _seq", "--out", out / "x.parquet"
    )
    found = read(out / "x.parquet")
    assert found.schema.field(0).type == pa.binary()
    assert EVERY_BYTE in found[column.name].to_pylist()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["SELECT 1 INTO OUTFILE 'x' FORMAT CSV"], "leave FORMAT and INTO OUTFILE out"),
        (["SELECT 1 AS a, 2 AS b", "--binary", "c"], "the answer has no such column"),
        (["--table", "fils"], 'no such table; did you mean "fills"?'),
    ],
)
def test_wrong_use_leaves_nothing(
    made: Exporting, out: pathlib.Path, arguments: list[str], words: str
) -> None:
    """Exit code 2, one line, and no file."""
    assert words in made.refused("parquet", *arguments, "--out", out / "x.parquet", code=2)
    assert list(out.iterdir()) == []


def test_nothing_is_changed(made: Exporting, out: pathlib.Path) -> None:
    """A statement that would change something is refused, and leaves no file."""
    assert "only reads" in made.refused("csv", "TRUNCATE TABLE fills", "--out", out / "x")
    assert list(out.iterdir()) == []


async def test_beside_a_recorder(chdb_path: pathlib.Path, engine: Client, out: pathlib.Path) -> None:
    """A server that lets nobody set anything, as beside a recorder, exports all the same; CSV says what differs."""
    async with DevServer(chdb_path, read_only=True) as server:
        made = Exporting(out.parent, Place(server.url, "default"))
        sql = "SELECT number AS n, CAST(NULL, 'Nullable(String)') AS s, unhex('ff') AS b FROM numbers(100000)"
        said = await asyncio.to_thread(made.export, "arrow", sql, "--binary", "b", "--out", out / "x.arrow")
        assert said["rows"] == read(out / "x.arrow").num_rows == 100_000
        done = await asyncio.to_thread(made.run, "export", "csv", sql, "--out", "-", "--json")
    note, said = map(json.loads, done.stderr.splitlines())
    assert "NULL is \\N" in note["note"]
    assert said["rows"] == 100_000
    assert done.stdout.splitlines()[:2] == [b'"n","s","b"', b'0,\\N,"\xff"']


def test_a_terminal(made: Exporting, out: pathlib.Path) -> None:
    """It sees rows and MiB as they are written, of a table how much is left; and never a binary form."""
    shown = _on_terminal(made, "csv", "SELECT number FROM numbers(3000000)", "--out", str(out / "x"))
    assert re.search(r"query: [\d,]+ rows, [\d.]+ MiB", shown)
    assert "%" not in shown
    assert "100%" in _on_terminal(made, "csv", "-t", "fills", "--out", str(out / "fills"))
    refused = _on_terminal(made, "parquet", "SELECT 1 AS a", "--out", "-")
    assert "not for a terminal" in refused
    assert "PAR1" not in refused


def _on_terminal(made: Exporting, *arguments: str) -> str:
    """What a terminal shows of both streams."""
    screen, inside = pty.openpty()
    with made.start("export", *arguments, stdout=inside, stderr=inside):
        os.close(inside)
        found = b""
        with contextlib.suppress(OSError):  # the end of a terminal
            while part := os.read(screen, 1 << 16):
                found += part
    os.close(screen)
    return found.decode()


def test_secrets_stay_out_of_metadata(made: Exporting, out: pathlib.Path) -> None:
    """A password in the SQL is not in the file."""
    sql = "SELECT 'password=hunter2-s3cr3t' = '' AS x"
    made.export("parquet", sql, "--out", out / "x.parquet")
    assert b"hunter2" not in (out / "x.parquet").read_bytes()


# -- a file only when complete --


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_an_error_in_the_middle_leaves_no_file(made: Exporting, out: pathlib.Path, form: str) -> None:
    """What was written by then is removed; a file that was to be replaced is still the old one."""
    file = out / "x"
    assert "code 395" in made.refused(form, BREAKS, "--out", file)
    assert list(out.iterdir()) == []
    file.write_bytes(b"old")
    assert "code 395" in made.refused(form, BREAKS, "--force", "--out", file)
    assert [one.name for one in out.iterdir()] == ["x"]
    assert file.read_bytes() == b"old"


@pytest.mark.parametrize(("form", "number"), [("parquet", signal.SIGTERM), ("csv", signal.SIGINT)])
def test_a_signal_in_the_middle_leaves_no_file(
    made: Exporting, out: pathlib.Path, form: str, number: signal.Signals
) -> None:
    """SIGTERM and Ctrl-C end it with their codes, and remove what is not complete."""
    with made.start("export", form, ENDLESS, "--out", out / "x") as process:
        wait_until(
            lambda: (
                process.poll() is not None or any(one.stat().st_size > 1_000_000 for one in out.iterdir())
            ),
            "bytes in the file",
        )
        assert [one.suffix for one in out.iterdir()] == [".part"]
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == (143 if number is signal.SIGTERM else 130), errors
    *progress, line = errors.decode().splitlines()
    assert line == "stopped"
    assert all(told.startswith("exporting ") for told in progress)
    assert list(out.iterdir()) == []


def test_a_cut_connection_leaves_no_file(backends: Backends, out: pathlib.Path) -> None:
    """An answer of which the end is missing is none; only a server's connection can be cut."""
    server = backends.open("devserver")
    ((host, port),) = parse_target(server.target).hosts
    with server.fresh_database() as database:
        for form in ("parquet", "csv"):
            with TcpProxy((host, port)) as proxy:
                proxy.cut_after(3_000_000, "to_client")
                made = Exporting(out.parent, Place(f"http://127.0.0.1:{proxy.port}", database))
                line = made.refused(form, ENDLESS, "--out", out / "x")
            assert "cut in the middle of the answer" in line
            assert list(out.iterdir()) == []


def test_a_file_is_replaced_through_a_link(made: Exporting, out: pathlib.Path) -> None:
    """With --force; the link stays one, and the file keeps its mode."""
    file, link = out / "x.csv", out / "link.csv"
    file.write_bytes(b"old")
    file.chmod(0o600)
    link.symlink_to(file.name)
    made.export("csv", "SELECT 1 AS a", "--out", link, "--force")
    assert link.is_symlink()
    assert file.read_bytes() == b'"a"\r\n1\r\n'
    assert file.stat().st_mode & 0o777 == 0o600
    assert sorted(one.name for one in out.iterdir()) == ["link.csv", "x.csv"]


def test_standard_output(made: Exporting) -> None:
    """`-` is the file's bytes on standard output and nothing else; what is said of it is on standard error."""
    done = made.run("export", "parquet", "SELECT number AS n FROM numbers(200000)", "--out", "-", "--json")
    assert json.loads(done.stderr)["rows"] == 200_000
    assert pq.read_table(io.BytesIO(done.stdout))["n"].to_pylist() == list(range(200_000))
    with made.start("export", "csv", ENDLESS, "--out", "-") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b'"number","text"\r\n'
        process.stdout.close()  # as `| head` does
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert process.returncode == 1


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_memory_does_not_grow_with_the_answer(made: Exporting, out: pathlib.Path, form: str) -> None:
    """Far more rows take no more memory than a few row groups."""

    def peak_bytes(rows: int) -> int:
        sql = f"SELECT number, toString(cityHash64(number)) || repeat('x', 200) AS text FROM numbers({rows})"
        peak_kib = 0
        with made.start("export", form, sql, "--out", out / f"{rows}.{form}") as process:
            status = pathlib.Path(f"/proc/{process.pid}/status")

            def ended() -> bool:
                nonlocal peak_kib
                text = status.read_text()
                if "VmHWM:" in text:
                    peak_kib = max(peak_kib, int(text.partition("VmHWM:")[2].split()[0]))
                return process.poll() is not None

            wait_until(ended, "the export")
            assert process.returncode == 0
        return peak_kib * 1024

    few = peak_bytes(1_500_000)  # fewer do not fill all buffers yet
    assert peak_bytes(4_000_000) - few < 200_000_000  # the rows alone are 550 MB more
