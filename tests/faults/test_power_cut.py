"""The power fails: of the log's disk, of the database's, of both. What was durable is in the database, once.

A cut loses all that was not synced (`harness.power`): the database's tokens each time, and what it had confirmed where
its tables are told to sync nothing. That the cuts are real is seen in the tests themselves.
"""

from __future__ import annotations

import json
import os
import pathlib
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from harness.dev_server import DevServerProcess
from harness.ingest_files import child_environment
from harness.power import PowerDisk
from harness.power_child import TABLES, forget_to_sync, pipelines, put, quick, tell, there_once
from harness.recorders import WAIT_S, wait_until
from harness.sink_children import answers, child

from recorder import Recorder, Settings
from recorder.sink.uptime import START_TOLERANCE_S
from schemas.render import FSYNC_SETTINGS

TESTS = pathlib.Path(__file__).parents[1]
CUTS = int(os.environ.get("RECORDER_TEST_KILLS", "20")) // 20
"""Of each disk, and at least one."""
BROKEN_PARTS = 120
"""With more than 100 in a table that is not told otherwise, ClickHouse does not start."""

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.torture]


class Recording:
    """Runs on one folder, each until the power fails; `durable` is what they were told."""

    def __init__(self, settings: dict[str, Any], temporary: pathlib.Path):
        self.settings = settings
        self.durable: list[tuple[int, int]] = []
        self._first = 0
        self._temporary = temporary
        temporary.mkdir()

    def start(self, *options: str) -> subprocess.Popen[str]:
        """A run that records from the row after the last one; it is recording when this returns."""
        run = self._process("record", str(self._first), *options)
        assert run.stdout is not None
        line = run.stdout.readline()
        if not line:
            raise AssertionError(run.communicate()[1])
        return run

    def ended(self, run: subprocess.Popen[str]) -> None:
        """Kill it, and note what it was told."""
        run.kill()
        out, _ = run.communicate()
        upto = int((out.split() or [str(self._first)])[-1])
        self.durable.append((self._first, upto))
        self._first = upto + 10_000

    def look(self) -> dict[str, Any]:
        """A run that gets in what was left, and what it found."""
        run = self._process("look")
        out, err = run.communicate(timeout=120)
        assert run.returncode == 0, err
        found: dict[str, Any] = json.loads(out)
        return found

    def _process(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "harness.power_child", json.dumps(self.settings), *arguments],
            cwd=TESTS, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=child_environment(
                TMPDIR=str(self._temporary), PYTHONPATH=f"{TESTS.parent}{os.pathsep}{TESTS}"
            ),
        )  # fmt: skip


def token_bytes(database: pathlib.Path) -> int:
    """What the database's lists of tokens take."""
    return sum(path.stat().st_size for path in database.glob("store/*/*/deduplication_logs/*"))


@pytest.mark.parametrize("disks", [1, 2], ids=["on one disk", "on two disks"])
def test_the_power_of_the_log_and_of_the_database_fails(tmp_path: pathlib.Path, disks: int) -> None:
    """Again and again; of two disks either goes first. Each time the database has forgotten all its tokens, and not one
    row that was durable is lost or doubled."""
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    with PowerDisk(tmp_path / "a") as log, PowerDisk(tmp_path / "b") as other:
        powered = [log, other][:disks]
        database = powered[-1].path / "db"
        recording = Recording(
            quick(f"chdb://{database}", "default", log.path / "data"), tmp_path / "temporary"
        )
        for cut in range(max(disks, CUTS)):
            run = recording.start()
            if not cut:
                powered[-1].settle()  # that a table was made is the database's to keep
            durably = token_bytes(database)
            wait_until(lambda before=durably: token_bytes(database) > before, "an insert")
            time.sleep(rng.uniform(0.0, 1.0))
            known = token_bytes(database)
            for disk in rng.sample(powered, disks):
                disk.cut()
            recording.ended(run)
            for disk in powered:
                disk.come_back()
            assert token_bytes(database) < known, "the cut took its tokens"
        there_once(recording.look(), recording.durable)
    assert sum(upto - first for first, upto in recording.durable) > 0


def test_the_power_of_both_fails_and_the_database_loses_what_it_confirmed(tmp_path: pathlib.Path) -> None:
    """One table syncs nothing, and the log's checkpoint knows what was confirmed: the next run sees that the database
    was started anew, asks it for that, and puts it back. The other one has all it said it had."""
    with PowerDisk(tmp_path / "a") as log, PowerDisk(tmp_path / "b") as other:
        recording = Recording(
            quick(f"chdb://{other.path / 'db'}", "default", log.path / "data"), tmp_path / "temporary"
        )
        run = recording.start("forgetful")
        other.settle()
        checkpoints = [log.path / "data" / "wal" / table / "checkpoint" for table in TABLES]
        wait_until(
            lambda: all(path.exists() and b"\nconfirmed " in path.read_bytes() for path in checkpoints)
        )
        log.cut()
        other.cut()
        recording.ended(run)
        for disk in (log, other):
            disk.come_back()
        found = recording.look()
        there_once(found, recording.durable)
        assert found["restored"]["orders"] > 0, "it had lost what the checkpoint says it confirmed"
        assert found["restored"]["fills"] == 0


@pytest.fixture
def server(tmp_path: pathlib.Path) -> Iterator[DevServerProcess]:
    """A database in another process, on a disk that is not cut."""
    with DevServerProcess(tmp_path / "server") as server:
        yield server


def test_the_power_of_the_log_alone_fails(tmp_path: pathlib.Path, server: DevServerProcess) -> None:
    """The database is elsewhere, and goes on: what it has of the rows that the log has still is not sent again."""
    with PowerDisk(tmp_path / "a") as log:
        recording = Recording(quick(server.url, "power", log.path / "data"), tmp_path / "temporary")
        for _ in range(max(1, CUTS)):
            run = recording.start()
            time.sleep(random.uniform(0.3, 1.0))
            log.cut()
            recording.ended(run)
            log.come_back()
        there_once(recording.look(), recording.durable)


def test_the_power_of_the_database_alone_fails(tmp_path: pathlib.Path) -> None:
    """The recorder goes on, and sees that the database was started anew, whatever number of parts the cut has broken. A
    table has all that it had confirmed, also what was merged; one that syncs nothing gets back what it lost. What is
    recorded meanwhile is in as well."""
    with (
        PowerDisk(tmp_path / "disk") as disk,
        DevServerProcess(disk.path / "db", log=tmp_path / "server.log") as server,
        Recorder(Settings(**quick(server.url, "power", tmp_path / "data"))) as recorder,
    ):
        started_s = time.monotonic()
        forget_to_sync(recorder)
        disk.settle()
        upto = 0
        for _ in range(BROKEN_PARTS):
            put(recorder, upto, upto + 20)
            upto += 20
            recorder.flush(WAIT_S)
        recorder.ask(lambda sink: sink.command("OPTIMIZE TABLE fills FINAL"), WAIT_S)
        # A database that is started twice within this time is not told from one that is started once.
        while time.monotonic() - started_s < START_TOLERANCE_S + 1:
            put(recorder, upto, upto + 10)
            upto += 10
            recorder.flush(WAIT_S)
            time.sleep(0.1)
        disk.cut()
        put(recorder, upto, upto + 100)
        server.kill()
        disk.come_back()
        put(recorder, upto + 100, upto + 200)
        runs = {pipeline.wal.done.server for pipeline in pipelines(recorder) if pipeline.wal is not None}
        server.start()
        recorder.flush(WAIT_S)
        wait_until(
            lambda: all(p.wal is not None and p.wal.done.server not in runs for p in pipelines(recorder))
        )
        found = tell(recorder)
        there_once(found, [(0, upto + 200)])
        assert found["restored"]["orders"] >= 2_000, "all that was confirmed before the cut"
        assert found["restored"]["fills"] == 0


SYNCED = ", ".join(f"{name} = 1" for name in FSYNC_SETTINGS)
FORGETS_PARTS = (
    "old_parts_lifetime = 1, cleanup_delay_period = 1, max_cleanup_delay_period = 1, "
    "cleanup_delay_period_random_add = 0, merge_tree_clear_old_parts_interval_seconds = 1"
)
KINDS = {
    "all": SYNCED,
    "none": ", ".join(f"{name} = 0" for name in FSYNC_SETTINGS),
}
"""Table settings under which rows are confirmed."""


def test_the_settings_of_critical_tables_are_what_keeps_their_rows(tmp_path: pathlib.Path) -> None:
    """Of ten confirmed inserts, all are there after the cut with the settings of a critical table, merged and
    not, though the parts of the merge were removed; without them rows are gone."""
    with PowerDisk(tmp_path / "disk") as disk:
        tables = {
            f"{'merged' if merged else 'plain'}_{n}": (kind, merged)
            for n, kind in enumerate(KINDS)
            for merged in (False, True)
        }
        made = {name: f", {FORGETS_PARTS}, {KINDS[kind]}" for name, (kind, _) in tables.items()}
        body = f"""
            async def main():
                sink = ChdbSink(pathlib.Path(sys.argv[1]) / "db", "d")
                await sink.start()
                tables = {made!r}
                for table, settings in tables.items():
                    await sink.command(create(table, settings=settings))
                    if table.startswith("plain"):
                        await sink.command(f"SYSTEM STOP MERGES {{table}}")
                print("made", flush=True)
                sys.stdin.readline()
                for n in range(10):
                    for table in tables:
                        await sink.insert(plain(table, 100, first_seq=n * 100), timeout_s=30)
                for table in tables:
                    if table.startswith("merged"):
                        await sink.command(f"OPTIMIZE TABLE {{table}} FINAL")
                gone = "SELECT count() FROM system.parts WHERE database = 'd' AND table LIKE 'merged%' AND NOT active"
                while (await sink.query(gone))[0][0]:
                    await asyncio.sleep(0.05)
                print("done", flush=True)
                sys.stdin.readline()
        """
        working = child(body, disk.path)
        assert working.stdin is not None
        assert working.stdout is not None
        assert working.stdout.readline() == "made\n", working.communicate()[1]
        disk.settle()
        working.stdin.write("\n")
        working.stdin.flush()
        assert working.stdout.readline() == "done\n"
        disk.cut()
        working.kill()
        working.communicate()
        disk.come_back()
        body = f"""
            async def main():
                sink = ChdbSink(pathlib.Path(sys.argv[1]) / "db", "d")
                await sink.start()
                for table in {list(tables)!r}:
                    print(table, await count(sink, table))
                await sink.close()
        """
        found = dict(line.split() for line in answers(child(body, disk.path)))
    there = {kind: int(found[name]) for name, kind in tables.items()}
    kept = {kind for kind, rows in there.items() if rows == 1_000}
    assert kept == {("all", False), ("all", True)}, there
