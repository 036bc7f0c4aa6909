"""From when the rows are that wait on a log: retention drops nothing that they may still go to."""

from __future__ import annotations

import pathlib

import pytest
from harness.faulty_files import Unreadable
from harness.recorders import WAIT_S, order

from recorder import Recorder, Settings
from recorder.retaining import rows_on_logs
from recorder.retaining.rows_on_logs import ANY_TIME_NS, RowsOnLogs, oldest_on_log
from wal import names
from wal.checkpoint import CheckpointFile
from wal.places import Range
from wal.reader import LogReader

T0_NS = 1_723_118_400_000_000_000


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """The log of `orders`: rows of T0 + 3, 1 and 2 ns, which no database took."""
    away = Settings(target="http://127.0.0.1:1", data_dir=tmp_path, health_addr="off", log_level="critical")
    with Recorder(away, wait_for_database=True) as recorder:
        for n in (3, 1, 2):
            assert recorder.record("orders", order(n, ts_local=T0_NS + n))
        recorder.sync(WAIT_S)
    return tmp_path / "wal" / "orders"


def test_the_oldest_row_that_waits_is_told(folder: pathlib.Path) -> None:
    """Of those that are not known to be in the database; none where all are, or where there is no log."""
    assert oldest_on_log([folder], "orders") == T0_NS + 1
    (epoch,) = _epochs(folder)
    checkpoint = CheckpointFile(folder).read()[0]
    file = CheckpointFile(folder)
    file.write(checkpoint.resolve([Range(epoch, 1, 2)]))
    assert oldest_on_log([folder], "orders") == T0_NS + 2
    file.write(checkpoint.resolve([Range(epoch, 0, 3)]))
    file.close()
    assert oldest_on_log([folder], "orders") is None
    assert oldest_on_log([folder.parent / "fills"], "fills") is None


def test_what_cannot_be_told_is_of_any_time(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the disk does not give a log, and where more waits than is read for this."""
    with monkeypatch.context() as few:
        few.setattr(rows_on_logs, "READ_BYTES_MAX", 1)
        assert oldest_on_log([folder], "orders") == ANY_TIME_NS
    ((_, segment),) = names.segments([folder])
    Unreadable(monkeypatch).refuse(segment)
    assert oldest_on_log([folder], "orders") == ANY_TIME_NS


def test_an_answer_is_good_for_a_moment(folder: pathlib.Path) -> None:
    """A run asks before each thing that it does, and logs are not read as often."""
    now_s = 0.0
    logs = RowsOnLogs([folder.parent], clock=lambda: now_s)
    assert logs.oldest_ns("orders") == T0_NS + 1
    (epoch,) = _epochs(folder)
    file = CheckpointFile(folder)
    file.write(file.read()[0].resolve([Range(epoch, 0, 3)]))
    file.close()
    assert logs.oldest_ns("orders") == T0_NS + 1
    now_s = rows_on_logs.SEEN_S
    assert logs.oldest_ns("orders") is None


def _epochs(folder: pathlib.Path) -> set[int]:
    return {entry.range.epoch for entry, _ in LogReader([folder]).entries() if entry.range.rows}
