"""Rows that can never be inserted: what is kept of them, whatever they are. Pure."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from recorder.redact import in_force
from recorder.sink.errors import DataError
from schemas.plain_row import PlainRow, given
from schemas.table import Row


@dataclass(frozen=True)
class BadRow:
    """A row that can never be inserted: why, who it was, and what it looked like."""

    reason: str
    detail: str
    log: int
    seq: int
    payload: bytes
    payload_format: str
    correlation_id: str | None = None
    ts_local: int = 0
    """Its local time in ns, 0 where it has none that can be read."""


def refused_row(row: pa.RecordBatch, error: DataError) -> BadRow:
    """A row that ClickHouse refused, as Arrow gave it: a batch of one."""
    fields = {
        name: value.cast(pa.int64()).as_py() if pa.types.is_timestamp(value.type) else value.as_py()
        for name, value in ((name, row[name][0]) for name in row.schema.names)
    }
    log_id, seq = fields.pop("_log"), fields.pop("_seq")
    payload, payload_format = row_bytes(fields)
    return BadRow(
        f"refused_{error.code}",
        str(error),
        log_id,
        seq,
        payload,
        payload_format,
        fields.get("correlation_id"),
        fields["ts_local"],
    )


def row_bytes(row: Any) -> tuple[bytes, str]:
    """A row's bytes for a dead letter, and their format: `json`, or `text` (its repr) where JSON cannot hold it."""
    plain = row
    if isinstance(row, PlainRow):
        plain = given(row)
    elif isinstance(row, Row):
        plain = msgspec.structs.asdict(row)
    try:
        # Not orjson: it writes NaN and infinity as null and refuses lone surrogates, and a dead letter must show both.
        return json.dumps(plain, default=_json_default).encode(), "json"
    except Exception:  # noqa: BLE001 - a row object may raise anything
        return _safe_repr(row), "text"


def said_by(error: Exception) -> str:
    """An error's own words, if it has any: a row object may raise one that cannot even be shown."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - a row object may raise anything
        return "it cannot say what"


def _safe_repr(row: Any) -> bytes:
    try:
        return repr(row).encode("utf-8", "backslashreplace")
    except Exception as error:  # noqa: BLE001 - as above
        return f"<{type(row).__name__}: {type(error).__name__} in its repr>".encode()


def _json_default(value: Any) -> Any:
    if isinstance(value, bytes | bytearray | memoryview):
        # Now, because nobody sees a secret in base64 later.
        return {"base64": base64.b64encode(in_force().cut(bytes(value))[0]).decode()}
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return str(value)
