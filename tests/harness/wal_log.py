"""Small logs for tests: rows whose value is their sequence, and what is read back of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from wal.commit import GroupCommit, Member
from wal.errors import LogFull
from wal.format import Kind
from wal.options import LogOptions
from wal.reader import LogReader
from wal.writer import Appended, LogWriter

SCHEMA = pa.schema([pa.field("n", pa.int64(), nullable=False), pa.field("text", pa.string())])
SMALL = LogOptions(segment_bytes_min=16_384, segment_bytes_max=32_768, codec=None)
"""Segments that are full after a few frames."""
PATIENCE_S = 20.0


class OneThread(GroupCommit):
    """A commit whose rounds are made by whoever asks for one."""

    def __init__(self) -> None:
        super().__init__()
        self._later: list[Callable[[], None]] = []

    def join(self, member: Member) -> None:
        pass

    def leave(self, member: Member) -> None:
        pass

    def submit(self, member: Member, job: Callable[[], None]) -> None:
        self._later.append(job)

    def due(self, member: Member, *, now: bool = False) -> None:
        if now:
            member.round()
            while self._later:
                self._later.pop()()


def rows(first: int, count: int, width: int = 40) -> pa.RecordBatch:
    """Rows with the values `first` and those after it, and a text that says which."""
    numbers = range(first, first + count)
    return pa.record_batch([list(numbers), [f"{n:0{width}d}" for n in numbers]], schema=SCHEMA)


def append(writer: LogWriter, count: int, width: int = 40) -> Appended:
    """Append so many more rows, each with its sequence as its value; waits while the log is full."""
    batch = rows(writer.stats().rows_appended, count, width)
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            appended = writer.append(batch)
        except LogFull:
            assert time.monotonic() < deadline_s
            time.sleep(0.002)
        else:
            assert appended.range.first == batch.column(0)[0].as_py()
            return appended


def read(*folders: Path) -> dict[int, list[int]]:
    """By epoch, the values of its rows in order. That each has its sequence as its value is asserted here, so that none
    is there twice, at another place, or with other columns."""
    found: dict[int, list[int]] = {}
    reader = LogReader(folders)
    for entry, contents in reader.entries():
        if entry.kind is not Kind.ROWS:
            continue
        batch = contents.rows()
        assert batch is not None, reader.damage
        values = batch.column(0).to_pylist()
        assert values == list(range(entry.range.first, entry.range.stop))
        assert [int(text[-20:]) for text in batch.column(1).to_pylist()] == values
        found.setdefault(entry.range.epoch, []).extend(values)
    for values in found.values():
        assert values == sorted(set(values))
    return found


def until(condition: Callable[[], bool], what: str = "the condition") -> None:
    """Wait until it is true."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s, f"{what} did not come true within {PATIENCE_S} s"
        time.sleep(0.001)
