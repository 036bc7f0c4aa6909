"""What a reader makes of one record of a file, before a recorder sees it."""

from __future__ import annotations

from typing import Any, NamedTuple

from recorder.normalise.base import Message


class BadRecord(NamedTuple):
    """A record that makes no row: a dead letter with its bytes. `position` is its number in the file."""

    position: int
    reason: str
    detail: str
    payload: bytes
    ts_local: int = 0


class TableRow(NamedTuple):
    """A record that is a row of a table already, in the order of its row class, still to be validated."""

    position: int
    table: str
    row: tuple[Any, ...]


Record = Message | BadRecord | TableRow


class Chunk(NamedTuple):
    """Consecutive records. `file_bytes` is how much of the file was read so far."""

    records: list[Record]
    file_bytes: int
