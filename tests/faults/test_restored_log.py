"""A log, a checkpoint or a whole folder put back from a backup, or copied to a second machine: no identity is taken
twice, no row is there twice, and what is brought back is looked up.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from harness.backends import Backend
from harness.ingest_files import child_environment
from harness.power_child import quick, there_once
from harness.recorders import WAIT_S, in_trouble, order, rows, settings_for, wait_until

from recorder import Recorder, Settings
from recorder.sink.errors import SinkUnavailable

TESTS = pathlib.Path(__file__).parents[1]
NO_TOKENS = "ALTER TABLE orders MODIFY SETTING non_replicated_deduplication_window = 0"
AWAY = SinkUnavailable("connection refused")


@pytest.fixture
def settings(backend: Backend, database: str, tmp_path: pathlib.Path) -> Settings:
    return settings_for(backend, database, tmp_path / "data", shutdown_timeout_s=2)


def put(recorder: Recorder, first: int, stop: int) -> None:
    for n in range(first, stop):
        assert recorder.record("orders", order(n))


def epoch(recorder: Recorder) -> int:
    return recorder._life.running()[0].pipelines["orders"].epoch


def all_once(recorder: Recorder, count: int) -> None:
    """The database has the rows from 0 on, each once, and no identity twice."""
    wait_until(lambda: recorder.balance()["orders"].pending == 0, "the rows of the runs before")
    recorder.flush(WAIT_S)
    found = rows(recorder, "SELECT client_order_id, _log, _seq FROM orders")
    assert sorted(int(name[2:]) for name, _, _ in found) == list(range(count))
    assert len({(log, seq) for _, log, seq in found}) == count, "an identity twice"
    assert recorder.balance()["orders"].exact


def files(folder: pathlib.Path, *, but: str = "") -> list[pathlib.Path]:
    return [path for path in folder.iterdir() if path.is_file() and path.name != but]


def put_back(backup: pathlib.Path, folder: pathlib.Path) -> None:
    """The whole folder."""
    shutil.rmtree(folder)
    shutil.copytree(backup, folder)


def put_back_checkpoint(backup: pathlib.Path, folder: pathlib.Path) -> None:
    """An older checkpoint beside newer segments."""
    shutil.copy(backup / "orders" / "checkpoint", folder / "orders" / "checkpoint")


def put_back_segments(backup: pathlib.Path, folder: pathlib.Path) -> None:
    """Older segments beside a newer checkpoint."""
    for path in files(folder / "orders", but="checkpoint"):
        path.unlink()
    for path in files(backup / "orders", but="checkpoint"):
        shutil.copy(path, folder / "orders")


@pytest.mark.parametrize("restore", [put_back, put_back_checkpoint, put_back_segments])
def test_a_log_is_put_back_while_the_database_went_on(
    settings: Settings,
    tmp_path: pathlib.Path,
    restore: Callable[[pathlib.Path, pathlib.Path], None],
    embedded: None,
) -> None:
    """The backup was taken of a running log, with rows that were not in then and are now, and whose tokens are
    forgotten. They are found in the table; new rows have an epoch of their own."""
    wal, backup = settings.data_dir / "wal", tmp_path / "backup"
    epochs = []
    with Recorder(settings) as recorder:
        put(recorder, 0, 500)
        recorder.flush(WAIT_S)
    with in_trouble(settings, "orders", AWAY) as (recorder, mend):
        epochs.append(epoch(recorder))
        put(recorder, 500, 1_000)
        recorder.sync(WAIT_S)
        shutil.copytree(wal, backup)
        mend()
        recorder.flush(WAIT_S)
        put(recorder, 1_000, 1_500)
    with Recorder(settings) as recorder:
        epochs.append(epoch(recorder))
        put(recorder, 1_500, 2_000)
        all_once(recorder, 2_000)
        recorder.ask(lambda sink: sink.command(NO_TOKENS), WAIT_S)
    restore(backup, wal)
    with Recorder(settings) as recorder:
        epochs.append(epoch(recorder))
        put(recorder, 2_000, 2_500)
        all_once(recorder, 2_500)
    assert len(set(epochs)) == 3
    with Recorder(settings) as recorder:
        all_once(recorder, 2_500)
        assert recorder.balance()["orders"].received == 0, "all of it is done with"


def process(settings: dict[str, Any], folder: pathlib.Path, *arguments: str) -> subprocess.Popen[str]:
    """A recorder with an engine of its own: see `harness.power_child`."""
    (folder / "temporary").mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "harness.power_child", json.dumps(settings), *arguments],
        cwd=TESTS, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=child_environment(
            TMPDIR=str(folder / "temporary"), PYTHONPATH=f"{TESTS.parent}{os.pathsep}{TESTS}"
        ),
    )  # fmt: skip


def recorded(settings: dict[str, Any], folder: pathlib.Path, first: int) -> int:
    """Rows from the first one on, until it was told durable of some, and is killed; up to which row."""
    run = process(settings, folder, "record", str(first))
    assert run.stdout is not None
    while (line := run.stdout.readline()) and int(line) < first + 500:
        pass
    run.kill()
    out, err = run.communicate()
    assert line, err
    return int(([line, *out.split()])[-1])


@pytest.mark.parametrize("restored", ["", "db"], ids=["the whole folder", "its database"])
def test_a_folder_with_its_database_is_put_back(
    tmp_path: pathlib.Path, restored: str, embedded: None
) -> None:
    """With all of it, what was there is there again, and new rows are others. Where the database alone is the older
    one, it gets from the log what it had confirmed after the backup."""
    data, backup = tmp_path / "data", tmp_path / "backup"
    settings = quick(f"chdb://{data / 'db'}", "default", data)
    durable = [(0, recorded(settings, tmp_path, 0))]
    shutil.copytree(data, backup, symlinks=True)
    later = (100_000, recorded(settings, tmp_path, 100_000))
    shutil.rmtree(data / restored)
    shutil.copytree(backup / restored, data / restored, symlinks=True)
    durable.append(later if restored else (200_000, recorded(settings, tmp_path, 200_000)))
    look = process(settings, tmp_path, "look")
    out, err = look.communicate(timeout=120)
    assert look.returncode == 0, err
    found = json.loads(out)
    there_once(found, durable)
    if not restored:
        assert not any(100_000 <= n < 200_000 for _, _, n in found["stored"]["orders"])


class Recording:
    """A thread that records rows until it is told to stop."""

    def __init__(self, recorder: Recorder, first: int):
        self.first = self.upto = first
        self._recorder = recorder
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._go_on)

    def _go_on(self) -> None:
        while not self._over.is_set():
            put(self._recorder, self.upto, self.upto + 50)
            self.upto += 50
            self._recorder.sync(WAIT_S)

    @contextlib.contextmanager
    def going_on(self) -> Iterator[Recording]:
        self._thread.start()
        try:
            yield self
        finally:
            self._over.set()
            self._thread.join()


def test_a_log_is_copied_while_both_run(settings: Settings, tmp_path: pathlib.Path) -> None:
    """To a second machine with the same database: the copy begins with what it has, finds it in the table, and goes on
    beside the first one under an epoch of its own; both balances are exact."""
    second = settings.model_copy(update={"data_dir": tmp_path / "copy"})
    with Recorder(settings) as recorder, Recording(recorder, 0).going_on() as first:
        wait_until(lambda: first.upto > 1_000)
        shutil.copytree(settings.data_dir, second.data_dir)
        with Recorder(second) as other:
            assert epoch(other) != epoch(recorder)
            with Recording(other, 1_000_000).going_on() as beside:
                wait_until(lambda: beside.upto > 1_001_000)
                copied = first.upto
                wait_until(lambda: first.upto > copied + 500)
            wait_until(lambda: other.balance()["orders"].pending == 0)
            assert other.balance()["orders"].exact
            assert other.balance()["orders"].shed == 0
    with Recorder(settings) as recorder:
        wait_until(lambda: recorder.balance()["orders"].pending == 0)
        found = rows(recorder, "SELECT client_order_id, _log, _seq FROM orders")
    numbers = sorted(int(name[2:]) for name, _, _ in found)
    assert numbers == [*range(first.upto), *range(1_000_000, beside.upto)]
    assert len({(log, seq) for _, log, seq in found}) == len(found)
