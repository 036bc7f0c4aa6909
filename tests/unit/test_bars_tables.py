"""The tables of bars as the migration makes them, on one server and on a cluster, and the statements that fill them."""

from __future__ import annotations

import re

import pytest

from recorder.bars.sql import VALUES
from recorder.bars.windows import ALL_BARS
from schemas.core.tables import PACK
from schemas.render import RenderContext, render

(MIGRATION,) = (migration for migration in PACK.migrations if migration.name == "bars")
REPLICATED = (
    "ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}', _version)"
)


def statements(cluster: str | None = None) -> list[str]:
    context = RenderContext(database="trading", cluster=cluster)
    return [render(statement.text, {}, context) for statement in MIGRATION.statements]


@pytest.mark.parametrize(
    ("cluster", "engine"), [(None, "ReplacingMergeTree(_version)"), ("prod", REPLICATED)]
)
def test_every_table_keeps_the_newest_version_of_a_bar(cluster: str | None, engine: str) -> None:
    """Tables are of the engine that takes versions, replicated on a cluster; each has a view that reads the newest."""
    made = statements(cluster)
    for bars in ALL_BARS:
        (table,) = (sql for sql in made if f"TABLE IF NOT EXISTS trading.{bars.stored} " in sql)
        assert f"ENGINE = {engine}\n" in table
        (view,) = (sql for sql in made if f"VIEW IF NOT EXISTS trading.{bars.name} " in sql)
        assert view.endswith(f"FROM trading.{bars.stored} FINAL")
        assert ("ON CLUSTER 'prod'" in table and "ON CLUSTER 'prod'" in view) is (cluster is not None)


def test_a_build_fills_every_column() -> None:
    """The columns of both tables are those that a build inserts, and the version."""
    for sql in (text for text in statements() if "CREATE TABLE" in text):
        columns = re.findall(r"^    (\w+) ", sql, re.MULTILINE)
        assert sorted(columns) == sorted([*VALUES, "_version"])
