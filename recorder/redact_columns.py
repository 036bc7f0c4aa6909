"""Redaction of whole Arrow columns: which rows are worth looking at is asked of all at once, in C.

Rows without the name or form of a secret, nearly all of them, cost one pass of RE2 over their bytes; a column without
such rows is handed back as it is. Which columns are looked at is said by their type (`ColumnType.foreign`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from recorder.breather import NEVER
from recorder.redact import Redactor
from recorder.redact_msgpack import is_utf8
from schemas.columns import Kind
from schemas.table import Table

FEW_VALUES = 8
"""Up to so many values are looked at one by one: making RE2's machine takes 60 µs each time."""


class ColumnRedactor:
    """Redacts the columns of one table that may hold what others wrote.

    `breathe` is called between values that have something to cut, for other threads' sake.
    """

    def __init__(self, table: Table, redactor: Redactor, breathe: Callable[[], None] = NEVER):
        self.spans = 0
        """Secrets cut out so far."""
        self._redactor = redactor
        self._breathe = breathe
        self._positions = tuple(i for i, column in enumerate(table.columns) if column.type.foreign)
        self._kinds = tuple(table.columns[i].type.kind for i in self._positions)

    def redact(self, arrays: list[pa.Array]) -> list[pa.Array]:
        """The columns of some rows, in the table's order, without secrets."""
        changed = arrays
        for position, kind in zip(self._positions, self._kinds, strict=True):
            array = arrays[position]
            if array.null_count == len(array):
                continue
            found = self._redacted_tags(array) if kind is Kind.TAGS else self._redacted(array)
            if found is not None:
                changed = changed if changed is not arrays else list(arrays)
                changed[position] = found
        return changed

    def _worth(self, array: pa.Array) -> list[int]:
        """Positions of the values that may hold a secret."""
        if len(array) - array.null_count <= FEW_VALUES:
            return list(pc.indices_nonzero(array.is_valid()).to_pylist())
        worth: set[int] = set()
        for pattern in self._redactor.worth:
            worth.update(_hits(array, pattern))
        if self._redactor.patterns and pa.types.is_binary(array.type):
            texts = _texts(array)
            for pattern in self._redactor.patterns:
                worth.update(_hits(texts, pattern))
        return sorted(worth)

    def _redacted(self, array: pa.Array) -> pa.Array | None:
        """The texts or bytes without secrets; None if they have none."""
        spans = 0
        values: list[Any] | None = None
        is_text = pa.types.is_string(array.type)
        for position in self._worth(array):
            self._breathe()
            value = array[position].as_py()
            data, count = self._redactor.cut(value.encode() if is_text else value)
            if count:
                values = array.to_pylist() if values is None else values
                values[position] = data.decode("utf-8", "replace") if is_text else data
                spans += count
        if values is None:
            return None
        self.spans += spans
        return pa.array(values, array.type)

    def _redacted_tags(self, array: pa.Array) -> pa.Array | None:
        """Tags of which those with the name of a secret are `***`, and all texts are without secrets."""
        keys, items = array.keys, array.items
        if not self._worth(keys) and not self._worth(items):
            return None
        spans, rows = 0, list[list[tuple[str, str]] | None]()
        for row in array.to_pylist():
            if row is None:
                rows.append(None)
                continue
            pairs = [(key, self._redactor.value(item, key)) for key, item in row]
            spans += sum(old[1] != new[1] for old, new in zip(row, pairs, strict=True))
            rows.append(pairs)
        if not spans:
            return None
        self.spans += spans
        return pa.array(rows, array.type)


def _hits(array: pa.Array, pattern: str) -> list[int]:
    hits = pc.match_substring_regex(array, pattern)
    return list(pc.indices_nonzero(hits).to_pylist()) if hits.true_count else []


def _texts(array: pa.Array) -> pa.Array:
    """The binary values that are texts as such, the others null: a pattern matches the characters of a text."""
    try:
        return array.cast(pa.string())
    except pa.ArrowInvalid:
        return pa.array([v if v is not None and is_utf8(v) else None for v in array.to_pylist()], pa.string())
