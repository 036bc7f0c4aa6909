"""What a table has to copy: its partitions, and the conditions that choose rows of one."""

from __future__ import annotations

from dataclasses import dataclass

from recorder.copying.ends import Side, full_name
from recorder.copying.tables import TIME
from schemas.quote import quote_moment, quote_text


@dataclass(frozen=True)
class Span:
    """Local times from `since_ns` on and before `until_ns`; None leaves an end open."""

    since_ns: int | None = None
    until_ns: int | None = None

    def conditions(self) -> list[str]:
        """As SQL."""
        bounds = ((">=", self.since_ns), ("<", self.until_ns))
        return [f"{TIME} {sign} {quote_moment(at_ns)}" for sign, at_ns in bounds if at_ns is not None]

    def within(self, other: Span) -> Span:
        """The times that are in both."""
        lows = [at for at in (self.since_ns, other.since_ns) if at is not None]
        highs = [at for at in (self.until_ns, other.until_ns) if at is not None]
        return Span(max(lows, default=None), min(highs, default=None))


@dataclass(frozen=True)
class Part:
    """One partition of a table as a side has it: rows of a span, and the bytes on disk that are theirs by share."""

    table: str
    id: str
    rows: int
    nbytes: int
    first_ns: int
    last_ns: int

    def where(self, span: Span) -> str:
        """Its rows of a span as SQL, to stand behind WHERE; the same on both sides."""
        return " AND ".join((f"_partition_id = {quote_text(self.id)}", *span.conditions()))


def parts_of(side: Side, table: str, span: Span) -> list[Part]:
    """The partitions of a table with rows in a span."""
    where = " AND ".join(span.conditions()) or "1"
    found = side.rows(
        f"SELECT _partition_id, count(), toUnixTimestamp64Nano(min({TIME})), toUnixTimestamp64Nano(max({TIME})) "
        f"FROM {full_name(side, table)} WHERE {where} GROUP BY _partition_id"
    )
    on_disk = side.rows(
        "SELECT partition_id, sum(rows), sum(bytes_on_disk) FROM system.parts WHERE active "
        f"AND database = {quote_text(side.database)} AND table = {quote_text(table)} GROUP BY partition_id"
    )
    sizes = {str(row[0]): (int(row[1]), int(row[2])) for row in on_disk}
    parts = []
    for identifier, rows, first_ns, last_ns in found:
        of_all, nbytes = sizes.get(str(identifier), (0, 0))
        share = min(1.0, int(rows) / of_all) if of_all else 1.0
        parts.append(
            Part(table, str(identifier), int(rows), round(nbytes * share), int(first_ns), int(last_ns))
        )
    return parts
