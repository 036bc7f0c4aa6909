"""Bad input of every kind: a clear error or a dead letter, and never another row's loss."""

from __future__ import annotations

import gzip
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from harness.backends import Backend
from harness.ingest_files import (
    START_NS,
    capture_lines,
    child_environment,
    run_command,
    write_lines,
    write_rows,
)

from recorder import Recorder, Settings
from recorder.ingest import IngestOptions, IngestResult, run_ingest

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

FILL = {
    "table": "fills", "ts_local": START_NS, "fill_id": "f-1", "symbol": "BTCUSDT", "venue": "binance", "side": "buy",
    "fill_qty": "0.1", "fill_price": "61800.20",
}  # fmt: skip
TRADE = {
    "table": "market_data",
    "ts_local": START_NS,
    "symbol": "BTCUSDT",
    "trade_id": 7,
    "last_price": 61_800.1,
}
GOOD_ROWS = 20

Letter = dict[str, Any]


@pytest.fixture
def ingest(backend: Backend, database: str, tmp_path: pathlib.Path) -> Callable[..., IngestResult]:
    settings = Settings(
        target=backend.target,
        database=database,
        data_dir=tmp_path / "data",
        ttl=False,
        migrate_on_start=True,
    )

    def run(path: pathlib.Path, **options: Any) -> IngestResult:
        with Recorder(settings) as recorder:
            return run_ingest(recorder, [path], IngestOptions(**options))

    return run


@pytest.fixture
def one_bad(
    ingest: Callable[..., IngestResult], client: Client, database: str, tmp_path: pathlib.Path
) -> Callable[[Any], Letter]:
    """Ingest one bad line among good ones: the good ones are there, and the one dead letter is returned."""

    def run(bad: Any) -> Letter:
        good = [FILL | {"fill_id": f"f-{n}"} for n in range(GOOD_ROWS)]
        path = write_rows(tmp_path / "f.ndjson", [*good[:10], bad, *good[10:]])
        result = ingest(path)
        assert result.exact
        assert result.dead_letters == 1
        assert result.inserted["fills"] == GOOD_ROWS
        fills = client.query(f"SELECT count() FROM {database}.fills").result_rows[0][0]
        assert fills == GOOD_ROWS
        letters = client.query(f"SELECT * FROM {database}.dead_letters", column_formats={"payload": "bytes"})
        rows = list(letters.named_results())
        assert len(rows) == 1
        return dict(rows[0])

    return run


# -- rows: each is one dead letter -----------------------------------------------------------------------------------


def says(letter: Letter, *words: str) -> bool:
    """Whether the letter names what was wrong."""
    return all(word in letter["detail"] for word in words)


def test_unknown_table(one_bad: Callable[[Any], Letter]) -> None:
    """A row for a table that is not there is kept, with the tables that are."""
    letter = one_bad(FILL | {"table": "fils"})
    assert letter["reason"] == "unknown_table"
    assert says(letter, "fils", "market_data")
    assert json.loads(letter["payload"])["fill_id"] == "f-1"
    assert letter["origin"].endswith("f.ndjson, line 11")


def test_missing_field(one_bad: Callable[[Any], Letter]) -> None:
    """A field without a default must be there."""
    letter = one_bad({name: value for name, value in FILL.items() if name != "fill_price"})
    assert letter["table_name"] == "fills"
    assert says(letter, "fill_price")


def test_missing_local_time(one_bad: Callable[[Any], Letter]) -> None:
    """A file's row without its time would be another row in each run."""
    letter = one_bad({name: value for name, value in FILL.items() if name != "ts_local"})
    assert letter["reason"] == "no_local_time"
    assert says(letter, "ts_local")


def test_unknown_field(one_bad: Callable[[Any], Letter]) -> None:
    """A field the table lacks would be lost without a word."""
    assert says(one_bad(FILL | {"colour": "red"}), "colour")


@pytest.mark.parametrize(
    ("field", "value"),
    [("symbol", 7), ("ts_local", "2024-08-08"), ("ts_local", True), ("fill_qty", [1]), ("side", 1)],
)
def test_wrong_type(one_bad: Callable[[Any], Letter], field: str, value: object) -> None:
    """Nothing is taken for something else."""
    assert says(one_bad(FILL | {field: value}), field)


def test_null_where_there_must_be_a_value(one_bad: Callable[[Any], Letter]) -> None:
    """NULL does not become an empty text."""
    assert says(one_bad(TRADE | {"symbol": None}), "symbol")


def test_float_in_an_integer_column(one_bad: Callable[[Any], Letter]) -> None:
    """1.5 is not cut to 1."""
    assert says(one_bad(TRADE | {"trade_id": 1.5}), "trade_id")


def test_integer_beyond_its_width(one_bad: Callable[[Any], Letter]) -> None:
    """2**64 does not wrap to 0."""
    assert says(one_bad(TRADE | {"trade_id": 2**64}), "trade_id")


@pytest.mark.parametrize(
    "text", [b'"0.1234567890123456789"', b"0.1234567890123456789", b'"1e30"', b"1e30", b'"%s"' % (b"9" * 39)]
)
def test_decimal_with_too_many_digits(one_bad: Callable[[Any], Letter], text: bytes) -> None:
    """Written as text or as a number, no digit is lost."""
    row = json.dumps(FILL | {"fill_qty": "@"}).encode().replace(b'"@"', text)
    assert says(one_bad(row), "fill_qty")


def test_nan_price(one_bad: Callable[[Any], Letter]) -> None:
    """NaN is no JSON, and no price as text either."""
    letter = one_bad(json.dumps(TRADE | {"last_price": float("nan")}).encode())
    assert letter["reason"] == "not_json"
    assert b"NaN" in letter["payload"]


@pytest.mark.parametrize("value", ["NaN", "Infinity"])
def test_nan_money(one_bad: Callable[[Any], Letter], value: str) -> None:
    """A decimal takes no NaN."""
    assert says(one_bad(FILL | {"fill_price": value}), "fill_price")


def test_unknown_enumeration_name(one_bad: Callable[[Any], Letter]) -> None:
    """A side is buy or sell."""
    assert says(one_bad(FILL | {"side": "hold"}), "side", "hold")


def test_invalid_utf8(one_bad: Callable[[Any], Letter]) -> None:
    """The line is kept byte for byte."""
    line = json.dumps(FILL | {"fill_id": "@"}).encode().replace(b"@", b"f-\xff\xfe")
    assert one_bad(line)["payload"] == line


def test_torn_json(one_bad: Callable[[Any], Letter]) -> None:
    """Half an object is no row."""
    line = json.dumps(FILL).encode()[:-20]
    letter = one_bad(line)
    assert (letter["reason"], letter["payload"]) == ("not_json", line)


def test_json_nested_too_deep(one_bad: Callable[[Any], Letter]) -> None:
    """Neither does it end the run."""
    line = b"[" * 100_000
    assert one_bad(line)["payload"] == line


def test_ten_megabytes_of_payload_are_kept_whole(
    ingest: Callable[..., IngestResult], client: Client, database: str, tmp_path: pathlib.Path
) -> None:
    """A large payload is no bad one."""
    text = "x" * 10_000_000
    row = {"table": "system_events", "ts_local": START_NS, "kind": "large", "payload": text}
    result = ingest(write_rows(tmp_path / "f", [row, FILL]))
    assert result.ok
    assert result.dead_letters == 0
    stored = client.query(
        "SELECT length(payload), length(replaceAll(payload, 'x', '')) "
        f"FROM {database}.system_events WHERE kind = 'large'"
    ).result_rows
    assert stored == [(10_000_000, 0)]


def test_a_line_beyond_every_bound(one_bad: Callable[[Any], Letter]) -> None:
    """What is longer than a line may be is kept to the bound, with its true length."""
    letter = one_bad(json.dumps(FILL | {"fill_id": "x" * 20_000_000}).encode())
    assert letter["reason"] == "line_too_long"
    assert len(letter["payload"]) == 16 * 1024 * 1024
    assert says(letter, "20,000,")


def test_only_bad_rows(
    ingest: Callable[..., IngestResult], client: Client, database: str, tmp_path: pathlib.Path
) -> None:
    """A file of nothing but bad rows ends, and all of them are kept."""
    result = ingest(
        write_rows(tmp_path / "f", [FILL | {"side": "hold", "fill_id": str(n)} for n in range(500)])
    )
    assert result.exact
    assert result.dead_letters == 500
    assert client.query(f"SELECT count() FROM {database}.dead_letters").result_rows == [(500,)]


# -- files and the command: one line and an exit code ------------------------------------------------------------------


def failed(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """The command ended with this code and one line of error that has these words."""
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == code, done.stderr
    assert len(errors) == 1, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in errors[0]


def test_truncated_gzip(tmp_path: pathlib.Path) -> None:
    """What can be read is recorded; then the error says where it ends and what to do."""
    packed = gzip.compress(b"\n".join(capture_lines(5_000)) + b"\n")
    path = tmp_path / "cut.gz"
    path.write_bytes(packed[:-2_000])
    failed(
        run_command("--data-dir", "d", "ingest", path, cwd=tmp_path),
        1, "cut.gz", f"at byte {len(packed) - 2_000:,}", "delete",
    )  # fmt: skip
    done = run_command("--data-dir", "d", "ingest", "--json", path, cwd=tmp_path)
    assert done.returncode == 1
    result = orjson.loads(done.stdout)
    assert 0 < result["already_there"]["market_data"] < 5_000
    assert result["inserted"]["market_data"] == 0
    assert result["exact"]


def test_wrong_use(tmp_path: pathlib.Path) -> None:
    """A directory, a name that is not there, an unknown table, other content: exit code 2, nothing recorded."""
    rows = write_rows(tmp_path / "rows", [FILL])
    text = tmp_path / "text"
    text.write_text("hello\n")
    good = write_lines(tmp_path / "good", capture_lines(5))
    for arguments, word in (
        ([good, tmp_path], "directory"),
        ([good, tmp_path / "missing"], "no such file"),
        (["--table", "fils", rows], "fils"),
        ([text], "--format"),
        (["--speed", "0", good], "speed"),
        (["--normaliser", "nobody", good], "nobody"),
        (["--table", "fills", good], "--table"),
    ):
        done = run_command("--data-dir", "d", "ingest", *arguments, cwd=tmp_path)
        failed(done, 2, word)


@pytest.mark.parametrize("name", ["missing", "."])
def test_a_file_that_is_not_there_makes_no_database(tmp_path: pathlib.Path, name: str) -> None:
    """Files are looked at before the engine is opened: one line with a remedy, and nothing is made."""
    good = write_lines(tmp_path / "good", capture_lines(5))
    done = run_command("--data-dir", "d", "ingest", good, name, cwd=tmp_path)
    failed(done, 2, "; name ")
    assert not (tmp_path / "d").exists()


def test_content_that_is_no_parquet_says_what_to_do(tmp_path: pathlib.Path) -> None:
    """The line ends with a remedy."""
    good = write_lines(tmp_path / "good", capture_lines(5))
    done = run_command("--data-dir", "d", "ingest", "--format", "parquet", good, cwd=tmp_path)
    failed(done, 2, "is no Parquet file")
    assert done.stderr.splitlines()[-1].endswith("; leave --format out")


def test_rows_without_a_table_anywhere(tmp_path: pathlib.Path) -> None:
    """Where no line says its table the command asks for one; with one line that does, the others are dead letters."""
    bare = {name: value for name, value in FILL.items() if name != "table"}
    path = write_rows(tmp_path / "f", [bare, bare | {"fill_id": "f-2"}])
    done = run_command("--data-dir", "d", "ingest", "--format", "ndjson", path, cwd=tmp_path)
    assert done.returncode == 2
    assert "give --table" in done.stderr.splitlines()[-1]
    done = run_command("--data-dir", "d", "ingest", "--table", "fills", path, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    path = write_rows(tmp_path / "g", [bare, FILL])
    assert run_command("--data-dir", "d", "ingest", path, cwd=tmp_path).returncode == 0


@pytest.mark.parametrize("table", ["metrics_timeseries", "recorder_runs", "system_events"])
def test_a_bad_row_of_the_recorders_own_tables(tmp_path: pathlib.Path, table: str) -> None:
    """It is a dead letter that the command has waited for."""
    path = write_rows(tmp_path / "f", [{"ts_local": START_NS, "no_such_column": 1}])
    arguments = ["--format", "ndjson", "--table", table, path]
    done = run_command("--data-dir", "d", "ingest", "--json", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["dead_letters"], answer["missing"]) == (1, {})


def test_old_rows_in_a_database_with_ttl(tmp_path: pathlib.Path) -> None:
    """Refused with the remedy, and the remedy works."""
    path = write_lines(tmp_path / "f", capture_lines(50))
    made = run_command("--data-dir", "d", "migrate", "up", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    done = run_command("--data-dir", "d", "ingest", path, cwd=tmp_path)
    failed(done, 1, "90 days", "KEEP_DAYS=forever", "--data-dir")
    keep = {"RECORDER_TABLES__MARKET_DATA__KEEP_DAYS": "forever"}
    assert run_command("--data-dir", "d", "migrate", "up", cwd=tmp_path, **keep).returncode == 0
    done = run_command("--data-dir", "d", "ingest", "--json", path, cwd=tmp_path, **keep)
    assert done.returncode == 0, done.stderr
    assert orjson.loads(done.stdout)["inserted"] == {"market_data": 50}


def test_unreadable_settings(tmp_path: pathlib.Path) -> None:
    """A settings file that is no TOML, and one that is not there."""
    path = write_lines(tmp_path / "f", capture_lines(5))
    (tmp_path / "bad.toml").write_text("target = [")
    failed(run_command("--config", "bad.toml", "ingest", path, cwd=tmp_path), 2, "bad.toml")
    failed(run_command("--config", "no.toml", "ingest", path, cwd=tmp_path), 2, "no.toml")


def test_a_second_process_on_the_database(tmp_path: pathlib.Path) -> None:
    """It is told who has it, and the first goes on undisturbed."""
    path = write_lines(tmp_path / "f", capture_lines(20))
    holder = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent("""
            import sys
            from recorder import Recorder, Settings
            with Recorder(Settings(data_dir="d", ttl=False)):
                print("open", file=sys.stderr, flush=True)
                sys.stdin.read()
        """)],
        cwd=tmp_path, env=child_environment(), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert holder.stderr is not None
    try:
        assert "open\n" in holder.stderr  # its log lines may come before
        failed(run_command("--data-dir", "d", "ingest", path, cwd=tmp_path), 1, "process")
    finally:
        holder.communicate("", timeout=60)
    assert holder.returncode == 0
    assert run_command("--data-dir", "d", "ingest", path, cwd=tmp_path).returncode == 0


@pytest.mark.root
def test_a_file_that_may_not_be_read(tmp_path: pathlib.Path) -> None:
    """The system's reason, and exit code 1. As root in a process of another user, because root may read all."""
    if os.geteuid() != 0:
        path = write_lines(tmp_path / "f", capture_lines(5))
        path.chmod(0)
        failed(run_command("--data-dir", "d", "ingest", path, cwd=tmp_path), 1, "Permission denied")
        return
    program = (
        "import os, pathlib, sys; from recorder.ingest.source import inspect\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try: inspect(pathlib.Path(sys.argv[1]))\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    folder = pathlib.Path(tempfile.gettempdir()) / f"unreadable-{os.getpid()}-{time.time_ns()}"
    folder.mkdir(mode=0o755)
    try:
        path = write_lines(folder / "f", capture_lines(5))
        path.chmod(0o600)
        done = subprocess.run(
            [sys.executable, "-c", program, str(path)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.stdout.startswith("FileUnreadable"), done.stdout + done.stderr
        assert "Permission denied" in done.stdout
    finally:
        path.unlink()
        folder.rmdir()


@pytest.mark.root
def test_a_disk_that_is_read_only(tmp_path: pathlib.Path) -> None:
    """The command says that it cannot write where its data folder is, and does not hang."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "ro,size=1m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"no mounts here: {mounted.stderr.decode().strip()}")
    try:
        path = write_lines(tmp_path / "f", capture_lines(5))
        done = run_command("--data-dir", disk / "data", "ingest", path, cwd=tmp_path)
        failed(done, 1, str(disk))
        assert "ead-only" in done.stderr
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_no_arguments_at_all(tmp_path: pathlib.Path) -> None:
    """Wrong use, said in one line."""
    failed(run_command("ingest", cwd=tmp_path), 2, "FILE")
