"""Slots of the rows a normaliser made: half of their identities, so each row of a message and table needs its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from recorder.identity import SLOTS
from recorder.normalise.base import NormalisedRow


def clash(rows: Sequence[NormalisedRow]) -> str:
    """What is wrong with the slots of a message's rows; empty where nothing is."""
    for row in rows:
        if not 0 <= row.slot < SLOTS:
            return f"the normaliser gave a row of {row.table} slot {row.slot}; slots go from 0 to {SLOTS - 1}"
    if len(rows) > 1 and len({row[:2] for row in rows}) < len(rows):
        places = Counter(row[:2] for row in rows)
        (table, slot), times = places.most_common(1)[0]
        return f"the normaliser gave {times} rows of {table} slot {slot}; each row of a message needs its own"
    return ""
