"""What recovery makes of a log: torn ends cut and kept, other damage kept and told, nothing sound touched; and the same
when it is stopped anywhere, when the disk takes nothing, and when it runs again."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness.wal_making import NAME, UNSYNCED, Made, Unsynced, make_segment, read_ranges, snapshot
from hypothesis import given, settings
from hypothesis import strategies as st

from wal import segment as segment_module
from wal.damage import Harm
from wal.format import SEGMENT_MAGIC, Kind
from wal.frames import Frame, Hole, scan
from wal.places import PlaceSet
from wal.reader import LogReader
from wal.recovery import BROKEN_SPANS_MAX, Recovered, recover
from wal.runs import Run, runs


class Killed(BaseException):
    """Stands for the end of the process."""


class Failing(Unsynced):
    """Lets `calls` calls through. What then comes raises, once or for ever."""

    def __init__(self, calls: int, error: Callable[[], BaseException], *, for_ever: bool = True):
        self.left = calls
        self.error = error
        self.for_ever = for_ever

    def __getattribute__(self, name: str) -> Any:
        call = super().__getattribute__(name)
        if name.startswith("_") or name in ("left", "error", "for_ever"):
            return call

        def counted(*args: Any) -> Any:
            if name == "close":
                return call(*args)  # a descriptor is given back, whatever happens
            self.left -= 1
            if self.left == -1 or (self.left < 0 and self.for_ever):
                raise self.error()
            return call(*args)

        return counted


def damaged(folder: Path) -> list[Made]:
    """Three epochs: one whose middle is broken and whose end is torn; one with zeros; one whose frames are all torn."""
    first = make_segment(folder, 1, [3, 4, 2], epoch=5)
    second = make_segment(folder, 2, [3, (Kind.SEAL, b"seal"), 2, 4], epoch=5, first=9, tail=300)
    third = make_segment(folder, 3, [1, 1], epoch=6, tail=3_000)
    fourth = make_segment(folder, 4, [2, 6], epoch=7, tail=500)
    for made, broken in ((first, [1]), (second, [0, 3]), (fourth, [0, 1])):
        data = bytearray(made.data)
        for index in broken:
            data[made.frames[index].offset + (40 if made is fourth else 20)] ^= 4
        made.data = bytes(data)
        made.write()
    (folder / "000000000005.wal.new").write_bytes(bytes(100))
    return [first, second, third, fourth]


def run(folder: Path, **more: Any) -> Recovered:
    return recover([folder], name=NAME, **more)


def read(folder: Path) -> PlaceSet:
    return PlaceSet(read_ranges(LogReader([folder])))


def test_a_sound_log_is_left_as_it_is(tmp_path: Path) -> None:
    """And its state is what is in it, over both folders; what was zero-filled is given back."""
    one, two = tmp_path / "one", tmp_path / "two"
    a = make_segment(one, 1, [3, 4], epoch=5)
    b = make_segment(two, 2, [5, (Kind.SEAL, b"{}")], epoch=5, first=7)
    c = make_segment(one, 3, [], epoch=6)
    there = snapshot(one, two)
    found = recover([one, two, tmp_path / "three"], name=NAME)
    assert snapshot(one, two) == there
    assert found.damage == ()
    assert found.next_number == 4
    assert [(s.number, s.path, s.preamble, s.end, s.stop) for s in found.segments] == [
        (number, made.path, made.preamble, len(made.data), stop)
        for number, made, stop in ((1, a, 7), (2, b, 12), (3, c, 0))
    ]
    b.write(b.data + bytes(5_000))
    assert recover([one, two], name=NAME).segments == found.segments
    assert snapshot(one, two) == there


def test_no_log_at_all_is_one_to_begin(tmp_path: Path) -> None:
    """Where nothing is, nothing is made."""
    for folders in ([], [tmp_path], [tmp_path / "none"]):
        found = recover(folders, name=NAME)
        assert (found.segments, found.next_number, found.damage) == ((), 1, ())
    assert not (tmp_path / "none").exists()


def test_each_damage_is_mended_as_it_should_be(tmp_path: Path) -> None:
    """Torn ends of epochs are copied and cut off; broken spans are copied and stay; unfinished segments go."""
    first, second, third, fourth = damaged(tmp_path)
    sound = read(tmp_path)
    found = run(tmp_path)
    torn, all_torn = second.frames[3].offset, fourth.frames[0].offset
    assert [(d.harm, d.file, d.offset, d.rows) for d in found.damage] == [
        (Harm.HEADER, str(first.path), first.frames[1].offset, 0),
        (Harm.HEADER, str(second.path), second.frames[0].offset, 0),
        (Harm.TORN_TAIL, str(second.path), torn, None),
        (Harm.TORN_TAIL, str(fourth.path), all_torn, 8),
        (Harm.MISSING, str(first.path), first.frames[2].offset, 4),
        (Harm.MISSING, str(second.path), second.frames[1].offset, 3),
    ]
    span = first.frames[1]
    assert snapshot(tmp_path) == {
        str(first.path): first.data,
        str(tmp_path / f"000000000001.{span.offset}.broken"): first.data[span.offset : span.end],
        str(second.path): second.data[:torn],
        str(tmp_path / f"000000000002.{second.frames[0].offset}.broken"): second.data[
            second.frames[0].offset : second.frames[0].end
        ],
        str(tmp_path / f"000000000002.{torn}.broken"): second.data[torn:].rstrip(b"\0"),
        str(third.path): third.data[: third.frames[-1].end],
        str(fourth.path): fourth.data[:all_torn],
        str(tmp_path / f"000000000004.{all_torn}.broken"): fourth.data[all_torn : fourth.frames[-1].end],
    }
    assert [(s.number, s.end, s.stop) for s in found.segments] == [
        (1, first.frames[2].end, 9),
        (2, torn, 14),
        (3, third.frames[1].end, 2),
        (4, all_torn, 0),
    ]
    assert found.next_number == 5
    assert read(tmp_path) == sound


def test_a_second_run_changes_nothing(tmp_path: Path) -> None:
    """And tells the same, but for the ends that are no longer torn."""
    damaged(tmp_path)
    found = run(tmp_path)
    there = snapshot(tmp_path)
    again = run(tmp_path)
    assert snapshot(tmp_path) == there
    assert again.segments == found.segments
    assert again.damage == tuple(d for d in found.damage if d.harm is not Harm.TORN_TAIL)


def test_a_dry_run_changes_nothing_and_tells_the_same(tmp_path: Path) -> None:
    """To the letter."""
    damaged(tmp_path)
    there = snapshot(tmp_path)
    dry = run(tmp_path, dry_run=True)
    assert snapshot(tmp_path) == there
    found = run(tmp_path)
    assert (dry.segments, dry.damage, dry.next_number) == (found.segments, found.damage, found.next_number)


def test_stopped_before_any_call_it_is_completed_by_the_next(tmp_path: Path) -> None:
    """No sound row is away at any time, nor any byte of what was broken; in the end all is as if it had not stopped."""
    damaged(tmp_path / "whole")
    originals = snapshot(tmp_path / "whole")
    sound = read(tmp_path / "whole")
    expected = run(tmp_path / "whole")
    mended = {Path(name).name: data for name, data in snapshot(tmp_path / "whole").items()}
    for calls in itertools.count():
        folder = tmp_path / str(calls)
        damaged(folder)
        files = Failing(calls, Killed)
        try:
            run(folder, files=files)
        except Killed:
            pass
        else:
            break
        assert read(folder) == sound
        now = snapshot(folder)
        for name, original in originals.items():
            if not name.endswith(".wal"):
                continue
            there = now[str(folder / Path(name).name)]
            if gone := original[len(there) :].rstrip(b"\0"):
                assert now[str(folder / f"{Path(name).stem}.{len(there)}.broken")].rstrip(b"\0") == gone
        second = run(folder, files=UNSYNCED)
        assert {Path(name).name: data for name, data in snapshot(folder).items()} == mended
        assert [(s.number, s.end, s.stop) for s in second.segments] == [
            (s.number, s.end, s.stop) for s in expected.segments
        ]
    assert calls > 25


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EROFS], ids=errno.errorcode.get)
@pytest.mark.parametrize("for_ever", [False, True], ids=["once", "for ever"])
def test_a_disk_that_takes_nothing_is_no_reason_not_to_go_on(
    tmp_path: Path, code: int, for_ever: bool
) -> None:
    """Whichever call fails: the log is as readable as before, what was not mended is told, and is the next time."""
    damaged(tmp_path / "whole")
    expected = run(tmp_path / "whole")
    mended = {Path(name).name: data for name, data in snapshot(tmp_path / "whole").items()}
    sound = read(tmp_path / "whole")
    for calls in itertools.count():
        folder = tmp_path / str(calls)
        damaged(folder)
        files = Failing(calls, lambda: OSError(code, os.strerror(code)), for_ever=for_ever)
        found = run(folder, files=files)
        assert read(folder) == sound
        assert [d.harm for d in found.damage] == [d.harm for d in expected.damage]
        assert found.next_number == (6 if (folder / "000000000005.wal.new").exists() else 5)
        if files.left >= 0:
            break
        if not for_ever:
            # Half a copy only takes place on a disk that may be full.
            assert not list(folder.glob("*.broken.new"))
        if calls == 0 and for_ever:
            told = [d.detail for d in found.damage if d.harm is not Harm.MISSING]
            assert all(detail.startswith("not copied: ") and os.strerror(code) in detail for detail in told)
        run(folder, files=UNSYNCED)
        assert {Path(name).name: data for name, data in snapshot(folder).items()} == mended
    assert calls > 25


def test_what_it_does_not_understand_is_left_alone(tmp_path: Path) -> None:
    """Foreign, newer, unreadable, empty, of another log, no file at all: told, and their numbers respected."""
    sound = make_segment(tmp_path, 1, [3])
    contents = {
        2: b"PK\3\4" * 3_000,
        3: SEGMENT_MAGIC + b"\2\0" + bytes(9_000),
        4: bytes(9_000),
        5: b"",
        6: b"\x89RW",
    }
    for number, content in contents.items():
        (tmp_path / f"{number:012d}.wal").write_bytes(content)
    make_segment(tmp_path, 7, [2], epoch=8, name="orders")
    (tmp_path / "000000000008.wal").mkdir()
    os.mkfifo(tmp_path / "000000000009.wal")
    (tmp_path / "000000000010.wal").symlink_to("000000000010.wal")
    there = {p: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}
    found = run(tmp_path)
    assert {p: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()} == there
    assert [s.path for s in found.segments] == [sound.path]
    assert found.next_number == 11
    harms = [
        Harm.FOREIGN,
        Harm.NEWER,
        *[Harm.UNREADABLE] * 3,
        Harm.FOREIGN,
        Harm.FOREIGN,
        Harm.FOREIGN,
        Harm.UNREADABLE,
    ]
    assert [(d.harm, d.file) for d in found.damage] == [
        (harm, str(tmp_path / f"{number:012d}.wal")) for number, harm in enumerate(harms, 2)
    ]
    assert all("\n" not in str(d) for d in found.damage)
    (tmp_path / "000000000009.wal").unlink()


def test_a_number_that_something_still_bears_is_not_given_again(tmp_path: Path) -> None:
    """What was kept of a segment that is gone bears its number."""
    (tmp_path / "000000000012.4096.broken").write_bytes(b"kept")
    assert run(tmp_path).next_number == 13


def test_gaps_in_numbers_and_rows_are_told(tmp_path: Path) -> None:
    """Numbers without a file, once for all that are missing together, and the rows that were in them."""
    make_segment(tmp_path, 2, [3])
    last = make_segment(tmp_path, 5, [3], first=10)
    found = run(tmp_path)
    assert [(d.harm, d.file, d.rows, d.detail) for d in found.damage] == [
        (Harm.MISSING_SEGMENT, str(tmp_path / "000000000003.wal"), 0, "and 1 after it"),
        (Harm.MISSING, str(last.path), 7, ""),
    ]


def test_a_file_with_other_bytes_of_that_name_is_kept(tmp_path: Path) -> None:
    """And then nothing is cut: what would be cut off has no other place."""
    made = make_segment(tmp_path, 1, [3, 4])
    torn = made.frames[1].offset
    made.write(made.data[:-9])
    other = tmp_path / f"000000000001.{torn}.broken"
    other.write_bytes(b"others")
    there = snapshot(tmp_path)
    (damage,) = run(tmp_path).damage
    assert snapshot(tmp_path) == there
    assert damage.harm is Harm.TORN_TAIL
    assert "holds other bytes" in damage.detail


def test_bytes_that_the_disk_refuses_are_not_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that cannot be read now may be readable for somebody else; frames in the pages around it are read."""
    made = make_segment(tmp_path, 1, [60] * 12, tail=100)
    page = range(made.preamble.frames_from + 8_192, made.preamble.frames_from + 12_288)
    real = os.pread

    def pread(fd: int, size: int, offset: int) -> bytes:
        if offset < page.stop and offset + size > page.start:
            raise OSError(errno.EIO, "Input/output error")
        return real(fd, size, offset)

    monkeypatch.setattr(os, "pread", pread)
    away = [f for f in made.frames if f.offset < page.stop and made.whole(f).stop > page.start]
    assert read(tmp_path) == PlaceSet(made.ranges([f for f in made.frames if f not in away]))
    there = made.path.read_bytes
    made.write(made.data[: page.stop])
    found = run(tmp_path)
    assert len(there()) == page.stop
    assert found.damage[-1].harm is Harm.UNREAD
    assert "not cut off" in found.damage[-1].detail
    assert not list(tmp_path.glob("*.broken*"))


def test_only_of_an_epochs_last_segment_payloads_are_read(tmp_path: Path) -> None:
    """So that opening takes seconds; whoever reads the others tells what is broken in them."""
    made = [make_segment(tmp_path, number, [3], epoch=5, first=3 * number) for number in (1, 2)]
    for segment in made:
        data = bytearray(segment.data)
        data[segment.frames[0].offset + 40] ^= 1
        segment.write(bytes(data))
    assert [(d.harm, d.file) for d in run(tmp_path).damage] == [(Harm.TORN_TAIL, str(made[1].path))]
    reader = LogReader([tmp_path])
    assert read_ranges(reader) == []
    assert [(d.harm, d.file, d.rows) for d in reader.damage] == [(Harm.PAYLOAD, str(made[0].path), 3)]


def test_the_number_of_copies_is_bounded(tmp_path: Path) -> None:
    """A segment that is broken everywhere does not fill the folder with files."""
    made = make_segment(tmp_path, 1, [1] * (2 * BROKEN_SPANS_MAX + 20))
    make_segment(tmp_path, 2, [1], first=len(made.frames))
    data = bytearray(made.data)
    for frame in made.frames[::2]:
        data[frame.offset + 9] ^= 1
    made.write(bytes(data))
    found = run(tmp_path)
    assert len([d for d in found.damage if d.harm is Harm.HEADER]) == BROKEN_SPANS_MAX + 10
    assert len(list(tmp_path.glob("*.broken"))) == BROKEN_SPANS_MAX
    assert made.path.read_bytes() == bytes(data)


def test_too_many_open_files_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says nothing of the log, and a log that looks empty would be begun anew."""
    make_segment(tmp_path, 1, [1])

    def refuse(path: Path) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(segment_module.Segment, "open", refuse)
    with pytest.raises(OSError, match="Too many open files"):
        run(tmp_path)
    with pytest.raises(OSError, match="Too many open files"):
        list(LogReader([tmp_path]).entries())


def test_a_folder_that_is_none_is_told(tmp_path: Path) -> None:
    """The other one is read."""
    (tmp_path / "file").write_bytes(b"")
    make_segment(tmp_path, 1, [1])
    found = recover([tmp_path / "file", tmp_path], name=NAME)
    assert [(d.harm, d.file) for d in found.damage] == [(Harm.UNREADABLE, str(tmp_path / "file"))]
    assert len(found.segments) == 1


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 40), st.sampled_from([1, 1, 1, 2, 9]), st.booleans(), st.integers(0, 1))
    ),
    st.data(),
)
def test_runs_say_what_frames_say(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[tuple[int, int, bool, int]], data: st.DataObject
) -> None:
    """Whatever the frames are, whatever is broken, and wherever the file ends: the same frames, holes and sequences."""
    made = make_segment(
        tmp_path_factory.mktemp("log"),
        1,
        [rows if kind == Kind.ROWS else (kind, bytes(200 * rows)) for rows, kind, _, _ in pieces],
        tail=64,
        skip=lambda index: pieces[index][3],
    )
    broken = bytearray(made.data)
    for frame, (_, _, is_broken, _) in zip(made.frames, pieces, strict=True):
        broken[frame.offset + 9] ^= is_broken
    size = data.draw(st.integers(made.preamble.frames_from, len(broken)))
    found = bytes(broken[:size])
    expected: list[tuple[int, int, int, int] | Hole] = []
    for item in scan(found, size, made.preamble):
        if isinstance(item, Hole):
            expected.append(item)
            continue
        assert isinstance(item, Frame)
        stop = item.header.first + (item.header.rows if item.header.kind == Kind.ROWS else 0)
        before = expected[-1] if expected else None
        if isinstance(before, tuple) and not isinstance(before, Hole) and before[3] == item.header.first:
            expected[-1] = (before[0], item.end, before[2], stop)
        else:
            expected.append((item.offset, item.end, item.header.first, stop))
    assert [i[:4] if isinstance(i, Run) else i for i in runs(found, size, made.preamble)] == expected
