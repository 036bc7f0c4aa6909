"""The two tables as the server has them, with what a killed run left.

A copy is known by the mark in its comment, whatever it is called. Nothing is changed here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from recorder.copying.digest import Digest
from recorder.repartition.pair import Pair
from schemas.live import LiveTable, read_tables
from schemas.render import FSYNC_SETTINGS

_COPY = "copy of "
_MARK = re.compile(
    _COPY + r"([0-9a-f-]{36}) for its partitions;(?: days ([0-9a-f:,]*);)? before: (.*)", re.DOTALL
)
_NUMBER = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_DERIVED = ("ALIAS", "EPHEMERAL", "MATERIALIZED")


@dataclass(frozen=True)
class Mark:
    """What a comment says.

    `comment` is what it says besides. `copy_of` is the number of the table that this one was made as the copy of, empty
    for none. `days` is what was copied into it, by day, when all of it was compared.
    """

    comment: str
    copy_of: str = ""
    days: Mapping[str, Digest] = field(default_factory=dict)

    @classmethod
    def read(cls, comment: str) -> Mark:
        """The mark of a comment; one that has none is a comment alone."""
        found = _MARK.fullmatch(comment)
        if found is None:
            return cls(comment)
        number, listed, own = found.groups()
        days = (one.split(":") for one in (listed or "").split(",") if one)
        return cls(own, number, {day: Digest(int(rows, 16), int(total, 16)) for day, rows, total in days})

    def text(self) -> str:
        """The whole comment."""
        if not self.copy_of:
            return self.comment
        listed = ",".join(f"{day}:{sums.rows:x}:{sums.total:x}" for day, sums in sorted(self.days.items()))
        days = f" days {listed};" if listed else ""
        return f"{_COPY}{self.copy_of} for its partitions;{days} before: {self.comment}"


@dataclass(frozen=True)
class There:
    """A table as the server has it, with what `LiveTable` leaves out; `number` is its own, whatever it is called."""

    live: LiveTable
    mark: Mark
    engine: str
    number: str
    created: str

    @property
    def inside(self) -> str:
        """Its columns, indices and all else within the brackets."""
        return self.created[self.created.find("(") :].partition(f" ENGINE = {self.engine}")[0]

    @property
    def stored(self) -> dict[str, str]:
        """The columns that rows are copied by, with their types; the server makes the others of these."""
        return {
            column.name: column.type for column in self.live.columns if column.default_kind not in _DERIVED
        }

    @property
    def unsynced(self) -> list[str]:
        """The settings that it lacks for its rows to be on disk once they are in."""
        return [name for name in FSYNC_SETTINGS if name not in self.live.settings]


class Both(NamedTuple):
    """The table, and the one beside it; None for one that is not there."""

    there: There | None
    beside: There | None


def read_both(pair: Pair) -> Both:
    """What there is now."""
    live = read_tables(pair.executor, pair.database)
    rows = pair.executor.query(
        "SELECT name, comment, engine_full, data_paths[1], create_table_query FROM system.tables "
        "WHERE database = {db:String} AND name IN ({table:String}, {beside:String})",
        {"db": pair.database, "table": pair.table, "beside": pair.beside},
    )
    # The table's own number is not told of some embedded databases; its folder has it.
    found = {
        str(name): There(
            live[name],
            Mark.read(str(comment)),
            str(engine),
            ["", *_NUMBER.findall(str(path))][-1],
            str(sql),
        )
        for name, comment, engine, path, sql in rows
        if name in live
    }
    return Both(found.get(pair.table), found.get(pair.beside))
