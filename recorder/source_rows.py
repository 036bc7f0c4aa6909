"""Rows of a file or a bus, which bring identities of their own: taken apart by table, into blocks for its queue."""

from __future__ import annotations

import array
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from recorder.door import Door
from recorder.entries import Block


class SourceRow(NamedTuple):
    """One row of a file or a bus, with its number in that source."""

    table: str
    seq: int
    row: Any


def blocks_of(
    log: int, entries: Iterable[SourceRow], door_of: Callable[[str], Door]
) -> list[tuple[Door, Block]]:
    """Rows of the source `log` by table; those of tables that are off are counted and left out.

    Raises:
        ValueError: `log` or a `seq` is no unsigned 64-bit integer.
        RecorderError: what `door_of` raises for a table that has no door.
    """
    by_table: dict[str, tuple[Door, list[Any], list[int]]] = {}
    for table, seq, row in entries:
        found = by_table.get(table)
        if found is None:
            found = by_table[table] = (door_of(table), [], [])
        found[1].append(row)
        found[2].append(seq)
    try:
        array.array("Q", [log])
        numbered = [(door, rows, array.array("Q", seqs)) for door, rows, seqs in by_table.values()]
    except (TypeError, OverflowError) as error:
        raise ValueError(f"a row's identity is two integers from 0 to 2**64 - 1: {error}") from error
    blocks = []
    for door, rows, seqs in numbered:
        if not door.enabled:
            door.filtered_rows += len(rows)
            continue
        wide = sum(map(door.wide_bytes, rows)) if door.has_wide else 0
        blocks.append((door, Block(rows, time.monotonic_ns(), log, seqs, wide)))
    return blocks
