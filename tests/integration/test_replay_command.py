"""Laws of `recorder replay` and `recorder wal requeue`: what a log holds gets in once, what is asked for comes back.

Where it makes no difference which database it is, they are held on one alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import itertools
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from click.testing import CliRunner, Result
from harness.backends import Backend
from harness.faulty_files import Unreadable
from harness.recorders import WAIT_S, order, settings_for, wait_until

from recorder import Recorder, Settings
from recorder.cli import main, replay
from recorder.cli.options import Invocation
from recorder.log_holder import holder
from recorder.replaying import Progress
from wal import names
from wal.checkpoint import CheckpointFile
from wal.commit import GroupCommit
from wal.frames import Frame
from wal.places import Range
from wal.replay_rows import Piece, RowFetch
from wal.segment import Segment
from wal.writer import LogWriter

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

AWAY = "http://127.0.0.1:1"
"""Nobody answers there."""
T0_NS = 1_723_118_400_000_000_000
"""2024-08-08 12:00:00 UTC: a row a second from there."""
QUICK = {
    "RECORDER_RETRY_INITIAL_S": "0.01",
    "RECORDER_RETRY_MAX_S": "0.05",
    "RECORDER_HOLD_PROBE_S": "0.05",
    "RECORDER_LOG_LEVEL": "critical",
}


@pytest.fixture
def settings(backend: Backend, database: str, tmp_path: pathlib.Path) -> Settings:
    return settings_for(backend, database, tmp_path / "data", shutdown_timeout_s=10)


@pytest.fixture
def variables(settings: Settings, backend: Backend, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The same settings for the command."""
    for name in list(os.environ):
        if name.startswith("RECORDER_") and not name.startswith("RECORDER_TEST"):
            monkeypatch.delenv(name)
    return QUICK | {
        "RECORDER_TARGET": backend.target,
        "RECORDER_DATABASE": settings.database,
        "RECORDER_DATA_DIR": str(settings.data_dir),
        "RECORDER_MIGRATE_ON_START": "true",
    }


def put(recorder: Recorder, numbers: Sequence[int], table: str = "orders") -> None:
    for n in numbers:
        fields = order(n, ts_local=T0_NS + n * 1_000_000_000)
        if table == "fills":
            fields = {"fill_id": f"c-{n}", "symbol": "B", "side": "buy", "fill_qty": 1, "fill_price": 1}
        assert recorder.record(table, fields)


def leave(settings: Settings, numbers: Sequence[int], *tables: str) -> None:
    """Rows that are on the log alone: the database is away."""
    away = Settings(
        target=AWAY, database=settings.database, data_dir=settings.data_dir,
        defaults={"linger_ms": 5, "linger_max_ms": 20, "batch_rows": 100},
    )  # fmt: skip
    with Recorder(away, wait_for_database=True) as recorder:
        for table in tables or ("orders",):
            put(recorder, numbers, table)
        recorder.sync(WAIT_S)


def run(variables: Mapping[str, str], *arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments), env=dict(variables))


def told(variables: Mapping[str, str], *arguments: str, code: int = 0) -> Any:
    result = run(variables, *arguments, "--json")
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def ids(client: Client, database: str, table: str = "orders") -> list[int]:
    name = "fill_id" if table == "fills" else "client_order_id"
    found = client.query(f"SELECT {name} FROM {database}.{table}").result_rows
    return sorted(int(str(row[0]).removeprefix("c-")) for row in found)


def counts(replayed: Mapping[str, Any], table: str = "orders") -> tuple[int, ...]:
    of = replayed["tables"][table]
    return tuple(of[name] for name in ("rows", "inserted", "there", "dead_lettered", "lost", "left"))


def epoch_of(settings: Settings, table: str = "orders") -> int:
    """The only epoch that the checkpoint speaks of."""
    (epoch,) = CheckpointFile(settings.data_dir / "wal" / table).read()[0].epochs
    return epoch


def delete(client: Client, database: str, where: str) -> None:
    client.command(f"ALTER TABLE {database}.orders DELETE WHERE {where} SETTINGS mutations_sync = 1")


# -- replay -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("embedded")
def test_what_an_outage_left_gets_in_once(
    settings: Settings, variables: dict[str, str], client: Client
) -> None:
    """A dry run says how much it is and opens no database; a replay inserts it; another one has nothing to do, and
    waits, if asked to, until the log needs it no more.
    """
    leave(settings, range(1_000))
    plan = told(variables | {"RECORDER_TARGET": AWAY}, "replay", "--dry-run")
    assert (plan["orders"]["rows"], plan["orders"]["lost"], plan["orders"]["refused"]) == (1_000, 0, None)
    assert counts(told(variables, "replay")) == (1_000, 1_000, 0, 0, 0, 0)
    assert ids(client, settings.database) == list(range(1_000))
    assert told(variables, "replay", "--dry-run")["orders"]["rows"] == 0
    again = run(variables | {"RECORDER_WAL_GRACE_S": "0.1"}, "replay", "--settle")
    assert (again.exit_code, "nothing was left to replay" in again.stdout) == (0, True)
    assert "orders" not in told(variables, "replay", "--dry-run"), "its segments are purged"
    assert ids(client, settings.database) == list(range(1_000))


@pytest.mark.usefixtures("embedded")
def test_two_segments_of_one_number_are_two(
    settings: Settings, variables: dict[str, str], client: Client, tmp_path: pathlib.Path
) -> None:
    """One folder of a log was away while it was written: the other took the same number. All commands see both, all
    rows get in, and when they are settled both segments are purged."""
    leave(settings, range(20))
    first, second = settings.data_dir / "wal" / "orders", tmp_path / "second" / "orders"
    ((number, segment),) = names.segments([first])
    second.mkdir(parents=True)
    segment.rename(second / segment.name)
    leave(settings, range(20, 50))
    assert [one for one, _ in names.segments([first, second])] == [number, number]
    variables = variables | {"RECORDER_WAL_SECOND_DIR": str(second.parent), "RECORDER_WAL_GRACE_S": "0.1"}
    (listed,) = told(variables, "wal", "ls", "orders")
    (verified,) = told(variables, "wal", "verify", "orders")["logs"]
    assert (listed["rows"], listed["open"], listed["damage"]) == (50, 50, [])
    assert (verified["rows"], verified["whole"]) == (50, True)
    files = {str(path): path.stat().st_size for path in (first / segment.name, second / segment.name)}
    assert files == {one["file"]: one["bytes"] for one in listed["segments"]}
    assert files == {one["file"]: one["bytes"] for one in verified["segments"]}
    assert told(variables, "replay", "--dry-run")["orders"]["rows"] == 50
    assert counts(told(variables, "replay", "--settle")) == (50, 50, 0, 0, 0, 0)
    assert ids(client, settings.database) == list(range(50))
    assert not any(os.path.exists(path) for path in files)


@pytest.mark.usefixtures("embedded")
def test_only_the_tables_that_are_named_are_replayed(
    settings: Settings, variables: dict[str, str], client: Client
) -> None:
    """The others wait on their logs for the next time."""
    leave(settings, range(50), "orders", "fills")
    assert set(told(variables, "replay", "--table", "fills")["tables"]) == {"fills"}
    assert ids(client, settings.database, "fills") == list(range(50))
    assert ids(client, settings.database) == []
    assert "did you mean" in run(variables, "replay", "--table", "order").stderr
    assert counts(told(variables, "replay")) == (50, 50, 0, 0, 0, 0)


@pytest.mark.usefixtures("embedded")
def test_a_database_that_is_away_is_given_up(settings: Settings, variables: dict[str, str]) -> None:
    """At once with --wait 0, else when nothing has gone on for so long; exit code 1 with the reason, and nothing is
    lost."""
    leave(settings, range(20))
    away = variables | {"RECORDER_TARGET": AWAY}
    at_once = run(away, "replay", "--wait", "0")
    assert at_once.exit_code == 1
    assert "127.0.0.1:1" in at_once.stderr
    found = told(away, "replay", "--wait", "0.3", code=1)
    assert counts(found) == (20, 0, 0, 0, 0, 20)
    assert "127.0.0.1:1" in found["tables"]["orders"]["why"]
    assert counts(told(variables, "replay")) == (20, 20, 0, 0, 0, 0)


@pytest.mark.usefixtures("embedded")
def test_a_held_table_keeps_its_rows_and_no_other_waits(
    settings: Settings, variables: dict[str, str], client: Client
) -> None:
    """What is left is told with the reason; when the table is there again, the next replay has it."""
    leave(settings, range(30), "orders", "fills")
    assert run(variables, "migrate", "up").exit_code == 0
    client.command(f"RENAME TABLE {settings.database}.orders TO {settings.database}.elsewhere")
    found = told(variables | {"RECORDER_MIGRATE_ON_START": "false"}, "replay", "--wait", "0.3", code=1)
    assert counts(found, "fills") == (30, 30, 0, 0, 0, 0)
    assert counts(found) == (30, 0, 0, 0, 0, 30)
    assert "orders" in found["tables"]["orders"]["why"]
    client.command(f"RENAME TABLE {settings.database}.elsewhere TO {settings.database}.orders")
    assert counts(told(variables, "replay")) == (30, 30, 0, 0, 0, 0)


@pytest.mark.usefixtures("embedded")
def test_what_a_damaged_log_lost_is_told(
    settings: Settings, variables: dict[str, str], client: Client
) -> None:
    """Before and after, with exit code 1; the rest gets in, and the next replay has nothing to say of it."""
    leave(settings, range(30))
    leave(settings, range(30, 50))
    (_, first), *_ = names.segments([settings.data_dir / "wal" / "orders"])
    with Segment.open(first) as segment:
        frame = next(found for found in segment.scan() if isinstance(found, Frame) and found.header.rows)
    data = bytearray(first.read_bytes())
    data[frame.offset + 40] ^= 1
    first.write_bytes(data)
    lost = frame.header.rows
    assert told(variables, "replay", "--dry-run")["orders"]["lost"] == lost
    assert counts(told(variables, "replay", code=1)) == (50, 50 - lost, 0, 0, lost, 0)
    assert ids(client, settings.database)[-20:] == list(range(30, 50))
    assert counts(told(variables, "replay")) == (0, 0, 0, 0, 0, 0)


def test_what_the_disk_does_not_give_is_left(
    settings: Settings, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can say how many rows are in a file that cannot be read: it is told, with exit code 1, and none is lost.
    Run again when the disk is well, all are in."""
    leave(settings, range(20))
    disk = Unreadable(monkeypatch)
    disk.refuse(names.segments([settings.data_dir / "wal" / "orders"])[0][1])
    left = told(variables, "replay", code=1)
    assert counts(left)[-2:] == (0, 0)
    assert "the disk does not give it" in left["tables"]["orders"]["unread"]
    disk.heal()
    assert counts(told(variables, "replay")) == (20, 20, 0, 0, 0, 0)


def test_rows_of_a_table_that_nobody_knows_stay(tmp_path: pathlib.Path) -> None:
    """They are named with what to do, in whichever folder they are; exit code 1, and no database is asked for."""
    schema = pa.schema([pa.field("n", pa.int64())])
    commit = GroupCommit(group_ms=1)
    writer = LogWriter.open(tmp_path / "wal" / "mine", "mine", schema, commit=commit)
    writer.append(pa.RecordBatch.from_pydict({"n": [1, 2, 3]}, schema))
    assert writer.close(WAIT_S)
    commit.close(WAIT_S)
    (tmp_path / "second" / "mine").mkdir(parents=True)
    ((_, segment),) = names.segments([tmp_path / "wal" / "mine"])
    segment.rename(tmp_path / "second" / "mine" / segment.name)
    variables = {
        "RECORDER_DATA_DIR": str(tmp_path),
        "RECORDER_TARGET": AWAY,
        "RECORDER_WAL_SECOND_DIR": str(tmp_path / "second"),
    }
    result = run(variables, "replay")
    assert result.exit_code == 1
    assert "mine: 3 rows cannot be replayed: no loaded pack has the table" in result.stderr


@pytest.mark.usefixtures("embedded")
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["INT", "TERM"])
def test_a_stopped_replay_says_what_is_done(
    settings: Settings, variables: dict[str, str], sent: signal.Signals, code: int
) -> None:
    """With the exit code of the signal; what it did not get in stays for the next one."""
    leave(settings, range(20))
    before = signal.getsignal(signal.SIGTERM)

    def stop() -> None:
        wait_until(lambda: holder(settings.data_dir / "wal" / "orders") is not None)
        os.kill(os.getpid(), sent)

    thread = threading.Thread(target=stop)
    thread.start()
    try:
        found = told(variables | {"RECORDER_TARGET": AWAY}, "replay", "--wait", "600", code=code)
    finally:
        thread.join()
        signal.signal(signal.SIGTERM, before)
    assert counts(found) == (20, 0, 0, 0, 0, 20)
    assert told(variables, "replay", "--dry-run")["orders"]["rows"] == 20


KILLED = """
import os, signal
from recorder.cli import main
from recorder.log_done import LogDone

confirm, calls = LogDone.confirm, 0

def killed_at_the_second(self, *arguments):
    global calls
    calls += self._table == "orders"
    if calls == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    confirm(self, *arguments)

LogDone.confirm = killed_at_the_second
main(["replay"])
"""


def test_a_killed_replay_goes_on_where_it_was(
    settings: Settings, variables: dict[str, str], client: Client, backend: Backend
) -> None:
    """Killed when rows are in and nobody knows it: the next run finds them, and inserts the others, each once."""
    if backend.embedded:
        pytest.skip("this process has the engine; kills beside it are in tests/faults/test_log_kills.py")
    for first in (0, 100, 200):
        leave(settings, range(first, first + 100))
    killed = subprocess.run(
        [sys.executable, "-c", KILLED], env={**os.environ, **variables}, capture_output=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert len(ids(client, settings.database)) >= 200
    rows, inserted, there, *rest = counts(told(variables, "replay"))
    assert (rows, inserted + there, rest) == (300, 300, [0, 0, 0])
    assert there >= 200
    assert ids(client, settings.database) == list(range(300))


@pytest.mark.usefixtures("embedded")
def test_a_read_that_fails_is_done_again(
    settings: Settings, variables: dict[str, str], client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too many files are open, for a while: what was given out goes in, and the rest after it, each row once."""
    for first in (0, 100, 200):
        leave(settings, range(first, first + 100))
    pieces, calls = RowFetch.pieces, itertools.count()

    def failing(self: RowFetch, asked: Range) -> Iterator[Piece]:
        if asked.rows > 1 and next(calls) in (1, 2):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return pieces(self, asked)

    monkeypatch.setattr(RowFetch, "pieces", failing)
    assert counts(told(variables, "replay")) == (300, 300, 0, 0, 0, 0)
    assert next(calls) > 3
    assert ids(client, settings.database) == list(range(300))


@pytest.mark.usefixtures("embedded")
def test_a_replay_needs_the_folder_alone(settings: Settings, variables: dict[str, str]) -> None:
    """Beside a recorder it is refused, and says who that is; where there are no logs it says so."""
    nowhere = run(variables, "replay")
    assert (nowhere.exit_code, "there are no logs under" in nowhere.stderr) == (1, True)
    with Recorder(settings) as recorder:
        put(recorder, range(3))
        recorder.flush(WAIT_S)
        refused = run(variables, "replay")
        requeued = run(variables, "wal", "requeue", "orders", "--all", "--yes")
    for result in (refused, requeued):
        assert result.exit_code == 1
        assert f"process {os.getpid()} " in result.stderr


def test_progress_on_a_pipe_is_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """How far, how fast, how long yet, and what is waited for; nothing where JSON is asked for."""
    monkeypatch.setattr(replay, "PLAIN_EVERY_S", 0.0)
    half = Progress(done_rows=250, total_rows=1_000, elapsed_s=2.5, waiting_for="")
    for as_json in (False, True):
        with replay._shown(Invocation(json=as_json)) as show:
            show(half)
            show(dataclasses.replace(half, done_rows=0, waiting_for="held: orders"))
    assert capsys.readouterr().err.splitlines() == [
        "25 % of 1,000 rows, 100 rows/s, 8 s left",
        "0 % of 1,000 rows, 0 rows/s; waiting: held: orders",
    ]


# -- requeue ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def recorded(settings: Settings, numbers: Sequence[int]) -> Iterator[int]:
    """Rows that the database has and confirmed; their epoch."""
    with Recorder(settings) as recorder:
        put(recorder, numbers)
        recorder.flush(WAIT_S)
    yield epoch_of(settings)


def test_what_was_deleted_comes_back_and_nothing_else(
    settings: Settings, variables: dict[str, str], client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """Rows of the range that are missing go in, also out of the middle of a batch that was sealed and sent whole; those
    that are there are found; those deleted outside the range stay deleted."""
    with recorded(settings, range(300)) as epoch:
        assert "damaged" not in caplog.text, "nothing is wrong with the log of a run that goes on"
        delete(client, settings.database, "toUInt32(qty) BETWEEN 90 AND 160 OR toUInt32(qty) > 290")
        shown = told(variables, "wal", "requeue", "orders", "--from", "100", "--to", "200", "--dry-run")
        assert (shown["done"], shown["requeued"]) == (False, 100)
        assert counts_of_plan(variables) == 0, "a dry run changes nothing"
        found = told(variables, "wal", "requeue", "orders", "--from", "100", "--to", "200", "--yes")
    assert found["ranges"] == [[f"{epoch:016x}", 100, 200]]
    assert found["voided_seals"] >= 1
    assert counts_of_plan(variables) == 100
    assert counts(told(variables, "replay")) == (100, 61, 39, 0, 0, 0)
    assert ids(client, settings.database) == [*range(90), *range(100, 291)]


def counts_of_plan(variables: dict[str, str]) -> int:
    rows: int = told(variables, "replay", "--dry-run")["orders"]["rows"]
    return rows


@pytest.mark.usefixtures("embedded")
def test_rows_that_are_there_are_not_doubled(
    settings: Settings, variables: dict[str, str], client: Client
) -> None:
    """All of a log requeued, twice, and started by the recorder itself: each is found, and the balance says so."""
    with recorded(settings, range(200)):
        assert told(variables, "wal", "requeue", "orders", "--all", "--yes")["requeued"] == 200
        again = told(variables, "wal", "requeue", "orders", "--all", "--yes")
        assert (again["requeued"], again["open"]) == (0, 200)
    with Recorder(settings) as recorder:
        wait_until(lambda: recorder.balance()["orders"].duplicates_skipped == 200, "the look-up")
        balance = recorder.balance()["orders"]
    assert (balance.received, balance.inserted, balance.exact) == (200, 0, True)
    assert ids(client, settings.database) == list(range(200))


@pytest.mark.usefixtures("embedded")
@pytest.mark.parametrize("how", ["time", "segment"])
def test_rows_are_chosen_by_time_or_segment(
    settings: Settings, variables: dict[str, str], client: Client, how: str
) -> None:
    """As an operator has them at hand from `wal cat` and `wal ls --segments`."""
    with recorded(settings, range(100)):
        client.command(f"TRUNCATE TABLE {settings.database}.orders")
        ((number, _),) = names.segments([settings.data_dir / "wal" / "orders"])
        chosen = {
            "time": ["--since", "2024-08-08T12:00:10", "--until", "2024-08-08T12:00:30"],
            "segment": ["--segment", str(number)],
        }[how]
        expected = {"time": range(10, 30), "segment": range(100)}[how]
        assert told(variables, "wal", "requeue", "orders", *chosen, "--yes")["requeued"] == len(expected)
    assert counts(told(variables, "replay")) == (len(expected), len(expected), 0, 0, 0, 0)
    assert ids(client, settings.database) == list(expected)


@pytest.mark.usefixtures("embedded")
def test_what_was_purged_is_named_and_the_rest_requeued(
    settings: Settings, variables: dict[str, str]
) -> None:
    """Exit code 1: not all that was asked for can be sent again."""
    with recorded(settings, range(20)) as epoch:
        folder = settings.data_dir / "wal" / "orders"
        file = CheckpointFile(folder)
        checkpoint, _ = file.read()
        # As if the log had begun earlier: rows of that epoch were settled and their segment removed.
        file.write(checkpoint.resolve([Range(7, 0, 50)]))
        found = told(
            variables, "wal", "requeue", "orders", "--epoch", f"{7:016x}", "--to", "60", "--yes", code=1
        )
        assert (found["requeued"], found["purged"], found["missing"]) == (0, 50, 10)
        beyond = told(
            variables, "wal", "requeue", "orders", "--epoch", f"{epoch:016x}", "--to", "25", "--yes", code=1
        )
        assert (beyond["requeued"], beyond["missing_ranges"]) == (20, [[f"{epoch:016x}", 20, 25]])
        assert file.read()[0].settled == (Range(7, 0, 50),)


@pytest.mark.usefixtures("embedded")
def test_requeue_asks_and_wants_to_be_told_which(settings: Settings, variables: dict[str, str]) -> None:
    """Without --yes where nobody can be asked, without a range, or with one that there is not: refused, and nothing
    changes."""
    with recorded(settings, range(5)):
        file = CheckpointFile(settings.data_dir / "wal" / "orders")
        before = file.read()[0]
        for code, arguments, said in (
            (2, ["--all"], "say --yes"),
            (2, [], "say which rows"),
            (2, ["--all", "--from", "1", "--yes"], "--all alone"),
            (1, ["--epoch", "1", "--yes"], "there is nothing of epoch"),
            (1, ["--segment", "99", "--yes"], "there is no segment 99"),
            (1, ["--from", "5", "--yes"], "has no row from 5"),
        ):
            result = run(variables, "wal", "requeue", "orders", *arguments)
            assert (result.exit_code, said in result.stderr) == (code, True), result.output
        assert file.read()[0] == before
