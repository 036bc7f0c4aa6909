"""What the bytes of a dead letter are: a row, a message of a bus, a line of a file, or nothing to make rows of. Pure.

The letter does not say it in a column of its own; table, origin and identity together do: only a row has a table and no
origin, and a message's or line's position stands in its origin as well as in its identity.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from recorder.bus.base import Encoding
from recorder.dead_letters.letter import Letter
from recorder.identity import SLOTS

_MESSAGE = re.compile(r"(\S+) (.*) (\d+)", re.DOTALL)
_FILE = re.compile(r"(.+), (line|row) ([\d,]+)", re.DOTALL)
_POSITIONS = 2**64 // SLOTS


@dataclass(frozen=True)
class OfRow:
    """A row of the letter's table, as the builder or the database refused it."""


@dataclass(frozen=True)
class OfMessage:
    """A message of a bus, whole."""

    bus: str
    topic: str
    position: int
    encoding: Encoding


@dataclass(frozen=True)
class OfLine:
    """A line of a file of rows; `position` counts from 0."""

    file: str
    position: int


@dataclass(frozen=True)
class OfNothing:
    """Bytes that no row can be made of, and why; `reason` is a short code."""

    reason: str
    why: str


Origin = OfRow | OfMessage | OfLine | OfNothing


def origin_of(letter: Letter) -> Origin:
    """What a letter's bytes are."""
    if letter.source is None:
        return OfNothing(
            "no_identity",
            "it is no row and no message with an identity, so what is made of it could not be told from what is "
            "there already",
        )
    position = letter.source[1] // SLOTS
    if (found := _FILE.fullmatch(letter.origin)) and int(found[3].replace(",", "")) == position + 1:
        return _of_file(letter, found[1], found[2], position)
    if letter.table:
        return OfRow()
    if letter.reason == "bad_position":
        return OfNothing("bad_position", "its position in the bus makes no identity of 64 bits")
    found = _MESSAGE.fullmatch(letter.origin)
    if found is None or int(found[3]) % _POSITIONS != position:
        return OfNothing("no_origin", f"its origin {letter.origin!r} names no bus, topic and position")
    # A message that could not be read is kept as what its bytes look like, not as what it was sent as.
    is_json = letter.payload_format in ("json", "text")
    return OfMessage(found[1], found[2], position, Encoding.JSON if is_json else Encoding.MSGPACK)


def _of_file(letter: Letter, file: str, unit: str, position: int) -> Origin:
    if letter.reason == "line_too_long":
        return OfNothing(
            "cut_bytes", f"only the first {letter.payload_bytes:,} bytes of its line were kept; mend {file}"
        )
    if unit == "row" or letter.payload_format != "text":
        return OfNothing("of_a_file", f'a row of a Parquet file is not kept byte for byte; mend {file} and run '
                                      f'"recorder ingest" with it')  # fmt: skip
    return OfLine(file, position)
