"""Cutting SQL text into statements at the `;` that ends one, and at no other.

A `;` in a string, a quoted name, a heredoc or a comment ends nothing. The rules are those of ClickHouse's lexer:
comments run from `--`, `//`, `# ` or `#!` to the end of the line, or between `/*` and `*/`, which nest; quotes are
`'`, `"`, a backtick, and the curly pairs; inside the straight ones a backslash or a doubled quote escapes; heredocs
are `$tag$ … $tag$`. General SQL tokenizers know neither `//` nor curly quotes nor nesting as ClickHouse has them.

It does not parse SQL: what stands between two `;` is the server's to judge.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from schemas.errors import StatementError

_LINE_COMMENT = re.compile(r"(?:--|//|#[ !])[^\n]*")
_QUOTED = {
    "'": re.compile(r"'(?:[^'\\]|\\.|'')*'", re.DOTALL),
    '"': re.compile(r'"(?:[^"\\]|\\.|"")*"', re.DOTALL),
    "`": re.compile(r"`(?:[^`\\]|\\.|``)*`", re.DOTALL),
    "\u2018": re.compile("\u2018[^\u2019]*\u2019"),
    "\u201c": re.compile("\u201c[^\u201d]*\u201d"),
}
_HEREDOC = re.compile(r"(\$\w*\$).*?\1", re.DOTALL | re.ASCII)
_WORD = re.compile(r"\w[\w$]*")
_BLOCK_EDGE = re.compile(r"/\*|\*/")


@dataclass(frozen=True)
class Statement:
    """One statement without its `;` and the comments before it; `line` is where it begins, from 1."""

    text: str
    line: int


def split_statements(sql: str, *, where: str = "SQL") -> tuple[Statement, ...]:
    """The statements of a text, in order; those that hold nothing but comments are left out.

    `where` names the text in errors.

    Raises:
        StatementError: a quote or a block comment is never closed.
    """
    statements: list[Statement] = []
    begin: int | None = None
    at = 0
    while at < len(sql):
        if sql[at] == ";":
            if begin is not None:
                statements.append(_statement(sql, begin, at))
            begin = None
            at += 1
            continue
        end, counts = _token(sql, at, where)
        if counts and begin is None:
            begin = at
        at = end
    if begin is not None:
        statements.append(_statement(sql, begin, at))
    return tuple(statements)


def split_commas(sql: str) -> list[str]:
    """The parts of a list at its own commas, stripped: none in brackets, strings, names or comments parts it."""
    parts: list[str] = []
    begin = at = depth = 0
    while at < len(sql):
        char = sql[at]
        end, _ = _token(sql, at, "SQL")
        if char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
        elif char == "," and depth == 0:
            parts.append(sql[begin:at].strip())
            begin = end
        at = end
    return [*parts, sql[begin:].strip()]


def blank_comments(sql: str) -> str:
    """The text with every comment replaced by one space; strings and names are kept."""
    parts: list[str] = []
    at = 0
    while at < len(sql):
        end, counts = _token(sql, at, "SQL")
        comment = not counts and not sql[at].isspace()
        parts.append(" " if comment else sql[at:end])
        at = end
    return "".join(parts)


def line_comments(sql: str) -> Iterator[tuple[int, bool, str]]:
    """Every comment that runs to the end of its line: that line, from 1, whether it has it for itself, and its text."""
    at = 0
    while at < len(sql):
        end, counts = _token(sql, at, "SQL")
        if not counts and _LINE_COMMENT.match(sql, at):
            before = sql[sql.rfind("\n", 0, at) + 1 : at]
            yield _line(sql, at), not before.strip(), sql[at:end]
        at = end


def _statement(sql: str, begin: int, end: int) -> Statement:
    return Statement(sql[begin:end].rstrip(), sql.count("\n", 0, begin) + 1)


def _token(sql: str, at: int, where: str) -> tuple[int, bool]:
    """Where the token at `at` ends, and whether it counts (spaces and comments do not)."""
    char = sql[at]
    if char.isspace():
        return at + 1, False
    if match := _LINE_COMMENT.match(sql, at):
        return match.end(), False
    if sql.startswith("/*", at):
        return _block_comment_end(sql, at, where), False
    if pattern := _QUOTED.get(char):
        if match := pattern.match(sql, at):
            return match.end(), True
        raise StatementError(f"{where}: the {char} opened at line {_line(sql, at)} is never closed; close it")
    if match := _WORD.match(sql, at) or _HEREDOC.match(sql, at):
        return match.end(), True
    return at + 1, True


def _block_comment_end(sql: str, at: int, where: str) -> int:
    depth = 0
    for edge in _BLOCK_EDGE.finditer(sql, at):
        depth += 1 if edge.group() == "/*" else -1
        if depth == 0:
            return edge.end()
    raise StatementError(
        f"{where}: the /* opened at line {_line(sql, at)} is never closed (comments nest); close it with */"
    )


def _line(sql: str, at: int) -> int:
    return sql.count("\n", 0, at) + 1
