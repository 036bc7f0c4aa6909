"""Which tables are copied, and whether both sides have them alike.

By default all of the packs but those that speak of their own database and would lie in another: `metrics_timeseries`
(how a recorder did that records there; dashboards and alarms of the target would show it as one of its own) and what
the recorder keeps about a database's state, named `recorder_…` or `retention_…`. `recorder_gaps` and `recorder_runs`
are named so too and do belong to the rows: they say what lacks among them, and who recorded them.

Reads system tables and the history of migrations; changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from recorder.copying.ends import Side
from recorder.copying.errors import CannotCopy
from schemas.history import Applied, History
from schemas.live import LiveTable, read_tables
from schemas.pack import Pack

IDENTITY = ("_log", "_seq")
TIME = "ts_local"
OF_THE_ROWS = frozenset({"recorder_gaps", "recorder_runs"})
OF_ITS_DATABASE = frozenset({"metrics_timeseries"})
_STATE = ("recorder_", "retention_")
_DERIVED = frozenset({"ALIAS", "EPHEMERAL", "MATERIALIZED"})
_NAMED = 5


@dataclass(frozen=True)
class CopyTable:
    """A table that both sides have alike.

    `columns` are ClickHouse's types by name, computed columns left out. `ttl` is what the target deletes rows by, empty
    for nothing; `replicated` is of the target.
    """

    name: str
    columns: Mapping[str, str]
    ttl: str = ""
    replicated: bool = False


def by_default(table: str) -> bool:
    """Whether a pack's table is copied unless tables are named."""
    return table in OF_THE_ROWS or not (table in OF_ITS_DATABASE or table.startswith(_STATE))


def tables_of(source: Side, target: Side, packs: Sequence[Pack], names: Sequence[str]) -> list[CopyTable]:
    """The tables of these names, each once; without names those copied by default that the source has.

    Raises:
        CannotCopy: a table is missing, has no identity, or is not the same on both sides; or their migrations differ.
    """
    there = read_tables(source.executor, source.database)
    here = read_tables(target.executor, target.database)
    wanted = list(dict.fromkeys(names)) or [
        table.name
        for pack in packs
        for table in pack.tables
        if by_default(table.name) and table.name in there
    ]
    _require(source, there, wanted)
    _same_migrations(source, target, packs, wanted)
    return [_agreed(source, target, there[name], here.get(name)) for name in wanted]


def _require(source: Side, there: Mapping[str, LiveTable], wanted: Iterable[str]) -> None:
    if lacking := [name for name in wanted if name not in there]:
        raise CannotCopy(
            f"{source.name}: database {source.database} has no table {', '.join(lacking)} to copy; "
            f"it has {', '.join(sorted(there)) or 'none'}"
        )
    needed = (*IDENTITY, TIME)
    for name in wanted:
        types = {column.name: column.type for column in there[name].columns}
        if missing := [column for column in needed if column not in types]:
            raise CannotCopy(
                f"{name} has no column {missing[0]}; rows are told apart by _log and _seq and found by ts_local, so "
                "tables without them cannot be copied; leave it out of --tables"
            )
        if wrong := [column for column in IDENTITY if types[column] != "UInt64"]:
            raise CannotCopy(f"{name}: column {wrong[0]} is {types[wrong[0]]}, expected UInt64; leave it out")
        if not types[TIME].startswith("DateTime64(9"):
            raise CannotCopy(f"{name}: column {TIME} is {types[TIME]}, expected DateTime64(9); leave it out")


def _same_migrations(source: Side, target: Side, packs: Sequence[Pack], wanted: Iterable[str]) -> None:
    names = set(wanted)
    there = History(source.executor, source.database).read()
    here = History(target.executor, target.database).read()
    for pack in packs:
        if names.isdisjoint(table.name for table in pack.tables):
            continue
        at_source, at_target = _applied(there, pack.name), _applied(here, pack.name)
        if at_source == at_target:
            continue
        behind = target if len(at_target) < len(at_source) else source
        said = f"pack {pack.name} is at {_last(at_source)} in {source.name} and at {_last(at_target)} in {target.name}"
        if len(at_source) == len(at_target):
            raise CannotCopy(
                f"{said}, and a migration's text is not the same; were they made by different versions of the pack?"
            )
        raise CannotCopy(
            f'{said}; bring {behind.name} up first: recorder --target "{behind.name}" migrate up'
        )


def _applied(history: Mapping[tuple[str, int], Applied], pack: str) -> dict[int, str]:
    return {number: one.checksum for (name, number), one in history.items() if name == pack and one.complete}


def _last(applied: Mapping[int, str]) -> str:
    return f"{max(applied):04}" if applied else "nothing"


def _agreed(source: Side, target: Side, there: LiveTable, here: LiveTable | None) -> CopyTable:
    if here is None:
        raise CannotCopy(
            f"{target.name}: database {target.database} has no table {there.name}; make it first: "
            f'recorder --target "{target.name}" migrate up'
        )
    columns, others = _stored(there), _stored(here)
    differences = [
        f"{name} is {columns.get(name, 'none')} there and {others.get(name, 'none')} here"
        for name in (*columns, *(name for name in others if name not in columns))
        if columns.get(name) != others.get(name)
    ]
    if there.partition_key != here.partition_key:
        differences.append(
            f"the partition key is {there.partition_key or 'none'} there and {here.partition_key or 'none'} here"
        )
    if differences:
        more = f" and {len(differences) - _NAMED} more" if len(differences) > _NAMED else ""
        raise CannotCopy(
            f"{there.name} is not the same table in {source.name} (there) and {target.name} (here): "
            f"{'; '.join(differences[:_NAMED])}{more}; bring both to one schema with recorder migrate up "
            "(to one partition key: recorder migrate repartition), or leave it out of --tables"
        )
    if here.views:
        raise CannotCopy(
            f"{target.name}: rows inserted into {here.name} go through the view {here.views[0]}, whose failure hides "
            "that rows are in; drop it, or make it a refreshable one, and run again"
        )
    return CopyTable(there.name, columns, here.ttl, here.engine.startswith("Replicated"))


def _stored(table: LiveTable) -> dict[str, str]:
    return {column.name: column.type for column in table.columns if column.default_kind not in _DERIVED}
