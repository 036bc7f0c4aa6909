"""How a partition is summed up where it lies: rows and an order-free sum of hashes, for each slice of time.

Both sides compute the same expression over all columns, so equal sums mean equal rows but for accidents of 64 bits.
Slices that differ are put together to runs of a few blocks; only those are looked at row by row, or copied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from recorder.copying.ends import Side, full_name
from recorder.copying.partitions import Part, Span
from recorder.copying.tables import TIME, CopyTable
from schemas.quote import quote_name, quote_text

SLICES_MAX = 1_440
SLICE_ROWS = 16_384
"""A slice is of about so many rows, unless there would be more slices than `SLICES_MAX`."""
RUN_ROWS = 262_144


@dataclass(frozen=True)
class Digest:
    """What rows come to: how many, and the sum of their hashes modulo 2^64."""

    rows: int
    total: int


@dataclass(frozen=True)
class Slices:
    """A partition's time in `count` slices of `width_ns` from `first_ns` on; -1 is what is before, `count` what is
    behind."""

    first_ns: int
    width_ns: int
    count: int

    def span(self, first: int, last: int) -> Span:
        """The time of the slices from `first` to `last`, both included."""
        since_ns = None if first < 0 else self.first_ns + first * self.width_ns
        until_ns = None if last >= self.count else self.first_ns + (last + 1) * self.width_ns
        return Span(since_ns, until_ns)

    def sql(self) -> str:
        """The number of a row's slice."""
        offset = f"(toUnixTimestamp64Nano({TIME}) - ({self.first_ns}))"
        return f"if({offset} < 0, -1, least(intDiv({offset}, {self.width_ns}), {self.count}))"


@dataclass(frozen=True)
class Run:
    """Consecutive slices that differ: their time, and how many rows each side has there."""

    span: Span
    source_rows: int
    target_rows: int


def slices_of(part: Part) -> Slices:
    """The slices of a partition, from what the source has of it."""
    count = max(1, min(SLICES_MAX, part.rows // SLICE_ROWS))
    return Slices(part.first_ns, (part.last_ns - part.first_ns) // count + 1, count)


def row_hash_sql(columns: Mapping[str, str]) -> str:
    """The hash of a row over all of its columns, a UInt64.

    A NULL would make the whole hash NULL: it counts as the type's default beside the word that it is NULL.
    """
    terms = []
    for name, kind in columns.items():
        column = quote_name(name)
        inner = _within("LowCardinality", kind) or kind
        if plain := _within("Nullable", inner):
            terms += [f"isNull({column})", f"ifNull({column}, defaultValueOfTypeName({quote_text(plain)}))"]
        else:
            terms.append(column)
    return f"cityHash64({', '.join(terms)})"


def _within(outer: str, kind: str) -> str:
    """What type is in `outer(…)`, empty if this is not one. Names of an Enum may have any bracket."""
    return kind[len(outer) + 1 : -1] if kind.startswith(f"{outer}(") else ""


def digests(side: Side, table: CopyTable, where: str, slices: Slices) -> dict[int, Digest]:
    """The digest of every slice that has rows."""
    # Named so that no column of the table can be meant.
    rows = side.rows(
        f"SELECT {slices.sql()} AS _copy_slice, count(), toString(sumWithOverflow({row_hash_sql(table.columns)})) "
        f"FROM {full_name(side, table.name)} WHERE {where} GROUP BY _copy_slice"
    )
    return {int(row[0]): Digest(int(row[1]), int(row[2])) for row in rows}


def differing_runs(source: Mapping[int, Digest], target: Mapping[int, Digest], slices: Slices) -> list[Run]:
    """The slices that are not the same on both sides, in order, together to runs of at most about `RUN_ROWS` rows."""
    none = Digest(0, 0)
    runs: list[Run] = []
    first = last = None
    of_source = of_target = 0
    for number in sorted(source.keys() | target.keys()):
        there, here = source.get(number, none), target.get(number, none)
        if there == here:
            continue
        rows = max(there.rows, here.rows)
        if first is not None and last is not None:
            if number == last + 1 and max(of_source, of_target) + rows <= RUN_ROWS:
                last, of_source, of_target = number, of_source + there.rows, of_target + here.rows
                continue
            runs.append(Run(slices.span(first, last), of_source, of_target))
        first = last = number
        of_source, of_target = there.rows, here.rows
    if first is not None and last is not None:
        runs.append(Run(slices.span(first, last), of_source, of_target))
    return runs
