"""The parts of a partition, by name: what is proven of them, and dropping exactly them.

A part never changes: what a merge, a mutation or an insert makes is another part, with another name. So a drop of parts
by name takes the rows that were looked at and no other, whatever comes meanwhile; a part that was merged away is not
dropped, and neither is what it was merged into.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from retention.archive.rowhash import identity_sum_sql
from retention.errors import RetentionError
from schemas.executor import SqlExecutor, error_code
from schemas.quote import quote_name, quote_text

_NO_SUCH_PART = 232


@dataclass(frozen=True, order=True)
class LivePart:
    """An active part: its name, and the server's hash of its files. `rows` are those that it has, whoever asks; 0 where
    some of them were deleted, which are in that number still.
    """

    name: str
    content: str
    rows: int = field(default=0, compare=False)


@dataclass(frozen=True)
class PartsSums:
    """What the rows of parts come to; deleted ones do not count. `newest_ns` is their last local time."""

    rows: int
    newest_ns: int
    identity_sum: int | None = None


def active_parts(executor: SqlExecutor, database: str, table: str, partition: str) -> tuple[LivePart, ...]:
    """The active parts of a partition, named by its id, in order of their names."""
    rows = executor.query(
        "SELECT name, hash_of_all_files, if(has_lightweight_delete, 0, rows) FROM system.parts "
        "WHERE database = {db:String} AND table = {table:String} AND partition_id = {id:String} AND active",
        {"db": database, "table": table, "id": partition},
    )
    return tuple(sorted(LivePart(str(name), str(content), int(count)) for name, content, count in rows))


def parts_at(executor: SqlExecutor, database: str, table: str, time: str) -> dict[str, tuple[LivePart, ...]]:
    """The active parts of all partitions of a day or month (`20240808`), by their ids, in the order of these: of one,
    or of one for each symbol group.
    """
    rows = executor.query(
        "SELECT DISTINCT partition_id FROM system.parts WHERE database = {db:String} AND table = {table:String} "
        "AND splitByChar('-', partition_id)[1] = {time:String} AND active",
        {"db": database, "table": table, "time": time},
    )
    partitions = sorted(str(row[0]) for row in rows)
    return {partition: active_parts(executor, database, table, partition) for partition in partitions}


def sums_of_parts(
    executor: SqlExecutor,
    database: str,
    table: str,
    parts: Iterable[LivePart],
    *,
    time_column: str,
    identity: bool = False,
) -> PartsSums:
    """What is in these parts, of those that are active still; with `identity` the sum of identities, too."""
    told = identity_sum_sql() if identity else "count() AS rows, 0 AS identity_sum"
    rows = executor.query(
        f"SELECT {told}, toUnixTimestamp64Nano(max({quote_name(time_column)})) "
        f"FROM {quote_name(database)}.{quote_name(table)} WHERE {parts_filter(part.name for part in parts)}"
    )
    count, identity_sum, newest_ns = rows[0]
    return PartsSums(int(count), int(newest_ns), int(identity_sum) if identity else None)


def must_see_all(table: str, parts: Iterable[LivePart], seen: PartsSums) -> None:
    """Nothing is proven of rows that are not shown: a row policy, or settings of the database user, hide some. (Rows
    that were deleted as patches count as hidden, too, until the patches are applied.)

    Raises:
        RetentionError: the parts have more rows.
    """
    there = sum(part.rows for part in parts)
    if there > seen.rows:
        raise RetentionError(
            f"{table}: its parts have {there:,} rows, this database user is shown {seen.rows:,}, so nothing is "
            "archived or dropped; is there a row policy, or a filter in the user's settings? Let it see all rows. Were "
            f"rows deleted as patches? ALTER TABLE {table} APPLY PATCHES"
        )


def parts_filter(names: Iterable[str]) -> str:
    """The rows of these parts, as a condition of SQL."""
    return f"_part IN ({', '.join(map(quote_text, names)) or 'NULL'})"


def drop_part(executor: SqlExecutor, database: str, table: str, part: LivePart) -> bool:
    """Drop one part with its rows; False where there is no active part of that name, and nothing was dropped."""
    try:
        executor.command(
            f"ALTER TABLE {quote_name(database)}.{quote_name(table)} DROP PART {quote_text(part.name)}"
        )
    except Exception as error:
        if error_code(error) != _NO_SUCH_PART:
            raise
        return False
    return True
