"""What a test session leaves on the machine: processes, mounts, temporary files.

The session has a folder of its own for temporary files, and a variable that its processes inherit, so sessions beside
each other are told apart. What pytest keeps itself (`tmp_path` of the last sessions) is no concern here.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import secrets
import shutil
import tempfile
import time

import psutil

MARK = "COLDPATH_TEST_SESSION"
PATIENCE_S = 5.0
"""How long a process may take to end that was told to."""


class Watch:
    """From the start of a session to its end."""

    def __init__(self) -> None:
        self._own = os.environ[MARK] = secrets.token_hex(8)
        before = tempfile.gettempdir()
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", before)
        self._folder = pathlib.Path(tempfile.mkdtemp(prefix="recorder-tests-", dir=before))
        self._folder.chmod(0o755)  # tests of permissions have files in it that others may not read
        os.environ["TMPDIR"] = tempfile.tempdir = str(self._folder)
        self.folders = [self._folder]
        """Where mounts of this session would be."""
        self._since: dict[pathlib.Path, str] = {}

    def look(self, test: str) -> None:
        """After a test: what is in the folder now for the first time is from it."""
        there = set(self._folder.iterdir())
        self._since = {path: self._since.get(path, test) for path in there}

    def end(self) -> list[str]:
        """What is left, each in a few words. Temporary files are removed then; the rest is for a person to see."""
        left = [*self._processes(), *self._mounts()]
        left += [
            f"temporary file {path}, there since {self._since.get(path, 'the end of the session')}"
            for path in sorted(self._folder.iterdir())
        ]
        if not self._mounts():  # whatever is mounted in there would go too
            shutil.rmtree(self._folder, ignore_errors=True)
        return left

    def _processes(self) -> list[str]:
        deadline_s = time.monotonic() + PATIENCE_S
        while (found := self._running()) and time.monotonic() < deadline_s:
            time.sleep(0.05)
        return found

    def _running(self) -> list[str]:
        """Descendants, and whoever has our mark although its parent has gone."""
        found = {process.pid: process for process in psutil.Process().children(recursive=True)}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(MARK) == self._own:
                    found[process.pid] = process
        found.pop(os.getpid(), None)
        told = []
        for pid, process in sorted(found.items()):
            with contextlib.suppress(psutil.Error):
                if process.status() != psutil.STATUS_ZOMBIE:
                    told.append(f"process {pid}: {' '.join(process.cmdline())[:200]}")
        return told

    def _mounts(self) -> list[str]:
        mounts = pathlib.Path("/proc/self/mounts")
        points = [line.split()[1] for line in mounts.read_text().splitlines()] if mounts.exists() else []
        return [
            f"mount {point}"
            for point in points
            if any(pathlib.Path(point).is_relative_to(folder) for folder in self.folders)
        ]
