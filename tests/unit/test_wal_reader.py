"""Reading a log, also while others write, cut and purge it: each place once, in order, nothing that was not written."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness.wal_making import EPOCH, NAME, Made, make_segment, read_ranges, rows_of

from wal import walk
from wal.damage import Damage, Harm
from wal.errors import FormatError
from wal.format import PREAMBLE_BYTES_MAX, Kind
from wal.places import PlaceSet, Range
from wal.reader import LogReader
from wal.segment import Segment
from wal.verify import verify

HANG_S = 60


def told(damage: list[Damage]) -> list[tuple[Harm, str, int, int | None]]:
    return [(d.harm, Path(d.file).name[:12].lstrip("0"), d.first, d.rows) for d in damage]


def rows(first: int, stop: int, epoch: int = EPOCH) -> Range:
    return Range(epoch, first, stop)


def broken(made: Made, *offsets: int) -> bytes:
    data = bytearray(made.data)
    for offset in offsets:
        data[offset] ^= 1
    return bytes(data)


# -- what is there ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("check", [True, False])
def test_all_is_read_in_order(tmp_path: Path, check: bool) -> None:
    """Of segments in both folders, of every epoch; frames without rows too, but those of kinds of a later version."""
    one, two = tmp_path / "one", tmp_path / "two"
    make_segment(one, 1, [3, (Kind.SEAL, b"seal"), 2], tail=4_000)
    make_segment(two, 2, [(9, b"later"), 4, (Kind.VOID, b"void")], first=5)
    make_segment(one, 3, [1], epoch=6)
    reader = LogReader([two, one, tmp_path / "none"], name=NAME)
    found = [
        (entry.segment, entry.kind, entry.range, contents.payload() if entry.kind != Kind.ROWS else None)
        for entry, contents in reader.entries(check=check)
    ]
    assert found == [
        (1, Kind.ROWS, rows(0, 3), None),
        (1, Kind.SEAL, rows(3, 3), b"seal"),
        (1, Kind.ROWS, rows(3, 5), None),
        (2, Kind.ROWS, rows(5, 9), None),
        (2, Kind.VOID, rows(9, 9), b"void"),
        (3, Kind.ROWS, rows(0, 1, 6), None),
    ]
    assert len(read_ranges(reader, check=check)) == 4
    assert reader.damage == []


def test_where_nothing_is_nothing_is_read(tmp_path: Path) -> None:
    """A log that was never written to is whole."""
    for folders in ([], [tmp_path], [tmp_path / "none"]):
        reader = LogReader(folders)
        assert (list(reader.entries()), reader.damage) == ([], [])
        assert verify(folders).whole


def test_rows_that_are_left_out_are_told_once(tmp_path: Path) -> None:
    """Within an epoch, in a segment or between two; not before the first segment, whose rows were purged."""
    make_segment(tmp_path, 4, [2, 2, 2], first=100, skip=lambda index: 5 * (index == 1))
    make_segment(tmp_path, 5, [1], first=120)
    make_segment(tmp_path, 6, [1], first=50, epoch=8)
    reader = LogReader([tmp_path])
    read_ranges(reader)
    assert told(reader.damage) == [(Harm.MISSING, "4", 102, 5), (Harm.MISSING, "5", 111, 9)]


def test_a_number_without_a_file_is_told(tmp_path: Path) -> None:
    """With the rows it had, where the epoch goes on; where another begins, nobody knows."""
    make_segment(tmp_path, 1, [2])
    make_segment(tmp_path, 3, [2], first=10)
    make_segment(tmp_path, 6, [2], epoch=8)
    reader = LogReader([tmp_path])
    assert read_ranges(reader) == [rows(0, 2), rows(10, 12), rows(0, 2, 8)]
    assert told(reader.damage) == [
        (Harm.MISSING_SEGMENT, "2", 2, 0),
        (Harm.MISSING_SEGMENT, "4", 12, None),
        (Harm.MISSING, "3", 2, 8),
    ]


def test_what_was_written_again_is_read_once(tmp_path: Path) -> None:
    """After a suspect segment: what it has stands, also between the frames of the new one; what it lost is no loss."""
    suspect = make_segment(tmp_path, 1, [10, 10, 10, 10, 10])
    # The third frame's payload and the fifth's header are broken.
    suspect.write(broken(suspect, suspect.frames[2].offset + 50, suspect.frames[4].offset + 5))
    make_segment(tmp_path, 2, [15, 30, 5], first=10)
    reader = LogReader([tmp_path])
    found = read_ranges(reader)
    assert found == [
        rows(0, 10),
        rows(10, 20),
        rows(30, 40),
        rows(20, 25),
        rows(25, 30),
        rows(40, 55),
        rows(55, 60),
    ]
    damage = [(d.harm, d.rows, d.detail) for d in reader.damage]
    assert damage == [(Harm.PAYLOAD, 0, ""), (Harm.TORN_TAIL, 0, ""), (Harm.REPEATED, 0, "20 rows")]


@pytest.mark.parametrize("where", ["other number", "other folder"])
def test_a_segment_that_is_there_twice_is_read_once(tmp_path: Path, where: str) -> None:
    """A copy under another number, or under the same one in the other folder."""
    one, two = tmp_path / "one", tmp_path / "two"
    made = make_segment(one, 1, [3, 4])
    make_segment(one, 2, [5], first=7)
    copy = two / made.path.name if where == "other folder" else one / "000000000003.wal"
    two.mkdir()
    copy.write_bytes(made.data)
    reader = LogReader([one, two])
    assert read_ranges(reader) == [rows(0, 3), rows(3, 7), rows(7, 12)]
    assert [(d.harm, d.file, d.detail) for d in reader.damage] == [(Harm.REPEATED, str(copy), "7 rows")]


def test_what_cannot_be_read_is_told_and_left_out(tmp_path: Path) -> None:
    """Another log's, somebody else's, too short, no file: the segments around them are read."""
    make_segment(tmp_path, 1, [1])
    make_segment(tmp_path, 2, [1], name="orders", epoch=9)
    (tmp_path / "000000000003.wal").write_bytes(b"#!/bin/sh\n")
    (tmp_path / "000000000004.wal").write_bytes(b"\x89RWAL")
    (tmp_path / "000000000005.wal").mkdir()
    make_segment(tmp_path, 6, [1], first=3)
    reader = LogReader([tmp_path], name=NAME)
    assert read_ranges(reader) == [rows(0, 1), rows(3, 4)]
    assert told(reader.damage) == [
        (Harm.FOREIGN, "2", 0, None),
        (Harm.FOREIGN, "3", 1, 0),
        (Harm.UNREADABLE, "4", 1, 0),
        (Harm.FOREIGN, "5", 1, 0),
        (Harm.MISSING, "6", 1, 2),
    ]


def test_what_is_no_rows_is_told_and_left_out(tmp_path: Path) -> None:
    """A payload with the right checksum that Arrow refuses, or that has another number of rows."""
    contents = {0: None, 2: b"noise", 4: b"", 6: rows_of(EPOCH, 0, 1)}

    def payload_of(epoch: int, first: int, count: int) -> bytes:
        from wal.rows import pack_rows

        content = contents.get(first)
        return content if isinstance(content, bytes) else pack_rows([content or rows_of(epoch, first, count)])

    make_segment(tmp_path, 1, [2, 2, 2, 2, 2], payload_of=payload_of)
    reader = LogReader([tmp_path])
    assert read_ranges(reader) == [rows(0, 2), rows(8, 10)]
    expected = [(Harm.UNDECODABLE, "1", first, 2) for first in (2, 4, 6)]
    assert told(reader.damage) == expected
    verified = verify([tmp_path])
    assert told(list(verified.damage)) == expected
    assert (verified.rows, verified.frames) == (4, 2)


def test_a_large_schema_is_found_wherever_its_second_copy_is(tmp_path: Path) -> None:
    """Preambles of 1 MiB, the first of them broken."""
    made = make_segment(tmp_path, 1, [2], name=NAME)
    schema = rows_of(EPOCH, 0, 1).schema.with_metadata({"why": "x" * (PREAMBLE_BYTES_MAX // 2)})
    made = make_segment(tmp_path, 1, [2], schema=schema)
    assert made.preamble.bytes_each == PREAMBLE_BYTES_MAX
    made.write(broken(made, 30))
    reader = LogReader([tmp_path])
    found = [contents.rows() for _, contents in reader.entries()]
    assert [batch.num_rows for batch in found if batch is not None] == [2]
    assert told(reader.damage) == [(Harm.PREAMBLE, "1", 0, 0)]


def test_memory_does_not_grow_with_the_log(tmp_path: Path) -> None:
    """Neither with the bytes of a segment, nor with its frames, nor with the zeros after them."""
    make_segment(tmp_path, 1, [1] * 20_000, tail=16 * 1_048_576)
    list(LogReader([tmp_path]).entries())
    tracemalloc.start()
    try:
        assert sum(1 for _ in LogReader([tmp_path]).entries()) == 20_000
        assert tracemalloc.get_traced_memory()[1] < 4 * 1_048_576
    finally:
        tracemalloc.stop()


# -- beside others ------------------------------------------------------------------------------------------------


def test_a_file_that_is_cut_under_its_reader_ends_there(tmp_path: Path) -> None:
    """At any byte, also in a payload that is being asked for: no crash, and nothing that was not written."""
    made = make_segment(tmp_path, 1, [400, 400, 400])
    for size in [0, 1, 5_000, *range(made.preamble.frames_from, len(made.data), 333)]:
        made.write()
        for check in (True, False):
            reader = LogReader([tmp_path])
            entries = reader.entries(check=check)
            _, first = next(entries)
            with made.path.open("r+b") as file:
                file.truncate(size)
            assert (batch := first.rows()) is None or batch.equals(rows_of(EPOCH, 0, 400))
            for entry, contents in entries:
                batch = contents.rows()
                assert batch is None or batch.equals(rows_of(EPOCH, entry.range.first, 400))
            made.write()


def test_purging_beside_a_reader_is_no_damage(tmp_path: Path) -> None:
    """What it reads it reads to the end; what was removed before it came there was settled."""
    made = [make_segment(tmp_path, number, [2], first=2 * number) for number in range(1, 6)]
    reader = LogReader([tmp_path])
    entries = reader.entries()
    assert next(entries)[0].range == rows(2, 4)
    for gone in made[:3]:
        gone.path.unlink()
    assert [entry.range for entry, _ in entries] == [rows(8, 10), rows(10, 12)]
    assert reader.damage == []


def test_a_segment_that_vanishes_in_the_middle_is_told(tmp_path: Path) -> None:
    """Nobody purges that one first."""
    made = [make_segment(tmp_path, number, [2], first=2 * number) for number in range(1, 4)]
    reader = LogReader([tmp_path])
    entries = reader.entries()
    next(entries)
    made[1].path.unlink()
    assert [entry.range for entry, _ in entries] == [rows(6, 8)]
    assert told(reader.damage) == [(Harm.MISSING_SEGMENT, "2", 4, 0), (Harm.MISSING, "3", 4, 2)]


@pytest.fixture
def searched_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the last search took on a busy machine: the looks are counted here, not timed."""
    monkeypatch.setattr(walk, "_SEARCH_SHARE", 0)


def follow(folder: Path, steps: Iterator[None], damage: list[Damage] | None = None) -> Iterator[Range]:
    """What a tailing reader gives out; the log is driven one step on, each time it has come to its end."""
    reader = LogReader([folder])
    ended = False
    asked = 0

    def stop() -> bool:
        # Asked twice at each look that found nothing. Some looks are for damage: a step is made after several.
        nonlocal ended, asked
        asked += 1
        if asked % 6 == 0 and not ended:
            ended = next(steps, True) is True
            asked = 0
        return ended and asked > 40

    for entry, contents in reader.follow(stop=stop, poll_s=0):
        asked = 0
        assert (batch := contents.rows()) is not None
        assert batch.equals(rows_of(entry.range.epoch, entry.range.first, entry.range.rows))
        yield entry.range
    if damage is not None:
        damage += reader.damage


@pytest.mark.usefixtures("searched_at_once")
@pytest.mark.parametrize("zeros", [True, False], ids=["into zeros", "at the end"])
def test_a_tailing_reader_sees_each_frame_when_it_is_whole(tmp_path: Path, zeros: bool) -> None:
    """However its bytes come, into zeros or at the end of the file; half a frame is never damage."""
    made = make_segment(tmp_path, 1, [2, 3, 1], tail=200)
    later = make_segment(tmp_path, 2, [4], first=6)
    later.path.unlink()
    frames_from = made.preamble.frames_from
    done = [0]

    def steps() -> Iterator[None]:
        for size in range(frames_from, len(made.data), 7):
            done[0] = size
            made.write(made.data[:size] + bytes((len(made.data) - size) * zeros))
            yield
        made.write()
        yield
        for size in (later.preamble.frames_from, len(later.data) - 9, len(later.data)):
            later.write(later.data[:size])
            yield

    made.write(made.data[:frames_from] + bytes(300 * zeros))
    damage: list[Damage] = []
    found = []
    for place in follow(tmp_path, steps(), damage):
        frame = next((f for f in made.frames if f.header.first == place.first), None)
        if frame is not None and place.first < 6:
            assert done[0] >= len(made.data[: made.whole(frame).stop].rstrip(b"\0"))
        found.append(place)
    assert found == [rows(0, 2), rows(2, 5), rows(5, 6), rows(6, 10)]
    assert damage == []


@pytest.mark.usefixtures("searched_at_once")
@pytest.mark.parametrize("at", [5, 50], ids=["header", "payload"])
@pytest.mark.parametrize("shown_by", ["frame", "segment"])
@pytest.mark.parametrize("zeros", [False, True], ids=["turned", "never written"])
def test_a_tailing_reader_gets_past_real_damage(tmp_path: Path, at: int, shown_by: str, zeros: bool) -> None:
    """Once something newer is there: told once, and all that follows is read."""
    made = make_segment(tmp_path, 1, [2, 3, 1])
    later = make_segment(tmp_path, 2, [4], first=6)
    later.path.unlink()
    bad = made.frames[1]
    data = bytearray(broken(made, bad.offset + at))
    if zeros:
        begin = bad.offset if at == 5 else bad.offset + 32
        data[begin : bad.end] = bytes(bad.end - begin)
    if shown_by == "segment":
        data[bad.end :] = bytes(len(data) - bad.end)

    def steps() -> Iterator[None]:
        made.write(bytes(data[: bad.end]) + bytes(len(data) - bad.end))
        for _ in range(5):
            yield
        made.write(bytes(data))
        yield
        if shown_by == "segment":
            later.write()
            yield

    made.write(made.data[: bad.offset] + bytes(len(made.data) - bad.offset))
    damage: list[Damage] = []
    found = list(follow(tmp_path, steps(), damage))
    assert PlaceSet(found) == PlaceSet([rows(0, 2), rows(5, 6) if shown_by == "frame" else rows(6, 10)])
    lost = 3 if shown_by == "frame" else 4
    assert sum(d.rows or 0 for d in damage) == lost
    assert len([d for d in damage if d.harm is not Harm.MISSING]) <= 1


@pytest.mark.usefixtures("searched_at_once")
def test_a_tailing_reader_sees_what_comes_within_a_tick_of_the_clock(tmp_path: Path) -> None:
    """Of which the time that the file system gives says nothing: many have ticks of some milliseconds."""
    made = make_segment(tmp_path, 1, [2, 3, 1])
    bad = made.frames[1]
    data = broken(made, bad.offset + 5)
    written_ns = time.time_ns() + 3_600 * 10**9

    def write(size: int) -> None:
        made.write(data[:size] + bytes(len(data) - size))
        os.utime(made.path, ns=(written_ns, written_ns))

    def steps() -> Iterator[None]:
        write(bad.end)
        for _ in range(5):
            yield
        write(len(data))
        yield

    write(bad.offset)
    assert list(follow(tmp_path, steps())) == [rows(0, 2), rows(5, 6)]


@pytest.mark.usefixtures("searched_at_once")
def test_a_tailing_reader_may_come_before_the_log(tmp_path: Path) -> None:
    """It waits for the folder, the first segment and the first frame."""
    folder = tmp_path / "later"

    def steps() -> Iterator[None]:
        folder.mkdir()
        yield
        made = make_segment(folder, 1, [2], tail=50)
        made.write(bytes(len(made.data)))
        made.path.rename(folder / "000000000001.wal.new")
        yield
        made = make_segment(folder, 1, [2])
        yield

    damage: list[Damage] = []
    assert list(follow(folder, steps(), damage)) == [rows(0, 2)]
    assert damage == []


WRITES = """
import sys, time
path, source, begin = sys.argv[1:]
data = open(source, "rb").read()
with open(path, "r+b", buffering=0) as file:
    at = int(begin)
    file.seek(at)
    while at < len(data):
        size = 1 + at * 7919 % 1500
        file.write(data[at : at + size])
        at += size
"""


def test_a_log_that_another_process_writes_is_followed(tmp_path: Path) -> None:
    """In pieces that end anywhere: each frame once, in order, and no damage."""
    made = make_segment(tmp_path, 1, [1 + index % 50 for index in range(2_000)], tail=10_000)
    source = tmp_path / "source"
    source.write_bytes(made.data)
    begin = made.preamble.frames_from
    made.write(made.data[:begin] + bytes(len(made.data) - begin))
    child = subprocess.Popen([sys.executable, "-c", WRITES, str(made.path), str(source), str(begin)])
    try:
        found: list[Range] = []
        reader = LogReader([tmp_path])
        stop: Callable[[], bool] = lambda: len(found) == len(made.frames)  # noqa: E731
        for entry, contents in reader.follow(stop=stop, poll_s=0.001):
            assert contents.rows() is not None
            found.append(entry.range)
        assert found == made.ranges()
        assert reader.damage == []
    finally:
        child.wait(HANG_S)
    assert child.returncode == 0


# -- one segment, and all of a log --------------------------------------------------------------------------------


def test_a_segment_says_what_is_wrong_with_a_frame(tmp_path: Path) -> None:
    """In an error of the format; and after it is closed nothing is read, least of all from another file."""
    made = make_segment(tmp_path, 1, [2, 2])
    made.write(broken(made, made.frames[1].offset + 40))
    with Segment.open(made.path) as segment:
        assert list(segment.scan()) == made.frames
        assert segment.rows(made.frames[0]).equals(rows_of(EPOCH, 0, 2))
        with pytest.raises(FormatError, match=r"000000000001\.wal: the payload of the frame at"):
            segment.rows(made.frames[1])
    with (tmp_path / "another").open("w+b"), pytest.raises(OSError, match="Bad file descriptor"):
        segment.payload(made.frames[0])


def test_verify_counts_all_and_finds_every_damage(tmp_path: Path) -> None:
    """Exact places, and totals of what is sound; it changes nothing, and says how far it is."""
    first = make_segment(tmp_path, 1, [3, (Kind.SEAL, b"{}"), 4, 2])
    second = make_segment(tmp_path, 2, [5, 1], first=9, tail=500)
    first.write(broken(first, 3, first.frames[2].offset + 40))
    second.write(broken(second, second.frames[1].offset + 3))
    torn = second.frames[1].offset
    written = len(second.data.rstrip(b"\0"))
    steps: list[tuple[int, int]] = []
    verified = verify([tmp_path], name=NAME, progress=lambda done, total: steps.append((done, total)))
    assert [(d.harm, d.file, d.offset, d.nbytes, d.first, d.rows) for d in verified.damage] == [
        (Harm.PREAMBLE, str(first.path), 0, first.preamble.frames_from, 0, 0),
        (
            Harm.PAYLOAD,
            str(first.path),
            first.frames[2].offset,
            first.frames[2].end - first.frames[2].offset,
            3,
            4,
        ),
        (Harm.TORN_TAIL, str(second.path), torn, written - torn, 14, None),
    ]
    assert [(t.number, t.frames, t.rows, t.first, t.stop, t.nbytes) for t in verified.segments] == [
        (1, 3, 5, 0, 9, len(first.data)),
        (2, 1, 5, 9, 14, len(second.data)),
    ]
    assert (verified.frames, verified.rows, verified.nbytes) == (4, 10, len(first.data) + len(second.data))
    assert steps[-1] == (verified.nbytes, verified.nbytes)
    assert first.path.read_bytes() == broken(first, 3, first.frames[2].offset + 40)
