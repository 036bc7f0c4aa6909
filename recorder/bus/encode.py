"""Rows to a message's payload, in the publishing call: msgpack by msgspec, and nothing that would change on the way.

What a row may hold: texts, whole numbers of 64 bits, floats, truth values, None, bytes, Decimals (as their text, so
exactly), and lists and mappings of these. A row is a mapping or a row object (a msgspec Struct). Times are integer
nanoseconds: a datetime is refused, since msgpack would cut it to microseconds.
"""

from __future__ import annotations

import datetime
import decimal
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
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
_TEXT = frozenset((str,))
_DICTS = frozenset((dict,))
_NESTED = frozenset((dict, list, tuple))
_ALSO = (str, int, float, uuid.UUID)
_TIMES = (datetime.datetime, datetime.date, datetime.time, datetime.timedelta)
MAX_DEPTH = 30
"""Lists and mappings inside each other, in a row."""


def plain_parts(
    topic: str, payload: bytes | bytearray | memoryview, correlation_id: str | None
) -> tuple[str, bytes, str | None]:
    """A message's parts as plain texts and bytes, so that none is refused where it is too late to tell its owner.

    Raises:
        TypeError: the topic is no text, the payload not bytes or like them, the correlation id neither text nor None.
    """
    if type(topic) is not str:
        topic = _text("a topic", topic)
    if type(payload) is not bytes:
        try:
            payload = memoryview(payload).tobytes()
        except TypeError:
            raise TypeError(
                f"{topic}: a payload is bytes, and this is {_kind(payload)}; encode it, a text by .encode()"
            ) from None
    if correlation_id is not None and type(correlation_id) is not str:
        correlation_id = _text("a correlation id", correlation_id)
    return topic, payload, correlation_id


def _text(what: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{what} is a text, and this is {_kind(value)}; bytes become one by .decode()")
    return str.__str__(value)


def _kind(value: Any) -> str:
    return f"of type {type(value).__name__}"


def encode_rows(row_or_rows: Any) -> bytes:
    """The payload of one row or of a list of them.

    Raises:
        TypeError: it is no row, or holds what cannot be sent exactly.
        ValueError: there are more than 4,096 rows, or they are too deep, or hold a number beyond 64 bits or a text
            that is no Unicode.
    """
    if isinstance(row_or_rows, list) or type(row_or_rows) is tuple:
        if len(row_or_rows) > SLOTS:
            raise ValueError(
                f"{len(row_or_rows)} rows in one message; at most {SLOTS}, publish them in parts"
            )
        plain = _DICTS.issuperset(map(type, row_or_rows))
        rows = row_or_rows if plain else [_row(row) for row in row_or_rows]
        payload: Any = rows
    else:
        payload = _row(row_or_rows)
        plain, rows = type(payload) is dict, [payload]
    _check(rows, dict.values if plain else _values)
    try:
        return _encode(payload)
    except OverflowError as error:
        raise ValueError(f"a whole number does not fit 64 bits ({error}); send it as a Decimal") from None
    except RecursionError:
        raise ValueError(f"more than {MAX_DEPTH} lists and mappings inside each other") from None
    except UnicodeEncodeError as error:
        raise ValueError(f"a text is no Unicode: {error}") from None


def _row(row: Any) -> Any:
    if type(row) is dict or isinstance(row, msgspec.Struct):
        return row
    if isinstance(row, Mapping):
        return dict(row)
    raise TypeError(f"a {type(row).__name__} is no row; publish a mapping, a row object, or a list of these")


def _check(rows: Sequence[Any], values: Callable[[Any], Iterable[Any]]) -> None:
    """Look at the types of all values of all rows; `values` takes those of one.

    Names, and what is inside lists and mappings, are looked at in the first row alone, and of a list the first
    element: looking at all costs several times what encoding does. What else is wrong there is found by who decodes
    it, and becomes a dead letter.
    """
    if not rows:
        return
    if type(rows[0]) is dict:
        _check_names(rows[0])
    kinds = set(map(type, chain.from_iterable(map(values, rows)))) - _PLAIN
    if not kinds:
        return
    _check_kinds(rows, kinds)
    nested = [value for value in _values(rows[0]) if type(value) in _NESTED]
    for _ in range(MAX_DEPTH):
        if not nested:
            return
        inside: list[Any] = []
        for inner in nested:
            if type(inner) is dict:
                _check_names(inner)
                inside += inner.values()
            elif inner:
                inside.append(inner[0])
        _check_kinds(rows, set(map(type, inside)) - _PLAIN)
        nested = [value for value in inside if type(value) in _NESTED]
    if nested:
        raise ValueError(f"more than {MAX_DEPTH} lists and mappings inside each other")


def _check_kinds(rows: Sequence[Any], kinds: set[type]) -> None:
    for kind in kinds - _NESTED:
        if not issubclass(kind, _ALSO):
            raise TypeError(_wrong_value(rows, kind))


def _values(row: Any) -> Iterable[Any]:
    if type(row) is dict:
        return row.values()
    return msgspec.structs.astuple(row)


def _check_names(row: Mapping[Any, Any]) -> None:
    if _TEXT.issuperset(map(type, row)):
        return
    for name in row:
        if not isinstance(name, str):
            raise TypeError(f"a {type(name).__name__} is no name: {name!r:.80}; names of columns are texts")


def _wrong_value(rows: Sequence[Any], kind: type) -> str:
    """Which column holds it, for whom it concerns."""
    column = next(
        (
            f"{name}: "
            for row in rows
            for name, value in (row if type(row) is dict else msgspec.structs.asdict(row)).items()
            if type(value) is kind
        ),
        "",
    )
    if issubclass(kind, _TIMES):
        return f"{column}a {kind.__name__} is not sent; send times as integer nanoseconds since the epoch"
    return f"{column}a {kind.__name__} cannot be sent exactly; send a text, a number or bytes"
