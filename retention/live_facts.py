"""The facts of tables, read from a server's system tables and from what it knows of each partition without reading it.

Times of rows come from the index that each part has of its partition key's column: no column is read, unless rows of a
part were deleted. On a replicated table these are the parts of the server that was asked. Receipts, bars, holds and
logs are not read here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from retention.facts import PartitionFacts, TableFacts
from schemas.executor import SqlExecutor
from schemas.live import LiveTable
from schemas.policy import TablePolicy
from schemas.quote import quote_name
from schemas.render import is_cut_by

S_NS = 1_000_000_000
LATE_NS = 20_000_000
"""The times of parts are of a clock that steps: for as long, at most, it still shows the second before."""


class _Parts(NamedTuple):
    bytes_on_disk: int
    parts: int
    modified_s: int


def server_time_ns(executor: SqlExecutor) -> int:
    """The server's clock, nanoseconds since 1970: the one that wrote the times of parts, and that TTL goes by."""
    return int(executor.query("SELECT toUnixTimestamp64Nano(now64(9))")[0][0])


def read_facts(
    executor: SqlExecutor,
    database: str,
    tables: Iterable[tuple[LiveTable, TablePolicy]],
    on_table: Callable[[str], None] = lambda _: None,
) -> list[TableFacts]:
    """The facts of these tables, in their order; `on_table` is told the name of each before it is asked about.

    A partition all of whose rows were deleted is left out: the server removes it by itself.
    """
    parts = _parts(executor, database)
    merges = _merges(executor, database)
    found = []
    for live, policy in tables:
        on_table(live.name)
        column = quote_name(policy.partition_column)
        rows = executor.query(
            f"SELECT _partition_id, count(), toUnixTimestamp64Nano(min({column})), "
            f"toUnixTimestamp64Nano(max({column})) "
            f"FROM {quote_name(database)}.{quote_name(live.name)} GROUP BY _partition_id ORDER BY _partition_id"
        )
        partitions = []
        for partition, count, min_ns, max_ns in rows:
            # A partition that came, or went, since its parts were listed is in the next plan.
            if (of := parts.get((live.name, partition))) is not None:
                facts = PartitionFacts(
                    id=partition,
                    rows=int(count),
                    bytes_on_disk=of.bytes_on_disk,
                    parts=of.parts,
                    min_ns=int(min_ns),
                    max_ns=int(max_ns),
                    modified_ns=(of.modified_s + 1) * S_NS - 1 + LATE_NS,  # the server keeps whole seconds
                    merges=merges.get((live.name, partition), 0),
                )
                partitions.append(facts)
        by_time = is_cut_by(live.partition_key, policy)
        found.append(TableFacts(table=live.name, ttl=live.ttl, partitions=tuple(partitions), by_time=by_time))
    return found


def _parts(executor: SqlExecutor, database: str) -> dict[tuple[str, str], _Parts]:
    rows = executor.query(
        "SELECT table, partition_id, sum(bytes_on_disk), count(), toUnixTimestamp(max(modification_time)) "
        "FROM system.parts WHERE database = {db:String} AND active GROUP BY table, partition_id",
        {"db": database},
    )
    return {(str(row[0]), str(row[1])): _Parts(*map(int, row[2:])) for row in rows}


def _merges(executor: SqlExecutor, database: str) -> dict[tuple[str, str], int]:
    rows = executor.query(
        "SELECT table, partition_id, count() FROM system.merges WHERE database = {db:String} "
        "GROUP BY table, partition_id",
        {"db": database},
    )
    return {(str(row[0]), str(row[1])): int(row[2]) for row in rows}
