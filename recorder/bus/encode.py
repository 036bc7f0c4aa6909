"""Rows to a message's payload, in the publishing call: msgpack by msgspec, and nothing that would change on the way.

What a row may hold: texts, whole numbers of 64 bits, floats, truth values, None, bytes, Decimals (as their text, so
exactly), and lists and mappings of these. A row is a mapping or a row object (a msgspec Struct). Times are integer
nanoseconds: a datetime is refused, since msgpack would cut it to microseconds.
"""

from __future__ import annotations

import datetime
import decimal
import uuid
from collections.abc import Mapping
from typing import Any

import msgspec

from recorder.identity import SLOTS


def _as_base(value: Any) -> Any:
    """A text or number of a class of its own, such as numpy's float64, as the plain one."""
    for base in (str, float, int):
        if isinstance(value, base):
            return str.__str__(value) if base is str else base(value)
    raise TypeError(f"a {type(value).__name__} cannot be sent exactly")


_encode = msgspec.msgpack.Encoder(enc_hook=_as_base).encode
_PLAIN = frozenset((str, int, float, bool, type(None), decimal.Decimal, bytes))
_ALSO = (str, int, float, uuid.UUID)
_TEXT = frozenset((str,))
MAX_DEPTH = 30


def encode_rows(row_or_rows: Any) -> bytes:
    """The payload of one row or of a list of them.

    Raises:
        TypeError: it is no row, or holds what cannot be sent exactly.
        ValueError: there are more than 4,096 rows, or a number beyond 64 bits, or a text that is no Unicode.
    """
    if isinstance(row_or_rows, list | tuple) and not hasattr(row_or_rows, "_fields"):
        if len(row_or_rows) > SLOTS:
            raise ValueError(
                f"{len(row_or_rows)} rows in one message; at most {SLOTS}, publish them in parts"
            )
        payload: Any = [_row(row) for row in row_or_rows]
    else:
        payload = _row(row_or_rows)
    try:
        return _encode(payload)
    except OverflowError as error:
        raise ValueError(f"a whole number does not fit 64 bits ({error}); send it as a Decimal") from None
    except UnicodeEncodeError as error:
        raise ValueError(f"a text is no Unicode: {error}") from None


def _row(row: Any) -> Any:
    if type(row) is dict:
        values: Any = row.values()
        if not _TEXT.issuperset(map(type, row)):
            _names(row)
    elif isinstance(row, msgspec.Struct):
        values = msgspec.structs.astuple(row)
    elif isinstance(row, Mapping):
        return _row(dict(row))
    else:
        raise TypeError(
            f"a {type(row).__name__} is no row; publish a mapping, a row object, or a list of these"
        )
    if not _PLAIN.issuperset(map(type, values)):
        names = row if type(row) is dict else row.__struct_fields__
        for name, value in zip(names, values, strict=True):
            _check(name, value, 1)
    return row


def _names(row: Mapping[Any, Any]) -> None:
    for name in row:
        if not isinstance(name, str):
            raise TypeError(f"a {type(name).__name__} is no name: {name!r:.80}; names of columns are texts")


def _check(name: str, value: Any, depth: int) -> None:
    if type(value) in _PLAIN or isinstance(value, _ALSO):
        return
    if depth > MAX_DEPTH:
        raise ValueError(f"{name}: more than {MAX_DEPTH} lists and mappings inside each other")
    if isinstance(value, dict):
        _names(value)
        for inner in value.values():
            _check(name, inner, depth + 1)
    elif isinstance(value, list | tuple):
        for inner in value:
            _check(name, inner, depth + 1)
    elif isinstance(value, datetime.datetime | datetime.date | datetime.time | datetime.timedelta):
        raise TypeError(
            f"{name}: a {type(value).__name__}; send times as integer nanoseconds since the epoch"
        )
    else:
        raise TypeError(
            f"{name}: a {type(value).__name__} cannot be sent exactly; send a text, a number or bytes"
        )
