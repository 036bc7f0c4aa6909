"""How long a large log takes to open after its process was killed, and to read back.

The log is written by a writer that is then killed, in a process of its own: its last segment is not cut, its lock is
free, and a new writer has to look what is there. What the kernel keeps of the files in memory is dropped first, as
after a restart of the machine.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.wal_sides import SYNC_TIMEOUT_S, TABLE, disk_bytes, fills
from recorder.cli.errors import Failure
from wal.commit import GroupCommit
from wal.errors import LogFull
from wal.names import segments
from wal.options import LogOptions
from wal.reader import LogReader
from wal.writer import LogWriter

SLICE_ROWS = 1_024
LOOK_EVERY = 64
"""Slices between two looks at the log's size."""


@dataclass(frozen=True)
class Opened:
    """What opening and reading a log took."""

    rows: int
    disk_bytes: int
    segments: int
    open_s: float
    read_s: float
    """Of decoding every row, checksums included, after it was opened."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "rows": self.rows,
            "disk_bytes": self.disk_bytes,
            "segments": self.segments,
            "open_s": self.open_s,
            "read_s": self.read_s,
            "read_rows_per_s": self.rows / self.read_s,
            "read_bytes_per_s": self.disk_bytes / self.read_s,
        }


def run_open(folder: Path, nbytes: int, options: LogOptions, rounds: int) -> list[Opened]:
    """Write a log of at least so many bytes, kill who wrote it, then open it and read it back, so many times.

    Raises:
        Failure: it could not be written, or what is read is not what was written.
    """
    written = _written_and_killed(folder, nbytes, options.codec)
    schema, found = fills(1, 1)[0].schema, []
    for _ in range(rounds):
        forget(folder)
        began_s = time.perf_counter()
        commit = GroupCommit()
        try:
            writer = LogWriter.open(folder, TABLE, schema, commit=commit, options=options)
            open_s = time.perf_counter() - began_s
            writer.close(SYNC_TIMEOUT_S)
        finally:
            commit.close(SYNC_TIMEOUT_S)
        began_s = time.perf_counter()
        rows = read_rows(folder)
        read_s = time.perf_counter() - began_s
        if rows != written:
            raise Failure(f"the log was given {written:,} rows, and {rows:,} are read back")
        found.append(Opened(rows, disk_bytes(folder), len(segments([folder])), open_s, read_s))
    return found


def read_rows(folder: Path) -> int:
    """Decode every row; how many there are."""
    reader = LogReader([folder])
    found = (contents.rows() for entry, contents in reader.entries(check=False) if entry.range.rows)
    return sum(rows.num_rows for rows in found if rows is not None)


def forget(folder: Path) -> None:
    """Ask the kernel to drop what it keeps of the folder's files in memory; where it cannot, they stay there."""
    if not hasattr(os, "posix_fadvise"):
        return
    for path in folder.iterdir():
        fd = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)


def _written_and_killed(folder: Path, nbytes: int, codec: str | None) -> int:
    """Rows on disk when the writer was killed."""
    command = [sys.executable, "-m", __name__, str(folder), str(nbytes), codec or ""]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            said = child.stdout.readline()
        finally:
            child.kill()
    if not said:
        raise Failure(f"the log at {folder} could not be written; see above")
    return int(said)


def _write(folder: Path, nbytes: int, codec: str | None) -> None:
    """Write a log of at least so many bytes, say how many rows that took, and wait to be killed."""
    slices = fills(SLICE_ROWS)
    writer = LogWriter.open(
        folder, TABLE, slices[0].schema, commit=GroupCommit(), options=LogOptions(codec=codec)
    )
    rows = mark = 0
    for number, one in enumerate(itertools.cycle(slices)):
        if number % LOOK_EVERY == 0 and writer.stats().disk_bytes >= nbytes:
            break
        while True:
            try:
                mark = writer.append(one).mark
                break
            except LogFull:
                time.sleep(0.001)
        rows += one.num_rows
    writer.wait(mark, SYNC_TIMEOUT_S)
    print(rows, flush=True)
    signal.pause()


if __name__ == "__main__":
    _write(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] or None)
