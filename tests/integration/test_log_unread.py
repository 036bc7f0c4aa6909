"""A log on a disk that does not give some of it: that is not lost, nor purged, and goes in when it can be read."""

from __future__ import annotations

import functools
import pathlib
from typing import TYPE_CHECKING

import pytest
from harness.alarms import standing
from harness.backends import Backend
from harness.faulty_files import Unreadable
from harness.recorders import WAIT_S, in_trouble, order, rows, settings_for, wait_until

from recorder import Recorder, Settings, log_setup
from recorder.sink.errors import SinkUnavailable
from wal.format import FRAME_HEADER_BYTES, Kind
from wal.frames import Frame
from wal.options import LogOptions
from wal.reader import LogReader

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

AWAY = SinkUnavailable("connection refused")
GROUPS, EACH = 6, 50
ALL = GROUPS * EACH
START_NS = 1_767_225_600_000_000_000
SMALL = 32_768


@pytest.fixture
def settings(
    engine: Client, backend: Backend, database: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    monkeypatch.setattr(log_setup, "LogOptions", functools.partial(LogOptions, segment_bytes_min=SMALL))
    monkeypatch.setattr(log_setup, "segment_size", lambda *_: SMALL)
    return settings_for(backend, database, tmp_path, shutdown_timeout_s=3, wal_grace_s=0.01)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Unreadable:
    return Unreadable(monkeypatch)


def leave(settings: Settings) -> list[tuple[pathlib.Path, Frame]]:
    """Have a run leave rows on its log, each group synced by itself; the frames of rows, in order."""
    slow = settings.defaults.model_copy(update={"linger_ms": 20_000, "linger_max_ms": 20_000})
    # One batch, sealed at the end.
    with in_trouble(settings.model_copy(update={"defaults": slow}), "orders", AWAY) as (recorder, _):
        for group in range(GROUPS):
            for n in range(group * EACH, (group + 1) * EACH):
                assert recorder.record("orders", order(n, ts_local=START_NS + n * 10**9))
            recorder.sync(WAIT_S)
    return frames_of(settings)


def frames_of(settings: Settings) -> list[tuple[pathlib.Path, Frame]]:
    entries = LogReader([settings.data_dir / "wal" / "orders"]).entries(check=False)
    return [(entry.path, entry.frame) for entry, _ in entries if entry.kind is Kind.ROWS]


def numbers(frames: list[Frame]) -> list[int]:
    return [n for one in frames for n in range(one.header.first, one.header.first + one.header.rows)]


def refuse(disk: Unreadable, frames: list[tuple[pathlib.Path, Frame]], what: str) -> list[int]:
    """Have the disk not give a part of the log; the rows in it."""
    paths = list(dict.fromkeys(path for path, _ in frames))
    assert len(paths) >= 3
    path = paths[-1] if what == "end" else paths[1]
    inside = [frame for where, frame in frames if where == path]
    if what == "segment":
        disk.refuse(path)
        return numbers(inside)
    frame = inside[-1]
    disk.refuse(path, frame.offset + (0 if what == "end" else FRAME_HEADER_BYTES + 20))
    # Reading fails by pages.
    first = (frame.offset + FRAME_HEADER_BYTES) // 4_096 * 4_096
    return numbers([one for one in inside if one.end > first])


def there(recorder: Recorder) -> list[int]:
    return sorted(int(row[0]) for row in rows(recorder, "SELECT qty FROM orders"))


async def settle_and_purge(recorder: Recorder) -> None:
    """All that is confirmed, without waiting for the seconds to pass."""
    logs = recorder._life.running()[0].logs
    assert logs is not None
    logs.tables["orders"].done._seen_ns = 2**62
    await logs.tidy()


@pytest.mark.parametrize("what", ["frame", "segment", "end"])
def test_what_the_disk_does_not_give_stays_and_goes_in_when_it_does(
    settings: Settings, disk: Unreadable, what: str
) -> None:
    """All else goes in, new rows too; an alarm says it, and none of data loss; nothing is purged. The next run, the
    disk back, sends the rest: each row is there once, and none was ever counted as lost."""
    frames = leave(settings)
    away = refuse(disk, frames, what)
    assert 0 < len(away) < ALL
    given = [n for n in range(ALL) if n not in away]
    with Recorder(settings) as recorder:
        wait_until(lambda: recorder.balance()["orders"].inserted == len(given), "all that can be read")
        recorder.record("orders", order(10_000))
        recorder.flush(WAIT_S)
        assert there(recorder) == [*given, 10_000]
        balance = recorder.balance()["orders"]
        assert (balance.shed, balance.exact) == (0, True)
        # Nobody can know of what is at the end of a log and in no seal.
        assert balance.pending in ((len(away),) if what != "end" else (len(away), 0))
        wait_until(lambda: ("RecorderFailure", "orders") in standing(recorder))
        assert "the disk does not give them" in standing(recorder)["RecorderFailure", "orders"]
        assert ("RecorderDataLoss", "orders") not in standing(recorder)
        recorder.ask(lambda _: settle_and_purge(recorder), WAIT_S)
        assert all(path.exists() for path, _ in frames)
    disk.heal()
    with Recorder(settings) as recorder:
        wait_until(lambda: recorder.balance()["orders"].received == len(away), "the rows that stayed")
        wait_until(lambda: recorder.balance()["orders"].pending == 0, "their way in")
        assert there(recorder) == [*range(ALL), 10_000]
        assert recorder.balance()["orders"].shed == 0
        assert not rows(recorder, "SELECT rows FROM recorder_gaps WHERE reason = 'damaged_log'")
        assert ("RecorderFailure", "orders") not in standing(recorder)
        recorder.ask(lambda _: settle_and_purge(recorder), WAIT_S)
        assert not any(path.exists() for path, _ in frames), "nothing holds it up any more"


def test_rows_of_this_run_that_the_disk_does_not_give_wait_for_the_next(
    settings: Settings, disk: Unreadable
) -> None:
    """They left memory in an outage. All others go in, these stay pending, and none counts as lost."""
    few = settings.defaults.model_copy(update={"batch_rows": 2 * EACH, "queue_rows": 4 * EACH})
    settings = settings.model_copy(update={"defaults": few})
    groups = 20
    with in_trouble(settings, "orders", AWAY) as (recorder, mend):
        for n in range(groups * EACH):
            assert recorder.record("orders", order(n, ts_local=START_NS + n * 10**9))
            if n % EACH == EACH - 1:
                recorder.sync(WAIT_S)
        wait_until(lambda: recorder.status()["tables"]["orders"]["log"]["backlog_rows"] > 8 * EACH)
        path, frame = frames_of(settings)[-6]
        disk.refuse(path, frame.offset + FRAME_HEADER_BYTES, frame.end)
        mend()
        recorder.flush(WAIT_S)
        balance = recorder.balance()["orders"]
        assert 0 < balance.pending < 5 * EACH
        assert (balance.shed, balance.exact, balance.inserted) == (0, True, groups * EACH - balance.pending)
    disk.heal()
    with Recorder(settings) as recorder:
        wait_until(lambda: recorder.balance()["orders"].inserted == balance.pending, "the rows that stayed")
        assert there(recorder) == list(range(groups * EACH))
