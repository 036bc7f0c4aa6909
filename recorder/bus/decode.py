"""A bus message's payload to rows, in JSON or msgpack alike: the rules of internal events (`normalise.internal`).

Nothing changes on the way: a JSON number that a float cannot hold becomes a Decimal, as there; a msgpack number is
what it is. Extension types of msgpack are refused, its timestamp too: times are integer nanoseconds. Texts are UTF-8
and names of columns are texts. Depth and size are bounded, so that no message can exhaust who decodes it.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any, NoReturn

import msgspec

from recorder.bus.base import BusMessage, Encoding
from recorder.identity import SLOTS
from recorder.normalise.base import BadMessage, NormalisedRow
from recorder.normalise.internal import decode_json, rows_of
from schemas.plain_row import PlainRow
from schemas.table import Table

MAX_PAYLOAD_BYTES = 16 * 1024 * 1024
"""A larger payload is refused before it is decoded."""
MAX_DEPTH = 32
"""Mappings and lists inside each other, the list of rows and the row counted."""


def _refuse(code: int, _data: memoryview) -> NoReturn:
    raise ValueError(f"extension type {code}; send texts and numbers, times as integer nanoseconds")


_decode_msgpack = msgspec.msgpack.Decoder(ext_hook=_refuse).decode
_TIMESTAMPS = (b"\xd6\xff", b"\xd7\xff", b"\xc7\x0c\xff")
"""How a msgpack timestamp begins, in its three lengths. msgspec makes datetimes of them without asking."""

_NESTED = frozenset((dict, list))

_Value = bool | int | float | str | None
_PlainRow = dict[str, _Value | list[_Value | list[_Value]]]
_decode_plain_row = msgspec.msgpack.Decoder(_PlainRow).decode
_decode_plain_rows = msgspec.msgpack.Decoder(list[_PlainRow]).decode
"""Nearly all messages are rows of plain values and lists of them, which msgspec knows to be what they must by itself:
neither depth nor names nor timestamps need a look, which takes twice as long as decoding. What is none of these is
decoded again and looked at, and refused for what it is."""
_ARRAYS = frozenset((*range(0x90, 0xA0), 0xDC, 0xDD))
"""How an array of msgpack begins."""


def rows_of_message(message: BusMessage, topic: str | None = None) -> Sequence[NormalisedRow]:
    """The rows of a message, in its order; `topic` names the table of rows that name none, instead of the message's.

    Raises:
        BadMessage: the payload is too large, too deep, not of its encoding, no row or list of rows, or has more than
            4,096 of them, or a row's table is named neither by its `table` key nor by the topic.
    """
    value = decode(message.payload, message.encoding)
    return rows_of(value, message.topic if topic is None else topic)


class PlainRows:
    """Decodes messages of msgpack that are nothing but plain rows of one table, straight into its columns."""

    def __init__(self, table: Table):
        row = table.plain_row
        self._decode_row = msgspec.msgpack.Decoder(row).decode
        self._decode_rows = msgspec.msgpack.Decoder(list[row]).decode  # type: ignore[valid-type]
        self._enabled = "table" not in row.__struct_fields__  # a key of that name says whose row it is

    def of(self, payload: bytes) -> Sequence[PlainRow] | None:
        """The rows of a payload; None where it is anything else, well-formed or not: `rows_of_message` knows what."""
        if not self._enabled or len(payload) > MAX_PAYLOAD_BYTES:
            return None
        try:
            if payload[0] not in _ARRAYS:
                return [self._decode_row(payload)]
            rows = self._decode_rows(payload)
        except (msgspec.MsgspecError, ValueError, LookupError, RecursionError):
            return None
        return rows if len(rows) <= SLOTS else None


def decode(payload: bytes, encoding: Encoding) -> Any:
    """What a payload says.

    Raises:
        BadMessage: it is too large, too deep, or not of its encoding.
    """
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise BadMessage("too_large", f"{len(payload)} bytes in one message; at most {MAX_PAYLOAD_BYTES}")
    if encoding is Encoding.MSGPACK:
        try:
            return (_decode_plain_rows if payload[0] in _ARRAYS else _decode_plain_row)(payload)
        except (msgspec.MsgspecError, ValueError, LookupError, RecursionError):
            value = _msgpack(payload)
    else:
        value = decode_json(payload)
    _check(value)
    return value


def _msgpack(payload: bytes) -> Any:
    try:
        value = _decode_msgpack(payload)
    except (msgspec.MsgspecError, ValueError, ArithmeticError, RecursionError, TypeError) as error:
        raise BadMessage("not_msgpack", f"{error}; a message is a msgpack map or an array of them") from None
    if any(start in payload for start in _TIMESTAMPS):
        _refuse_times(value)
    return value


def _check(value: Any) -> None:
    """Depth and names, level by level: a loop, since what is checked may be deeper than any call."""
    level = [value] if type(value) in _NESTED else []
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for item in level:
            if type(item) is dict:
                if not set(map(type, item)) <= {str}:
                    raise BadMessage(
                        "bad_name", f"a name is no text: {next(k for k in item if type(k) is not str)!r:.80}"
                    )
                values: Any = item.values()
            else:
                values = item
            if not _NESTED.isdisjoint(map(type, values)):
                below += [inner for inner in values if type(inner) in _NESTED]
        if not below:
            return
        level = below
    raise BadMessage("too_deep", f"more than {MAX_DEPTH} mappings and lists inside each other")


def _refuse_times(value: Any) -> None:
    level = [value]
    while level:
        below: list[Any] = []
        for item in level:
            if isinstance(item, datetime.datetime):
                raise BadMessage(
                    "not_msgpack", "extension type -1 (timestamp); send times as integer nanoseconds"
                )
            if type(item) is dict:
                below += [*item, *item.values()]
            elif type(item) is list:
                below += item
        level = below
