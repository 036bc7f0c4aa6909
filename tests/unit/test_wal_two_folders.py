"""One log in two folders, one of which was missing at an opening: both have segments of one number, and each counts."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from harness.wal_log import SCHEMA, SMALL, append, read, until
from hypothesis import given
from hypothesis import strategies as st

from wal import names
from wal.checkpoint import Checkpoint
from wal.commit import GroupCommit
from wal.files import OsFiles
from wal.format import Preamble
from wal.order import openings
from wal.places import Range
from wal.purge import purge
from wal.reader import LogReader
from wal.replay import Replay
from wal.seals import Seal, pack_seal
from wal.verify import verify
from wal.writer import LogWriter


@dataclass
class Place:
    """Two folders, either of which can be taken away."""

    first: Path
    second: Path
    commit: GroupCommit
    opened: list[LogWriter] = field(default_factory=list)

    @property
    def folders(self) -> list[Path]:
        return [self.first, self.second]

    def open(self) -> LogWriter:
        writer = LogWriter.open(
            self.first, "t", SCHEMA, commit=self.commit, options=SMALL, second=self.second
        )
        self.opened.append(writer)
        return writer

    def away(self, folder: Path) -> Callable[[], None]:
        """Not mounted; how to have it back. What was made in its place goes with it."""
        aside, under = folder.with_name("away"), folder.with_name("under")
        folder.rename(aside)

        def back() -> None:
            assert not list(folder.glob("*.wal"))
            folder.rename(under)
            aside.rename(folder)

        return back

    def numbers(self, folder: Path) -> list[int]:
        return [number for number, _ in names.segments([folder])]

    def files(self) -> set[Path]:
        return {path for _, path in names.segments(self.folders)}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    commit = GroupCommit(group_ms=0)
    made = Place(tmp_path / "first", tmp_path / "second", commit)
    yield made
    for writer in made.opened:
        assert writer.close(10)
    assert commit.close(10)


def write_segments(writer: LogWriter, count: int) -> None:
    """So many more segments, the last one begun."""
    upto = len(writer.segments()) + count
    while len(writer.segments()) < upto:
        writer.wait(append(writer, 50).mark, 20)


def seal(token: str, epoch: int, first: int, stop: int) -> Seal:
    return Seal(token, (Range(epoch, first, stop),), stop - first, 0, 0)


def twice(place: Place) -> tuple[int, int]:
    """Segments of equal numbers in both folders: the epochs of the opening that had both, and of the one that had not
    the second one. Each sealed rows of the first, in segments of which the later one has the lower number."""
    earlier = place.open()
    write_segments(earlier, 2)
    earlier.spare_first(True)
    write_segments(earlier, 3)
    earlier.wait(earlier.append_seal(pack_seal(seal("earlier", earlier.epoch, 0, 60))), 20)
    assert earlier.close(10)
    back = place.away(place.second)
    later = place.open()
    later.wait(later.append_seal(pack_seal(seal("later", earlier.epoch, 30, 80))), 20)
    write_segments(later, 2)
    assert later.close(10)
    back()
    assert set(place.numbers(place.first)) & set(place.numbers(place.second))
    return earlier.epoch, later.epoch


def all_rows(writer: LogWriter) -> list[Range]:
    return [Range(one.preamble.epoch, one.preamble.first, one.stop) for one in writer.segments()]


def test_every_segment_counts(place: Place) -> None:
    """Each of an equal number is told, with its size; all rows are read, once, and nothing is said to be wrong. New
    rows come under an epoch and numbers that nobody has."""
    epochs = twice(place)
    writer = place.open()
    assert not writer.recovered.damage
    assert {state.path for state in writer.segments()} == place.files()
    assert writer.stats().segments == len(place.files())
    assert writer.stats().disk_bytes == sum(path.stat().st_size for path in place.files())
    before = place.files()
    writer.wait(append(writer, 10).mark, 20)
    (made,) = place.files() - before
    assert int(made.stem) > max(int(path.stem) for path in before)
    found = read(*place.folders)
    assert list(found) == [*epochs, writer.epoch]
    assert len(set(found)) == 3
    verified = verify(place.folders, name="t")
    assert verified.whole
    assert (
        verified.rows
        == sum(map(len, found.values()))
        == Replay(LogReader(place.folders), Checkpoint()).rows_to_go
    )
    assert {one.path for one in verified.segments} == place.files()


def test_a_folder_that_comes_back_while_it_is_written(place: Place) -> None:
    """The next segment's number is above those in it: nobody who reads on is past it. Its own rows wait for the next
    opening."""
    earlier = place.open()
    write_segments(earlier, 3)
    earlier.spare_first(True)
    write_segments(earlier, 2)
    assert earlier.close(10)
    done = Checkpoint().resolve(
        one
        for one, state in zip(all_rows(earlier), earlier.segments(), strict=True)
        if state.path.parent == place.first
    )
    back = place.away(place.second)
    purging = place.open()
    purge(purging, place.folders, done)
    assert purging.close(10)
    later = place.open()
    write_segments(later, 1)
    assert later.active == 1
    back()
    taken = max(place.numbers(place.second))
    write_segments(later, 1)
    assert later.active is not None
    assert later.active > taken
    assert later.close(10)
    again = place.open()
    assert {state.path for state in again.segments()} == place.files()
    assert len(read(*place.folders)) == 2


def test_each_is_purged_by_its_own_rows(place: Place) -> None:
    """Those of the earlier opening before those of the later one, whatever their numbers are, and none for the other's
    sake. When all is settled all are gone, and nothing is remembered of their epochs."""
    earlier, later = twice(place)
    writer = place.open()
    writer.wait(append(writer, 10).mark, 20)
    rows = all_rows(writer)
    of = {
        epoch: {state.path for state in writer.segments() if state.preamble.epoch == epoch}
        for epoch in (earlier, later)
    }
    before = place.files()
    done = Checkpoint().resolve([one for one in rows if one.epoch == later])
    assert not purge(writer, place.folders, done).numbers
    done = Checkpoint().resolve([one for one in rows if one.epoch == earlier])
    purged = purge(writer, place.folders, done)
    assert before - place.files() == of[earlier]
    assert purged.checkpoint.epochs == set()
    assert {state.path for state in writer.segments()} >= of[later]
    purge(writer, place.folders, Checkpoint().resolve(rows))
    assert not place.files() & of[later]


class NotFrom(OsFiles):
    """The real file system, with a folder that nothing can be removed from."""

    def __init__(self, folder: Path):
        self.folder = folder

    def unlink(self, path: Path) -> None:
        if path.parent == self.folder:
            raise OSError(5, "Input/output error")
        super().unlink(path)


def test_one_that_stays_is_not_forgotten_for_one_that_went(place: Place) -> None:
    """They have one number; only one of them could be removed. The next time it goes on with the other."""
    twice(place)
    writer = place.open()
    writer.wait(append(writer, 10).mark, 20)
    done = Checkpoint().resolve(all_rows(writer))
    for folder in place.folders:
        assert purge(writer, place.folders, done, files=NotFrom(folder)).error
        assert {state.path for state in writer.segments()} == place.files()
    assert purge(writer, place.folders, done).error is None
    assert place.files() == {state.path for state in writer.segments()}
    assert {state.preamble.epoch for state in writer.segments()} <= {writer.epoch}


def test_of_two_seals_the_later_one_holds(place: Place) -> None:
    """Though it stands under a lower number: who made it did not have the folder with the other. The other way round
    its rows would look half sent, and the table be held."""
    twice(place)
    replay = Replay(LogReader(place.folders), Checkpoint())
    assert [one.token for one in replay.seals] == ["later"]


# -- the order of openings ------------------------------------------------------------------------------------------


def made(folder: str, number: int, epoch: int, at_ns: int) -> tuple[int, Path, Preamble]:
    return (number, Path(folder) / names.segment_name(number), Preamble(number, epoch, 0, at_ns, 0, "t", b""))


def in_order(*segments: tuple[int, Path, Preamble]) -> list[int]:
    ranks = openings(segments)
    return sorted(ranks, key=lambda epoch: ranks[epoch])


@given(st.lists(st.integers(0, 3), max_size=6), st.randoms())
def test_in_one_folder_numbers_say_it(at_ns: list[int], chance: object) -> None:
    """Whatever the clock did."""
    segments = [made("a", number, number // 2, at) for number, at in enumerate(at_ns)]
    chance.shuffle(segments)  # type: ignore[attr-defined]
    assert in_order(*segments) == sorted({number // 2 for number in range(len(at_ns))})


@pytest.mark.parametrize("at_ns", list(itertools.permutations((10, 20, 30))))
def test_what_two_folders_prove_stands_against_the_clock(at_ns: tuple[int, int, int]) -> None:
    """Openings without a common folder are in the order of their times, but for what a third one proves."""
    both, one, other = at_ns
    alone = [made("a", 7, 1, one), made("b", 3, 2, other)]
    assert in_order(*alone) == ([1, 2] if one < other else [2, 1])
    after = [made("a", 8, 3, both), made("b", 9, 3, both)]
    assert in_order(*alone, *after)[-1] == 3
    assert in_order(made("a", 1, 3, both), made("b", 2, 3, both), *alone)[0] == 3


def test_files_that_were_put_there_by_hand_have_an_order_too() -> None:
    """Where the folders contradict each other: that of their numbers."""
    assert in_order(made("a", 1, 1, 0), made("a", 2, 2, 0), made("b", 3, 2, 0), made("b", 4, 1, 0)) == [1, 2]


@pytest.mark.parametrize("second", [False, True], ids=["one folder", "two folders"])
def test_what_cannot_be_listed_is_not_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, second: bool
) -> None:
    """The disk gives files by name and not the folder's list, so that nobody knows which numbers are taken."""
    first, other = tmp_path / "first", tmp_path / "second"
    commit = GroupCommit(group_ms=0)

    def opened() -> LogWriter:
        where = {"second": other} if second else {}
        return LogWriter.open(first, "t", SCHEMA, commit=commit, options=SMALL, **where)

    writer = opened()
    writer.wait(append(writer, 100).mark, 5)
    assert writer.close(5)
    before = {path: path.read_bytes() for path in first.glob("*.wal")}
    with monkeypatch.context() as patched:
        for name in ("listdir", "scandir"):
            real = getattr(os, name)

            def refuse(path: Any = ".", *, real: Any = real) -> Any:
                if str(path) == str(first):
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
                return real(path)

            patched.setattr(os, name, refuse)
        writer = opened()
        until(lambda: bool(writer.recovered.damage), "the folder is told")
        appended = append(writer, 10)
        if second:
            writer.wait(appended.mark, 5)
        else:
            until(lambda: writer.stats().recovering, "it cannot write")
        assert {path: path.read_bytes() for path in before} == before
    writer.wait(appended.mark, 30)
    assert writer.close(5)
    commit.close(5)
    assert sum(map(len, read(first, *([other] if second else [])).values())) == 110
