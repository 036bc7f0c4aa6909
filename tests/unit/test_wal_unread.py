"""Laws of what the disk does not give: it is told apart from what is lost, and comes when it can be read."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness.faulty_files import Unreadable
from harness.wal_making import EPOCH, NAME, Made, make_segment

from wal.damage import Harm
from wal.format import FRAME_HEADER_BYTES
from wal.places import PlaceSet, Range
from wal.reader import LogReader
from wal.replay import Replay


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Unreadable:
    return Unreadable(monkeypatch)


def three(folder: Path) -> list[Made]:
    """Segments of 9 rows each."""
    return [make_segment(folder, n + 1, [3, 3, 3], first=9 * n) for n in range(3)]


def replay(folder: Path) -> Replay:
    return Replay(LogReader([folder], name=NAME), PlaceSet(), batch_rows=1)


def rows(first: int, stop: int) -> Range:
    return Range(EPOCH, first, stop)


def given(found: Replay) -> list[Range]:
    return list(PlaceSet(one for batch in found.batches() for one in batch.ranges))


def test_what_is_damaged_is_lost_beside_what_is_not_read(tmp_path: Path, disk: Unreadable) -> None:
    """A frame that is not what was written is lost, whatever else cannot be read; when it can, all others come."""
    one, two, _ = three(tmp_path)
    data = bytearray(one.data)
    data[one.frames[1].offset + FRAME_HEADER_BYTES + 40] ^= 1
    one.write(bytes(data))
    disk.refuse(two.path)
    found = replay(tmp_path)
    assert (found.lost, found.unread) == ((rows(3, 6),), (rows(9, 18),))
    assert given(found) == [rows(0, 3), rows(6, 9), rows(18, 27)]
    assert [one.harm for one in found.damage if one.rows != 0] == [Harm.PAYLOAD, Harm.MISSING]
    disk.heal()
    found = replay(tmp_path)
    assert (found.lost, found.unread) == ((rows(3, 6),), ())
    assert given(found) == [rows(0, 3), rows(6, 27)]


def test_what_is_not_given_when_its_turn_comes_is_not_lost(tmp_path: Path, disk: Unreadable) -> None:
    """The log could be read when it was gone through. What was not given is not given by who goes on either."""
    two = three(tmp_path)[1]
    found = replay(tmp_path)
    disk.refuse(two.path)
    assert given(found) == [rows(0, 9), rows(18, 27)]
    assert (found.lost, found.unread, found.rows_to_go) == ((), (rows(9, 18),), 0)
    assert Harm.UNREAD in {one.harm for one in found.damage}
    disk.heal()
    other = found.without(PlaceSet([rows(0, 9), rows(18, 27)]))
    assert (given(other), other.lost, other.unread) == ([], (), (rows(9, 18),))
    assert given(replay(tmp_path)) == [rows(0, 27)]
