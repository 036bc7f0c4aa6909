"""What is remembered of partitions that were copied and verified, so that the next run need not read them again.

A partition's *print* is of the parts that hold its rows, on either side: as long as both prints are what they were
before the verification read the rows, nothing was inserted, deleted or merged since. The file is a help and no truth:
without it, or with one of another database, everything is compared again; one that cannot be written ends no copy.

Its first line says the format, each other is one partition; the last one of a partition counts. Lines are added, so
that remembering a partition takes as long among thousands as among few.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from recorder.copying.ends import Side
from recorder.copying.partitions import Part, Span
from schemas.quote import quote_text

FORMAT = 2
KEPT = frozenset({"rows", "extra", "source_doubled"})
"""What is kept of a verified partition, see `Outcome`."""
MOST = 50_000
"""Partitions that are remembered, of all spans; the oldest are forgotten when the file is next opened."""


@dataclass(frozen=True)
class Prints:
    """The prints of one partition on both sides."""

    source: str
    target: str


def prints_of(source: Side, target: Side, part: Part) -> Prints:
    """The prints as they are now."""
    return Prints(_print(source, part), _print(target, part))


class Verified:
    """The memory, in one file; without a path it forgets everything. One owner at a time.

    `unwritable` is told, once, why nothing more is remembered.
    """

    def __init__(self, path: pathlib.Path | None = None, unwritable: Callable[[str], None] = lambda _: None):
        self._path = path
        self._unwritable = unwritable
        self._known: dict[str, dict[str, Any]] = {}
        if path is None:
            return
        try:
            lines = path.read_bytes().split(b"\n")
        except OSError:
            lines = []
        if _parsed(lines[0] if lines else b"") == {"format": FORMAT}:
            for one in map(_parsed, lines[1:]):
                if _is_whole(one):
                    self._known.pop(one["key"], None)  # behind the others: it is the newest
                    self._known[one["key"]] = one
        for key in list(self._known)[:-MOST]:
            del self._known[key]
        # What a kill cut is taken away as well, or the next line would be glued to it.
        if len(lines) != len(self._known) + 2 or lines[-1]:
            self._written(self._rewrite)

    def recall(self, part: Part, span: Span, prints: Prints) -> dict[str, Any] | None:
        """What was kept when the partition was verified, if nothing changed since."""
        known = self._known.get(_key(part, span))
        if known is None or (known["source"], known["target"]) != (prints.source, prints.target):
            return None
        kept: dict[str, Any] = known["kept"]
        return kept

    def keep(self, part: Part, span: Span, prints: Prints, kept: dict[str, int]) -> None:
        """Remember that a partition was verified after its prints were taken; `kept` is what `KEPT` names."""
        key = _key(part, span)
        one = {"key": key, "source": prints.source, "target": prints.target, "kept": kept}
        self._known[key] = one

        def append(path: pathlib.Path) -> None:
            with path.open("a") as file:
                file.write(json.dumps(one) + "\n")

        self._written(append)

    def _rewrite(self, path: pathlib.Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".draft")
        with draft.open("w") as file:
            file.writelines(json.dumps(one) + "\n" for one in ({"format": FORMAT}, *self._known.values()))
        os.replace(draft, path)

    def _written(self, write: Callable[[pathlib.Path], None]) -> None:
        """Write, if there is still a file to write to."""
        if self._path is None:
            return
        try:
            write(self._path)
        except OSError as error:
            self._unwritable(f"{self._path}: {error.strerror or error}")
            self._path = None  # half a line may be there: nothing must follow it


def _parsed(line: bytes) -> Any:
    with contextlib.suppress(ValueError):
        return json.loads(line)
    return None


def _is_whole(one: Any) -> bool:
    """Whether it is a partition as `keep` writes it."""
    return (
        isinstance(one, dict)
        and all(isinstance(one.get(name), str) for name in ("key", "source", "target"))
        and isinstance(one.get("kept"), dict)
        and one["kept"].keys() == KEPT
        and all(isinstance(value, int) for value in one["kept"].values())
    )


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
