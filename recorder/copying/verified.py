"""What is remembered of partitions that were copied and verified, so that the next run need not read them again.

A partition's *print* is of the parts that hold its rows, on either side: as long as both prints are what they were
before the verification read the rows, nothing was inserted, deleted or merged since. The file is a help and no truth:
without it, or with one of another database, everything is compared again.
"""

from __future__ import annotations

import json
import os
import pathlib
from dataclasses import dataclass
from typing import Any

from recorder.copying.ends import Side
from recorder.copying.partitions import Part, Span
from schemas.quote import quote_text

FORMAT = 1


@dataclass(frozen=True)
class Prints:
    """The prints of one partition on both sides."""

    source: str
    target: str


def prints_of(source: Side, target: Side, part: Part) -> Prints:
    """The prints as they are now."""
    return Prints(_print(source, part), _print(target, part))


class Verified:
    """The memory, in one file; without a path it forgets everything. One owner at a time."""

    def __init__(self, path: pathlib.Path | None = None):
        self._path = path
        self._known: dict[str, Any] = {}
        if path is not None:
            try:
                read = json.loads(path.read_bytes())
            except (OSError, ValueError):
                read = None  # none yet, or one that a crash of the machine left empty
            if isinstance(read, dict) and read.get("format") == FORMAT:
                self._known = read["partitions"]

    def recall(self, part: Part, span: Span, prints: Prints) -> dict[str, Any] | None:
        """What was kept when the partition was verified, if nothing changed since."""
        known = self._known.get(_key(part, span))
        if known is None or (known["source"], known["target"]) != (prints.source, prints.target):
            return None
        kept: dict[str, Any] = known["kept"]
        return kept

    def keep(self, part: Part, span: Span, prints: Prints, kept: dict[str, Any]) -> None:
        """Remember that a partition was verified after its prints were taken; `kept` is what JSON can hold."""
        self._known[_key(part, span)] = {"source": prints.source, "target": prints.target, "kept": kept}
        if self._path is None:
            return
        draft = self._path.with_suffix(".draft")
        draft.write_text(json.dumps({"format": FORMAT, "partitions": self._known}))
        os.replace(draft, self._path)


def _key(part: Part, span: Span) -> str:
    return f"{part.table}/{part.id}/{span.since_ns}/{span.until_ns}"


def _print(side: Side, part: Part) -> str:
    of = f"database = {quote_text(side.database)}"
    uuid = side.rows(
        f"SELECT toString(uuid) FROM system.tables WHERE {of} AND name = {quote_text(part.table)}"
    )
    # A lightweight update leaves the parts as they are, and lays another over them.
    laid_over = f"startsWith(partition_id, 'patch-') AND endsWith(partition_id, {quote_text('-' + part.id)})"
    found = side.rows(
        "SELECT count(), toString(sumWithOverflow(cityHash64(name, rows, hash_of_all_files))) FROM system.parts "
        f"WHERE active AND {of} AND table = {quote_text(part.table)} "
        f"AND (partition_id = {quote_text(part.id)} OR {laid_over})"
    )
    return "-".join(map(str, (*uuid[0], *found[0]))) if uuid else ""
