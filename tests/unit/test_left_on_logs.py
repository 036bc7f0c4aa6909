"""What is left on a log that nobody writes, told from its files: also what a reader takes for being written."""

from __future__ import annotations

import pathlib

import pytest
from harness.faulty_files import Unreadable
from harness.wal_making import make_segment

from recorder.left_on_logs import left_on_logs
from recorder.unread_logs import remedy, unread_logs
from schemas.core.tables import PACK
from wal.damage import Harm
from wal.reader import LogReader


def test_the_broken_end_of_a_dead_log_is_told(tmp_path: pathlib.Path) -> None:
    """The header of the last frame is broken: to a reader that may be a frame that is being written, and it says
    nothing; nobody writes here, so it is damage, of rows that nobody can count."""
    folder = tmp_path / "wal" / "fills"
    made = make_segment(folder, 1, [10, 10])
    whole = left_on_logs([tmp_path / "wal"], {})["fills"]
    assert (whole.rows, whole.damage) == (20, ())
    data = bytearray(made.data)
    data[made.frames[-1].offset + 9] ^= 0xFF
    made.write(bytes(data))
    reader = LogReader([folder])
    assert sum(entry.range.rows for entry, _ in reader.entries()) == 10
    assert reader.damage == []
    found = left_on_logs([tmp_path / "wal"], {})["fills"]
    assert found.rows == 10
    (damage,) = found.damage
    assert (damage.harm, damage.offset, damage.rows) == (Harm.TORN_TAIL, made.frames[-1].offset, None)


def test_logs_that_are_named_are_not_looked_at(tmp_path: pathlib.Path) -> None:
    """Those that the asker has open itself."""
    for name in ("fills", "orders"):
        make_segment(tmp_path / "wal" / name, 1, [10], name=name)
    assert list(left_on_logs([tmp_path / "wal"], {}, besides={"fills"})) == ["orders"]


def test_a_folder_that_cannot_be_listed_hides_no_other(tmp_path: pathlib.Path) -> None:
    """Neither the first folder of the logs, gone with its disk, nor what is no log beside those in the second (such as
    lost+found)."""
    second = tmp_path / "second"
    make_segment(second / "fills", 1, [10])
    (tmp_path / "wal").write_bytes(b"no folder")
    assert {name: one.rows for name, one in left_on_logs([tmp_path / "wal", second], {}).items()} == {
        "fills": 10
    }


def test_a_log_that_cannot_be_read_is_told_though_nobody_can_count_its_rows(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To whoever starts a recorder that does not open it."""
    made = make_segment(tmp_path / "wal" / "fills", 1, [10])
    Unreadable(monkeypatch).refuse(made.path)
    unread = unread_logs([tmp_path / "wal"], {"fills": PACK.table("fills")}, read=())
    assert {name: one.rows for name, one in unread.items()} == {"fills": 0}
    assert str(made.path) in remedy(unread["fills"])
