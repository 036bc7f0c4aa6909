"""A log whose disk fails, fills up, hangs or loses power: what was told to be on disk is read back, once."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pathlib
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from harness.faulty_files import CALLS, Failing, FaultyFiles, Hanging
from harness.wal_log import SCHEMA, SMALL, append, read, rows, until

from wal import names
from wal.commit import GroupCommit
from wal.damage import Harm
from wal.errors import LogFull
from wal.options import LogOptions, Sync
from wal.writer import LogWriter

TESTS = pathlib.Path(__file__).parents[1]


@pytest.fixture
def commit() -> Iterator[GroupCommit]:
    commit = GroupCommit(group_ms=0)
    yield commit
    commit.close(5)


def opened(
    folder: pathlib.Path, commit: GroupCommit, files: FaultyFiles, second: pathlib.Path | None
) -> LogWriter:
    """Open it, again if the disk fails in that."""
    for _ in range(3):
        with contextlib.suppress(OSError):
            return LogWriter.open(
                folder, "t", SCHEMA, commit=commit, options=SMALL, files=files, second=second
            )
    return LogWriter.open(folder, "t", SCHEMA, commit=commit, options=SMALL, files=files, second=second)


def work(writer: LogWriter) -> None:
    """So much that the log rotates twice."""
    for n in range(10):
        append(writer, 40, width=100)
        if n % 2:
            append(writer, 1)
        writer.wait(writer.append_seal(b"{}"), 20)


HOW = {
    "EIO": (errno.EIO, "before", CALLS),
    "ENOSPC": (errno.ENOSPC, "before", CALLS),
    "done-and-EIO": (errno.EIO, "after", CALLS),
    "short": (errno.EIO, "short", ("pwrite",)),
}


@pytest.mark.parametrize("folders", [1, 2])
@pytest.mark.parametrize("how", HOW)
def test_whichever_call_fails_nothing_is_lost(tmp_path: pathlib.Path, how: str, folders: int) -> None:
    """The N-th call of the file system fails, for each N until all are made: no append and no wait does. What was told
    to be on disk is read back, in order and once, and the log is written again without being told to."""
    error, when, calls = HOW[how]
    nth = 0
    while True:
        nth += 1
        first, second = tmp_path / f"{nth}", (tmp_path / f"{nth}-2" if folders == 2 else None)
        commit = GroupCommit(group_ms=0)
        files = FaultyFiles(failing := Failing(nth, error, how=when, calls=calls))
        files.error = error
        writer = opened(first, commit, files, second)
        work(writer)
        assert writer.close(20)
        assert commit.close(5)
        there = [folder for folder in (first, second) if folder is not None]
        assert read(*there) == {writer.epoch: list(range(writer.stats().rows_appended))}, nth
        assert not files.opened
        if not failing.struck:
            break
        if how == "short":
            assert not writer.stats().failures
    assert len(writer.segments()) >= 3


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_a_disk_that_fails_for_ever_loses_nothing_and_comes_back(tmp_path: pathlib.Path, error: int) -> None:
    """From the N-th call on every call fails: appending goes on until memory's bound, and says so then; nothing is told
    to be on disk that is not; when the disk is back, everything is written, though nobody says that it is."""
    nth, struck = 5, True
    while struck:
        nth += 3
        folder = tmp_path / f"{nth}"
        commit = GroupCommit(group_ms=0)
        files = FaultyFiles(failing := Failing(nth, error, forever=True))
        options = replace(SMALL, pending_bytes_max=100_000)
        writer = LogWriter.open(folder, "t", SCHEMA, commit=commit, options=options, files=files)
        for _ in range(20):
            append_and_look(writer)
        struck = bool(failing.struck)
        if struck:
            while not writer.stats().recovering:  # so far only the next segment could not be made
                append_and_look(writer)
            full = fill(writer)
            assert "nothing can be written: OSError" in full
            assert writer.stats().pending_bytes <= options.pending_bytes_max
            told = writer.synced_rows
            assert read(folder).get(writer.epoch, [])[:told] == list(range(told))
        failing.heal()
        until_well(writer)
        work(writer)
        assert writer.close(20)
        assert commit.close(5)
        assert read(folder) == {writer.epoch: list(range(writer.stats().rows_appended))}, nth
        assert not files.opened


def append_and_look(writer: LogWriter) -> None:
    """Append rows, and wait until they are on disk or something failed."""
    if not writer.stats().recovering:
        mark = append(writer, 40).mark
        until(lambda: writer.synced_mark >= mark or writer.stats().recovering)


def until_failing(writer: LogWriter) -> None:
    until(lambda: writer.stats().recovering, "failing")


def until_well(writer: LogWriter) -> None:
    until(lambda: not writer.stats().recovering, "writing again")


def fill(writer: LogWriter) -> str:
    """Append until it is refused; what it says then."""
    while True:
        try:
            writer.append(rows(writer.stats().rows_appended, 100))
        except LogFull as error:
            return str(error)


def test_with_a_second_folder_nothing_waits_for_the_first(
    tmp_path: pathlib.Path, commit: GroupCommit
) -> None:
    """The first one fails for ever: all goes to the second one, at once; numbers grow over both."""
    first, second = tmp_path / "first", tmp_path / "second"
    failing = Failing(1, errno.EIO, forever=True, calls=("fdatasync", "create"), below=first)
    failing.healed = True
    files = FaultyFiles(failing)
    writer = LogWriter.open(first, "t", SCHEMA, commit=commit, options=SMALL, files=files, second=second)
    writer.wait(append(writer, 10).mark, 20)
    failing.healed = False
    work(writer)
    assert writer.close(20)
    assert read(first, second) == {writer.epoch: list(range(writer.stats().rows_appended))}
    assert [number for number, _ in names.segments([first])] == [1]
    assert min(names.segments([second]))[0] == 2
    assert writer.stats().suspects == (1,)


def test_a_first_folder_that_is_spared_takes_what_the_second_does_not(
    tmp_path: pathlib.Path, commit: GroupCommit
) -> None:
    """Its disk is full by a limit that leaves some room: that goes before nothing is taken. The second one is not asked
    at each rotation, but at once when the first fails, too."""
    first, second = tmp_path / "first", tmp_path / "second"
    failing = {folder: Failing(1, errno.EIO, forever=True, below=folder) for folder in (first, second)}
    failing[first].healed = True

    def rule(number: int, call: str, path: pathlib.Path) -> str | None:
        return next(
            (rule(number, call, path) for below, rule in failing.items() if below in path.parents), None
        )

    files = FaultyFiles(rule)
    writer = LogWriter.open(first, "t", SCHEMA, commit=commit, options=SMALL, files=files, second=second)
    writer.spare_first(True)
    work(writer)
    assert {state.path.parent for state in writer.segments()} == {first}
    assert len(writer.segments()) > 2
    assert writer.stats().failures == 1
    failing[first].healed, failing[second].healed = False, True
    work(writer)
    assert writer.segments()[-1].path.parent == second
    assert writer.close(20)
    assert read(first, second) == {writer.epoch: list(range(writer.stats().rows_appended))}


def test_the_second_folder_does_not_wait_for_what_hangs_in_the_first(
    tmp_path: pathlib.Path, commit: GroupCommit
) -> None:
    """The next segment was being made there when the active one failed."""
    first, second = tmp_path / "first", tmp_path / "second"
    hanging = Hanging(("fsync",), first / names.new_name(2))
    failing = Failing(1, errno.EIO, forever=True, calls=("fdatasync",), below=first)
    failing.healed = True

    def rule(number: int, call: str, path: pathlib.Path) -> str | None:
        hanging(number, call, path)
        return failing(number, call, path)

    files = FaultyFiles(rule)
    writer = LogWriter.open(first, "t", SCHEMA, commit=commit, options=SMALL, files=files, second=second)
    while not hanging.hanging.is_set():
        writer.wait(append(writer, 10).mark, 20)
    failing.healed = False
    writer.wait(append(writer, 1).mark, 20)
    work(writer)
    assert not writer.close(0.1) or files.opened  # the lock is held while something may come of the hung call
    hanging.release()
    until(lambda: not files.opened, "everything let go of")
    assert read(first, second) == {writer.epoch: list(range(writer.stats().rows_appended))}
    assert names.unfinished([first, second]) == []


def test_a_descriptor_whose_sync_failed_is_never_used_again(
    tmp_path: pathlib.Path, commit: GroupCommit
) -> None:
    """But to be closed: the next sync of it would say that all is well, and it is not."""
    used: list[tuple[str, str]] = []
    failing = Failing(2, errno.EIO, calls=("fdatasync",))

    def rule(number: int, call: str, path: pathlib.Path) -> str | None:
        used.append((call, path.name))
        return failing(number, call, path)

    writer = LogWriter.open(tmp_path, "t", SCHEMA, commit=commit, files=FaultyFiles(rule))
    writer.wait(append(writer, 10).mark, 20)
    writer.wait(append(writer, 10).mark, 20)
    assert failing.struck == 1
    syncs = [
        n for n, (call, name) in enumerate(used) if call == "fdatasync" and name == names.segment_name(1)
    ]
    assert len(syncs) == 2
    assert [call for call, name in used[syncs[1] + 1 :] if name == names.segment_name(1)] == ["close"]
    assert writer.stats().suspects == (1,)
    assert (tmp_path / names.segment_name(1)).exists()
    [_, again] = writer.segments()
    assert again.preamble.first == 10
    assert again.preamble.epoch == writer.epoch
    assert writer.close(5)


def test_a_hung_sync_holds_up_nobody_else(tmp_path: pathlib.Path) -> None:
    """Logs beside it are written and synced, though every usual thread hangs; closing comes back in time, says that
    not all is on disk, and keeps the lock, since the call may still do something to the file."""
    commit = GroupCommit(group_ms=0, threads=2)
    files = FaultyFiles(hanging := Hanging(("fdatasync",), tmp_path / "hung"))
    hung = [
        LogWriter.open(tmp_path / "hung" / f"{n}", f"h{n}", SCHEMA, commit=commit, files=files)
        for n in range(3)
    ]
    marks = [append(writer, 10).mark for writer in hung]
    assert hanging.hanging.wait(10)
    append(hung[0], 10)  # what nobody writes any more keeps no lock, either
    flowing = LogWriter.open(tmp_path / "flowing", "f", SCHEMA, commit=commit, files=files)
    for _ in range(20):
        flowing.wait(append(flowing, 10).mark, 20)
    assert [writer.synced_mark for writer in hung] == [0, 0, 0]
    assert flowing.close(5)
    begun_s = time.monotonic()
    assert not hung[0].close(0.1)
    assert not commit.close(0.3)
    assert time.monotonic() - begun_s < 5
    hanging.release()
    until(lambda: not files.opened, "everything let go of")
    assert marks == [1, 1, 1]
    commit = GroupCommit(group_ms=0)
    again = LogWriter.open(tmp_path / "hung" / "0", "h0", SCHEMA, commit=commit)
    assert again.close(5)
    assert commit.close(5)


@pytest.mark.parametrize("sync", Sync, ids=lambda sync: sync.value)
def test_a_log_that_cannot_be_written_closes_in_time(
    tmp_path: pathlib.Path, sync: Sync, commit: GroupCommit
) -> None:
    """And says that not all is on disk; the lock is free then."""
    files = FaultyFiles(Failing(1, errno.EIO, forever=True, calls=("fsync",)))
    options = replace(SMALL, sync=sync)
    writer = LogWriter.open(tmp_path, "t", SCHEMA, commit=commit, options=options, files=files)
    append(writer, 10)
    until_failing(writer)
    begun_s = time.monotonic()
    assert not writer.close(0.1)
    assert not writer.close(0.1)
    assert time.monotonic() - begun_s < 2
    assert not files.opened
    again = LogWriter.open(tmp_path, "t", SCHEMA, commit=commit)
    assert again.close(5)


# -- killed -------------------------------------------------------------------------------------------------------

KILLED = """
import os, pathlib, sys
from harness.faulty_files import FaultyFiles, Killing
from harness.wal_log import SCHEMA, SMALL, append
from wal.commit import GroupCommit
from wal.writer import LogWriter

call, nth, after = sys.argv[2], int(sys.argv[3]), sys.argv[4] == "after"
commit = GroupCommit(group_ms=0)
files = FaultyFiles()
writer = LogWriter.open(pathlib.Path(sys.argv[1]), "t", SCHEMA, commit=commit, options=SMALL, files=files)
files.rule = Killing(call, nth, after=after)
while True:
    appended = append(writer, 40)
    writer.wait(appended.mark, 20)
    os.write(1, f"{writer.epoch} {appended.range.stop}\\n".encode())
    append(writer, 1)
"""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("call", "nth"),
    [
        *(("pwrite", nth) for nth in (1, 2, 4, 9)),
        *(("fdatasync", nth) for nth in (1, 5)),
        *((call, nth) for call in ("create", "fsync", "rename", "sync_folder") for nth in (1, 2, 3)),
        ("close", 1),
    ],
)
def test_what_was_waited_for_survives_kill_9(tmp_path: pathlib.Path, call: str, nth: int, when: str) -> None:
    """A process that appends and waits is killed at every step of writing, rotating and preparing: whoever opens the
    log next finds all that was waited for, nothing invented, and writes on with other numbers and another epoch."""
    child = subprocess.run(
        [sys.executable, "-c", KILLED, tmp_path, call, str(nth), when],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env=os.environ | {"PYTHONPATH": str(TESTS)},
    )
    assert child.returncode == -signal.SIGKILL, child.stderr
    last = child.stdout.splitlines()[-1].split() if child.stdout else ["0", "0"]
    epoch, told = (int(word) for word in last)
    commit = GroupCommit(group_ms=0)
    writer = LogWriter.open(tmp_path, "t", SCHEMA, commit=commit, options=SMALL)
    work(writer)
    assert writer.close(5)
    assert commit.close(5)
    found = read(tmp_path)
    assert found.pop(writer.epoch) == list(range(writer.stats().rows_appended))
    [before] = found.values() or [[]]
    assert before == list(range(len(before)))
    assert len(before) >= told
    assert not told or [epoch] == list(found)


# -- real disks ---------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A file system of 3 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    with mounted(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], folder):
        yield folder


@contextlib.contextmanager
def mounted(command: list[str], folder: pathlib.Path) -> Iterator[None]:
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.root
def test_a_full_disk_that_gets_room_again(small_disk: pathlib.Path, commit: GroupCommit) -> None:
    """Rows are taken as long as memory has room; what was told to be on disk stays; with room everything is written, in
    order, by itself. A log opens on the full disk, too."""
    filler = small_disk / "filler"
    folder = small_disk / "log"
    options = LogOptions(segment_bytes_min=262_144, pending_bytes_max=1_000_000, codec=None)
    writer = LogWriter.open(folder, "t", SCHEMA, commit=commit, options=options)
    writer.wait(append(writer, 100).mark, 20)
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4_096)):
            pass
    other = LogWriter.open(small_disk / "other", "u", SCHEMA, commit=commit, options=options)
    append(other, 10)
    fill(writer)
    # The rows were taken faster than the first of them was tried.
    until(lambda: "No space left" in writer.stats().last_error, "a write that found the disk full")
    told = writer.synced_rows
    assert told >= 100
    assert read(folder)[writer.epoch][:told] == list(range(told))
    filler.unlink()
    until_well(writer)
    until_well(other)
    writer.wait(append(writer, 10).mark, 20)
    assert writer.close(10)
    assert other.close(10)
    assert read(folder) == {writer.epoch: list(range(writer.stats().rows_appended))}
    assert read(small_disk / "other") == {other.epoch: list(range(10))}
    assert writer.stats().suspects == ()


@pytest.mark.root
def test_a_nearly_full_disk_is_used_to_its_end(small_disk: pathlib.Path, commit: GroupCommit) -> None:
    """Where the next segment, twice as large, does not fit, a small one does."""
    options = LogOptions(segment_bytes_min=131_072, pending_bytes_max=100_000, codec=None)
    writer = LogWriter.open(small_disk / "log", "t", SCHEMA, commit=commit, options=options)

    def full() -> bool:
        fill(writer)
        seen = os.statvfs(small_disk)
        return seen.f_bavail * seen.f_frsize < 140_000 and writer.stats().recovering

    until(full, "a disk with less than a segment free")
    assert len(writer.segments()) > 5
    told = writer.synced_rows
    assert read(small_disk / "log")[writer.epoch][:told] == list(range(told))
    assert not writer.close(0)


@contextlib.contextmanager
def ext4(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A file system whose power can be cut: what was not synced is gone then, names too."""
    image, folder = tmp_path / "image", tmp_path / "disk"
    folder.mkdir(exist_ok=True)
    if not image.exists():
        with image.open("wb") as file:
            file.truncate(64 * 1_048_576)
        subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    with mounted(["mount", "-o", "loop", str(image), str(folder)], folder):
        yield folder


SHUTDOWN, WITHOUT_FLUSHING = 0x8004587D, struct.pack("I", 2)

POWERED = """
import fcntl, os, pathlib, sys
from dataclasses import replace
from harness.faulty_files import FaultyFiles
from harness.wal_log import SCHEMA, SMALL, append
from wal.commit import GroupCommit
from wal.options import Sync
from wal.writer import LogWriter

disk, cut, nth, sync = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), Sync(sys.argv[4])
seen, rotated = 0, False
fd = os.open(disk, os.O_RDONLY)

def rule(number, call, path):
    global seen
    global rotated
    here = "first frame" if rotated and call == "pwrite" and path.suffix == ".wal" else call
    rotated = call == "sync_folder" or (rotated and here == call)
    seen += cut in (here, call)
    if cut in (here, call) and seen == nth:
        fcntl.ioctl(fd, 0x8004587D, bytes([2, 0, 0, 0]))
        os._exit(0)

commit = GroupCommit(group_ms=0)
files = FaultyFiles()
options = replace(SMALL, sync=sync, interval_ms=20)
writer = LogWriter.open(disk / "log", "t", SCHEMA, commit=commit, options=options, files=files)
files.rule = rule
while True:
    appended = append(writer, 40)
    if sync is Sync.ALWAYS:
        writer.wait(appended.mark, 20)
    elif appended.mark % 5 == 0:
        while writer.stats().rows_written < appended.range.stop:
            pass
    os.write(1, f"{writer.epoch} {writer.synced_rows}\\n".encode())  # at once: another thread ends the process
"""


@pytest.mark.root
@pytest.mark.parametrize("sync", Sync, ids=lambda sync: sync.value)
@pytest.mark.parametrize(
    ("cut", "nth"), [("fdatasync", 2), ("pwrite", 12), ("rename", 3), ("sync_folder", 3), ("first frame", 3)]
)
def test_a_power_cut_of_its_disk_takes_nothing_that_was_told(
    tmp_path: pathlib.Path, cut: str, nth: int, sync: Sync
) -> None:
    """Whatever is being done at that moment, also right after a rotation. With less syncing more is lost, and what is
    left reads as well: sequences without a hole, each row what it was."""
    with ext4(tmp_path) as disk:
        child = subprocess.run(
            [sys.executable, "-c", POWERED, disk, cut, str(nth), sync.value],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            env=os.environ | {"PYTHONPATH": str(TESTS)},
        )
        assert child.returncode == 0, child.stderr
    epoch, told = (int(word) for word in (child.stdout or "0 0").splitlines()[-1].split())
    assert told or sync is not Sync.ALWAYS
    with ext4(tmp_path) as disk:
        commit = GroupCommit(group_ms=0)
        writer = LogWriter.open(disk / "log", "t", SCHEMA, commit=commit, options=SMALL)
        assert {damage.harm for damage in writer.recovered.damage} <= {Harm.TORN_TAIL, Harm.PAYLOAD}
        work(writer)
        assert writer.close(5)
        assert commit.close(5)
        found = read(disk / "log")
        assert found.pop(writer.epoch) == list(range(writer.stats().rows_appended))
        before = found.get(epoch, [])
        assert before[:told] == list(range(told))
        assert before == list(range(len(before)))


@pytest.mark.root
def test_a_rotation_is_on_disk_before_its_rows_are_told(tmp_path: pathlib.Path) -> None:
    """Power is cut right after the first rows of a new segment were told: its name is there, and they are."""
    with ext4(tmp_path) as disk:
        commit = GroupCommit(group_ms=0)
        writer = LogWriter.open(disk / "log", "t", SCHEMA, commit=commit, options=SMALL)
        while len(writer.segments()) < 3:
            writer.wait(append(writer, 40).mark, 20)
        told = writer.synced_rows
        fd = os.open(disk, os.O_RDONLY)
        fcntl.ioctl(fd, SHUTDOWN, WITHOUT_FLUSHING)
        os.close(fd)
        commit.close(0.5)
    with ext4(tmp_path) as disk:
        assert read(disk / "log")[writer.epoch] == list(range(told))
