"""What a retry of dead letters would do: which rows they make, which of these are there, and what is still wrong.

A letter of a row is *open* until that row is in its table. A letter of a message is open until every row that the
message makes is, by the settings now: which rows these are only its bytes say. One that makes none stays open.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from recorder.dead_letters.columns import Place, build
from recorder.dead_letters.letter import Letter
from recorder.dead_letters.rebuild import Fault, Rebuilder, TableRow
from recorder.dead_letters.store import Store


class State(enum.StrEnum):
    """How a letter stands."""

    CLOSED = "closed"
    """Everything it makes is in its tables."""
    READY = "ready"
    """All that is absent can be inserted."""
    PARTLY = "partly"
    """Some of what is absent can be inserted, some not."""
    BAD = "bad"
    """Nothing of what is absent can be inserted."""


@dataclass(frozen=True)
class Examined:
    """A letter, what of it is there, what is absent and can go in, and what is wrong with the rest."""

    letter: Letter
    there: tuple[Place, ...] = ()
    absent: tuple[TableRow, ...] = ()
    faults: tuple[Fault, ...] = ()

    @property
    def state(self) -> State:
        """How it stands."""
        if self.faults:
            return State.PARTLY if self.absent else State.BAD
        return State.READY if self.absent else State.CLOSED


@dataclass(frozen=True)
class Examiner:
    """See the module. `unfit` says by table why it takes no rows now."""

    store: Store
    rebuilder: Rebuilder
    unfit: Mapping[str, str]

    async def examine(self, letters: Sequence[Letter]) -> list[Examined]:
        """The letters, read with their payloads, in the order given."""
        made = [(letter, self.rebuilder.rebuild(letter)) for letter in letters]
        by_table: dict[str, list[tuple[int, int]]] = {}
        for _, rebuilt in made:
            for row in rebuilt.rows:
                by_table.setdefault(row.table, []).append(row.identity)
        closed = await self.store.closed(letters)  # also of rows that cannot be made any more
        there = await self.store.present(by_table)
        absent = [row for _, found in made for row in found.rows if row.identity not in there[row.table]]
        refused = build(absent, self.rebuilder.tables, ignore_unknown=self.rebuilder.ignore_unknown).refused
        refused |= {
            (row.table, row.identity): Fault("held", self.unfit[row.table], row.table)
            for row in absent
            if row.table in self.unfit
        }
        examined = []
        for letter, rebuilt in made:
            if letter.id in closed and letter.source is not None:
                examined.append(Examined(letter, ((letter.table, letter.source),)))
                continue
            places = [(row, (row.table, row.identity)) for row in rebuilt.rows]
            in_it = tuple(place for _, place in places if place[1] in there[place[0]])
            out = [(row, place) for row, place in places if place not in in_it]
            examined.append(
                Examined(
                    letter,
                    in_it,
                    tuple(row for row, place in out if place not in refused),
                    (*rebuilt.faults, *(refused[place] for _, place in out if place in refused)),
                )
            )
        return examined
