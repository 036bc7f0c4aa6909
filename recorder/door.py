"""The producer's side of one table: what `record` looks up by name. Measures rows, and hands them to the queue."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Mapping
from typing import Any

from recorder.queue import TableQueue
from schemas.columns import Kind
from schemas.table import Table

FLOAT_BYTES = 32
"""A Python float in a list: the object and the list's pointer to it."""


class Door:
    """One table as producers see it. `enabled` False counts rows as filtered and lets none in."""

    __slots__ = (
        "_indexes",
        "_lists",
        "enabled",
        "filtered_rows",
        "has_wide",
        "names",
        "nested",
        "queue",
        "row",
        "table",
    )

    def __init__(self, table: Table, queue: TableQueue, *, enabled: bool):
        self.table = table
        self.queue = queue
        self.enabled = enabled
        self.filtered_rows = 0
        self.row = table.row
        wide = [(i, column) for i, column in enumerate(table.columns) if column.type.unbounded]
        self.has_wide = bool(wide)
        lists = [(i, column) for i, column in wide if column.type.kind in (Kind.FLOATS, Kind.TAGS)]
        plain = [pair for pair in wide if pair not in lists]
        self.names = tuple(column.name for _, column in plain)
        self._indexes = tuple(i for i, _ in plain)
        self._lists = tuple((i, column.name) for i, column in lists)
        self.nested = tuple(c.name for c in table.columns if c.type.kind in (Kind.FLOATS, Kind.TAGS))
        """Columns whose values a producer may go on changing: lists and mappings."""

    def detach(self, row: dict[str, Any]) -> None:
        """Copy a copied mapping's lists and mappings too, so that nothing of it is the producer's any more."""
        for name in self.nested:
            value = row.get(name)
            if value is not None and type(value) is not tuple:
                with contextlib.suppress(Exception):  # one that cannot be copied is looked at as it is, later
                    row[name] = value.copy() if type(value) in (list, dict) else copy.copy(value)

    def wide_bytes(self, row: Any) -> int:
        """Bytes of a row's texts and payloads of any length. A row that cannot be measured counts 0 here.

        It is on the producer's path: a few unbounded columns are looked at, not the others.
        """
        total = 0
        kind = type(row)
        try:
            if kind is dict:
                for name in self.names:
                    if value := row.get(name):
                        total += len(value)
            elif kind is tuple:
                for index in self._indexes:
                    if value := row[index]:
                        total += len(value)
            else:
                for name in self.names:
                    if value := getattr(row, name, None):
                        total += len(value)
            if self._lists:
                total += self._list_bytes(row, kind)
        except Exception:  # noqa: BLE001 - a row object may raise anything, and the producer must not feel it
            return total
        return total

    def _list_bytes(self, row: Any, kind: type) -> int:
        """Bytes of a row's lists of floats and its tags."""
        total = 0
        for index, name in self._lists:
            value = (
                row.get(name) if kind is dict else row[index] if kind is tuple else getattr(row, name, None)
            )
            if type(value) is dict:
                total += sum(len(key) + len(text) for key, text in value.items()) + FLOAT_BYTES * 2 * len(
                    value
                )
            elif value is not None:
                total += FLOAT_BYTES * len(value)
        return total


def key_of(table: Table) -> Callable[[Any], Any]:
    """The conflation key of a row of any shape."""
    names = table.policy.conflate_key
    index = {column.name: position for position, column in enumerate(table.columns)}
    positions = tuple(index[name] for name in names)

    def key(row: Any) -> Any:
        if isinstance(row, tuple):
            return tuple(row[position] for position in positions)
        if isinstance(row, Mapping):
            return tuple(row[name] for name in names)
        return tuple(getattr(row, name) for name in names)

    return key
