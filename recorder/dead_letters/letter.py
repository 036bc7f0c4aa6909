"""One row of `dead_letters`, read back. Pure.

A letter's own identity `(_log, _seq)` is its name for people, `9f3c0a1b2c3d4e5f-12`. The identity of the row that it is
about, `(source_log, source_seq)`, is another one, and what a retry inserts it under.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from recorder.identity import UNDATED_NS, letter_log

Identity = tuple[int, int]
"""`_log` and `_seq`."""

_ID = re.compile(r"([0-9a-fA-F]{1,16})-(\d{1,20})")
_TEXTS = (
    "run_id", "correlation_id", "recorder_run_id", "table_name", "reason", "detail", "origin", "payload_format"
)  # fmt: skip
COLUMNS = (
    *_TEXTS, "source_log", "source_seq", "_log", "_seq", "toUnixTimestamp64Nano(ts_local) AS ts_ns",
    "length(payload) AS payload_bytes",
)  # fmt: skip
"""What is selected for a letter; `payload` beside them where its bytes are wanted."""


@dataclass(frozen=True)
class Letter:
    """A dead letter. `payload` is None where only its length was read; `source` None where it has no identity.

    `ts_local` is its time in ns: of a source's row or message its own, of all else when the letter was made.
    """

    id: Identity
    ts_local: int
    run_id: str
    correlation_id: str | None
    recorder_run_id: str
    table: str
    reason: str
    detail: str
    origin: str
    source: Identity | None
    payload_format: str
    payload_bytes: int
    payload: bytes | None = None

    @property
    def name(self) -> str:
        """What people call it."""
        return name_of(self.id)

    @property
    def of_a_source(self) -> bool:
        """Whether its row or message came from a bus or a file, and not from a producer in the recorder's process."""
        return self.source is not None and self.id[0] in (
            letter_log(self.source[0], self.table),
            letter_log(self.source[0], ""),
        )

    @property
    def dated_ns(self) -> int:
        """Its time, 0 where there was none."""
        return 0 if self.ts_local == UNDATED_NS else self.ts_local


def name_of(identity: Identity) -> str:
    """An identity as people write it."""
    return f"{identity[0]:016x}-{identity[1]}"


def parse_name(text: str) -> Identity:
    """The identity that a name says.

    Raises:
        ValueError: it is none.
    """
    found = _ID.fullmatch(text.strip())
    if found is None or int(found[2]) >= 2**64:
        raise ValueError(
            f"{text!r} names no dead letter; one is named as 9f3c0a1b2c3d4e5f-12, as dead-letters ls shows it"
        )
    return int(found[1], 16), int(found[2])


def letters_of(answer: pa.Table) -> Iterator[Letter]:
    """The letters of an answer to `COLUMNS`, with or without `payload`."""
    columns = {name: _values(answer[name]) for name in answer.schema.names}
    payloads = columns.get("payload", [None] * answer.num_rows)
    for n in range(answer.num_rows):
        text = {name: _text(columns[name][n]) for name in _TEXTS}
        source = columns["source_log"][n], columns["source_seq"][n]
        yield Letter(
            id=(columns["_log"][n], columns["_seq"][n]),
            ts_local=columns["ts_ns"][n],
            run_id=text["run_id"] or "",
            correlation_id=text["correlation_id"],
            recorder_run_id=text["recorder_run_id"] or "",
            table=text["table_name"] or "",
            reason=text["reason"] or "",
            detail=text["detail"] or "",
            origin=text["origin"] or "",
            source=None if None in source else source,
            payload_format=text["payload_format"] or "",
            payload_bytes=columns["payload_bytes"][n],
            payload=payloads[n],
        )


def _values(column: pa.ChunkedArray) -> list[Any]:
    """Values of a column, texts as bytes: a String need not be UTF-8, whatever the answer calls it."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_string(column.type):
        column = column.cast(pa.binary())
    values: list[Any] = column.to_pylist()
    return values


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "backslashreplace")
