"""What a request wants to run: an insert with its data, or a statement with its answer.

The engine has a parser, and it judges every statement. What it cannot do is take an insert's data from somewhere else
than the text, or write its answer to somewhere else, without a word for it in the right place: this finds the place.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from recorder.devserver.lexer import NUMBER, QUOTED, STRING, WORD, Token, tokens

_NOT_BEFORE_FORMAT = frozenset(
    (
        "SELECT", "FROM", "JOIN", "AS", "BY", "AND", "OR", "NOT", "ON", "USING", "IN", "TABLE", "DESCRIBE", "EXISTS",
        "WITH", "DISTINCT", "WHERE", "PREWHERE", "HAVING", "LIMIT", "THEN", "ELSE", "WHEN", "CASE", "LIKE", "ILIKE",
        "BETWEEN", "IS", "VIEW", "DICTIONARY", "DATABASE", "CREATE", "SHOW", "EXPLAIN", "TEMPORARY", "INTO",
    )
)  # fmt: skip
"""After one of these, `format` is most likely somebody's name."""
_ANSWERS = frozenset(("SELECT", "WITH", "FROM", "SHOW", "DESCRIBE", "DESC", "EXISTS", "CHECK"))
"""Not EXPLAIN, which shows the clauses of what it explains."""
_TELLS = frozenset(("EXPLAIN", "KILL", "BACKUP", "RESTORE"))
DEFAULT_INSERT_FORMAT = "Values"
MAX_CLAUSES = 16
"""Places where a FORMAT clause may stand that are tried: each costs the engine's parser once."""


@dataclass(frozen=True)
class Insert:
    """An insert whose data is its text from `data_start` on.

    `sql` is the text before the data; the engine reads a file instead where `from_file` says so.
    """

    sql: bytes
    data_start: int
    format: str
    before: bytes
    after: bytes
    structure: bytes | None = None

    def from_file(self, path: str) -> bytes:
        """The same insert with its data in this file."""
        place = path.encode()
        if self.structure is not None:
            return b"%s file('%s', '%s', %s) %s" % (
                self.before, place, self.format.encode(), self.structure, self.after,
            )  # fmt: skip
        return b"%s FROM INFILE '%s' %s FORMAT %s" % (self.before, place, self.after, self.format.encode())


@dataclass(frozen=True)
class Query:
    """Any other statement. `first` is its first word in capitals, `format` that of a FORMAT clause.

    `places` are where INTO OUTFILE might stand, the likeliest first: the engine's parser knows. `outfile` is whether
    one is there already. `inserts` says that it is an insert, maybe behind a WITH. `calls` are the names before an
    opening bracket, in small letters, `handed` those that another function may be given to call (`arrayMap(lower, …)`,
    `APPLY lower`), and `handed_parameters` the parameters in such a place. `looks_at_others` is whether it asks for the
    statements that run, or ends them. `unread` is where something begins that is never closed, `escaped` a quoted name
    with a backslash in it, `inner` a SETTINGS clause inside of brackets, `timezone` what its own settings say of that.
    """

    sql: bytes
    first: str
    format: str | None
    places: tuple[int, ...]
    outfile: bool
    inserts: bool
    calls: frozenset[str]
    handed: frozenset[str]
    handed_parameters: frozenset[str]
    strings: tuple[Token, ...]
    looks_at_others: bool
    unread: Token | None
    escaped: Token | None
    inner: Token | None
    timezone: str

    @property
    def tells(self) -> bool:
        """Whether it answers with rows, be it none."""
        return self.answers or self.first in _TELLS

    @property
    def answers(self) -> bool:
        """Whether it is of a kind that answers with rows and can write them to a file."""
        return self.first in _ANSWERS and not self.inserts

    @property
    def empty(self) -> bool:
        """Whether there is nothing but space and comments."""
        return self.places == (0,)

    def into_file(self, path: str) -> Iterator[bytes]:
        """The same statement with its answer appended to this file; more than one where the place is not certain."""
        clause = f" INTO OUTFILE '{path}' APPEND ".encode()
        for place in self.places:
            yield self.sql[:place] + clause + self.sql[place:]


def insert_of(text: bytes) -> Insert | None:
    """The insert with data that the text begins with; None where it is another statement, or not whole yet.

    Raises:
        ValueError: it names a file of its own.
    """
    scan = tokens(text)
    if next(scan, _NOTHING).word() != "INSERT":
        return None
    settings_at: int | None = None
    last = _NOTHING
    for token in _behind_target(scan):
        if token.depth:
            continue
        word = token.word()
        if word == "FROM" and last.word() != "DELETE":
            following = next(scan, _NOTHING)
            if following.word() == "INFILE":
                raise ValueError("INSERT ... FROM INFILE")
            return None
        if word == "SETTINGS" and settings_at is None:
            settings_at = token.start
        elif word == "VALUES":
            return _insert(text, token, settings_at, token.end, DEFAULT_INSERT_FORMAT)
        elif word == "FORMAT":
            name = next(scan, _NOTHING)
            if not name.name():
                return None
            return _insert(text, token, settings_at, _data_start(text, name.end), name.name())
        elif word in ("SELECT", "WITH") or (token.is_(b"(") and _opens_select(text, token)):
            return _insert_select(text, token.start)
        last = token
    return None


def query_of(text: bytes) -> Query:
    """Any statement as one whose answer is wanted."""
    everything = list(tokens(text))
    first = next((token.word() for token in everything if not token.is_(b"(")), "")
    while everything and everything[-1].is_(b";"):
        everything.pop()
    calls = frozenset(
        token.name().lower()
        for token, following in itertools.pairwise(everything)
        if following.is_(b"(") and token.name()
    )
    handed, handed_parameters = _handed(everything)
    strings = tuple(token for token in everything if token.kind == STRING)
    outfile = any(
        token.word() == "INTO" and following.word() == "OUTFILE"
        for token, following in itertools.pairwise(everything)
    )
    end = everything[-1].end if everything else 0
    clauses = _format_clauses(everything)
    likely = [clause for clause in clauses if clause.likely]
    places = [clause.at for clause in likely] + [end] + [clause.at for clause in clauses if not clause.likely]
    name = likely[0].name if likely else None
    inserts = first == "INSERT" or (
        first == "WITH" and any(token.word() == "INSERT" and not token.depth for token in everything)
    )
    return Query(
        text,
        first,
        name,
        tuple(places),
        outfile,
        inserts,
        calls,
        handed,
        handed_parameters,
        strings,
        looks_at_others=first == "KILL" or _names_processes(everything),
        unread=next((token for token in everything if token.unread()), None),
        escaped=next((token for token in everything if token.escapes()), None),
        inner=_inner_settings(everything),
        timezone=_timezone(everything),
    )


_NOTHING = Token("other", 0, 0, 0, b"")


def _behind_target(scan: Iterator[Token]) -> Iterator[Token]:
    """The tokens behind the table or table function that an insert names."""
    token = next(scan, _NOTHING)
    for word in ("INTO", "TABLE", "FUNCTION"):
        if token.word() == word:
            token = next(scan, _NOTHING)
    # `token` is the (first part of the) name now, whatever word it is; more parts follow a dot each.
    dotted = False
    for token in scan:
        if token.is_(b".") and not token.depth:
            dotted = True
        elif dotted and not token.depth:
            dotted = False
        else:
            yield token
            break
    yield from scan


def _insert(text: bytes, token: Token, settings_at: int | None, data_start: int, name: str) -> Insert:
    cut = token.start if settings_at is None else settings_at
    return Insert(
        sql=text[:data_start],
        data_start=data_start,
        format=name,
        before=text[:cut],
        after=text[cut : token.start],
    )


def _insert_select(text: bytes, start: int) -> Insert | None:
    """An insert that selects from `input('structure')`, whose data follows its FORMAT clause."""
    scan = tokens(text, start)
    previous = _NOTHING
    source: tuple[int, int, bytes] | None = None
    for token in scan:
        if token.is_(b"(") and previous.name().lower() == "input":
            inside = next(scan, _NOTHING)
            closing = next(scan, _NOTHING)
            if inside.kind != STRING or not closing.is_(b")"):
                return None
            source = (previous.start, closing.end, inside.text)
            previous = closing
            continue
        if source and not token.depth and token.word() == "FORMAT" and _may_precede_format(previous):
            name = next(scan, _NOTHING)
            if not name.name():
                return None
            data_start = _data_start(text, name.end)
            return Insert(
                sql=text[:data_start],
                data_start=data_start,
                format=name.name(),
                before=text[: source[0]],
                after=text[source[1] : token.start],
                structure=source[2],
            )
        previous = token
    return None


def _opens_select(text: bytes, bracket: Token) -> bool:
    inside = (token for token in tokens(text, bracket.end) if not token.is_(b"("))
    return next(inside, _NOTHING).word() in ("SELECT", "WITH")


def _data_start(text: bytes, at: int) -> int:
    """Where data begins behind the name of its format: after spaces and at most one line break."""
    while text[at : at + 1] in (b" ", b"\t", b"\f") and at < len(text):
        at += 1
    if text[at : at + 1] == b"\r":
        at += 1
    if text[at : at + 1] == b"\n":
        at += 1
    return at


def _may_precede_format(token: Token) -> bool:
    if token.kind == WORD:
        return token.word() not in _NOT_BEFORE_FORMAT
    if token.kind in (QUOTED, STRING, NUMBER):
        return True
    return token.text in (b")", b"]", b"}", b"*")


class _Clause(NamedTuple):
    """What reads as a FORMAT clause: where it begins, what it names, whether what is before it lets it be one."""

    at: int
    name: str
    likely: bool


def _format_clauses(everything: list[Token]) -> list[_Clause]:
    """What may be the FORMAT clause of a statement, the last first, and not more than anybody means."""
    found: list[_Clause] = []
    for index in range(len(everything) - 2, 0, -1):
        token, named = everything[index], everything[index + 1]
        if token.depth or token.word() != "FORMAT" or not named.name():
            continue
        if index + 2 == len(everything) or everything[index + 2].word() == "SETTINGS":
            likely = _may_precede_format(everything[index - 1]) and not (
                index == 1 and everything[0].word() == "DESC"
            )
            found.append(_Clause(token.start, named.name(), likely))
            if len(found) == MAX_CLAUSES:
                break
    return found


def _handed(everything: list[Token]) -> tuple[frozenset[str], frozenset[str]]:
    """Names, and names of parameters, that may be those of a function to call: behind a bracket or APPLY."""
    names, parameters = set(), set()
    for index, token in enumerate(everything[1:], 1):
        previous = everything[index - 1]
        if not (previous.is_(b"(") or previous.word() == "APPLY"):
            continue
        if token.name():
            names.add(token.name().lower())
        elif token.is_(b"{") and index + 1 < len(everything):
            parameters.add(everything[index + 1].name())
    return frozenset(names), frozenset(parameters)


def _inner_settings(everything: list[Token]) -> Token | None:
    """The first SETTINGS clause inside of brackets."""
    for word, name, equals in zip(everything, everything[1:], everything[2:], strict=False):
        if word.depth and word.word() == "SETTINGS" and name.name() and equals.is_(b"="):
            return word
    return None


def _timezone(everything: list[Token]) -> str:
    """The session's time zone that a SETTINGS clause of the whole statement names; empty for none."""
    for name, equals, value in zip(everything, everything[1:], everything[2:], strict=False):
        if not name.depth and name.name() == "session_timezone" and equals.is_(b"=") and value.kind == STRING:
            return value.text[1:-1].decode("utf-8", "replace")
    return ""


def _names_processes(everything: list[Token]) -> bool:
    """Whether it is about the statements that run: `SHOW PROCESSLIST`, or the table `system.processes`."""
    if [token.word() for token in everything[:2]] == ["SHOW", "PROCESSLIST"]:
        return True
    return any(
        dot.is_(b".") and table.name() == "processes" and database.name() == "system"
        for database, dot, table in zip(everything, everything[1:], everything[2:], strict=False)
    )
