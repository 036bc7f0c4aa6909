"""The whole copy: partitions of all tables in order of time, one after the other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from recorder.copying.ends import Side
from recorder.copying.errors import CannotCopy
from recorder.copying.partition import Outcome, PartitionCopy
from recorder.copying.partitions import Part, Span, parts_of
from recorder.copying.tables import CopyTable, tables_of
from recorder.copying.verified import Verified
from recorder.copying.write import Writer
from schemas.pack import Pack
from schemas.quote import quote_text


@dataclass(frozen=True)
class Plan:
    """What there is to copy: tables, partitions in order of time, and how many rows the target has of each by now."""

    tables: tuple[CopyTable, ...]
    parts: tuple[Part, ...]
    target_rows: tuple[int, ...]
    span: Span

    @property
    def rows(self) -> int:
        """All rows of the source."""
        return sum(part.rows for part in self.parts)


def look(source: Side, target: Side, packs: Sequence[Pack], names: Sequence[str], span: Span) -> Plan:
    """What there is to copy, of these tables or of those copied by default. Changes nothing.

    Raises:
        CannotCopy: both sides are one database, or a table cannot be copied.
    """
    _require_two(source, target)
    tables = tables_of(source, target, packs, names)
    parts: list[Part] = []
    there: dict[tuple[str, str], int] = {}
    for table in tables:
        parts += parts_of(source, table.name, span)
        there |= {(table.name, part.id): part.rows for part in parts_of(target, table.name, span)}
    places = {table.name: place for place, table in enumerate(tables)}
    parts.sort(key=lambda part: (part.first_ns, places[part.table], part.id))
    counts = tuple(there.get((part.table, part.id), 0) for part in parts)
    return Plan(tuple(tables), tuple(parts), counts, span)


async def run(
    plan: Plan,
    source: Side,
    target: Side,
    writer: Writer,
    verified: Verified,
    advance: Callable[[Part, int], None] = lambda part, rows: None,
) -> AsyncIterator[Outcome]:
    """Copy, and say what became of each partition; `advance` is told how many of its rows are dealt with.

    Raises:
        CopyStopped: one side gives or takes no more; what was copied stays.
    """
    tables = {table.name: table for table in plan.tables}
    for part in plan.parts:

        def tell(rows: int, part: Part = part) -> None:
            advance(part, rows)

        copy = PartitionCopy(source, target, writer, tables[part.table], part, plan.span, tell)
        yield await copy.run(verified)


def _require_two(source: Side, target: Side) -> None:
    """The same database under two names would be compared with itself, and told to be copied."""
    place = (
        "SELECT name, toString(uuid), hostName(), toString(serverUUID()) FROM system.databases WHERE name = "
    )
    there, here = (side.rows(place + quote_text(side.database)) for side in (source, target))
    if there and [*map(tuple, there)] == [*map(tuple, here)]:
        raise CannotCopy(
            f"{source.name} and {target.name} are the same database {source.database}; name another one in --to"
        )
