"""Reading a log: every sound frame that holds something new, in the order of the segments, and what is wrong told.

Any process may read at any time, without a lock: while somebody writes, repairs or purges (`wal.walk`).

Rows are given out once: of what stands twice (a segment whose write or sync failed is written again), the first that
is read. Frames without rows come as often as they stand there. Does not repair, nor decide what is to be sent.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from wal.damage import Damage, Harm
from wal.errors import FormatError
from wal.format import Kind
from wal.frames import Frame
from wal.ledger import Ledger
from wal.places import Range
from wal.runs import stop_of
from wal.segment import Segment
from wal.walk import Walk, of_frame

_KINDS = frozenset(Kind)


class Entry(NamedTuple):
    """A frame, and the rows of it that are new: all, or fewer where an earlier frame had the others."""

    segment: int
    path: Path
    frame: Frame
    range: Range
    """Empty for frames without rows: `first` and `stop` are the sequence that the next row got."""

    @property
    def kind(self) -> Kind:
        """What the frame holds."""
        return Kind(self.frame.header.kind)


class Contents:
    """What an entry holds, read when it is asked for. Ask before the reader goes on."""

    __slots__ = ("_entry", "_ledger", "_payload", "_segment")

    def __init__(self, entry: Entry, segment: Segment, payload: bytes | None, ledger: Ledger):
        self._entry = entry
        self._segment = segment
        self._payload = payload
        self._ledger = ledger

    def payload(self) -> bytes | None:
        """The bytes that were written. None where they cannot be had any more, which is told."""
        if self._payload is None:
            self._payload = self._segment.payload(self._entry.frame)
            if self._payload is None:
                self._tell(self._segment.harm_of(self._entry.frame), "")
        return self._payload

    def rows(self) -> pa.RecordBatch | None:
        """The rows of the entry's range. None where there are none to be had, which is told."""
        payload = self.payload()
        if payload is None:
            return None
        entry = self._entry
        try:
            rows = self._segment.decode(entry.frame, payload)
        except FormatError as error:
            self._tell(Harm.UNDECODABLE, str(error))
            return None
        begin = entry.range.first - entry.frame.header.first
        return rows if entry.range.rows == rows.num_rows else rows.slice(begin, entry.range.rows)

    def _tell(self, harm: Harm, detail: str) -> None:
        damage = of_frame(harm, self._entry.path, self._entry.frame, detail)
        self._ledger.unmeet(damage, self._entry.range)


class LogReader:
    """See the module. One pass at a time; each begins with the oldest segment.

    Args:
        folders: of the log, in any order; one that does not exist holds nothing.
        name: of the log. Segments of another one are told and left out; without a name nobody looks at theirs.
    """

    def __init__(self, folders: Sequence[Path], *, name: str | None = None):
        self._folders = list(folders)
        self._name = name
        self._ledger = Ledger()

    @property
    def damage(self) -> list[Damage]:
        """What the newest pass has met by now. Rows that look lost and are found later are taken off again."""
        return self._ledger.damage

    def entries(self, *, check: bool = True) -> Iterator[tuple[Entry, Contents]]:
        """All there is now, up to the end.

        Args:
            check: look at each payload; without, only headers are, and `Contents` tells when it finds a broken one.

        Raises:
            OSError: of this process and not of the log, such as too many open files.
        """
        return self._entries(check, None)

    def follow(
        self, *, stop: Callable[[], bool], poll_s: float, check: bool = True
    ) -> Iterator[tuple[Entry, Contents]]:
        """All there is, and all that comes, until `stop()` is true: it is asked before each entry and each look."""

        def wait() -> bool:
            if stop():
                return False
            time.sleep(poll_s)
            return not stop()

        for found in self._entries(check, wait):
            if stop():
                return
            yield found

    def _entries(self, check: bool, wait: Callable[[], bool] | None) -> Iterator[tuple[Entry, Contents]]:
        ledger = self._ledger = Ledger()
        walk = Walk(self._folders, ledger, name=self._name, check=check, wait=wait)
        for number, segment, frame, payload in walk.frames():
            header, path = frame.header, segment.path
            rows = Range(segment.preamble.epoch, header.first, stop_of(frame))
            fresh = ledger.meet(rows, path, frame.offset, frame.end - frame.offset)
            if header.kind not in _KINDS:
                continue
            # Without rows: one entry. With rows: none, or several where others' rows lie between them.
            for part in fresh if rows.rows else [rows]:
                entry = Entry(number, path, frame, part)
                yield entry, Contents(entry, segment, payload, ledger)
