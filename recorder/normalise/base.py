"""What a normaliser is: a pure step from a venue's message to rows of one or more tables.

It keeps what state it needs (books, last top of book), decides nothing about batching, and never touches a
database. A message it knows but has no table for is counted as ignored; one it does not know raises `BadMessage`
and becomes a dead letter with its bytes, never a row of zeros.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from schemas.table import Row


class Message(NamedTuple):
    """One message of a source.

    `payload` is the raw message; `ts_local` its receive time in ns; `topic` where it came from (a file, a stream),
    for the dead letter's origin; `position` its number in the source.
    """

    payload: bytes
    ts_local: int
    topic: str = ""
    position: int = 0


class NormalisedRow(NamedTuple):
    """One row a message made. `slot` is fixed per kind of row, so that a row's identity does not depend on state.

    `row` is a row object, a mapping, or a tuple of all the row class's fields in order: a tuple of twenty fields is
    made in a third of the time of the object.
    """

    table: str
    slot: int
    row: Row | Mapping[str, Any] | tuple[Any, ...]


class BadMessage(ValueError):  # noqa: N818 - reads as what it is in `except BadMessage`
    """A message that cannot be turned into rows; `reason` is a short code, the text says what was seen."""

    def __init__(self, reason: str, detail: str):
        super().__init__(detail)
        self.reason = reason


class Normaliser(Protocol):
    """Payload to rows. One instance serves one source, in order, from one thread.

    It may have `kinds`, a mapping of its slots to what people call such rows: totals name them by it.
    """

    filtered: Counter[str]
    """Rows left out by the recording policy, per reason."""
    ignored: Counter[str]
    """Messages known but without a table, per event type."""

    def normalise(self, message: Message) -> Sequence[NormalisedRow]:
        """The rows of one message.

        Raises:
            BadMessage: the payload is not of a kind this normaliser knows.
        """
