"""Internal events: the payload already is the row.

A payload is JSON: one mapping or an array of them, each a row by column name. The key `table` names a row's table;
a row without it belongs to the table its topic names. Whether a row fits its table is for the batch builder to say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import msgspec

from recorder.identity import SLOTS
from recorder.normalise.base import BadMessage, Message, NormalisedRow


def _exact_number(text: str) -> float | Decimal:
    """A number with a point or exponent: a float where its shortest text says the same, else a Decimal."""
    exact = Decimal(text)
    near = float(text)
    return near if Decimal(repr(near)) == exact else exact


_decode = msgspec.json.Decoder(float_hook=_exact_number).decode


class InternalNormaliser:
    """The identity: each mapping of a JSON payload becomes one row, its slot its place in the payload."""

    def __init__(self) -> None:
        self.filtered: Counter[str] = Counter()
        self.ignored: Counter[str] = Counter()

    def normalise(self, message: Message) -> Sequence[NormalisedRow]:
        """The rows of one message, in its order.

        Raises:
            BadMessage: the payload is no JSON, no mapping or array of mappings, or has more than 4,096 of them, or a
                row's table is named neither by its `table` key nor by the topic.
        """
        return rows_of(decode_json(message.payload), message.topic)


def decode_json(payload: bytes) -> Any:
    """What a payload says, numbers exactly.

    Raises:
        BadMessage: it is no JSON.
    """
    try:
        return _decode(payload)
    except (msgspec.MsgspecError, ValueError, ArithmeticError, RecursionError) as error:
        raise BadMessage(
            "not_json", f"{error}; an internal event is a JSON object or an array of them"
        ) from None


def rows_of(value: Any, topic: str) -> list[NormalisedRow]:
    """The rows of a decoded payload; a row that names no table belongs to the topic's. Takes `table` from mappings.

    Raises:
        BadMessage: it is no mapping or list of mappings, has more than 4,096, or a row has no table.
    """
    items = value if isinstance(value, list) else [value]
    if len(items) > SLOTS:
        raise BadMessage("too_many_rows", f"{len(items)} rows in one message; at most {SLOTS}")
    return [_row(item, slot, topic) for slot, item in enumerate(items)]


def _row(item: Any, slot: int, topic: str) -> NormalisedRow:
    if not isinstance(item, dict):
        raise BadMessage("not_a_row", f"item {slot} is a {type(item).__name__}; a row is a JSON object")
    table = item.pop("table", topic)
    if not isinstance(table, str) or not table:
        raise BadMessage(
            "no_table",
            f'item {slot} names no table; give it a "table" key or publish it on the table\'s topic',
        )
    return NormalisedRow(table, slot, item)
