"""What fault tests share."""

from __future__ import annotations

import os
import pathlib
import subprocess
import tempfile
from collections.abc import Iterator

import pytest


@pytest.fixture
def mount() -> Iterator[pathlib.Path]:
    """An empty file system of 64 MB."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    folder = pathlib.Path(tempfile.mkdtemp())
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        folder.rmdir()
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")
    yield folder
    while folder.is_mount():  # a test that failed in the middle leaves what it had mounted over it
        subprocess.run(["umount", "-l", folder], check=True)
    folder.rmdir()
