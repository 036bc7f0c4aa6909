"""One law for each piece that the log's safety hangs on, made so that no other piece can stand in for it.

`tests/mutations` takes the pieces out, one by one, and wants the law named for it to fail. So each of these says in its
assertion what went wrong.
"""

from __future__ import annotations

import itertools
import pathlib
import shutil
from dataclasses import replace

import pytest
from harness.forgetful_disk import Choose, ForgetfulDisk
from harness.wal_log import SCHEMA, SMALL, OneThread, rows

from wal.checkpoint import Checkpoint, CheckpointFile, pack_checkpoint
from wal.files import OS_FILES, Files
from wal.format import Kind
from wal.options import LogOptions, Sync
from wal.places import Range
from wal.purge import purge
from wal.reader import LogReader
from wal.segment import Segment
from wal.writer import LogWriter


def opened(folder: pathlib.Path, files: Files = OS_FILES, options: LogOptions = SMALL) -> LogWriter:
    return LogWriter.open(folder, "t", SCHEMA, commit=OneThread(), options=options, files=files)


def written(writer: LogWriter, numbers: range) -> Range:
    """Append rows with these values, in one frame that is synced, and told so."""
    appended = writer.append(rows(numbers.start, len(numbers)))
    for _ in range(10):
        if writer.synced_mark >= appended.mark:
            break
        writer.nudge()
    assert writer.synced_mark >= appended.mark, writer.stats()
    return appended.range


def values(folder: pathlib.Path) -> dict[int, dict[int, int]]:
    """By epoch, the value of each row by its sequence."""
    found: dict[int, dict[int, int]] = {}
    for entry, contents in LogReader([folder]).entries():
        if entry.kind is Kind.ROWS and (batch := contents.rows()) is not None:
            sequences = range(entry.range.first, entry.range.stop)
            found.setdefault(entry.range.epoch, {}).update(
                zip(sequences, batch.column(0).to_pylist(), strict=True)
            )
    return found


def keeping(names: bool, writes: bool) -> Choose:
    """A power cut that keeps all names that are not certain, or none, and all writes that are not, or none."""
    calls = itertools.count()
    return lambda below: below - 1 if (names if next(calls) == 0 else writes) else 0


@pytest.mark.parametrize(
    ("names", "writes"), [(True, False), (False, True)], ids=["writes are lost", "names are lost"]
)
def test_a_power_cut_takes_no_row_that_was_told_durable(
    tmp_path: pathlib.Path, names: bool, writes: bool
) -> None:
    """Neither where the disk forgets every write that was not synced, nor where it forgets every such name."""
    disk = ForgetfulDisk(tmp_path / "log")
    writer = opened(disk.folder, disk.process())
    for start in range(0, 600, 50):  # over several segments
        written(writer, range(start, start + 50))
    assert len(writer.segments()) > 2
    disk.power_cut(keeping(names, writes))
    left = values(disk.folder).get(writer.epoch, {})
    assert list(left) == list(range(600)), "durable rows are gone"


def test_no_segment_is_on_disk_before_the_one_it_follows(tmp_path: pathlib.Path) -> None:
    """Where syncs are rare: a power cut that keeps what was written last, and nothing else that is not certain, leaves
    no hole before it."""
    disk = ForgetfulDisk(tmp_path / "log")
    rarely = replace(SMALL, sync=Sync.INTERVAL, interval_ms=60_000)
    writer = opened(disk.folder, disk.process(), rarely)
    for start in range(0, 600, 50):
        writer.append(rows(start, 50))
        writer.nudge()
    last = writer.segments()[-1].path.name
    assert writer.stats().rows_written == 600
    fates = iter([3 * (name == last) for name, inode in disk.names.items() for _ in inode.changes])
    names = itertools.chain([True], itertools.repeat(False))
    disk.power_cut(lambda below: below - 1 if next(names) else next(fates))
    left = list(values(disk.folder).get(writer.epoch, {}))
    assert left == list(range(len(left))), "a hole before rows that are on disk"
    assert left


def test_rows_that_were_written_again_are_read_once(tmp_path: pathlib.Path) -> None:
    """The sync failed, and what it was of is on disk all the same: in two segments."""
    disk = ForgetfulDisk(tmp_path / "log")
    writer = opened(disk.folder, disk.process())
    written(writer, range(10))
    disk.failing["fsync"] = 1
    written(writer, range(10, 20))
    assert len(writer.segments()) == 2
    read = [entry.range for entry, _ in LogReader([disk.folder]).entries()]
    assert read == [Range(writer.epoch, 0, 10), Range(writer.epoch, 10, 20)], "rows are read twice"


def test_a_sync_that_failed_is_not_asked_again(tmp_path: pathlib.Path) -> None:
    """The next one of the same file would say that all is well; the rows are written anew before they are told."""
    disk = ForgetfulDisk(tmp_path / "log")
    writer = opened(disk.folder, disk.process())
    written(writer, range(10))
    disk.failing["fsync"] = 1
    written(writer, range(10, 20))
    assert writer.stats().failures == 1
    disk.power_cut(keeping(names=True, writes=False))
    left = values(disk.folder).get(writer.epoch, {})
    assert list(left) == list(range(20)), "durable rows are gone"


def test_a_flipped_bit_of_a_payload_costs_its_frame_and_makes_no_other_row(tmp_path: pathlib.Path) -> None:
    """It is Arrow all the same, and would be read as another number."""
    writer = opened(tmp_path)
    written(writer, range(10))
    written(writer, range(10, 20))
    assert writer.close(0)
    flip(next(tmp_path.glob("*.wal")), (3).to_bytes(8, "little") + (4).to_bytes(8, "little"))
    assert values(tmp_path) == {writer.epoch: {n: n for n in range(10, 20)}}, "rows are not what was written"


def test_a_flipped_bit_of_a_header_puts_no_row_at_another_place(tmp_path: pathlib.Path) -> None:
    """The first sequence of a frame: its rows would be confirmed, and replayed, as others."""
    writer = opened(tmp_path)
    written(writer, range(10))
    written(writer, range(10, 20))
    assert writer.close(0)
    [path] = tmp_path.glob("*.wal")
    with Segment.open(path) as segment:
        second = [item for item in segment.scan() if hasattr(item, "header")][1]
    data = bytearray(path.read_bytes())
    data[second.offset + 24] ^= 64
    path.write_bytes(data)
    assert values(tmp_path) == {writer.epoch: {n: n for n in range(10)}}, "rows stand where none was written"


def test_a_flipped_bit_of_a_preamble_is_made_good_by_its_copy(tmp_path: pathlib.Path) -> None:
    """The epoch of a segment: without it none of its rows could be read, or as rows of another epoch."""
    writer = opened(tmp_path)
    written(writer, range(10))
    assert writer.close(0)
    flip(next(tmp_path.glob("*.wal")), writer.epoch.to_bytes(8, "little"))
    assert values(tmp_path) == {writer.epoch: {n: n for n in range(10)}}, "rows are not under their epoch"


def flip(path: pathlib.Path, where: bytes) -> None:
    """The lowest bit of the byte where these bytes begin first."""
    data = bytearray(path.read_bytes())
    data[data.index(where)] ^= 1
    path.write_bytes(data)


def test_a_flipped_bit_of_a_checkpoint_vouches_for_nothing(tmp_path: pathlib.Path) -> None:
    """It would say of rows that were never sent that the database has them."""
    packed = pack_checkpoint(Checkpoint().confirm([Range(7, 0, 12)], at_ns=1, server="a"))
    assert packed.count(b" 0 12 ") == 1
    (tmp_path / "checkpoint").write_bytes(packed.replace(b" 0 12 ", b" 0 92 "))
    found, damage = CheckpointFile(tmp_path).read()
    assert found.done().missing_of(Range(7, 0, 92)) == [Range(7, 0, 92)], "rows count as sent that never were"
    assert damage is not None


def test_a_log_put_back_from_a_backup_gives_no_place_twice(tmp_path: pathlib.Path) -> None:
    """Both go on from the same bytes, the original and its copy; no row of one is taken for a row of the other."""
    writer = opened(tmp_path / "log")
    written(writer, range(10))
    assert writer.close(0)
    shutil.copytree(tmp_path / "log", tmp_path / "restored")
    places = []
    for name in ("log", "restored", "restored"):
        writer = opened(tmp_path / name)
        places.append(written(writer, range(10)))
        assert writer.close(0)
    found = values(tmp_path / "restored")
    assert not any(left.common(right) for left, right in itertools.combinations(places, 2)), (
        f"two rows have one place: {places}"
    )
    assert sum(len(epoch) for epoch in found.values()) == 30


def test_nothing_goes_that_is_confirmed_and_not_settled(tmp_path: pathlib.Path) -> None:
    """The database may lose it yet: the segments that hold it are purged when it is settled, and not before."""
    writer = opened(tmp_path)
    for start in range(0, 600, 50):
        written(writer, range(start, start + 50))
    held = len(writer.segments())
    assert held > 2
    checkpoint = Checkpoint().confirm([Range(writer.epoch, 0, 600)], at_ns=1, server="a")
    purged = purge(writer, [tmp_path], checkpoint)
    assert list(values(tmp_path).get(writer.epoch, {})) == list(range(600)), (
        "rows that are not settled are gone"
    )
    assert not purged.numbers
    purged = purge(writer, [tmp_path], checkpoint.settle(before_ns=2**60, server="a"))
    assert len(purged.numbers) == held - 1, "all but the one that is written"


@pytest.mark.parametrize(
    ("server", "before_s"), [("b", 1_000), ("a", 99)], ids=["another run", "within the grace"]
)
def test_only_what_a_run_that_goes_on_confirmed_long_ago_is_settled(server: str, before_s: int) -> None:
    """Neither what another run of the server confirmed, which may have lost it since; nor what it confirmed of late."""
    confirmed = Checkpoint().confirm([Range(7, 0, 10)], at_ns=100 * 10**9, server="a")
    settled = confirmed.settle(before_ns=before_s * 10**9, server=server)
    assert not settled.settled, "settled too early"
    assert confirmed.settle(before_ns=100 * 10**9, server="a").settled == (Range(7, 0, 10),)
