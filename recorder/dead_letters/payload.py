"""A row from the bytes that a dead letter kept of it: `bad_rows.row_bytes` backwards. Pure.

JSON cannot hold all that a row can. What went in as something else comes back here by the table as it is *now*: bytes
from `{"base64": …}`, tags from pairs, a tuple from an array. Numbers keep their digits: a Decimal was written as a
text, and a column of decimals takes texts.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from typing import Any

from recorder.dead_letters.letter import Letter
from recorder.redact import MASK_TEXT
from schemas.columns import Kind
from schemas.table import Table

_MASKED = re.compile(rf"{re.escape(MASK_TEXT)}\**")


class NotARow(ValueError):  # noqa: N818 - a verdict on bytes, not a failure of the program
    """Bytes that no row can be made of; `reason` is a short code."""

    def __init__(self, reason: str, detail: str):
        super().__init__(detail)
        self.reason = reason


def row_of(letter: Letter, table: Table) -> Any:
    """The row as it was given, a mapping or a tuple; its time and correlation filled in as they were then.

    Raises:
        NotARow: the bytes are no row any more, or never were.
    """
    payload = letter.payload or b""
    if letter.payload_format != "json":
        raise NotARow(
            "not_kept",
            f"{letter.payload_format} was kept of it, for people to read: its values could not be written as JSON",
        )
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise NotARow(*unreadable(payload, "not_json", str(error))) from None
    if (
        isinstance(value, list) and letter.reason != "wrong_row"
    ):  # a tuple; a list is no row, and was none then
        names = [column.name for column in table.columns]
        if len(value) != len(names):
            return tuple(value)
        value = dict(zip(names, value, strict=True))
    if not isinstance(value, dict):
        return value
    return _completed({name: _restored(item, table, name) for name, item in value.items()}, letter)


def unreadable(payload: bytes, reason: str, why: str) -> tuple[str, str]:
    """Short code and words for bytes that cannot be decoded: a cut secret may be why."""
    if MASK_TEXT.encode() in payload:
        return (
            "cut_bytes",
            f"{why}; secrets were cut out of its bytes ({MASK_TEXT}), and with them what is missing",
        )
    return reason, why


def masked_column(row: Any, table: Table) -> str:
    """The column, if any, in which a cut secret would be stored as if it were the value.

    Columns that secrets are cut out of anyway hold the mask in every row; an id or a symbol never does.
    """
    if not isinstance(row, Mapping):
        return ""
    for column in table.columns:
        value = row.get(column.name)
        if isinstance(value, str) and not column.type.foreign and _MASKED.search(value):
            return column.name
    return ""


def _restored(value: Any, table: Table, name: str) -> Any:
    kind = next((column.type.kind for column in table.columns if column.name == name), None)
    if kind is Kind.TAGS:
        pairs = isinstance(value, list) and all(isinstance(p, list) and len(p) == 2 for p in value)
        if pairs and all(isinstance(key, str) for key, _ in value):
            return dict(value)  # as Arrow gives a map
    elif isinstance(value, dict) and set(value) == {"base64"} and isinstance(value["base64"], str):
        try:
            return base64.b64decode(value["base64"], validate=True)
        except (binascii.Error, ValueError):
            return value
    return value


def _completed(row: dict[str, Any], letter: Letter) -> dict[str, Any]:
    """What a producer in the process left to the recorder: it was filled in by the clock when the row was refused."""
    if letter.of_a_source:
        return row  # a source's rows say when, or are refused: a clock would differ each time
    ts_local = row.get("ts_local", 0)
    if type(ts_local) is int and ts_local == 0:
        row["ts_local"] = letter.ts_local
    if letter.correlation_id is not None and row.get("correlation_id") is None:
        row["correlation_id"] = letter.correlation_id
    return row
