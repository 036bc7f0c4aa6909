"""The page that describes a pack's tables, written from its row classes.

python -m schemas.document core > docs/tables.md
"""

from __future__ import annotations

import sys

from schemas.columns import REQUIRED, Column
from schemas.pack import Pack, load_packs
from schemas.table import Table

_INTRODUCTION = """\
# Tables

Written by `python -m schemas.document {name}` from the row classes; change those and run it again.

Every table has `ts_local`, `run_id`, `correlation_id` and, last, `_log` and `_seq`: who the row is, for ever. Times are
nanoseconds since the epoch, UTC. A column without a default is required: a row without it is a dead letter. A word that
is not in a column's list makes the row a dead letter too. "recorder" as a default means that the recorder fills it in.

Views: `orders_current` is one row an order (with `submit_latency_ns` = `ts_ack` - `ts_send`, and `conflicting_finals`,
the final statuses that came after the one that stands); `fills_unique` one row an execution, by `venue`, `account_id`,
`symbol`, `fill_id` and `side` (an account that trades with itself has a fill on either side, under one id); and
`positions_intraday_current` and `account_state_current` the latest state. They read their table whole, so filter by
their key columns. `market_bars_1s` and `market_bars_1m` are bars of market data; see [bars](bars.md).
"""


def page(pack: Pack) -> str:
    """The whole page, Markdown."""
    index = "\n".join(f"- [`{table.name}`](#{table.name}): {_first_sentence(table)}" for table in pack.tables)
    return "\n".join(
        [_INTRODUCTION.format(name=pack.name), index, *(_section(table) for table in pack.tables)]
    )


def _section(table: Table) -> str:
    policy = table.policy
    kept = "for ever" if policy.keep_days is None else f"{policy.keep_days:,} days"
    facts = (
        f"Kept {kept}; durability `{policy.durability}`, overflow `{policy.overflow}`; one partition a "
        f"{policy.partition}; ordered by `{', '.join(policy.order_by)}`."
    )
    if not policy.enabled:
        facts += " Off unless asked for."
    rows = "\n".join(_row(column) for column in table.all_columns)
    doc = " ".join(table.doc.split())
    return f"\n## {table.name}\n\n{doc}\n\n{facts}\n\n| column | type | default | meaning |\n|---|---|---|---|\n{rows}"


def _row(column: Column) -> str:
    meaning = column.doc.replace("|", "\\|")
    if column.type.choices:
        meaning += " One of " + ", ".join(f"`{word}`" for word in column.type.choices) + "."
    return f"| `{column.name}` | {column.clickhouse_type} | {_default(column)} | {meaning} |"


def _default(column: Column) -> str:
    if column.name in ("ts_local", "run_id", "_log", "_seq"):
        return "recorder"
    if column.default is REQUIRED:
        return "**required**"
    if column.default is None:
        return "null"
    return f"`{column.default}`" if column.default not in ("", b"", (), {}) else "empty"


def _first_sentence(table: Table) -> str:
    return " ".join(table.doc.split()).split(". ")[0].rstrip(".") + "."


if __name__ == "__main__":
    for found in load_packs(sys.argv[1:] or ["core"]):
        print(page(found))
