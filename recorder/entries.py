"""What waits at a table's door: single rows, and rows that came together."""

from __future__ import annotations

import array
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
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


def joined(blocks: Iterable[Block | ArrowBlock], slice_rows: int) -> list[Block | ArrowBlock]:
    """Blocks with the ones of each source that are smaller than a slice put together: a slice costs its columns,
    however few its rows.

    Rows of one source keep their order; those of several need none among each other.
    """
    whole: list[Block | ArrowBlock] = []
    small: dict[tuple[int, bool], list[Block]] = {}
    for block in blocks:
        if isinstance(block, ArrowBlock) or len(block.rows) >= slice_rows:
            whole.append(block)
        else:
            small.setdefault((block.log, block.fresh), []).append(block)
    for parts in small.values():
        if len(parts) == 1:
            whole.append(parts[0])
            continue
        rows = list(itertools.chain.from_iterable(part.rows for part in parts))
        seqs = array.array("Q", itertools.chain.from_iterable(part.seqs for part in parts))
        whole.append(
            replace(parts[0], rows=rows, seqs=seqs, wide_bytes=sum(part.wide_bytes for part in parts))
        )
    return whole
