"""Batches from rebuilt rows: checked and redacted by the recorder's own builder, under the rows' old identities."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from recorder.bad_rows import BadRow
from recorder.batch import Batch
from recorder.build import BatchBuilder
from recorder.dead_letters.letter import Identity
from recorder.dead_letters.rebuild import Fault, TableRow
from recorder.entries import Block
from schemas.table import Table

Place = tuple[str, Identity]
"""A table and an identity in it."""


@dataclass
class Built:
    """Batches of rows, and by place the rows that their table's columns refuse."""

    batches: list[Batch] = field(default_factory=list)
    refused: dict[Place, Fault] = field(default_factory=dict)


def build(
    rows: Iterable[TableRow], tables: Mapping[str, Table], *, ignore_unknown: frozenset[str] = frozenset()
) -> Built:
    """Build rows, each place once; the batches say that their rows may be there already.

    `ignore_unknown` are the tables that drop fields they do not have.
    """
    built = Built()
    once = {(row.table, row.identity): row for row in rows}
    ordered = sorted(once.values(), key=lambda row: (row.table, row.run_id, row.identity))
    for (name, run_id), group in itertools.groupby(ordered, key=lambda row: (row.table, row.run_id)):

        def refuse(bad: BadRow, table: str = name) -> None:
            built.refused[table, (bad.log, bad.seq)] = Fault(bad.reason, bad.detail, table)

        builder = BatchBuilder(
            tables[name], epoch=0, run_id=run_id, ignore_unknown=name in ignore_unknown, on_bad=refuse
        )
        for log, of_log in itertools.groupby(group, key=lambda row: row.identity[0]):
            some = list(of_log)
            block = Block(
                [row.row for row in some], time.monotonic_ns(), log, [row.identity[1] for row in some], 0
            )
            for _ in builder.add([block]):
                pass  # nobody else waits for this thread
        built.batches += builder.seal()
    return built
