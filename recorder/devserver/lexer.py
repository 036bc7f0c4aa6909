"""Where ClickHouse's SQL has words and where text, so that a clause is never looked for inside a string or a comment.

Works on bytes: a request may carry any. What is not closed (a quote, a comment) is `other` with all that follows:
looked at once, not once a quote in it; the engine's own parser has the last word on it.

Source of the rules: ClickHouse's lexer (strings and quoted names with backslashes or doubled quotes, `--`, `#`
followed by a space or `!`, `/* */` without nesting, heredocs `$tag$ … $tag$`, curly quotation marks, and as space what
its `skipWhitespacesUTF8` takes for it).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

WORD, QUOTED, STRING, NUMBER, OTHER = "word", "quoted", "string", "number", "other"

_TOKEN = re.compile(
    rb"""
      (?P<skip> [\s\0]+
              | (?: \xc2[\x85\xa0] | \xe1\xa0\x8e | \xe2\x80[\x80-\x8d\xa8\xa9\xaf] | \xe2\x81[\x9f\xa0]
                  | \xe3\x80\x80 | \xef\xbb\xbf )+
              | --[^\n]* | \#[ !][^\n]* | /\*.*?\*/ )
    | (?P<string> '[^'\\]*(?:(?:\\.|'')[^'\\]*)*'
                | \xe2\x80\x98.*?\xe2\x80\x99
                | \$(?P<tag>\w*)\$.*?\$(?P=tag)\$ )
    | (?P<quoted> `[^`\\]*(?:(?:\\.|``)[^`\\]*)*`
                | "[^"\\]*(?:(?:\\.|"")[^"\\]*)*"
                | \xe2\x80\x9c.*?\xe2\x80\x9d )
    | (?P<word> [A-Za-z_][\w$]* )
    | (?P<number> \d[\w.]* )
    | (?P<rest> (?: ['`"] | /\* | \xe2\x80[\x98\x9c] | \$\w*\$ ) .* )
    | (?P<other> . )
    """,
    re.VERBOSE | re.DOTALL,
)
_OPENS, _CLOSES = b"([{", b")]}"
_ESCAPED = re.compile(rb"\\x([0-9A-Fa-f]{2})|\\(.)|``|\"\"", re.DOTALL)


class Token(NamedTuple):
    """A piece of SQL that is neither space nor comment. `depth` is how many brackets are open around it."""

    kind: str
    start: int
    end: int
    depth: int
    text: bytes

    def word(self) -> str:
        """A word in capitals; empty for anything else."""
        return self.text.decode().upper() if self.kind == WORD else ""

    def name(self) -> str:
        """What an identifier says, without its quotes; empty for what is none."""
        if self.kind == WORD:
            return self.text.decode()
        if self.kind == QUOTED:
            cut = 3 if self.text[:1] == b"\xe2" else 1
            return _ESCAPED.sub(_meant, self.text[cut:-cut]).decode("utf-8", "replace")
        return ""

    def escapes(self) -> bool:
        """Whether it is a quoted name that is not written as it reads."""
        return self.kind == QUOTED and b"\\" in self.text

    def unread(self) -> bool:
        """Whether it begins what is never closed, so that nobody has looked at what is in it."""
        return self.kind == OTHER and len(self.text) > 1

    def is_(self, char: bytes) -> bool:
        """Whether it is this one character."""
        return self.kind == OTHER and self.text == char


def _meant(escape: re.Match[bytes]) -> bytes:
    """What an escape in a quoted name stands for; of control characters, something that is no letter."""
    if escape[1] is not None:
        return bytes([int(escape[1], 16)])
    return b"?" if escape[2] is not None and escape[2].isalnum() else escape[2] or escape[0][:1]


def tokens(sql: bytes, start: int = 0) -> Iterator[Token]:
    """The pieces from `start` on, one at a time: what follows an insert's last word is data and never looked at."""
    depth = 0
    while found := _TOKEN.match(sql, start):
        start = found.end()
        kind = found.lastgroup or OTHER
        if kind == "skip":
            continue
        if kind == "rest":
            kind = OTHER
        text = found[0]
        if kind == OTHER and text in _CLOSES:
            depth = max(0, depth - 1)
        yield Token("string" if kind == "tag" else kind, found.start(), start, depth, text)
        if kind == OTHER and text in _OPENS:
            depth += 1


def beyond_ascii(sql: bytes) -> bool:
    """Whether bytes beyond ASCII stand outside strings, quoted names and comments: space that nobody sees, at best."""
    if sql.isascii():
        return False
    return any(
        found.lastgroup in ("skip", "rest", OTHER) and found[0] >= b"\x80" for found in _TOKEN.finditer(sql)
    )
