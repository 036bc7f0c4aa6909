"""From a migration's SQL to what a server runs: placeholders filled from the policy, outside the checksum.

| placeholder | becomes |
|---|---|
| `{{db}}` | the database's name, quoted |
| `{{on_cluster}}` | `ON CLUSTER 'name'` on a cluster, else nothing |
| `{{engine}}` | `MergeTree`, on a cluster `ReplicatedMergeTree(…)` |
| `{{versioned_engine}}` | the same for derived rows: of those with one key it keeps the greatest `_version` |
| `{{partition}}` | the partition key: day or month of the policy's time, and the group of the symbol where it says so |
| `{{ttl}}` | the `TTL` clause, nothing where rows are kept for ever or TTL is off |
| `{{settings}}` | deduplication window, TTL settings, and by durability fsync or what a power cut may break |

The last three speak of a table of the pack: the statement is then its `CREATE TABLE IF NOT EXISTS {{db}}.name`. The
engine may also be that of another table, which holds no recorded rows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from schemas.errors import StatementError
from schemas.policy import SYMBOL, Durability, Partition, TablePolicy
from schemas.quote import quote_name, quote_text
from schemas.statements import blank_comments
from schemas.table import Table

DEDUP_WINDOW = 100_000
"""Inserts whose tokens a table remembers. Insert rate x `insert_timeout_s` of all recorders stays far below it."""

FSYNC_SETTINGS = (
    "fsync_after_insert",
    "fsync_part_directory",
    "min_rows_to_fsync_after_merge",
    "min_compressed_bytes_to_fsync_after_merge",
)
"""What a `wal` table carries. All four: without the directory's fsync a part's name is lost, without the last two
what a merge made of synced parts is not synced itself."""

UNSYNCED_SETTINGS = {
    "max_suspicious_broken_parts": "10000",
    "max_suspicious_broken_parts_bytes": str(100 * 2**30),
}
"""What a table carries that is not synced. A power cut breaks its youngest parts, and beyond 100 of them or 1 GiB the
server refuses to start, with all other tables. It sets them aside under `detached`, up to these."""

_PLACEHOLDER = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_CREATE_TABLE = re.compile(r"\s*CREATE\s+TABLE\s+IF\s+NOT\s+EXISTS\s+\{\{\s*db\s*\}\}\.(\w+)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class RenderContext:
    """What rendering knows: the database, the cluster, and how long each table is kept.

    `ttl` False leaves every TTL out. `keep_days` overrides a table's policy; None there keeps rows for ever.
    """

    database: str
    cluster: str | None = None
    ttl: bool = True
    keep_days: Mapping[str, int | None] = field(default_factory=dict)

    @property
    def on_cluster(self) -> str:
        """The `ON CLUSTER` clause, empty on a single server."""
        return f"ON CLUSTER {quote_text(self.cluster)}" if self.cluster else ""

    @property
    def engine(self) -> str:
        """The engine clause of a table that rows are inserted into."""
        if self.cluster:
            return "ReplicatedMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}')"
        return "MergeTree"

    @property
    def versioned_engine(self) -> str:
        """The engine clause of a table of derived rows, which are inserted again with a greater `_version`."""
        if self.cluster:
            path = "'/clickhouse/tables/{shard}/{database}/{table}'"
            return f"ReplicatedReplacingMergeTree({path}, '{{replica}}', _version)"
        return "ReplacingMergeTree(_version)"

    def ttl_expression(self, table: Table) -> str:
        """The TTL as the server writes it, empty for none."""
        days = self.keep_days.get(table.name, table.policy.keep_days)
        if not self.ttl or days is None:
            return ""
        return f"toDateTime({table.policy.partition_column}) + toIntervalDay({days})"

    def table_settings(self, table: Table) -> dict[str, str]:
        """The MergeTree settings the table carries."""
        window = "replicated_deduplication_window" if self.cluster else "non_replicated_deduplication_window"
        settings = {window: str(DEDUP_WINDOW), "ttl_only_drop_parts": "1"}
        if table.policy.durability is Durability.WAL:
            return settings | dict.fromkeys(FSYNC_SETTINGS, "1")
        return settings | UNSYNCED_SETTINGS

    def dropped_settings(self, table: Table) -> tuple[str, ...]:
        """Those of the recorder's own settings that the table must not carry, from when its durability was another."""
        carried = self.table_settings(table)
        return tuple(name for name in (*FSYNC_SETTINGS, *UNSYNCED_SETTINGS) if name not in carried)


def partition_expression(policy: TablePolicy) -> str:
    """The partition key as the server writes it."""
    time = partition_time(policy)
    if policy.symbol_groups == 1:
        return time
    # The server finds the one group of `symbol = '…'` by this expression itself: no column is needed for it.
    return f"({time}, cityHash64({SYMBOL}) % {policy.symbol_groups})"


def partition_time(policy: TablePolicy) -> str:
    """The part of the partition key that is a time, as the server writes it."""
    function = "toYYYYMMDD" if policy.partition is Partition.DAY else "toYYYYMM"
    return f"{function}({policy.partition_column})"


def is_cut_by(partition_key: str, policy: TablePolicy) -> bool:
    """Whether a table with this partition key is cut by the policy's time, be it into symbol groups or not."""
    time = partition_time(policy)
    return partition_key == time or partition_key.startswith(f"({time}, ")


def created_table(statement: str) -> str | None:
    """The table that a `CREATE TABLE` statement makes, None for another statement."""
    match = _CREATE_TABLE.match(blank_comments(statement))
    return match.group(1) if match else None


def render(statement: str, tables: Mapping[str, Table], context: RenderContext, *, where: str = "SQL") -> str:
    """The statement with its placeholders filled.

    Raises:
        StatementError: a placeholder that is none, or one that needs a table where none is made.
    """
    values = {"db": quote_name(context.database), "on_cluster": context.on_cluster}
    name = created_table(statement)
    if name is not None:
        values |= {"engine": context.engine, "versioned_engine": context.versioned_engine}
    if name is not None and name in tables:
        table = tables[name]
        expression = context.ttl_expression(table)
        settings = context.table_settings(table)
        values |= {
            "partition": partition_expression(table.policy),
            "ttl": f"TTL {expression}" if expression else "",
            "settings": ", ".join(f"{key} = {value}" for key, value in settings.items()),
        }

    def fill(match: re.Match[str]) -> str:
        try:
            return values[match.group(1)]
        except KeyError:
            raise StatementError(
                f"{where}: placeholder {match.group()} has no value here; known: {', '.join(sorted(values))}. Those "
                "of a table need CREATE TABLE IF NOT EXISTS {{db}}.name of a table of the pack"
            ) from None

    return _PLACEHOLDER.sub(fill, statement)
