"""Tables as a server has them, read from its system tables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from schemas.executor import SqlExecutor, error_code

ACCESS_DENIED = 497
"""ClickHouse: the right to do that is missing."""

_TTL = re.compile(r" TTL (.*?)(?: SETTINGS |$)", re.DOTALL)
_SETTINGS = re.compile(r" SETTINGS (.*)$", re.DOTALL)


@dataclass(frozen=True)
class LiveColumn:
    """A column as `system.columns` has it; `default_kind` is empty where it has none."""

    name: str
    type: str
    default_kind: str


@dataclass(frozen=True)
class LiveTable:
    """A table as the server has it.

    `ttl` is empty where there is none. `views` are the materialized views that rows inserted here go through. `uuid`
    tells this table from another of its name: its UUID, or for a replicated one the path it shares with its replicas
    (whose UUIDs may differ).
    """

    name: str
    engine: str
    partition_key: str
    sorting_key: str
    ttl: str
    settings: Mapping[str, str]
    columns: tuple[LiveColumn, ...]
    views: tuple[str, ...]
    row_policies: tuple[str, ...]
    uuid: str = ""


def read_tables(executor: SqlExecutor, database: str) -> dict[str, LiveTable]:
    """Every table of a database that rows can be inserted into, by name."""
    columns: dict[str, list[LiveColumn]] = {}
    for table, name, kind, default_kind in executor.query(
        "SELECT table, name, type, default_kind FROM system.columns "
        "WHERE database = {db:String} ORDER BY table, position",
        {"db": database},
    ):
        columns.setdefault(table, []).append(LiveColumn(name, kind, default_kind))
    views = _materialized_views(executor, database)
    policies = _row_policies(executor, database)
    replicated = executor.query(
        "SELECT table, zookeeper_path FROM system.replicas WHERE database = {db:String}", {"db": database}
    )
    paths = {str(row[0]): str(row[1]) for row in replicated}
    found = {}
    for name, engine, engine_full, partition_key, sorting_key, uuid in executor.query(
        "SELECT name, engine, engine_full, partition_key, sorting_key, toString(uuid) FROM system.tables "
        "WHERE database = {db:String} AND engine LIKE '%MergeTree'",
        {"db": database},
    ):
        found[name] = LiveTable(
            name=name,
            engine=engine,
            partition_key=partition_key,
            sorting_key=sorting_key.removeprefix("(").removesuffix(")"),
            ttl=ttl_of(engine_full),
            settings=settings_of(engine_full),
            columns=tuple(columns.get(name, ())),
            views=tuple(views.get(name, ())),
            row_policies=tuple(policies.get(name, ())) + tuple(policies.get("", ())),
            uuid=paths.get(name, uuid),
        )
    return found


def ttl_of(engine_full: str) -> str:
    """The TTL in a table's engine clause, empty for none."""
    match = _TTL.search(engine_full)
    return match.group(1).strip() if match else ""


def settings_of(engine_full: str) -> dict[str, str]:
    """The settings in a table's engine clause."""
    match = _SETTINGS.search(engine_full)
    if match is None:
        return {}
    pairs = (part.split(" = ", 1) for part in match.group(1).split(", ") if " = " in part)
    return {name.strip(): value.strip() for name, value in pairs}


def _materialized_views(executor: SqlExecutor, database: str) -> dict[str, list[str]]:
    """Table to the views that every insert into it runs. Refreshable views run on their own time and do not count."""
    views: dict[str, list[str]] = {}
    for table, view_database, view in executor.query(
        "SELECT t.name, d.1, d.2 FROM "
        "(SELECT name, arrayJoin(arrayZip(dependencies_database, dependencies_table)) AS d FROM system.tables "
        "WHERE database = {db:String}) AS t "
        "INNER JOIN system.tables AS v ON v.database = d.1 AND v.name = d.2 "
        "WHERE v.engine = 'MaterializedView' AND position(v.create_table_query, ' REFRESH ') = 0",
        {"db": database},
    ):
        views.setdefault(table, []).append(view if view_database == database else f"{view_database}.{view}")
    return views


def _row_policies(executor: SqlExecutor, database: str) -> dict[str, list[str]]:
    """Table to its row policies; those of the whole database under the empty name."""
    try:
        rows = executor.query(
            "SELECT table, short_name FROM system.row_policies WHERE database = {db:String}", {"db": database}
        )
    except Exception as error:
        # The embedded engine has no users and refuses to show policies; elsewhere the writer may lack the right.
        if error_code(error) != ACCESS_DENIED:
            raise
        return {}
    policies: dict[str, list[str]] = {}
    for table, name in rows:
        policies.setdefault(table or "", []).append(name)
    return policies
