"""Time zones in the head of a Native answer.

The engine names `DateTime('Europe/Berlin')` plain `DateTime` there, as ClickHouse does for clients that do not say
which version of its protocol they speak. Those that do get the zone from ClickHouse, and drivers make times of it; so
here everybody gets it. Readers take names and types from the first block alone, so only that one is looked at.

Source: ClickHouse's `NativeWriter` and the serializations of its types.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_FIXED = {
    **dict.fromkeys(("UInt8", "Int8", "Bool", "Enum8", "Nothing"), 1),
    **dict.fromkeys(("UInt16", "Int16", "Date", "Enum16", "BFloat16"), 2),
    **dict.fromkeys(("UInt32", "Int32", "Float32", "Date32", "DateTime", "IPv4", "Time", "Decimal32"), 4),
    **dict.fromkeys(("UInt64", "Int64", "Float64", "DateTime64", "Time64", "Decimal64"), 8),
    **dict.fromkeys(("UInt128", "Int128", "UUID", "IPv6", "Decimal128"), 16),
    **dict.fromkeys(("UInt256", "Int256", "Decimal256"), 32),
}
"""Bytes of a value."""
_GEO = {
    "Point": "Tuple(Float64, Float64)",
    "Ring": "Array(Point)",
    "LineString": "Array(Point)",
    "MultiLineString": "Array(LineString)",
    "Polygon": "Array(Ring)",
    "MultiPolygon": "Array(Polygon)",
}
_ELEMENT = re.compile(r"(?:`(?:[^`\\]|\\.)*`|\w+) +(?=[A-Z])")
"""The name of an element of a named tuple, before its type."""
_PLAIN = b"DateTime"


class MoreError(Exception):
    """The block goes on behind what has come."""


class OtherError(Exception):
    """A type whose bytes are not known here."""


def has_zone(kind: str) -> bool:
    """Whether a type has a time zone that the engine leaves out."""
    return kind.startswith("DateTime(")


def has_times(data: bytes) -> bool:
    """Whether the first block has a column that may lack its zone.

    Raises:
        MoreError: what has come does not tell.
        OtherError: a type stands before it whose length is not known.
    """
    return any(kind == _PLAIN.decode() for _, _, kind in _heads(data))


def with_types(data: bytes, kinds: Sequence[str]) -> bytes:
    """The same bytes with the types `kinds` in the first block's head, where it says only DateTime.

    Raises:
        MoreError, OtherError: as `has_times`.
    """
    pieces: list[bytes] = []
    at = 0
    for (start, end, kind), full in zip(_heads(data), kinds, strict=False):
        if kind == _PLAIN.decode() and has_zone(full):
            pieces += (data[at:start], _text(full.encode()))
            at = end
    return b"".join((*pieces, data[at:]))


def _heads(data: bytes) -> list[tuple[int, int, str]]:
    """Of each column, where its type stands, and what it is."""
    block = _Block(data)
    columns, rows = block.varint(), block.varint()
    found = []
    for _ in range(columns):
        block.skip(block.varint())
        start = block.at
        size = block.varint()
        kind = block.take(size).decode("utf-8", "replace")
        found.append((start, block.at, kind))
        if len(found) < columns and rows:
            try:
                block.prefix(kind)
                block.values(kind, rows)
            except (ValueError, IndexError):  # a type that reads otherwise than those known here
                raise OtherError(kind) from None
    return found


def _text(data: bytes) -> bytes:
    size, out = len(data), bytearray()
    while size >= 0x80:
        out.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes(out) + bytes([size]) + data


def _split(kind: str) -> tuple[str, list[str]]:
    """The name of a type and its arguments, without the names of elements."""
    name, bracket, inside = kind.partition("(")
    if not bracket:
        return kind, []
    arguments, depth, start, quote = [], 0, 0, ""
    inside = inside[:-1]
    for at, char in enumerate(inside):
        if quote:
            quote = "" if char == quote and inside[at - 1] != "\\" else quote
        elif char in "'`":
            quote = char
        elif char in "()":
            depth += 1 if char == "(" else -1
        elif char == "," and not depth:
            arguments.append(inside[start:at].strip())
            start = at + 1
    arguments.append(inside[start:].strip())
    return name, arguments


def _parts(kind: str) -> tuple[str, list[str]]:
    """A type as one of few: its name, and the types of what it is made of."""
    name, arguments = _split(_GEO.get(kind, kind))
    if name == "Map":
        return "Array", [f"Tuple({', '.join(arguments)})"]
    if name in ("Tuple", "Nested"):
        inner = [
            _ELEMENT.sub("", argument, count=1) if _ELEMENT.match(argument) else argument
            for argument in arguments
        ]
        return ("Tuple", inner) if name == "Tuple" else ("Array", [f"Tuple({', '.join(inner)})"])
    if name == "SimpleAggregateFunction":
        return _parts(arguments[-1])
    return name, arguments


class _Block:
    """Bytes of a block, from their beginning on."""

    def __init__(self, data: bytes):
        self._data = data
        self.at = 0

    def take(self, size: int) -> bytes:
        """The next bytes."""
        self.skip(size)
        return self._data[self.at - size : self.at]

    def skip(self, size: int) -> None:
        """Go over the next bytes."""
        self.at += size
        if self.at > len(self._data):
            raise MoreError

    def varint(self) -> int:
        """The next number."""
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def number(self) -> int:
        """The next number of eight bytes."""
        return int.from_bytes(self.take(8), "little")

    def prefix(self, kind: str) -> None:
        """Go over what stands before all values of a column."""
        name, parts = _parts(kind)
        if name == "LowCardinality":
            self.skip(8)
        elif name in ("Array", "Tuple", "Nullable"):
            for part in parts:
                self.prefix(part)

    def values(self, kind: str, rows: int) -> None:
        """Go over the values of a column."""
        name, parts = _parts(kind)
        if not rows:
            return
        if name == "String":
            self._strings(rows)
        elif name == "FixedString":
            self.skip(rows * int(parts[0]))
        elif name == "Decimal":
            digits = int(parts[0])
            self.skip(rows * (4 if digits <= 9 else 8 if digits <= 18 else 16 if digits <= 38 else 32))
        elif name == "Nullable":
            self.skip(rows)
            self.values(parts[0], rows)
        elif name == "Array":
            self.skip(8 * (rows - 1))
            self.values(parts[0], self.number())
        elif name == "Tuple":
            for part in parts:
                self.values(part, rows)
        elif name == "LowCardinality":
            self._dictionary(parts[0])
        elif name in _FIXED or name.startswith("Interval"):
            self.skip(rows * _FIXED.get(name, 8))
        else:
            raise OtherError(name)

    def _strings(self, rows: int) -> None:
        data, at, end = self._data, self.at, len(self._data)
        for _ in range(rows):
            if at >= end:
                raise MoreError
            size = data[at]
            at += 1
            if size >= 0x80:
                self.at = at - 1
                size = self.varint()
                at = self.at
            at += size
        self.at = at
        self.skip(0)

    def _dictionary(self, kind: str) -> None:
        """Values of a LowCardinality: its keys, and which of them each is."""
        width = 1 << (self.number() & 0xFF)
        name, parts = _parts(kind)
        self.values(parts[0] if name == "Nullable" else kind, self.number())
        self.skip(width * self.number())
