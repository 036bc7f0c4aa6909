"""Where a live table differs from its row class and policy. Pure: compares values, runs nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from schemas.live import LiveTable
from schemas.render import RenderContext, is_cut_by, partition_expression
from schemas.table import Table

REPARTITION_SUFFIX = "_repartition"
"""What the name of a table has in addition that `recorder migrate repartition` makes beside another."""


@dataclass(frozen=True)
class Difference:
    """One difference of one table.

    `kind` is one of missing_table, missing_column, column_type, extra_column, engine, partition_key, sorting_key,
    ttl, setting, materialized_view, row_policy, unfinished_repartition. `what` names the column, setting or view.
    """

    table: str
    kind: str
    what: str
    expected: str
    observed: str
    remedy: str


def compare(
    tables: Iterable[Table], live: Mapping[str, LiveTable], context: RenderContext
) -> list[Difference]:
    """All differences, table by table."""
    found: list[Difference] = []
    for table in tables:
        if (there := live.get(table.name)) is None:
            found.append(
                Difference(
                    table.name, "missing_table", table.name, "a table", "none", "run recorder migrate up"
                )
            )
        else:
            found += _columns(table, there)
            found += _policy(table, there, context)
            found += _onlookers(there)
            found += _unfinished(table.name, live)
    return found


def _unfinished(table: str, live: Mapping[str, LiveTable]) -> Iterator[Difference]:
    if (beside := table + REPARTITION_SUFFIX) in live:
        yield Difference(
            table,
            "unfinished_repartition",
            beside,
            "no such table",
            "what an interrupted recorder migrate repartition left; it may have rows that came late",
            f"stop its recorders and run recorder migrate repartition {table} --yes",
        )


def _columns(table: Table, live: LiveTable) -> Iterator[Difference]:
    there = {column.name: column for column in live.columns}
    for column in table.all_columns:
        if (found := there.pop(column.name, None)) is None:
            yield Difference(
                table.name,
                "missing_column",
                column.name,
                column.clickhouse_type,
                "none",
                "add it by a migration: ALTER TABLE … ADD COLUMN",
            )
        elif found.type != column.clickhouse_type:
            yield Difference(
                table.name,
                "column_type",
                column.name,
                column.clickhouse_type,
                found.type,
                "change it by a migration: ALTER TABLE … MODIFY COLUMN",
            )
    for extra in there.values():
        # With a default (NULL is one) an older recorder beside a newer one goes on inserting.
        if not extra.default_kind and "Nullable(" not in extra.type:
            yield Difference(
                table.name,
                "extra_column",
                extra.name,
                "no column without a default",
                extra.type,
                "give it a DEFAULT, or drop it",
            )


def _policy(table: Table, live: LiveTable, context: RenderContext) -> Iterator[Difference]:
    engine = context.engine.partition("(")[0]
    if live.engine != engine:
        yield Difference(
            table.name,
            "engine",
            "engine",
            engine,
            live.engine,
            "drain the table and rebuild it with that engine",
        )
    partition = partition_expression(table.policy)
    if live.partition_key != partition:
        only_groups = is_cut_by(live.partition_key, table.policy)
        yield Difference(
            table.name,
            "partition_key",
            "partition key",
            partition,
            live.partition_key or "none",
            f"stop its recorders and run recorder migrate repartition {table.name}; or set symbol_groups as it is there"
            if only_groups
            else "drain the table and rebuild it with that partition key",
        )
    order = ", ".join(table.policy.order_by)
    if live.sorting_key != order:
        yield Difference(
            table.name,
            "sorting_key",
            "sorting key",
            order,
            live.sorting_key,
            "drain the table and rebuild it with that ORDER BY",
        )
    ttl = context.ttl_expression(table)
    if live.ttl != ttl:
        yield Difference(
            table.name, "ttl", "TTL", ttl or "none", live.ttl or "none", "run recorder migrate up"
        )
    for name, value in context.table_settings(table).items():
        if live.settings.get(name) != value:
            yield Difference(
                table.name,
                "setting",
                name,
                value,
                live.settings.get(name, "not set"),
                "run recorder migrate up",
            )
    for name in context.dropped_settings(table):
        if name in live.settings:
            yield Difference(
                table.name, "setting", name, "not set", live.settings[name], "run recorder migrate up"
            )


def _onlookers(live: LiveTable) -> Iterator[Difference]:
    for view in live.views:
        # A view that fails makes the insert fail although the row is in; a retry's look-up finds it and the view's
        # row is lost.
        yield Difference(
            live.name,
            "materialized_view",
            view,
            "no view that runs at insert",
            view,
            "make it a refreshable view (REFRESH EVERY …) or drop it",
        )
    for policy in live.row_policies:
        yield Difference(
            live.name,
            "row_policy",
            policy,
            "no row policy",
            policy,
            "drop it, or grant the recorder's user all rows: look-ups must see every row",
        )
