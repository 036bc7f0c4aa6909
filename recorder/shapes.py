"""Shapes of rows: row objects, mappings and tuples become tuples in the order of the table's columns. Pure.

A slice of one shape is turned over as a whole, in C; only a mixed or a faulty one is looked at row by row.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from recorder.convert import EARLIEST_TIME_NS
from schemas.columns import REQUIRED
from schemas.table import Table


class BadShape(ValueError):  # noqa: N818 - a verdict on data, not a failure of the program
    """A row that is no row of this table: unknown or missing fields, wrong length, wrong kind of object."""

    def __init__(self, reason: str, detail: str):
        super().__init__(detail)
        self.reason = reason


class Shapes:
    """The shapes that one table's rows may have. `ignore_unknown` drops fields that the table does not have."""

    def __init__(self, table: Table, *, ignore_unknown: bool = False):
        self._table = table
        self._ignore_unknown = ignore_unknown
        self._names = tuple(column.name for column in table.columns)
        self._known = frozenset(self._names)
        self._defaults = {column.name: column.default for column in table.columns}
        self._required = frozenset(column.name for column in table.columns if column.default is REQUIRED)
        self._pick: Callable[[Mapping[str, Any]], tuple[Any, ...]] = operator.itemgetter(*self._names)
        self._ts_local = self._names.index("ts_local")

    def tuples(self, rows: Sequence[Any]) -> tuple[Sequence[tuple[Any, ...]], dict[int, BadShape], int]:
        """The rows as tuples in column order; by position, those that are no rows; how many fields were ignored."""
        kinds = {tuple} if operator.countOf(map(type, rows), tuple) == len(rows) else set(map(type, rows))
        if kinds == {tuple}:
            if operator.countOf(map(len, rows), len(self._names)) == len(rows):
                return rows, {}, 0
        elif all(map(self._has_columns, kinds)):
            return list(map(msgspec.structs.astuple, rows)), {}, 0
        elif kinds == {dict}:
            full = [self._defaults | row for row in rows]
            # As many fields as columns: none is unknown. None still REQUIRED: none is missing.
            if set(map(len, full)) == {len(self._names)} and all(map(self._required.issubset, rows)):
                return list(map(self._pick, full)), {}, 0
        tuples, misshapen, unknown_fields = [], dict[int, BadShape](), 0
        for i, row in enumerate(rows):
            try:
                values, unknown = self._tuple(row)
            except BadShape as error:
                misshapen[i] = error
            else:
                tuples.append(values)
                unknown_fields += unknown
        return tuples, misshapen, unknown_fields

    def _tuple(self, row: Any) -> tuple[tuple[Any, ...], int]:
        """One row of any shape as a tuple in column order, defaults filled in; and how many fields were ignored.

        Raises:
            BadShape: it is no row of this table.
        """
        name = self._table.name
        if isinstance(row, self._table.row) or self._has_columns(type(row)):
            return msgspec.structs.astuple(row), 0
        if isinstance(row, tuple):
            if len(row) != len(self._names):
                raise BadShape(
                    "wrong_length",
                    f"{name}: a tuple of {len(row)} fields, the table has "
                    f"{len(self._names)}: {', '.join(self._names)}",
                )
            return row, 0
        if isinstance(row, Mapping):
            ignored = 0
            full = self._defaults | dict(row)
            if missing := [field for field in self._names if full[field] is REQUIRED]:
                raise BadShape("missing_field", f"{name}: no {', '.join(missing)}, which has no default")
            if len(full) > len(self._names):
                unknown = [key for key in full if key not in self._known]
                if not self._ignore_unknown:
                    raise BadShape("unknown_field", f"{name}: no column {', '.join(map(str, unknown[:5]))}")
                ignored = len(unknown)
            return self._pick(full), ignored
        kind = type(row).__name__
        expected = self._table.row.__name__
        raise BadShape("wrong_row", f"{name}: {kind}, where a {expected}, a mapping or a tuple is needed")

    def _has_columns(self, kind: type) -> bool:
        """Whether objects of a class have this table's columns as their fields, in order."""
        return kind is self._table.row or kind is self._table.plain_row

    def local_time(self, row: Any) -> int:
        """A bad row's local time in ns, if that at least can be read; else 0."""
        try:
            if isinstance(row, tuple):
                found = row[self._ts_local]
            else:
                found = row["ts_local"] if isinstance(row, Mapping) else row.ts_local
        except Exception:  # noqa: BLE001 - a row object may raise anything
            return 0
        return found if type(found) is int and EARLIEST_TIME_NS <= found < 2**63 else 0
