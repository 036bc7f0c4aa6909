"""Rows of a file or a bus, which bring identities of their own: taken apart by table, into blocks for its queue."""

from __future__ import annotations

import array
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from recorder.door import Door
from recorder.entries import Block


class SourceRow(NamedTuple):
    """One row of a file or a bus, with its number in that source."""

    table: str
    seq: int
    row: Any


class SourceRows(NamedTuple):
    """Rows of one table from a file or a bus, in its order, with their numbers in that source."""

    table: str
    seqs: Sequence[int]
    rows: Sequence[Any]


def by_table(entries: Iterable[SourceRow]) -> list[SourceRows]:
    """Single rows, taken together."""
    found: dict[str, tuple[list[int], list[Any]]] = {}
    for table, seq, row in entries:
        seqs_and_rows = found.get(table)
        if seqs_and_rows is None:
            seqs_and_rows = found[table] = ([], [])
        seqs_and_rows[0].append(seq)
        seqs_and_rows[1].append(row)
    return [SourceRows(table, seqs, rows) for table, (seqs, rows) in found.items()]


def blocks_of(
    log: int, parts: Iterable[SourceRows], door_of: Callable[[str], Door]
) -> list[tuple[Door, Block]]:
    """Rows of the source `log`, a block a table; those of tables that are off are counted and left out.

    Raises:
        ValueError: `log` or a number is no unsigned 64-bit integer.
        RecorderError: what `door_of` raises for a table that has no door.
    """
    found: dict[str, tuple[Door, list[Any], array.array[int]]] = {}
    try:
        array.array("Q", [log])
        for table, seqs, rows in parts:
            gathered = found.get(table)
            if gathered is None:
                gathered = found[table] = (door_of(table), [], array.array("Q"))
            gathered[1].extend(rows)
            gathered[2].extend(seqs)
    except (TypeError, OverflowError) as error:
        raise ValueError(f"a row's identity is two integers from 0 to 2**64 - 1: {error}") from error
    blocks = []
    for door, rows, seqs in found.values():
        if not door.enabled:
            door.filtered_rows += len(rows)
            continue
        wide = sum(map(door.wide_bytes, rows)) if door.has_wide else 0
        blocks.append((door, Block(rows, time.monotonic_ns(), log, seqs, wide)))
    return blocks
