"""The lock of a log's folder: one holder, who is named, and who cannot leave it behind."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys

import pytest

from wal.errors import LogLocked
from wal.files import OS_FILES, OsFiles
from wal.lock import FolderLock
from wal.names import LOCK

HOLDER = """
import pathlib, sys
from wal.files import OS_FILES
from wal.lock import FolderLock
lock = FolderLock(pathlib.Path(sys.argv[1]), OS_FILES)
print("held", flush=True)
sys.stdin.read()
"""


def holder(folder: pathlib.Path) -> subprocess.Popen[str]:
    """A process that has the lock, until its input ends."""
    command = [sys.executable, "-c", HOLDER, str(folder)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    return child


def test_the_second_is_refused_by_name(tmp_path: pathlib.Path) -> None:
    """Process, program and since when; killed, the holder frees it, though its file stays."""
    child = holder(tmp_path)
    with child:
        with pytest.raises(
            LogLocked,
            match=rf"process {child.pid} \(.*python.*\), since 20\d\d-.*Z writes to this log; stop it",
        ):
            FolderLock(tmp_path, OS_FILES)
        child.send_signal(signal.SIGKILL)
        child.wait()
        FolderLock(tmp_path, OS_FILES).release()
    assert (tmp_path / LOCK).exists()


def test_a_process_refuses_itself(tmp_path: pathlib.Path) -> None:
    """Two writers in one process are two; let go of, it can be had again, and its file is the same one."""
    lock = FolderLock(tmp_path, OS_FILES)
    inode = (tmp_path / LOCK).stat().st_ino
    with pytest.raises(LogLocked, match=f"process {os.getpid()} "):
        FolderLock(tmp_path, OS_FILES)
    lock.release()
    lock.release()
    again = FolderLock(tmp_path, OS_FILES)
    assert (tmp_path / LOCK).stat().st_ino == inode
    again.release()


def test_a_lock_without_room_for_its_text_holds(tmp_path: pathlib.Path) -> None:
    """On a full disk it cannot say who holds it."""

    class Full(OsFiles):
        def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
            raise OSError(28, "No space left on device")

    lock = FolderLock(tmp_path, Full())
    with pytest.raises(LogLocked, match="another process, which left no name, writes to this log"):
        FolderLock(tmp_path, OS_FILES)
    lock.release()


def test_a_shorter_text_leaves_nothing_of_a_longer_one(tmp_path: pathlib.Path) -> None:
    """Of whoever held it before."""
    (tmp_path / LOCK).write_text("x" * 2_000)
    lock = FolderLock(tmp_path, OS_FILES)
    assert "x" * 10 not in (tmp_path / LOCK).read_text()
    lock.release()
