"""Disks whose power can be cut: ext4 in a file, shut down without flushing its journal.

with PowerDisk(tmp_path / "disk") as disk:
    (disk.path / "file").write_text("not synced")
    disk.settle()          # all that is there now is on it for good
    disk.cut()             # from here on every call fails; what was not synced is gone
    ...                    # end whoever has files on it
    disk.come_back()       # as after a reboot

A cut loses data and names that were not synced. The journal is committed by syncs alone, and not by time.
"""

from __future__ import annotations

import fcntl
import os
import pathlib
import struct
import subprocess
import time
from typing import Self

import pytest

SHUTDOWN, WITHOUT_FLUSHING = 0x8004587D, struct.pack("I", 2)
COMMIT_S = 900
PATIENCE_S = 20.0


class PowerDisk:
    """See the module. `path` is where it is mounted. Skips the test where mounting is not possible."""

    def __init__(self, path: pathlib.Path, *, size_mib: int = 512):
        self.path = path
        self._image = path.with_name(f"{path.name}.image")
        self._size_bytes = size_mib << 20

    def settle(self) -> None:
        """What was written so far survives a cut."""
        subprocess.run(["sync", "-f", self.path], check=True)

    def cut(self) -> None:
        """Take its power away. Whoever works on it gets errors."""
        fd = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, SHUTDOWN, WITHOUT_FLUSHING)
        finally:
            os.close(fd)

    def come_back(self) -> None:
        """Mount it again. Nobody has a file open on it."""
        self._unmount()
        self._mount()

    def _mount(self) -> None:
        done = subprocess.run(
            ["mount", "-o", f"loop,commit={COMMIT_S}", self._image, self.path],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            pytest.skip(f"cannot mount here: {done.stderr.strip()}")

    def _unmount(self) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            done = subprocess.run(["umount", self.path], capture_output=True, text=True, check=False)
            if done.returncode == 0:
                return
            # The files of a process that was killed are let go of a little after it was waited for.
            assert time.monotonic() < deadline_s, done.stderr
            time.sleep(0.01)

    def __enter__(self) -> Self:
        if os.geteuid() != 0:
            pytest.skip("mounting needs root")
        self.path.mkdir(parents=True)
        with self._image.open("wb") as file:
            file.truncate(self._size_bytes)
        subprocess.run(["mkfs.ext4", "-q", "-F", self._image], check=True)
        self._mount()
        return self

    def __exit__(self, *_: object) -> None:
        if self.path.is_mount():  # also in use, where a test failed in the middle
            subprocess.run(["umount", "-l", self.path], check=True)
        self._image.unlink()
