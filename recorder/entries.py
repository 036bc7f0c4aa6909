"""What waits at a table's door: single rows, and rows that came together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

Entry = tuple[Any, int, str | None, int]
"""One row as a producer handed it over: row, acceptance (monotonic ns), correlation id, bytes of its unbounded texts.

A plain tuple, because making one is most of what a producer pays.
"""


class Watched(tuple[Any, int, str | None, int]):
    """An entry that somebody waits for: it is told when it is displaced."""

    displaced = False


@dataclass(frozen=True, slots=True)
class Block:
    """Rows that came together with identities of their own, from a file or a bus.

    `fresh` says that nobody ever had them before, so that the table need not be asked for them before their first
    insert. `displaced` is called, under the queue's lock and from any thread, when they are shed while they wait.
    """

    rows: Sequence[Any]
    accepted_ns: int
    log: int
    seqs: Sequence[int]
    wide_bytes: int
    fresh: bool = False
    displaced: Callable[[], None] | None = None


@dataclass(frozen=True, slots=True)
class ArrowBlock:
    """Rows of this process that are columns already, checked, in the table's types and order, without identity."""

    rows: pa.RecordBatch
    accepted_ns: int
    wide_bytes: int


Waiting = Entry | Block | ArrowBlock


def rows_in(entries: Sequence[Waiting]) -> int:
    """How many rows entries hold."""
    if set(map(type, entries)) <= {tuple}:
        return len(entries)
    return sum(1 if isinstance(entry, tuple) else len(entry.rows) for entry in entries)
