"""Purging: the oldest first, nothing that anybody still needs, and the checkpoint forgets only what is gone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from harness.wal_making import NAME, SCHEMA, make_segment, rows_of
from hypothesis import given
from hypothesis import strategies as st

from wal import names
from wal.checkpoint import Checkpoint
from wal.commit import GroupCommit
from wal.files import OsFiles
from wal.format import Preamble
from wal.options import LogOptions
from wal.places import PlaceSet, Range
from wal.purge import purge, purgeable
from wal.recovery import SegmentState, recover
from wal.seals import Seal
from wal.writer import LogWriter

OLD, NEW = 5, 6


def state(
    number: int, first: int, stop: int, *, epoch: int = OLD, folder: Path = Path("/log")
) -> SegmentState:
    path = folder / names.segment_name(number)
    return SegmentState(number, path, Preamble(number, epoch, first, 0, 0, NAME, b""), 8_192, stop)


def settled(*spans: tuple[int, int, int]) -> PlaceSet:
    return PlaceSet(Range(*span) for span in spans)


def seal(first: int, stop: int) -> Seal:
    return Seal(f"{first}-{stop}", (Range(OLD, first, stop),), stop - first, 0, 0)


def numbers(segments: Iterable[SegmentState]) -> list[int]:
    return [one.number for one in segments]


THREE = [state(3, 0, 10), state(4, 10, 20), state(7, 0, 10, epoch=NEW)]


@pytest.mark.parametrize(
    ("done", "active", "seals", "going"),
    [
        (settled((OLD, 0, 20), (NEW, 0, 10)), None, [], [3, 4, 7]),
        (settled((OLD, 0, 20), (NEW, 0, 10)), 7, [], [3, 4]),
        (settled((OLD, 0, 20), (NEW, 0, 10)), 3, [], []),
        (settled((OLD, 0, 19), (NEW, 0, 10)), None, [], [3]),
        (settled((OLD, 1, 20), (NEW, 0, 10)), None, [], []),
        (settled((NEW, 0, 20)), None, [], []),
        (settled((OLD, 0, 15)), None, [seal(0, 10), seal(10, 15)], [3]),
        (settled((OLD, 0, 15)), None, [seal(5, 16)], []),
        (settled((OLD, 0, 20)), 7, [seal(5, 15)], [3, 4]),
        (settled((OLD, 0, 20)), 7, [seal(15, 30)], [3]),
        (settled((OLD, 0, 15)), None, [seal(14, 16), seal(0, 15)], [3]),
    ],
    ids=[
        "all",
        "not-the-active-one",
        "nothing-from-the-active-one-on",
        "one-row-open",
        "the-oldest-holds-the-others",
        "of-another-epoch",
        "seals-settled",
        "a-seal-half-settled-holds-all-its-rows",
        "a-seal-over-two-segments",
        "a-seal-that-goes-beyond-what-is-settled",
        "a-settled-seal-beside-one-that-is-not",
    ],
)
def test_which_segments_may_go(
    done: PlaceSet, active: int | None, seals: list[Seal], going: list[int]
) -> None:
    """The oldest ones whose rows are all settled; a seal's rows settle together."""
    before = done.copy()
    assert numbers(purgeable(THREE, active, done, seals)) == going
    assert numbers(purgeable(THREE[::-1], active, done, seals)) == going
    assert done == before


@given(st.data())
def test_no_segment_goes_that_anybody_needs(data: st.DataObject) -> None:
    """Whatever is settled and sealed: none with a row that is not, none behind one that stays; and all others go."""
    cuts = data.draw(st.lists(st.integers(0, 8), min_size=1, max_size=6))
    segments, first = [], 0
    for number, rows in enumerate(cuts, start=1):
        segments.append(state(number, first, first + rows))
        first += rows
    done = PlaceSet(
        Range(OLD, a, a + n)
        for a, n in data.draw(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 20))))
    )
    seals = [seal(a, a + n) for a, n in data.draw(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 9))))]
    active = data.draw(st.none() | st.integers(1, len(cuts)))
    open_seals = [one for one in seals if not all(done.covers(part) for part in one.ranges)]
    needed = [
        one.number == active
        or any(
            not done.contains(OLD, place)
            or any(other.ranges[0].first <= place < other.ranges[0].stop for other in open_seals)
            for place in range(one.preamble.first, one.stop)
        )
        for one in segments
    ]
    wanted = needed.index(True) if True in needed else len(needed)
    assert numbers(purgeable(segments, active, done, seals)) == list(range(1, wanted + 1))


def test_a_seal_over_what_was_purged_holds_nothing() -> None:
    """Its first rows are gone, and a checkpoint that was lost no longer says that they were settled."""
    segments = [state(4, 10, 20), state(5, 20, 30)]
    assert numbers(purgeable(segments, 5, settled((OLD, 10, 20)), [seal(5, 15)])) == [4]
    assert purgeable(segments, 5, settled((OLD, 10, 20)), [seal(5, 25)]) == []


# -- on disk ------------------------------------------------------------------------------------------------------


@dataclass
class FakeLog:
    """What a writer says; `removed` is what it was told."""

    states: Sequence[SegmentState]
    epoch: int = NEW
    active: int | None = None
    told: list[Path] = field(default_factory=list)

    def segments(self) -> Sequence[SegmentState]:
        return self.states

    def removed(self, paths: Iterable[Path]) -> None:
        self.told += paths


def make(folder: Path) -> FakeLog:
    """Two epochs in four segments."""
    folder.mkdir(exist_ok=True)
    for number, epoch, first in [(1, OLD, 0), (2, OLD, 10), (3, NEW, 0), (4, NEW, 10)]:
        make_segment(folder, number, [10], epoch=epoch, first=first)
    return FakeLog(recover([folder], name=NAME).segments)


DONE = Checkpoint().resolve([Range(OLD, 0, 20), Range(NEW, 0, 20), Range(99, 0, 5)]).note({"kept": 1})


def there(*folders: Path) -> list[int]:
    return [number for number, _ in names.segments(folders)]


def test_what_is_purged_is_gone_and_forgotten(tmp_path: Path) -> None:
    """Epochs without segments leave the checkpoint, but the writer's own; notes stay."""
    log = make(tmp_path)
    log.active = 4
    purged = purge(log, [tmp_path], DONE)
    assert purged.numbers == (1, 2, 3)
    assert log.told == [tmp_path / names.segment_name(n) for n in (1, 2, 3)]
    assert there(tmp_path) == [4]
    assert purged.nbytes > 0
    assert purged.checkpoint.epochs == {NEW}
    assert purged.checkpoint.notes == {"kept": 1}
    assert purged.error is None


def test_without_an_active_segment_the_writers_own_stay(tmp_path: Path) -> None:
    """The next one may be active before anybody hears of it."""
    assert purge(make(tmp_path), [tmp_path], DONE).numbers == (1, 2)
    assert there(tmp_path) == [3, 4]


@pytest.mark.parametrize("content", [b"somebody's", b"\x89RWAL\r\n\x1a\x02\x00of a later version", b""])
def test_what_nobody_can_read_stays_and_so_do_all_epochs(content: bytes, tmp_path: Path) -> None:
    """It may be of any of them: once it is read again, its rows must not count as new."""
    log = make(tmp_path)
    stranger = tmp_path / names.segment_name(9)
    stranger.write_bytes(content)
    log.states = recover([tmp_path], name=NAME).segments
    purged = purge(log, [tmp_path], DONE)
    assert purged.numbers == (1, 2)
    assert purged.checkpoint == DONE
    assert stranger.read_bytes() == content


class FailingFiles(OsFiles):
    """The real file system, whose N-th unlink or sync of a folder does nothing and fails."""

    def __init__(self, at: int):
        self.calls: list[str] = []
        self._at = at

    def unlink(self, path: Path) -> None:
        self._count(path.name)
        super().unlink(path)

    def sync_folder(self, folder: Path) -> None:
        self._count("sync")
        super().sync_folder(folder)

    def _count(self, what: str) -> None:
        self.calls.append(what)
        if len(self.calls) == self._at:
            raise OSError(5, "Input/output error")


def test_every_call_may_fail(tmp_path: Path) -> None:
    """What is left is the younger part, nothing is forgotten that may be there, and the next time it goes on."""
    for at in range(1, 10):
        folder = tmp_path / str(at)
        log = make(folder)
        log.active = 4
        files = FailingFiles(at)
        purged = purge(log, [folder], DONE, files=files)
        assert (
            there(folder)
            == [n for n in (1, 2, 3, 4) if n not in purged.numbers]
            == list(range(len(purged.numbers) + 1, 5))
        )
        assert log.told == [folder / names.segment_name(n) for n in purged.numbers]
        if purged.error is None:
            assert len(files.calls) < at
            assert files.calls == [*(names.segment_name(n) for n in (1, 2, 3)), "sync"]
            return
        assert "Input/output error" in purged.error
        assert purged.checkpoint == DONE
        log.states = [one for one in log.states if one.number not in purged.numbers]
        again = purge(log, [folder], DONE)
        assert there(folder) == [4]
        assert again.checkpoint.epochs == {NEW}
    pytest.fail("it never came through")


def test_a_writer_goes_on_while_its_segments_are_purged(tmp_path: Path) -> None:
    """Each time all that is durable is settled: only the active segment stays, and the disk's use is known."""
    options = LogOptions(segment_bytes_min=16_384, segment_bytes_max=16_384, codec=None)
    commit = GroupCommit(group_ms=0)
    log = LogWriter.open(tmp_path, NAME, SCHEMA, commit=commit, options=options)
    try:
        checkpoint = Checkpoint()
        removed: list[int] = []
        first = 0
        for _ in range(30):
            appended = log.append(rows_of(log.epoch, first, 100))
            first += 100
            log.wait(appended.mark, 10)
            checkpoint = checkpoint.resolve([appended.range])
            purged = purge(log, [tmp_path], checkpoint)
            assert purged.error is None
            assert purged.checkpoint == checkpoint
            removed += purged.numbers
            assert there(tmp_path) == [log.active]
        assert removed == list(range(1, len(removed) + 1))
        assert len(removed) > 3
        assert log.stats().segments == 1
    finally:
        assert log.close(10)
        assert commit.close(10)
