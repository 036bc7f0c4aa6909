"""Names and values as they stand in SQL. Where a driver binds parameters, they are bound instead."""

from __future__ import annotations

import re

_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_WORDS = frozenset(
    {
        "all", "constraint", "cube", "distinct", "false", "index", "inf", "nan", "not", "null", "projection",
        "rollup", "top", "true",
    }
)  # fmt: skip
"""Names that SQL takes for a word or a value of its own, where a column or a table may stand."""


def quote_name(name: str) -> str:
    """A database, table or column name as SQL."""
    if _PLAIN_NAME.fullmatch(name) and name.lower() not in _WORDS:
        return name
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def quote_text(text: str) -> str:
    """A string literal as SQL."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def quote_moment(ns: int) -> str:
    """A time in nanoseconds since the epoch as a `DateTime64(9, 'UTC')` of SQL."""
    # A small number is a narrow integer, which not every version takes.
    return f"fromUnixTimestamp64Nano(toInt64({ns}), 'UTC')"
