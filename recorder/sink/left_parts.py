"""Parts that are left alone, because no sink of this process has used their tables: they are only told of in the log.

Broken ones, and such as could not be checked. A table may be used later on; then they are looked at again first.
"""

from __future__ import annotations

import logging

from recorder.sink.parts import Key, Part, Table

log = logging.getLogger(__name__)


class LeftParts:
    """One thread at a time may leave and take; whether a table has any may be asked at any time."""

    def __init__(self) -> None:
        self._parts: dict[Table, dict[Key, Part]] = {}

    def __contains__(self, table: Table) -> bool:
        return table in self._parts

    def has(self, part: Part) -> bool:
        """Whether this very part was left."""
        return part.key in self._parts.get(part.of, {})

    def of(self, tables: set[Table]) -> list[Part]:
        """The parts that were left in any of these tables."""
        return [part for table, left in self._parts.items() if table in tables for part in left.values()]

    def leave(self, part: Part, why: str) -> None:
        """Leave a part, and say so."""
        self._parts.setdefault(part.of, {})[part.key] = part
        log.warning(
            "%s: %s %s. The table is left alone: nothing in this process records into it. See what CHECK TABLE %s "
            "says; restore %s from a backup, or give its rows up: ALTER TABLE %s DETACH PART '%s'",
            ".".join(part.of), part.told, why,
            part.table_name, part.folder / part.name, part.table_name, part.name,
        )  # fmt: skip

    def take(self, part: Part) -> None:
        """Nothing is to be done about this part any more."""
        left = self._parts.get(part.of, {})
        left.pop(part.key, None)
        if not left:
            self._parts.pop(part.of, None)
