"""Rows read back from a log by their places, each further on than the last: what left memory and is its turn now."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from pathlib import Path

import pyarrow as pa

from wal.places import Range
from wal.reader import Contents, Entry, LogReader

PATIENCE_S = 30.0
"""How long rows that were written are looked for at most."""


class Cursor:
    """Goes through a log once, from its beginning; after a `LookupError` it is of no use any more. One thread at a
    time.
    """

    def __init__(self, folders: Sequence[Path], name: str):
        self._entries = self._follow(LogReader(folders, name=name))
        self._until_s = 0.0
        self._entry: Entry | None = None
        self._rows: pa.RecordBatch | None = None
        self._at: Range | None = None

    def is_before(self, place: Range) -> bool:
        """Whether it can still come to this."""
        return self._at is None or (self._at.epoch == place.epoch and self._at.first <= place.first)

    def read(self, places: Sequence[Range]) -> list[pa.RecordBatch]:
        """The rows at these places, of one epoch and in order.

        Raises:
            LookupError: the log does not have all of them.
        """
        self._until_s = time.monotonic() + PATIENCE_S
        found = []
        for place in places:
            found += self._read(place)
        self._at = places[-1]
        return found

    def _read(self, place: Range) -> list[pa.RecordBatch]:
        found, at = [], place.first
        while at < place.stop:
            if self._entry is None or self._entry.range.epoch != place.epoch or self._entry.range.stop <= at:
                self._go_on(place)
                continue
            entry, rows = self._entry, self._rows
            if rows is None or entry.range.first > at:
                break
            stop = min(place.stop, entry.range.stop)
            found.append(rows.slice(at - entry.range.first, stop - at))
            at = stop
        if at < place.stop:
            raise LookupError(f"the log has no row {at} of {place}; run 'recorder wal verify'")
        return found

    def _go_on(self, place: Range) -> None:
        """To the next frame that may hold rows of a place."""
        for entry, contents in self._entries:
            if entry.range.epoch == place.epoch and entry.range.stop > place.first and entry.range.rows:
                self._entry, self._rows = entry, contents.rows()
                return
        raise LookupError(f"the log ends before {place}; run 'recorder wal verify'")

    def close(self) -> None:
        """Give its file back."""
        self._entries.close()

    def _follow(self, reader: LogReader) -> Generator[tuple[Entry, Contents]]:
        # Without a check of what lies between: only what is asked for is read.
        yield from reader.follow(stop=lambda: time.monotonic() > self._until_s, poll_s=0.01, check=False)
