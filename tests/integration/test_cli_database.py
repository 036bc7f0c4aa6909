"""Laws of the commands that open a database, each in a process of its own: answers, refusals, exit codes."""

from __future__ import annotations

import fcntl
import json
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow.ipc
import pyarrow.parquet
import pytest
from harness.backends import Backend, Place

ENVIRONMENT = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "LANG": "C.UTF-8"}


@dataclass(frozen=True)
class Made:
    """A data folder and a database; `recorder` is run in the one, on the other."""

    data_dir: pathlib.Path
    place: Place

    @property
    def environment(self) -> dict[str, str]:
        return ENVIRONMENT | self.place.variables


def _recorder(
    made: Made, *arguments: str, stdin: bytes = b"", **variables: str
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "recorder", "--data-dir", str(made.data_dir), *arguments],
        input=stdin,
        capture_output=True,
        check=False,
        timeout=120,
        cwd=made.data_dir,
        env=made.environment | variables,
    )


@pytest.fixture(scope="module")
def made(backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    """A migrated database."""
    data_dir = tmp_path_factory.mktemp("made")
    with backend.place(data_dir) as place:
        made = Made(data_dir, place)
        done = _recorder(made, "migrate", "up", "--no-ttl", "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["applied"]
        yield made


@pytest.fixture
def fresh(place: Place, tmp_path: pathlib.Path) -> Made:
    """A database that is not there yet."""
    return Made(tmp_path, place)


# -- migrate --


def test_a_fresh_database_is_planned_without_being_made(fresh: Made, backend: Backend) -> None:
    """`plan`, `status` and `check` of a database that is not there answer, and make nothing."""
    plan = _recorder(fresh, "migrate", "plan")
    assert b"CREATE TABLE" in plan.stdout
    assert plan.returncode == 0
    status = json.loads(_recorder(fresh, "migrate", "status", "--json").stdout)
    assert status[0]["pending"] == len(status[0]["migrations"]) > 0
    check = _recorder(fresh, "migrate", "check", "--json")
    assert check.returncode == 1
    assert {difference["kind"] for difference in json.loads(check.stdout)["differences"]} == {"missing_table"}
    assert list(fresh.data_dir.iterdir()) == []
    if not backend.embedded:
        assert backend.client.query(f"EXISTS DATABASE {fresh.place.database}").result_rows == [(0,)]


def test_migrating_again_does_nothing(made: Made) -> None:
    """After `up`, another `up` applies nothing, `status` has nothing pending and `check` no differences."""
    again = _recorder(made, "migrate", "up")
    assert (again.returncode, again.stdout) == (0, b"")
    assert b"nothing to do" in again.stderr
    assert json.loads(_recorder(made, "migrate", "status", "--json").stdout)[0]["pending"] == 0
    assert _recorder(made, "migrate", "check").returncode == 0
    assert json.loads(_recorder(made, "migrate", "plan", "--json").stdout) == []


def test_no_ttl_is_remembered(made: Made) -> None:
    """A database made with `--no-ttl` has none, and a later `up` without the option leaves it so."""
    assert _recorder(made, "migrate", "up").returncode == 0
    sql = "SELECT count() FROM system.tables WHERE database = currentDatabase() AND create_table_query LIKE '%\\nTTL %'"
    assert _recorder(made, "query", "--format", "tsv", sql).stdout.splitlines()[1] == b"0"


def test_no_ttl_takes_it_from_a_database_that_has_it(fresh: Made) -> None:
    """`up --no-ttl` on a database made with TTL removes it, and `check` agrees."""
    assert _recorder(fresh, "migrate", "up").returncode == 0
    sql = (
        "SELECT create_table_query LIKE '% TTL %' FROM system.tables "
        "WHERE database = currentDatabase() AND name = 'market_data'"
    )
    assert _recorder(fresh, "query", "--format", "tsv", sql).stdout.splitlines()[1] == b"1"
    assert _recorder(fresh, "migrate", "up", "--no-ttl").returncode == 0
    assert _recorder(fresh, "query", "--format", "tsv", sql).stdout.splitlines()[1] == b"0"
    assert _recorder(fresh, "migrate", "check").returncode == 0


# -- query --


def test_formats(made: Made) -> None:
    """One answer in every form: a table for people, JSON, lines, CSV, Arrow; SQL from argument, file or input."""
    sql = "SELECT number AS n, toString(number) AS s FROM numbers(3)"
    assert b"n   s" in _recorder(made, "query", sql).stdout
    rows = [{"n": n, "s": str(n)} for n in range(3)]
    assert json.loads(_recorder(made, "query", "--json", sql).stdout) == rows
    assert json.loads(_recorder(made, "query", "--format", "json", sql + " WHERE 0").stdout) == []
    lines = _recorder(
        made, "query", "--format", "jsonl", "-", stdin=sql.encode() + b";\n"
    ).stdout.splitlines()
    assert [json.loads(line) for line in lines] == rows
    (made.data_dir / "q.sql").write_text(sql)
    assert _recorder(made, "query", "-f", "q.sql", "--format", "CSV").stdout.splitlines()[2] == b'2,"2"'
    arrow = _recorder(made, "query", "--format", "arrow", sql).stdout
    assert pyarrow.ipc.open_stream(arrow).read_all()["n"].to_pylist() == [0, 1, 2]
    assert b"fills" in _recorder(made, "query", "SHOW TABLES").stdout


def test_an_answer_of_many_blocks_is_one_answer(made: Made) -> None:
    """However many pieces the engine makes of it, an answer has one header, one frame, and every row once."""
    sql = "SELECT number FROM numbers(300000)"
    lines = _recorder(made, "query", "--format", "csv", sql).stdout.splitlines()
    assert lines[0] == b'"number"'
    assert sorted(map(int, lines[1:])) == list(range(300_000))
    parquet = _recorder(made, "query", "--format", "parquet", sql).stdout
    assert pyarrow.parquet.read_table(pyarrow.BufferReader(parquet)).num_rows == 300_000
    arrow = _recorder(made, "query", "--format", "arrow", sql).stdout
    assert pyarrow.ipc.open_stream(arrow).read_all().num_rows == 300_000
    several = "SELECT 1 AS n UNION ALL SELECT 2 UNION ALL SELECT 3"
    table = _recorder(made, "query", several).stdout.decode()
    assert table.count("UInt8") == 0
    assert table.split().count("n") == 1


def test_every_byte_survives(made: Made) -> None:
    """All 256 bytes leave as they are; a table shows those that are no text as escapes, never raw."""
    sql = "SELECT unhex(hex(arrayStringConcat(arrayMap(i -> char(i), range(256))))) AS b"
    raw = _recorder(made, "query", "--format", "RawBLOB", sql).stdout
    assert raw == bytes(range(256))
    table = _recorder(made, "query", sql).stdout
    assert b"\\xff" in table
    assert b"\x1b" not in table


def test_a_long_answer_is_cut_in_a_table_only(made: Made) -> None:
    """A table stops at `--max-rows` and says so; the other formats give everything."""
    sql = "SELECT number FROM numbers(5000)"
    table = _recorder(made, "query", "--max-rows", "10", sql)
    assert b"the first 10 rows" in table.stderr
    assert len(table.stdout.split()) < 20
    assert len(_recorder(made, "query", "--format", "csv", sql).stdout.splitlines()) == 5_001


@pytest.mark.parametrize(
    "sql",
    [
        "DROP TABLE fills",
        "TRUNCATE TABLE fills",
        "INSERT INTO fills (fill_id) VALUES ('x')",
        "CREATE TABLE x (a Int8) ENGINE = Memory",
        "ALTER TABLE fills DELETE WHERE 1",
    ],
)
def test_nothing_can_be_changed(made: Made, sql: str) -> None:
    """A statement that changes anything is refused in one line."""
    refused = _recorder(made, "query", sql)
    assert refused.returncode == 1
    assert refused.stderr.startswith(b"error: query only reads")
    assert len(refused.stderr.splitlines()) == 1


MANY_PARTS = """
import sys, chdb
engine = chdb.connect(sys.argv[1])
engine.query("CREATE TABLE parts_of (a Int32) ENGINE = MergeTree ORDER BY a")
engine.query("SYSTEM STOP MERGES")
for n in range(12):
    engine.query(f"INSERT INTO parts_of VALUES ({n})")
engine.close()
"""


@pytest.mark.usefixtures("embedded")  # a server merges whether it is asked or not
def test_asking_merges_nothing(made: Made) -> None:
    """Parts that an engine would merge as it opens are the same after queries of some time as before."""
    subprocess.run(
        [sys.executable, "-c", MANY_PARTS, str(made.data_dir / "db")], check=True, timeout=60, env=ENVIRONMENT
    )
    parts = "SELECT name, active FROM system.parts WHERE table = 'parts_of' ORDER BY name"
    before = _recorder(made, "query", "--format", "tsv", parts).stdout
    assert before.count(b"\t1\n") == 12
    slow = _recorder(
        made,
        "query",
        "--format",
        "tsv",
        "SELECT sum(sleepEachRow(1)) FROM numbers(3) SETTINGS max_block_size = 1",
    )
    assert slow.returncode == 0, slow.stderr
    assert _recorder(made, "query", "--format", "tsv", parts).stdout == before


@pytest.mark.usefixtures("embedded")  # a server has a configuration of its own
def test_the_engine_keeps_its_disk_free_while_it_is_asked(made: Made) -> None:
    """`query` opens the engine with the configuration that a recorder opens it with."""
    sql = (
        "SELECT (SELECT value FROM system.merge_tree_settings WHERE name = 'old_parts_lifetime'), keep_free_space "
        "FROM system.disks WHERE name = 'default'"
    )
    answer = _recorder(
        made, "query", "--format", "tsv", sql, RECORDER_ENGINE_KEEP_FREE_BYTES="12345678"
    ).stdout
    assert answer.splitlines()[1] == b"480\t12345678"


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("SELECT 1 FORMAT CSV", b"--format CSV"),
        ("select 1 format JSONEachRow", b"--format JSONEachRow"),
        ("SELECT 1 FORMAT Null", b"--format Null"),
        ("SELECT 1 FORMAT CSV SETTINGS max_threads = 1", b"--format CSV"),
        ("SELECT 1 /* FORMAT */ FORMAT TSV -- that", b"--format TSV"),
        ("SHOW TABLES FORMAT CSV", b"--format CSV"),
        ("DESCRIBE fills FORMAT CSV", b"--format CSV"),
        ("SELECT 1 INTO OUTFILE 'never.csv'", b"INTO OUTFILE"),
        ("SELECT 1 INTO OUTFILE 'never.csv' FORMAT CSV", b"INTO OUTFILE"),
        ("SELECT 1; SELECT 2 FORMAT CSV", b"one statement"),
    ],
)
def test_sql_with_an_output_of_its_own_is_refused(made: Made, sql: str, words: bytes) -> None:
    """A statement's own FORMAT or INTO OUTFILE is wrong use, said in one line, and writes no file."""
    _is_refused(made, _recorder(made, "query", sql), words)


@pytest.mark.parametrize("option", [["--json"], ["--format", "csv"]])
def test_an_output_of_its_own_is_refused_with_every_option(made: Made, option: list[str]) -> None:
    """Also where a form of the answer was asked for."""
    for sql, words in (
        ("SELECT 1 FORMAT CSV", b"--format CSV"),
        ("SELECT 1 INTO OUTFILE 'never.csv'", b"OUTFILE"),
    ):
        _is_refused(made, _recorder(made, "query", *option, sql), words)


def _is_refused(made: Made, refused: subprocess.CompletedProcess[bytes], words: bytes) -> None:
    assert refused.returncode == 2
    assert words in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert refused.stdout == b""
    assert not (made.data_dir / "never.csv").exists()


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 7 AS format",
        "SELECT format FROM (SELECT 7 AS format)",
        "SELECT FORMAT FROM (SELECT 7 AS FORMAT)",
        "SELECT format('{}', 7) -- FORMAT CSV",
        "SELECT 7 AS a WHERE ' FORMAT CSV' != ' INTO OUTFILE \\'a\\''",
        "SELECT 7 AS outfile /* INTO OUTFILE 'x' FORMAT CSV */",
        'SELECT 7 AS " FORMAT CSV"',
    ],
)
def test_format_is_also_a_name(made: Made, sql: str) -> None:
    """Columns, functions, strings and comments may say FORMAT and OUTFILE."""
    answer = _recorder(made, "query", "--format", "tsv", sql)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.splitlines()[1] == b"7"


@pytest.mark.parametrize("sql", ["SET readonly = 0", "SELECT 1 SETTINGS readonly = 0"])
def test_the_guard_cannot_be_taken_off(made: Made, sql: str) -> None:
    """The setting that makes the handle read-only cannot be changed by a statement."""
    assert _recorder(made, "query", sql).returncode == 1


@pytest.mark.parametrize(
    ("arguments", "variables", "code", "words"),
    [
        (["SELECT nope FROM fills"], {}, 1, b"code 47, UNKNOWN_IDENTIFIER"),
        (["SELEC 1"], {}, 1, b"code 62, SYNTAX_ERROR"),
        (["SELECT * FROM nowhere"], {}, 1, b"code 60, UNKNOWN_TABLE"),
        (["SELECT throwIf(number = 3) FROM numbers(9)"], {}, 1, b"code 395"),
        (["--format", "Nonsense", "SELECT 1"], {}, 2, b"knows no format Nonsense"),
        (["SELECT 1"], {"RECORDER_DATABASE": "elsewhere"}, 1, b"has no database elsewhere"),
    ],
)
def test_errors_of_the_engine_are_one_line(
    made: Made, arguments: list[str], variables: dict[str, str], code: int, words: bytes
) -> None:
    """What ClickHouse refuses is one line with its number, without stack or version."""
    refused = _recorder(made, "query", *arguments, **variables)
    assert refused.returncode == code
    assert words in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert b"Stack trace" not in refused.stderr


@pytest.mark.usefixtures("embedded")  # a server serves many processes
def test_a_database_that_another_process_has_open(made: Made) -> None:
    """While another process holds the folder, both commands say so and which process it is."""
    # What the engine does while it runs: its process id in a file that it locks.
    status = made.data_dir / "db" / "status"
    with status.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("PID: 4242\n")
        lock.flush()
        for arguments in (["query", "SELECT 1"], ["migrate", "status"]):
            refused = _recorder(made, *arguments)
            assert refused.returncode == 1
            assert b"process 4242 has it open" in refused.stderr
            assert b"recorder run --serve" in refused.stderr
            assert b"--target http://" in refused.stderr
            assert len(refused.stderr.splitlines()) == 1
    status.unlink()


@pytest.fixture
def endless(made: Made) -> Iterator[subprocess.Popen[bytes]]:
    """A query that has begun to answer and would go on for long."""
    running = subprocess.Popen(
        [sys.executable, "-m", "recorder", "--data-dir", str(made.data_dir), "query", "--format", "csv",
         "SELECT number FROM numbers(100000000000)"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=made.environment,
    )  # fmt: skip
    assert running.stdout is not None
    assert running.stdout.readline() == b'"number"\n'
    yield running
    running.kill()
    running.communicate()


def test_a_reader_that_goes_away_is_no_noise(endless: subprocess.Popen[bytes]) -> None:
    """`| head` ends a command quietly."""
    assert endless.stdout is not None
    assert endless.stderr is not None
    endless.stdout.close()
    assert endless.wait(30) == 1
    assert endless.stderr.read() == b""


def test_ctrl_c_ends_a_streaming_answer(endless: subprocess.Popen[bytes]) -> None:
    """Ctrl-C in the middle of an answer ends with 130, quietly."""
    assert endless.stdout is not None
    assert endless.stderr is not None
    endless.send_signal(signal.SIGINT)
    end = time.monotonic() + 30
    while endless.stdout.read(1 << 20) and time.monotonic() < end:
        pass  # it would fill any memory if it went on
    assert endless.wait(10) == 130
    assert endless.stderr.read().strip() == b"stopped"
