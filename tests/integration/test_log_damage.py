"""A recorder on a damaged log: it starts, sends what can be read, and says what is lost, in every place."""

from __future__ import annotations

import functools
import pathlib
import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from harness.alarms import standing
from harness.backends import Backend
from harness.recorders import WAIT_S, in_trouble, order, rows, settings_for, wait_until
from harness.wal_making import make_segment

from recorder import Recorder, Settings, log_reading, log_setup
from recorder.sink.errors import SinkUnavailable
from wal import names
from wal.checkpoint import pack_checkpoint
from wal.format import FRAME_HEADER_BYTES, Kind
from wal.frames import Frame
from wal.options import LogOptions
from wal.places import Range
from wal.reader import LogReader
from wal.segment import Segment, open_or_tell
from wal.settled import Checkpoint

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

AWAY = SinkUnavailable("connection refused")
GROUPS, EACH = 6, 50
START_NS = 1_767_225_600_000_000_000
NOBODY = 0xDEAD
SMALL = 32_768


@pytest.fixture
def settings(engine: Client, backend: Backend, database: str, tmp_path: pathlib.Path) -> Settings:
    # Which database it is makes no difference here: the embedded one will do.
    return settings_for(backend, database, tmp_path, shutdown_timeout_s=3)


def folder_of(settings: Settings) -> pathlib.Path:
    return settings.data_dir / "wal" / "orders"


def leave(settings: Settings, *, groups: int = GROUPS, first: int = 0) -> None:
    """Have a run leave rows on its log, each group synced by itself; row `n` is of second `n`."""
    with in_trouble(settings, "orders", AWAY) as (recorder, _):
        for group in range(groups):
            for n in range(first + group * EACH, first + (group + 1) * EACH):
                assert recorder.record("orders", order(n, ts_local=START_NS + n * 10**9))
            recorder.sync(WAIT_S)


def frames(settings: Settings) -> list[tuple[pathlib.Path, Frame]]:
    """The frames of rows on the log, in order."""
    return [
        (entry.path, entry.frame)
        for entry, _ in LogReader([folder_of(settings)]).entries(check=False)
        if entry.kind is Kind.ROWS
    ]


def flip(path: pathlib.Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 0xFF]))


def opened(path: pathlib.Path) -> Segment:
    found = open_or_tell(path)
    assert isinstance(found, Segment)
    return found


def there(recorder: Recorder) -> list[int]:
    return [int(row[0]) for row in rows(recorder, "SELECT qty FROM orders ORDER BY _log, _seq")]


def gaps(recorder: Recorder) -> list[tuple[int, int, int, str]]:
    """Of `orders`, for the damaged log: rows, first and last second, detail."""
    found = rows(
        recorder,
        "SELECT rows, toUnixTimestamp64Nano(ts_first), toUnixTimestamp64Nano(ts_last), detail FROM recorder_gaps "
        "WHERE table_name = 'orders' AND reason = 'damaged_log' ORDER BY ts_first",
    )
    return [
        (int(n), (int(a) - START_NS) // 10**9, (int(b) - START_NS) // 10**9, text) for n, a, b, text in found
    ]


@pytest.mark.parametrize("where", ["payload", "header"])
def test_rows_that_cannot_be_read_are_counted_and_told(
    settings: Settings, caplog: pytest.LogCaptureFixture, where: str
) -> None:
    """Bytes of a frame in the middle are not what was written. The others go in, each once; those of it are received
    and shed, with a gap row between the times of the rows beside them, an alarm and a line. The next run begins with
    nothing."""
    leave(settings)
    at = 2
    path, frame = frames(settings)[at]
    flip(path, frame.offset + (FRAME_HEADER_BYTES + 20 if where == "payload" else 9))
    first, count = frame.header.first, frame.header.rows
    with Recorder(settings) as recorder:
        wait_until(
            lambda: recorder.balance()["orders"].received == GROUPS * EACH, "the rows of the run before"
        )
        wait_until(lambda: recorder.balance()["orders"].pending == 0)
        recorder.record("orders", order(10_000))
        recorder.flush(WAIT_S)
        balance = recorder.balance()["orders"]
        assert (balance.shed, balance.inserted, balance.exact) == (count, GROUPS * EACH - count + 1, True)
        lost = set(range(first, first + count))
        assert sorted(there(recorder)) == [*(n for n in range(GROUPS * EACH) if n not in lost), 10_000]
        wait_until(lambda: bool(gaps(recorder)), "the gap row")
        ((told, begins, ends, detail),) = gaps(recorder)
        assert told == count
        assert (begins, ends) in ((first - 1, first + count), (first, first + count - 1))
        assert f"rows {first} to {first + count - 1} of epoch" in detail
        wait_until(lambda: ("RecorderDataLoss", "orders") in standing(recorder))
        assert (
            f"lost {count} rows in all (damaged_log {count})"
            in standing(recorder)["RecorderDataLoss", "orders"]
        )
    assert (
        sum("rows are lost: the log cannot be read there" in record.message for record in caplog.records) == 1
    )
    assert any("the log was found damaged" in r.message and path.name in r.message for r in caplog.records)
    with Recorder(settings) as recorder:
        recorder.flush(WAIT_S)
        assert recorder.balance()["orders"].received == 0
        assert len(gaps(recorder)) == 1


def test_rows_that_turn_out_broken_when_their_turn_comes_are_lost_then(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log was whole when it was gone through: they are counted as pending first, and then as shed, once."""
    monkeypatch.setattr(log_reading, "REPLAY_ROWS", EACH)
    few = settings.defaults.model_copy(update={"batch_rows": EACH})
    settings = settings.model_copy(update={"defaults": few})
    leave(settings)
    path, frame = frames(settings)[-1]
    with in_trouble(settings, "orders", AWAY) as (recorder, mend):
        wait_until(lambda: recorder.balance()["orders"].pending == GROUPS * EACH)
        flip(path, frame.offset + FRAME_HEADER_BYTES + 20)
        mend()
        wait_until(lambda: recorder.balance()["orders"].pending == 0, "all to be somewhere")
        lost = recorder.balance()["orders"].shed
        assert lost == frame.header.rows
        assert sorted(there(recorder)) == list(range(GROUPS * EACH - lost))
        assert recorder.balance()["orders"].exact
        wait_until(lambda: [gap[0] for gap in gaps(recorder)] == [lost])


def test_a_frame_that_breaks_during_an_outage_costs_its_own_rows(settings: Settings) -> None:
    """Rows left memory for the log, and one frame of them is broken before their turn comes: all others go in."""
    few = settings.defaults.model_copy(update={"batch_rows": 4 * EACH, "queue_rows": 4 * EACH})
    settings = settings.model_copy(update={"defaults": few})
    groups = 40
    with in_trouble(settings, "orders", AWAY) as (recorder, mend):
        for group in range(groups):
            for n in range(group * EACH, (group + 1) * EACH):
                assert recorder.record("orders", order(n, ts_local=START_NS + n * 10**9))
            recorder.sync(WAIT_S)
        wait_until(lambda: recorder.status()["tables"]["orders"]["log"]["backlog_rows"] > 10 * EACH)
        path, frame = frames(settings)[-15]
        flip(path, frame.offset + FRAME_HEADER_BYTES + 20)
        mend()
        wait_until(lambda: recorder.balance()["orders"].pending == 0)
        balance = recorder.balance()["orders"]
        first, count = frame.header.first, frame.header.rows
        assert (balance.shed, balance.received, balance.exact) == (count, groups * EACH, True)
        assert there(recorder) == [n for n in range(groups * EACH) if not first <= n < first + count]
        wait_until(lambda: [gap[0] for gap in gaps(recorder)] == [count])


def as_foreign(folder: pathlib.Path, path: pathlib.Path) -> None:
    """A segment of another table."""
    make_segment(folder, int(path.name[:12]) + 1, [10], name="fills")


def as_newer(folder: pathlib.Path, path: pathlib.Path) -> None:
    """A segment of a later version's format."""
    data = bytearray(path.read_bytes())
    with opened(path) as segment:
        for copy in (0, segment.preamble.bytes_each):
            data[copy + 8 : copy + 10] = (99).to_bytes(2, "little")
    (folder / names.segment_name(int(path.name[:12]) + 1)).write_bytes(data)


def twice(folder: pathlib.Path, path: pathlib.Path) -> None:
    """The same segment once more."""
    shutil.copy(path, folder / names.segment_name(int(path.name[:12]) + 1))


def torn(folder: pathlib.Path, path: pathlib.Path) -> None:
    """A checkpoint that was cut off."""
    (folder / names.CHECKPOINT).write_bytes(b"wal checkpoint 1\nsettled 00")


def newer_checkpoint(folder: pathlib.Path, path: pathlib.Path) -> None:
    """A checkpoint of a later version."""
    (folder / names.CHECKPOINT).write_bytes(b"wal checkpoint 9\nwhatever\n")


def of_nobody(folder: pathlib.Path, path: pathlib.Path) -> None:
    """A checkpoint of another log."""
    (folder / names.CHECKPOINT).write_bytes(pack_checkpoint(Checkpoint((Range(NOBODY, 0, 10**6),))))


def ahead(folder: pathlib.Path, path: pathlib.Path) -> None:
    """A checkpoint that speaks of rows that the log does not have: the log was put back."""
    with opened(path) as segment:
        epoch = segment.preamble.epoch
    (folder / names.CHECKPOINT).write_bytes(pack_checkpoint(Checkpoint((Range(epoch, 10**5, 10**6),))))


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (as_foreign, "no segment of this log"),
        (as_newer, "written by a later version"),
        (twice, "000000000002.wal"),
        (torn, "the checkpoint cannot be read; everything is replayed"),
        (newer_checkpoint, "checkpoint of version 9"),
        (of_nobody, ""),
        (ahead, "the checkpoint speaks of rows that the log does not have"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_odd_in_a_log_keeps_no_recorder_from_its_rows(
    settings: Settings, caplog: pytest.LogCaptureFixture, harm: Callable[..., None], says: str
) -> None:
    """It starts, all rows that the log had go in, each once, none counts as lost, and one line says what is odd."""
    leave(settings, groups=2)
    folder = folder_of(settings)
    harm(folder, names.segments([folder])[-1][1])
    caplog.clear()
    with Recorder(settings) as recorder:
        wait_until(lambda: recorder.balance()["orders"].inserted == 2 * EACH)
        recorder.record("orders", order(10_000))
        recorder.flush(WAIT_S)
        assert sorted(there(recorder)) == [*range(2 * EACH), 10_000]
        balance = recorder.balance()["orders"]
        assert (balance.shed, balance.pending, balance.exact) == (0, 0, True)
        assert not gaps(recorder)
    told = [record.message for record in caplog.records if "the log was found damaged" in record.message]
    assert len(told) == bool(says), told
    assert says in "".join(told)


@pytest.mark.parametrize("harm", ["missing", "both preambles"])
def test_a_segment_that_is_gone_costs_its_own_rows(
    settings: Settings, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    """One between two others was removed, or cannot be read: its rows count as lost, what stands around goes in."""
    monkeypatch.setattr(log_setup, "LogOptions", functools.partial(LogOptions, segment_bytes_min=SMALL))
    monkeypatch.setattr(log_setup, "segment_size", lambda *_: SMALL)
    leave(settings)
    found = frames(settings)
    paths = list(dict.fromkeys(path for path, _ in found))
    assert len(paths) >= 3
    lost = [
        n
        for path, frame in found
        if path == paths[1]
        for n in range(frame.header.first, frame.header.first + frame.header.rows)
    ]
    if harm == "missing":
        paths[1].unlink()
    else:
        with paths[1].open("r+b") as file:
            file.write(bytes(found[0][1].offset))
    with Recorder(settings) as recorder:
        wait_until(lambda: recorder.balance()["orders"].received == GROUPS * EACH)
        wait_until(lambda: recorder.balance()["orders"].pending == 0)
        balance = recorder.balance()["orders"]
        assert (balance.shed, balance.exact) == (len(lost), True)
        assert there(recorder) == [n for n in range(GROUPS * EACH) if n not in lost]
        wait_until(lambda: [gap[:3] for gap in gaps(recorder)] == [(len(lost), lost[0] - 1, lost[-1] + 1)])
    assert any(paths[1].name in r.message for r in caplog.records if "found damaged" in r.message)
