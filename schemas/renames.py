"""Columns that migrations gave another name: what rows that were kept under the old one need. Pure.

A line `-- renamed: old -> new`, alone before an `ALTER TABLE` or within it, says that what rows had in `old` they have
in `new` from then on. `RENAME COLUMN IF EXISTS old TO new` says so itself. The line is for a column that is added
beside the old one, which goes later, so that an older recorder goes on meanwhile. To the database it is a comment.

Does not rename anything: rows on a recorder's log do, as they are read (`recorder.log_schema`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from schemas.errors import PackError
from schemas.statements import Statement, blank_comments, line_comments
from schemas.table import Table

Renames = Sequence[tuple[str, str]]
"""Old and new names of one table's columns, in the order in which they came to be."""

_LINE = re.compile(r"--\s*renamed\s*:", re.IGNORECASE)
_WHOLE_LINE = re.compile(r"--\s*renamed\s*:\s*`?(\w+)`?\s*->\s*`?(\w+)`?\s*", re.IGNORECASE)
_ALTER = re.compile(r"ALTER\s+TABLE\s+(?:IF\s+EXISTS\s+)?(?:\{\{\s*db\s*\}\}\.)?`?(\w+)`?\s", re.IGNORECASE)
_RENAME = re.compile(r"\bRENAME\s+COLUMN\s+IF\s+EXISTS\s+`?(\w+)`?\s+TO\s+`?(\w+)`?", re.IGNORECASE)
_DROP = re.compile(r"\bDROP\s+COLUMN\s+IF\s+EXISTS\s+`?(\w+)`?", re.IGNORECASE)


@dataclass(frozen=True)
class Step:
    """What one place of a migration does to the names of a table's columns; `new` is empty for one that is dropped."""

    table: str
    old: str
    new: str
    where: str


def renamed(names: Iterable[str], renames: Renames) -> list[str]:
    """Names of columns as they are now, in their order.

    A rename changes nothing where the old name is not there, or the new one is there already.
    """
    now = list(names)
    for old, new in renames:
        if old in now and new not in now:
            now[now.index(old)] = new
    return now


def steps_in(text: str, statements: Sequence[Statement], *, where: str) -> list[Step]:
    """The steps of one migration, in order; `where` names it in errors.

    Raises:
        PackError: a line that is none, or that belongs to no `ALTER TABLE`; one column renamed twice, or into another
        that is renamed, or to itself.
    """
    lines = list(_lines(text, where))
    steps: list[Step] = []
    for statement in statements:
        last = statement.line + statement.text.count("\n")
        own = [line for line in lines if line[0] < last or (line[0] == last and statement.line < last)]
        lines = lines[len(own) :]
        steps += _steps_of(statement, own, where)
    if lines:
        raise PackError(
            f"{where}, line {lines[0][0]}: '-- renamed: …' stands before no ALTER TABLE; put it before the one it is of"
        )
    _require_clear(steps)
    return steps


def renames_of(steps: Sequence[Step], tables: Iterable[Table]) -> dict[str, Renames]:
    """By table, the renames of all migrations of its pack, whose steps come in their order.

    Raises:
        PackError: a new name is no column of the table, or the renames would change the names that it has now.
    """
    found: dict[str, Renames] = {}
    for table in tables:
        own = [step for step in steps if step.table == table.name]
        names = [column.name for column in table.all_columns]
        for at, step in enumerate(own):
            goes_on = any(later.old == step.new for later in own[at + 1 :])
            if step.new and step.new not in names and not goes_on:
                raise PackError(
                    f"{step.where}: {step.old} of {table.name} is renamed to {step.new}, and its row class has no "
                    f"field {step.new}; name one that it has, or rename or drop that column in a later migration"
                )
        renames = [(step.old, step.new) for step in own if step.new]
        if (now := renamed(names, renames)) != names:
            wrong = ", ".join(f"{a} to {b}" for a, b in zip(names, now, strict=True) if a != b)
            raise PackError(
                f"pack of {table.name}: its renames would rename columns that it has now ({wrong}), so rows that were "
                "kept cannot be told from older ones; never give a name anew to another column"
            )
        if renames:
            found[table.name] = tuple(renames)
    return found


def _lines(text: str, where: str) -> Iterator[tuple[int, str, str]]:
    for number, alone, comment in line_comments(text):
        if _LINE.match(comment) is None:
            continue
        found = _WHOLE_LINE.fullmatch(comment)
        if found is None:
            raise PackError(f"{where}, line {number}: {comment.strip()!r}; expected '-- renamed: old -> new'")
        if not alone:
            raise PackError(
                f"{where}, line {number}: '-- renamed: …' stands behind something else; give it a line of its own"
            )
        yield number, found[1], found[2]


def _steps_of(statement: Statement, lines: Sequence[tuple[int, str, str]], where: str) -> Iterator[Step]:
    text = blank_comments(statement.text)
    table = _ALTER.match(text)
    if table is None:
        if lines:
            raise PackError(
                f"{where}, line {lines[0][0]}: '-- renamed: …' stands before {text[:40]!r}; put it before the "
                "ALTER TABLE that it is of"
            )
        return
    said = [Step(table[1], old, new, f"{where}, line {number}") for number, old, new in lines]
    here = f"{where}, line {statement.line}"
    done = [Step(table[1], found[1], found[2], here) for found in _RENAME.finditer(text)]
    told = {(step.old, step.new) for step in said}
    yield from said
    yield from (step for step in done if (step.old, step.new) not in told)
    yield from (Step(table[1], found[1], "", here) for found in _DROP.finditer(text))


def _require_clear(steps: Sequence[Step]) -> None:
    """Within one migration every column is renamed once at most, and two never into one."""
    old, new = dict[tuple[str, str], Step](), dict[tuple[str, str], Step]()
    for step in steps:
        if not step.new:
            continue
        if step.old == step.new:
            raise PackError(f"{step.where}: {step.old} of {step.table} is renamed to itself; take it out")
        for known, key, what in (
            (old, (step.table, step.old), f"{step.old} of {step.table} is renamed twice"),
            (new, (step.table, step.new), f"two columns of {step.table} are renamed to {step.new}"),
        ):
            if key in known:
                raise PackError(f"{step.where}: {what}, before at {known[key].where}; say it once")
            known[key] = step
