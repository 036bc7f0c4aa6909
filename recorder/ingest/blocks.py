"""Rows and dead letters of a file on their way to the recorder: collected, and handed over in blocks."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from recorder.bad_rows import BadRow
from recorder.identity import letter_log, source_seq
from recorder.ingest.record import BadRecord
from recorder.ingest.source import Format, Source
from recorder.own_rows import DEAD_LETTERS, dead_letter_row
from recorder.source_rows import SourceRow

BLOCK_ROWS = 4_096
"""Rows are handed over in blocks of about so many."""
LETTER_BYTES = 4 * 1024 * 1024
"""Dead letters go sooner where their payloads are so large together."""


class Taker(Protocol):
    """What a run needs of the recorder."""

    def record_source(self, log: int, entries: list[SourceRow], *, wait: bool = True) -> int:
        """Take rows that keep their source's identities."""

    @property
    def recorder_run_id(self) -> str:
        """The recorder's own run, which its dead letters carry."""


class Place(NamedTuple):
    """Where in a file a row came from; counted as people count, from 1."""

    source: Source
    position: int

    def __str__(self) -> str:
        unit = "row" if self.source.format is Format.PARQUET else "line"
        return f"{self.source.name}, {unit} {self.position + 1:,}"


class Blocks:
    """What is not handed over yet. `table` is the one that all rows are for, empty where they name their own."""

    def __init__(self, taker: Taker, table: str):
        self._taker = taker
        self._table = table
        self._source: Source
        self._entries: list[SourceRow] = []
        self._letters: list[SourceRow] = []
        self._letter_bytes = 0

    def begin(self, source: Source) -> None:
        """What follows is of that file."""
        self._source = source

    @property
    def full(self) -> bool:
        """Whether it is time to submit."""
        return len(self._entries) + len(self._letters) >= BLOCK_ROWS

    def add(self, row: SourceRow) -> None:
        """A row for its table."""
        self._entries.append(row)

    def add_letter(self, bad: BadRecord, slot: int, ts_local: int) -> None:
        """A dead letter of what could not be made into a row; `ts_local` in ns."""
        seq = source_seq(bad.position, slot)
        payload_format = "binary" if self._source.format is Format.PARQUET else "text"
        row = BadRow(bad.reason, bad.detail, self._source.log, seq, bad.payload, payload_format)
        place = str(Place(self._source, bad.position))
        letter = dead_letter_row(self._taker.recorder_run_id, self._table, row, place)
        letter["ts_local"] = ts_local
        self._letters.append(SourceRow(DEAD_LETTERS, seq, letter))
        self._letter_bytes += len(bad.payload)
        if self._letter_bytes > LETTER_BYTES:
            self.submit()

    def submit(self) -> None:
        """Hand everything over; waits for room."""
        if self._entries:
            entries, self._entries = self._entries, []
            self._taker.record_source(self._source.log, entries, wait=True)
        if self._letters:
            letters, self._letters, self._letter_bytes = self._letters, [], 0
            self._taker.record_source(letter_log(self._source.log, self._table), letters, wait=True)
