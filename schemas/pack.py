"""A pack: a folder of numbered SQL migrations, and the tables they make. And how packs are found by name."""

from __future__ import annotations

import hashlib
import importlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from schemas.errors import PackError
from schemas.renames import Renames, renames_of, steps_in
from schemas.rerun import why_not_twice
from schemas.statements import Statement, blank_comments, split_statements
from schemas.table import Table

ENTRY_POINT_GROUP = "recorder.packs"
_CHANGES_SCHEMA = re.compile(r"(?:CREATE|ALTER|DROP)\s", re.IGNORECASE)
_DATABASE = re.compile(r"\{\{\s*db\s*\}\}")
_FILE_NAME = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")


@dataclass(frozen=True)
class Migration:
    """One numbered SQL file of a pack. Its text never changes once it is released; `checksum` guards that.

    Placeholders (`schemas.render`) are rendered later, so that policies and clusters stay outside the checksum.
    """

    pack: str
    number: int
    name: str
    text: str

    @property
    def label(self) -> str:
        """How messages name it."""
        return f"{self.pack}/{self.number:04}_{self.name}"

    @cached_property
    def checksum(self) -> str:
        """SHA-256 of the text, line ends as `\\n`."""
        return _digest(self.text)

    @cached_property
    def statements(self) -> tuple[Statement, ...]:
        """Its statements, in order.

        Raises:
            StatementError: the text cannot be cut.
        """
        return split_statements(self.text, where=self.label)

    def statement_checksum(self, index: int) -> str:
        """SHA-256 of one statement, counted from 1."""
        return _digest(self.statements[index - 1].text)


@dataclass(frozen=True)
class Pack:
    """Migrations and tables that belong together.

    `folder` holds the files `NNNN_what.sql`, numbered from 1 without a gap. `redact_keys` are names of secrets that its
    rows may bring with them, `redact_patterns` regular expressions (RE2) of such that have no name.
    """

    name: str
    folder: Path
    tables: tuple[Table, ...]
    redact_keys: tuple[str, ...] = ()
    redact_patterns: tuple[str, ...] = ()

    @property
    def migrations(self) -> tuple[Migration, ...]:
        """The migrations, in order.

        Raises:
            PackError: no migrations, a file name that is none, a number twice or missing, an empty migration, a
            statement that cannot be run twice, or a rename that leads nowhere (`schemas.renames`).
        """
        return self._read[0]

    @property
    def renames(self) -> dict[str, Renames]:
        """By table, the columns that its migrations renamed; a table without any has no entry.

        Raises:
            PackError: as `migrations`.
        """
        return self._read[1]

    @cached_property
    def _read(self) -> tuple[tuple[Migration, ...], dict[str, Renames]]:
        migrations = _read_migrations(self.name, self.folder)
        steps = [step for one in migrations for step in steps_in(one.text, one.statements, where=one.label)]
        return migrations, renames_of(steps, self.tables)

    def table(self, name: str) -> Table:
        """The table of that name.

        Raises:
            KeyError: the pack has none.
        """
        for candidate in self.tables:
            if candidate.name == name:
                return candidate
        raise KeyError(name)


def _read_migrations(pack: str, folder: Path) -> tuple[Migration, ...]:
    by_number: dict[int, Path] = {}
    for path in sorted(folder.glob("*.sql")):
        match = _FILE_NAME.fullmatch(path.name)
        if match is None:
            raise PackError(
                f"pack {pack}: {path} is no migration name; "
                "expected four digits, then lower-case words, like 0001_tables.sql; rename it"
            )
        number = int(match.group(1))
        if number in by_number:
            raise PackError(
                f"pack {pack}: number {number:04} is there twice in {folder}: "
                f"{by_number[number].name} and {path.name}; renumber one of them"
            )
        by_number[number] = path
    if not by_number:
        raise PackError(
            f"pack {pack}: no migrations in {folder}; expected at least 0001_*.sql "
            "(an installed package must list its *.sql files as package data)"
        )
    for expected, number in enumerate(sorted(by_number), start=1):
        if number != expected:
            raise PackError(
                f"pack {pack}: migration {expected:04} is missing in {folder}, the next there is "
                f"{by_number[number].name}; migrations count from 0001 without a gap: "
                "put it back or renumber those that were never released"
            )
    migrations = []
    for number, path in sorted(by_number.items()):
        migration = Migration(pack, number, path.stem[5:], path.read_text(encoding="utf-8"))
        if not migration.statements:
            raise PackError(f"pack {pack}: {path} holds no statement; write one or remove the file")
        for statement in migration.statements:
            _require_rerunnable(migration, statement)
        migrations.append(migration)
    return tuple(migrations)


def _require_rerunnable(migration: Migration, statement: Statement) -> None:
    """Refuse what fails when run twice (a crash may come between running and recording), or misses the database."""
    text = blank_comments(statement.text)
    where = f"{migration.label}, line {statement.line}"
    if complaint := why_not_twice(statement.text):
        raise PackError(f"{where}: {complaint}")
    if _CHANGES_SCHEMA.match(text) and not _DATABASE.search(text):
        raise PackError(
            f"{where}: the statement names no {{{{db}}}}, so it would run in whatever database the connection has; "
            "write {{db}}.name"
        )


def load_packs(names: Sequence[str]) -> tuple[Pack, ...]:
    """The packs of these names, in this order; a name is an entry point's or `package.module:ATTRIBUTE`.

    Raises:
        PackError: a name leads nowhere, or two packs share a name or a table.
    """
    packs: list[Pack] = []
    owners: dict[str, str] = {}
    for name in dict.fromkeys(names):
        pack = _load(name)
        if any(other.name == pack.name for other in packs):
            raise PackError(f"pack {pack.name} is named twice, last as {name!r}; name it once")
        for table in pack.tables:
            if table.name in owners:
                raise PackError(
                    f"table {table.name} is in pack {owners[table.name]} and in pack {pack.name}; "
                    "a table belongs to one pack: rename it in one of them"
                )
            owners[table.name] = pack.name
        packs.append(pack)
    return tuple(packs)


def _load(name: str) -> Pack:
    try:
        found = _entry_point(name).load() if ":" not in name else _dotted(name)
    except (ImportError, AttributeError) as error:
        raise PackError(f"pack {name!r} cannot be loaded: {error}; is its package installed?") from error
    if not isinstance(found, Pack):
        raise PackError(f"pack {name!r} is a {type(found).__name__}; expected a schemas.pack.Pack")
    return found


def _dotted(name: str) -> object:
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _entry_point(name: str) -> EntryPoint:
    known = entry_points(group=ENTRY_POINT_GROUP)
    for candidate in known:
        if candidate.name == name:
            return candidate
    there = ", ".join(sorted(known.names)) or "none"
    raise PackError(
        f"no pack is called {name!r}; entry points of the group {ENTRY_POINT_GROUP}: {there}. "
        "Install the package that has it, or name it as package.module:PACK"
    )


def _digest(text: str) -> str:
    return hashlib.sha256(text.replace("\r\n", "\n").encode()).hexdigest()
