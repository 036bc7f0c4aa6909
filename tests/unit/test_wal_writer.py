"""The writer of a log: sequences, marks, frames, segments, bounds, and what it says of itself."""

from __future__ import annotations

import pathlib
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import pyarrow as pa
import pytest
from harness.faulty_files import Failing, FaultyFiles, Hanging
from harness.wal_log import SCHEMA, SMALL, append, read, rows, until
from hypothesis import given, settings
from hypothesis import strategies as st

from wal import names
from wal.commit import GroupCommit
from wal.errors import FrameTooLarge, LogClosed, LogFull, LogLocked, NotDurable
from wal.format import Kind
from wal.options import LogOptions, Sync
from wal.pending import FRAME_ARROW_BYTES, FRAME_ROWS_MAX, Item, cut, encode, pieces
from wal.places import Range
from wal.reader import LogReader
from wal.rows import read_rows
from wal.writer import LogWriter

Open = Callable[..., LogWriter]


@pytest.fixture
def commit() -> Iterator[GroupCommit]:
    commit = GroupCommit(group_ms=0)
    yield commit
    commit.close(5)


@pytest.fixture
def open_log(tmp_path: pathlib.Path, commit: GroupCommit) -> Open:
    def open_log(**options: object) -> LogWriter:
        return LogWriter.open(tmp_path / "log", "t", SCHEMA, **{"commit": commit, **options})  # type: ignore[arg-type]

    return open_log


def frames(folder: pathlib.Path) -> list[tuple[int, Kind, int, int]]:
    """Segment, kind, first and rows of each frame that is read, in order."""
    reader = LogReader([folder])
    found = [(e.segment, e.kind, e.range.first, e.range.rows) for e, _ in reader.entries()]
    assert reader.damage == []
    return found


# -- what is appended -------------------------------------------------------------------------------------------------


def test_what_is_appended_is_read_back(open_log: Open, tmp_path: pathlib.Path) -> None:
    """In order, with the places that were said; seals and voids stand where they were appended."""
    writer = open_log()
    assert writer.append(rows(0, 3)) == ((writer.epoch, 0, 3), 1)
    assert writer.append_seal(b"seal") == 2
    assert writer.append(rows(3, 2)) == (Range(writer.epoch, 3, 5), 3)
    assert writer.append_void(b"void") == 4
    writer.wait(4, 20)
    assert (writer.synced_mark, writer.synced_rows) == (4, 5)
    assert writer.close(5)
    reader = LogReader([tmp_path / "log"])
    found = [(entry.kind, entry.range, contents.payload()) for entry, contents in reader.entries()]
    rows_first, seal, rows_second, void = found
    assert rows_first[:2] == (Kind.ROWS, Range(writer.epoch, 0, 3))
    assert seal == (Kind.SEAL, Range(writer.epoch, 3, 3), b"seal")
    assert rows_second[:2] == (Kind.ROWS, Range(writer.epoch, 3, 5))
    assert void == (Kind.VOID, Range(writer.epoch, 5, 5), b"void")
    assert read(tmp_path / "log") == {writer.epoch: list(range(5))}


def test_slices_of_one_commit_are_one_frame(tmp_path: pathlib.Path) -> None:
    """However many they are."""
    commit = GroupCommit(group_ms=300)
    writer = LogWriter.open(tmp_path, "t", SCHEMA, commit=commit)
    for _ in range(30):
        mark = append(writer, 7).mark
    writer.wait(mark, 20)
    assert commit.close(5)
    assert frames(tmp_path) == [(1, Kind.ROWS, 0, 210)]


def test_many_threads_append_rows_each_place_once(open_log: Open, tmp_path: pathlib.Path) -> None:
    """Sequences have no hole and no row another's, whoever appends."""
    writer = open_log(options=SMALL)
    got: list[tuple[int, int]] = []

    def work(n: int) -> None:
        for k in range(50):
            batch = pa.record_batch([[n * 1_000 + k] * 3, ["x", None, "z"]], schema=SCHEMA)
            got.append((writer.append(batch).range.first, n * 1_000 + k))

    threads = [threading.Thread(target=work, args=[n]) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert writer.close(10)
    assert sorted(first for first, _ in got) == list(range(0, 900, 3))
    values = [
        value for _, contents in LogReader([tmp_path / "log"]).entries() for value in column(contents.rows())
    ]
    assert values == [value for _, value in sorted(got) for _ in range(3)]


def column(batch: pa.RecordBatch | None) -> list[int]:
    assert batch is not None
    found: list[int] = batch.column(0).to_pylist()
    return found


def test_no_rows_are_no_frame(open_log: Open, tmp_path: pathlib.Path) -> None:
    """They have the place where the next ones go, and their mark is reached with what came before."""
    writer = open_log()
    assert writer.append(rows(0, 0)) == ((writer.epoch, 0, 0), 0)
    writer.wait(0, 1)
    mark = append(writer, 2).mark
    assert writer.append(rows(0, 0)) == ((writer.epoch, 2, 2), mark)
    assert writer.close(5)
    assert frames(tmp_path / "log") == [(1, Kind.ROWS, 0, 2)]


def test_metadata_of_a_schema_makes_no_difference(open_log: Open, tmp_path: pathlib.Path) -> None:
    """Batches with and without it go into one frame."""
    writer = open_log()
    for n in range(4):
        batch = rows(n * 5, 5)
        writer.append(batch.replace_schema_metadata({"n": str(n)}) if n % 2 else batch)
    assert writer.close(5)
    assert read(tmp_path / "log") == {writer.epoch: list(range(20))}


def test_rows_of_another_schema_are_refused(open_log: Open) -> None:
    """By the column that differs; nothing is taken."""
    writer = open_log()
    other = pa.record_batch([pa.array([1], pa.int32()), pa.array(["x"])], names=["n", "text"])
    with pytest.raises(
        ValueError, match=r"t: rows of another schema, column 0 is .*int32.*, not .*int64 not null"
    ):
        writer.append(other)
    with pytest.raises(ValueError, match="column 1 is None, not "):
        writer.append(rows(0, 1).select(["n"]))
    assert writer.stats().rows_appended == 0


def test_dictionaries_are_refused_when_the_log_is_opened(tmp_path: pathlib.Path, commit: GroupCommit) -> None:
    """Wherever they are in a type: a frame is one message, and they take two."""
    words = pa.dictionary(pa.int8(), pa.string())
    for kind in (words, pa.list_(words), pa.struct([("a", pa.map_(pa.string(), words))])):
        with pytest.raises(ValueError, match=r"t: column w is .*dictionary.*; log the values themselves"):
            LogWriter.open(tmp_path / "log", "t", pa.schema([("w", kind)]), commit=commit)
    assert not (tmp_path / "log").exists()


# -- how it is cut ----------------------------------------------------------------------------------------------------


def test_a_large_batch_makes_frames_of_bounded_size(open_log: Open, tmp_path: pathlib.Path) -> None:
    """And more than one segment, if they do not fit; its mark is reached with its last row."""
    writer = open_log(options=LogOptions(codec=None))
    batch = rows(0, 40, width=1_000_000)
    assert writer.append(batch).mark == 1
    assert append(writer, 1).mark == 2
    writer.wait(2, 20)
    assert writer.close(5)
    made = frames(tmp_path / "log")
    assert len({segment for segment, *_ in made}) > 1
    assert all(count * 1_000_000 <= FRAME_ARROW_BYTES for *_, count in made)
    assert sum(count for *_, count in made) == 41
    assert read(tmp_path / "log") == {writer.epoch: list(range(41))}


def test_what_is_too_large_for_a_frame_is_refused(open_log: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """A single row, a seal, or more at once than memory may hold: it never would be written."""
    writer = open_log(options=replace(SMALL, pending_bytes_max=30_000_000))
    with pytest.raises(
        FrameTooLarge, match=r"t: 4\d+ bytes at once, pending_bytes_max=30000000; append the rows in"
    ):
        writer.append(rows(0, 40, width=1_000_000))
    with pytest.raises(FrameTooLarge, match="t: a SEAL of 30000001 bytes"):
        writer.append_seal(bytes(30_000_001))
    monkeypatch.setattr("wal.pending.ROW_BYTES_MAX", 20_000_000)
    with pytest.raises(FrameTooLarge, match=r"one row of 2\d+ bytes; at most 20000000"):
        writer.append(rows(0, 1, width=25_000_000))
    assert writer.stats().rows_appended == 0
    assert writer.close(5)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(st.sampled_from(Kind), st.integers(1, 5), st.integers(0, 2 * FRAME_ARROW_BYTES)),
        max_size=30,
    )
)
def test_cut_keeps_everything_in_order(shapes: list[tuple[Kind, int, int]]) -> None:
    """Rows side by side share a frame up to its bounds; all else has one of its own; the mark is the last one's."""
    items = []
    first = 0
    for mark, (kind, count, nbytes) in enumerate(shapes, 1):
        batch = rows(first, count) if kind is Kind.ROWS else None
        items.append(Item(kind, batch, b"note", nbytes, nbytes, first, mark, float(mark)))
        first += count if batch is not None else 0
    groups = list(cut(items))
    assert [item for group in groups for item in group] == items
    for group, following in zip(groups, [*groups[1:], None], strict=False):
        assert len(group) == 1 or all(item.kind is Kind.ROWS for item in group)
        assert len(group) == 1 or sum(item.nbytes for item in group) <= FRAME_ARROW_BYTES
        if following is not None and group[-1].kind is following[0].kind is Kind.ROWS:
            assert sum(item.nbytes for item in group) + following[0].nbytes > FRAME_ARROW_BYTES
        ready = encode(group, None)
        assert (ready.mark, ready.at_s, ready.header.first) == (group[-1].mark, group[0].at_s, group[0].first)
        if group[0].kind is Kind.ROWS:
            there = read_rows(ready.payload, SCHEMA).column(0).to_pylist()
            assert there == list(range(ready.header.first, ready.stop))
        else:
            assert (ready.payload, ready.header.rows) == (b"note", 0)


def test_pieces_are_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where rows have no data, and only their number is large."""
    nothing = pa.record_batch([pa.nulls(2 * FRAME_ROWS_MAX + 1)], names=["n"])
    parts = pieces(nothing)
    assert sum(part.num_rows for part in parts) == nothing.num_rows
    assert max(part.num_rows for part in parts) <= FRAME_ROWS_MAX
    monkeypatch.setattr("wal.pending.FRAME_ARROW_BYTES", 1_000)
    batch = rows(0, 1_000)
    assert pa.Table.from_batches(pieces(batch)).equals(pa.Table.from_batches([batch]))


# -- segments ---------------------------------------------------------------------------------------------------------


def test_segments_double_up_to_their_bound(open_log: Open, tmp_path: pathlib.Path) -> None:
    """Each begins with the sequence that its preamble says; numbers follow one another, also in the next opening."""
    writer = open_log(options=replace(SMALL, segment_bytes_max=65_536))
    while len(writer.segments()) < 5:
        writer.wait(append(writer, 50).mark, 20)
    sizes = [state.path.stat().st_size for state in writer.segments()]
    assert sizes == [16_384, 32_768, 65_536, 65_536, 65_536]
    assert writer.active == 5
    stops = [state.stop for state in writer.segments()]
    assert [state.preamble.first for state in writer.segments()] == [0, *stops[:-1]]
    assert writer.close(5)
    last = writer.segments()[-1]
    assert last.path.stat().st_size == last.end
    assert names.unfinished([tmp_path / "log"]) == []
    again = open_log(options=SMALL)
    assert again.epoch != writer.epoch
    assert again.epoch
    assert again.recovered.segments == writer.segments()
    append(again, 10)
    assert again.close(5)
    assert [state.number for state in again.segments()] == [1, 2, 3, 4, 5, 6]
    assert read(tmp_path / "log") == {writer.epoch: list(range(stops[-1])), again.epoch: list(range(10))}


def test_the_next_segment_is_there_before_it_is_needed(open_log: Open, tmp_path: pathlib.Path) -> None:
    """From half of the active one on; and rotating makes no file then."""
    files = FaultyFiles()
    writer = open_log(options=SMALL, files=files)
    writer.wait(append(writer, 10).mark, 20)
    assert names.unfinished([tmp_path / "log"]) == []
    while not names.unfinished([tmp_path / "log"]):
        writer.wait(append(writer, 10).mark, 20)
    until(lambda: writer.stats().disk_bytes == 16_384 + 32_768)
    assert len(writer.segments()) == 1
    before = files.made.count("create")
    while len(writer.segments()) == 1:
        writer.wait(append(writer, 1).mark, 20)
    assert files.made.count("create") == before
    assert writer.close(5)


def test_a_segment_that_cannot_be_made_ahead_is_made_when_it_is_needed(
    open_log: Open, tmp_path: pathlib.Path
) -> None:
    """Its failing is counted, and harms nobody."""
    writer = open_log(
        options=SMALL, files=FaultyFiles(failing := Failing(2, 28, calls=("create",), below=tmp_path))
    )
    while len(writer.segments()) < 3:
        writer.wait(append(writer, 20).mark, 20)
    assert failing.struck == 1
    stats = writer.stats()
    assert (stats.failures, stats.suspects, stats.recovering) == (1, (), False)
    assert "No space left on device" in stats.last_error
    assert writer.close(5)


def test_frames_of_a_new_segment_come_after_all_of_the_old_one(tmp_path: pathlib.Path) -> None:
    """Whatever the policy: the old one is synced before the new one has its name."""
    calls: list[tuple[str, str]] = []

    def rule(number: int, call: str, path: pathlib.Path) -> None:
        calls.append((call, path.name))

    for sync in Sync:
        commit = GroupCommit(group_ms=0)
        options = replace(SMALL, sync=sync, interval_ms=3_600_000)
        writer = LogWriter.open(
            tmp_path / sync.value, "t", SCHEMA, commit=commit, options=options, files=FaultyFiles(rule)
        )
        calls.clear()
        while len(writer.segments()) < 3:
            append(writer, 20)
        of_first = [call for call, name in calls[: calls.index(("rename", names.segment_name(2)))]]
        written = [n for n, call in enumerate(calls) if call == ("pwrite", names.segment_name(1))]
        synced = [n for n, call in enumerate(calls) if call == ("fdatasync", names.segment_name(1))]
        renamed = calls.index(("rename", names.segment_name(2)))
        assert "fdatasync" in of_first
        assert max(written) < max(synced) < renamed
        assert commit.close(5)


def test_a_number_that_somebody_took_is_passed_over(open_log: Open, tmp_path: pathlib.Path) -> None:
    """A segment that was put there meanwhile is not written over."""
    writer = open_log(options=SMALL)
    put = tmp_path / "log" / names.segment_name(1)
    put.write_bytes(b"mine")
    writer.wait(append(writer, 5).mark, 20)
    assert put.read_bytes() == b"mine"
    assert writer.active == 2
    assert writer.close(5)


def test_opening_makes_nothing_but_the_lock(open_log: Open, tmp_path: pathlib.Path) -> None:
    """And closing a log to which nothing was appended neither."""
    writer = open_log(second=tmp_path / "second")
    assert [path.name for path in (tmp_path / "log").iterdir()] == ["LOCK"]
    with pytest.raises(LogLocked, match="log: process "):
        open_log()
    assert writer.close(5)
    assert [path.name for path in (tmp_path / "log").iterdir()] == ["LOCK"]


# -- bounds and syncing -----------------------------------------------------------------------------------------------


def test_what_waits_has_a_bound(open_log: Open, tmp_path: pathlib.Path) -> None:
    """At it rows are refused, with what waits and why; what was taken before is written, and there is room again."""
    files = FaultyFiles(hanging := Hanging(("fdatasync",), tmp_path))
    writer = open_log(options=replace(SMALL, pending_bytes_max=50_000), files=files)
    append(writer, 1)
    assert hanging.hanging.wait(10)
    taken, full = 1, ""
    while not full:
        try:
            writer.append(rows(taken, 10))
            taken += 10
        except LogFull as error:
            full = str(error)
    assert re.match(r"t: \d+ bytes wait .*pending_bytes_max=50000; the disk does not keep up", full)
    assert taken > 10
    assert 40_000 < writer.stats().pending_bytes <= 50_000
    hanging.release()
    until(lambda: not writer.stats().pending_bytes)
    append(writer, 10)
    assert writer.close(10)
    assert read(tmp_path / "log") == {writer.epoch: list(range(taken + 10))}


def test_rows_that_are_a_part_of_more_count_for_themselves(open_log: Open) -> None:
    """A slice of a large batch does not take its room."""
    writer = open_log(options=replace(SMALL, pending_bytes_max=1_000_000))
    large = rows(0, 100_000)
    for n in range(50):
        writer.append(large.slice(n * 10, 10))
    assert writer.close(5)


def test_interval_says_what_may_be_lost(open_log: Open) -> None:
    """Rows are written at once, told to be on disk after the interval, and are the loss window until then."""
    writer = open_log(options=replace(SMALL, sync=Sync.INTERVAL, interval_ms=400))
    appended = append(writer, 10)
    until(lambda: writer.stats().rows_written == 10)
    stats = writer.stats()
    assert (stats.rows_synced, stats.unsynced_rows, writer.synced_mark) == (0, 10, 0)
    assert 0 < stats.unsynced_age_s < 0.4
    assert stats.pending_bytes > 0
    with pytest.raises(NotDurable, match=r"t: mark 1 is not on disk, 0 is: not within 0.01 s"):
        writer.wait(appended.mark, 0.01)
    writer.wait(appended.mark, 20)
    stats = writer.stats()
    assert (stats.rows_synced, stats.unsynced_rows, stats.unsynced_age_s) == (10, 0, 0.0)
    assert stats.pending_bytes == 0
    assert stats.bytes_synced == stats.bytes_written


def test_an_interval_does_not_wait_when_memory_runs_out(open_log: Open) -> None:
    """What is written and not synced is kept: half of the bound, and it is synced."""
    options = LogOptions(sync=Sync.INTERVAL, interval_ms=3_600_000, pending_bytes_max=100_000, codec=None)
    writer = open_log(options=options)
    for _ in range(100):
        mark = append(writer, 50).mark
    assert writer.synced_mark > 0
    assert writer.close(5)
    writer.wait(mark, 0)


def test_off_promises_nothing_and_keeps_nothing(open_log: Open, tmp_path: pathlib.Path) -> None:
    """Marks say what was written; nobody can wait for the disk; closing syncs."""
    writer = open_log(options=replace(SMALL, sync=Sync.OFF))
    mark = append(writer, 10).mark
    until(lambda: writer.synced_mark == mark)
    stats = writer.stats()
    assert (stats.rows_written, stats.rows_synced, stats.unsynced_rows, stats.pending_bytes) == (10, 0, 10, 0)
    assert writer.synced_rows == 0
    with pytest.raises(NotDurable, match=r"not synced \(sync=off\)"):
        writer.wait(mark, 20)
    assert writer.close(5)
    writer.wait(mark, 0)
    assert writer.stats().rows_synced == 10
    assert read(tmp_path / "log") == {writer.epoch: list(range(10))}


def test_whoever_is_told_of_syncs_may_fail(open_log: Open, caplog: pytest.LogCaptureFixture) -> None:
    """It is told after each, when the marks are there already; its error is logged, and that is all."""
    told: list[int] = []

    def on_synced(writer: LogWriter) -> None:
        told.append(writer.synced_mark)
        raise RuntimeError("mine")

    writer = open_log(on_synced=on_synced)
    for n in range(3):
        writer.wait(append(writer, 1).mark, 20)
        until(lambda n=n: len(told) == n + 1)  # type: ignore[misc]
    assert writer.close(5)
    assert told == [1, 2, 3]
    assert {record.getMessage() for record in caplog.records} == {"t: whoever is told of syncs failed"}


# -- the end ----------------------------------------------------------------------------------------------------------


def test_a_closed_log_takes_nothing(open_log: Open, tmp_path: pathlib.Path) -> None:
    """All that was appended is on disk; closing again says the same; the folder is free."""
    writer = open_log()
    mark = append(writer, 10).mark
    assert writer.close(5)
    assert writer.close(5)
    writer.wait(mark, 0)
    for attempt in (lambda: writer.append(rows(10, 1)), lambda: writer.append_seal(b"")):
        with pytest.raises(LogClosed, match="t: the log is closed"):
            attempt()
    with pytest.raises(NotDurable, match="t: mark 99 is not on disk, 1 is: the log was closed"):
        writer.wait(99, 20)
    again = open_log()
    assert again.close(5)


def test_the_purger_tells_which_segments_are_gone(open_log: Open, tmp_path: pathlib.Path) -> None:
    """Then they count no more, those found when the log was opened as well as those made since."""
    writer = open_log(options=SMALL)
    while len(writer.segments()) < 3:
        writer.wait(append(writer, 50).mark, 20)
    assert writer.close(5)
    again = open_log(options=SMALL)
    again.wait(append(again, 50).mark, 20)
    assert again.stats().segments == 4
    assert again.stats().disk_bytes == sum(state.path.stat().st_size for state in again.segments())
    for number in (1, 2, 4):
        state = next(state for state in again.segments() if state.number == number)
        state.path.unlink()
        again.removed([state.path, tmp_path / "none"])
    assert [state.number for state in again.segments()] == [3]
    assert again.stats().disk_bytes == again.segments()[0].path.stat().st_size
    assert again.close(5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"interval_ms": 0}, "interval_ms=0; more than 0"),
        ({"segment_bytes_min": 1_000}, "segment_bytes_min=1000, segment_bytes_max=67108864; 16,384 <= "),
        ({"segment_bytes_max": 20_000}, "segment_bytes_min=1048576, segment_bytes_max=20000"),
        ({"pending_bytes_max": 0}, "pending_bytes_max=0"),
        ({"codec": "gzip"}, "codec='gzip'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_options_out_of_bounds_are_refused(options: dict[str, object], message: str) -> None:
    """With what they may be."""
    with pytest.raises(ValueError, match=message):
        LogOptions(**options)  # type: ignore[arg-type]
