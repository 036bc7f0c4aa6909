"""Which statements of a migration may be run twice: those of a list, and no other.

A crash may come between running a statement and recording it, and a slow one may be run by two at once: then it is run
again. So a migration consists of statements whose second run changes nothing and fails on nothing. What is not known
to be one is refused: `INSERT … SELECT` doubles rows, `RENAME` and `EXCHANGE` undo themselves or fail.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from schemas.executor import error_code
from schemas.statements import blank_comments, split_commas

_Forms = Sequence[tuple[re.Pattern[str], str]]


def _forms(*forms: tuple[str, str]) -> _Forms:
    return tuple((re.compile(rf"(?:{words})\b", re.IGNORECASE), needs) for words, needs in forms)


_STATEMENTS = _forms(
    (r"CREATE OR REPLACE (?:VIEW|DICTIONARY|FUNCTION)", ""),
    (r"CREATE (?:TABLE|VIEW|MATERIALIZED VIEW|DICTIONARY|DATABASE|FUNCTION)", "IF NOT EXISTS"),
    (r"DROP (?:TABLE|VIEW|DICTIONARY|DATABASE|FUNCTION)", "IF EXISTS"),
    (r"SELECT", ""),
)
_ACTIONS = _forms(
    (r"ADD (?:COLUMN|INDEX|CONSTRAINT|PROJECTION)", "IF NOT EXISTS"),
    (r"(?:DROP|CLEAR) (?:COLUMN|INDEX|CONSTRAINT|PROJECTION)", "IF EXISTS"),
    (r"RENAME COLUMN", "IF EXISTS"),
    (r"MODIFY (?:COLUMN|TTL|SETTING|COMMENT|REFRESH)|COMMENT COLUMN", ""),
    (r"MATERIALIZE (?:COLUMN|INDEX|PROJECTION|TTL)", ""),
)
"""What follows `ALTER TABLE name`, parted by commas; a setting behind one (`MODIFY SETTING a = 1, b = 2`) is none."""

_ALTER = re.compile(r"ALTER TABLE (?:IF EXISTS )?\S+ (?:\{\{on_cluster\}\} )?", re.IGNORECASE)
_REMOVE = re.compile(r"MODIFY COLUMN (?:IF EXISTS )?\S+ REMOVE \w+", re.IGNORECASE)
_SETTING = re.compile(r"\w+ ?=")
_PLACEHOLDER = re.compile(r"\{\{ ?(\w+) ?\}\}")
_BAD_ARGUMENTS = 36
_NOTHING_TO_REMOVE = re.compile(r"doesn't have [\w ]+, cannot remove it")


def why_not_twice(statement: str) -> str | None:
    """What in a statement keeps it from being run twice, and what to write; None where nothing does."""
    text = _plain(statement)
    alter = _ALTER.match(text)
    if alter is None:
        return _complaint(text, _STATEMENTS)
    actions = split_commas(text[alter.end() :])
    if len(actions) > 1 and (remove := next(filter(_REMOVE.match, actions), None)):
        return f"{remove!r} cannot be run twice beside other changes: write it as a statement of its own"
    for before, action in zip(["", *actions], actions, strict=False):
        if not (
            _SETTING.match(action) and (_SETTING.match(before) or before.upper().startswith("MODIFY SETTING"))
        ):
            complaint = _complaint(action, _ACTIONS)
            if complaint is not None:
                return complaint
    return None


def was_done(statement: str, error: Exception) -> bool:
    """Whether a statement failed because an earlier run of it did all there is to do: it had something to remove."""
    text = _plain(statement)
    alter = _ALTER.match(text)
    return (
        alter is not None
        and _REMOVE.match(text, alter.end()) is not None
        and error_code(error) == _BAD_ARGUMENTS
        and _NOTHING_TO_REMOVE.search(str(error)) is not None
    )


def _plain(statement: str) -> str:
    """A migration's statement without comments, and with its words one space apart."""
    return _PLACEHOLDER.sub(r"{{\1}}", " ".join(blank_comments(statement).split()))


def _complaint(text: str, forms: _Forms) -> str | None:
    for form, needs in forms:
        if found := form.match(text):
            if not needs or text[found.end() :].lstrip().upper().startswith(needs + " "):
                return None
            return (
                f"{found.group()!r} cannot be run twice, and a crash may make that necessary: write {needs}"
            )
    return (
        f"{text[:40]!r} is none of the statements known to bear being run twice, which a crash may make necessary: "
        "CREATE … IF NOT EXISTS, CREATE OR REPLACE VIEW, DROP … IF EXISTS, ALTER TABLE with ADD … IF NOT EXISTS, "
        "DROP … IF EXISTS, RENAME COLUMN IF EXISTS, MODIFY or MATERIALIZE, and SELECT"
    )
