"""Disks that hang: every call that would change something waits, and neither fails nor ends, until they go on.

with HangingDisk(tmp_path / "disk") as disk:
    with disk.hanging():
        ...                # whoever writes there waits
    ...                    # and has gone on

It is ext4 in a file, frozen. Whoever waits for it cannot be ended before it goes on, not by SIGKILL either; so it goes
on in every case: also when the process that had it hang is killed.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from typing import Self

import pytest

from .power import PowerDisk

HANG = 'fsfreeze -f "$0" && echo hangs && { read -r _; fsfreeze -u "$0"; }'
"""It goes on when whoever holds the pipe lets go of it, or ends."""


class HangingDisk(PowerDisk):
    """See the module. Skips the test where a disk cannot be mounted, or not be frozen."""

    @contextlib.contextmanager
    def hanging(self) -> Iterator[None]:
        """It hangs for as long as this lasts."""
        with subprocess.Popen(
            ["sh", "-c", HANG, self.path],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        ) as process:  # fmt: skip
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            if not process.stdout.readline():
                pytest.skip(f"cannot freeze a disk here: {process.stderr.read().strip()}")
            try:
                yield
            finally:
                process.stdin.close()
                assert process.wait() == 0, process.stderr.read()

    def __enter__(self) -> Self:
        if shutil.which("fsfreeze") is None:
            pytest.skip("fsfreeze is not installed")
        return super().__enter__()
