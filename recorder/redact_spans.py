"""Finds the spans of secrets in a text of any format: JSON, header lines, queries, `key=value`, literals. Pure.

One pass from left to right. A *mark* (the name of a secret, `://`, `-----BEGIN`, ...) says where to look; what follows
it says where the secret begins and ends. The search goes on behind what was looked at, so the time is linear. After
`MARKS_MOST` marks it ends: if RE2 finds the name or form of a secret in the rest, all from the next mark on is one.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator

from recorder.redact_names import SecretNames
from recorder.redact_values import BACKSLASH, Value, value_after

_NAME_LEFT = 96
LONG_NAME = 5
_NAME = re.compile(rb"[\w.$-]*+", re.ASCII)
_NAME_CHARACTERS = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.$")
_ESCAPED = re.compile(rb"u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|[nrtbf]")
_SIZED_HEAD = re.compile(rb"[\xc4-\xc6\xd9-\xdb]|\\x(?:c[456]|d[9ab])")
_SIZED = re.compile(
    rb"(?s:[\xc4\xd9].|[\xc5\xda]..|[\xc6\xdb]....|(?:\\x(?:c4|d9)B|\\x(?:c5|da)B{2}|\\x(?:c6|db)B{4}))\Z".replace(
        b"B", rb"(?:\\x[0-9a-f]{2}|\\[nrt]|.)"
    )
)
"""What stands before a text of MessagePack whose length is written in bytes of its own, also as `repr` shows it."""
_SIZED_BYTES = 20
"""It is no longer."""
_AUTHORITY = re.compile(rb"[^/?#\s\"'<>\\]*+")
_PORT = re.compile(rb"[0-9]{1,5}(?:[/?#]|$)")
_LOOSE = re.compile(rb"[^\s\"'<>]*+")
_WORD = re.compile(rb"\S*+")
_QUOTES = (b'"', b"'", b"\\")
LOOSE_BYTES = 1_024
"""How far a password with an unescaped `/` or `#` is looked for behind `://`."""
MARKS_MOST = 16_384
"""Marks of a text that are looked at one by one, some 10 µs each; no honest payload has so many."""
MARK_BYTES = 32
"""So many bytes of a secret count like a mark more."""
OBJECTS_MOST = 262_144
"""Objects of a MessagePack document that are looked at, some 2 µs each: 4,096 rows of 30 columns have fewer."""
NESTED_BYTES_MOST = 524_288
"""Bytes of MessagePack documents in texts of another that are looked at; those of each level count."""
_TOKEN_RUN = re.compile(rb"[A-Za-z0-9._~+/=-]*+")
_JWT = re.compile(rb"[A-Za-z0-9_-]{8,}+\.[A-Za-z0-9_-]{8,}+\.[A-Za-z0-9_-]*+")
_RUN = re.compile(rb"[A-Za-z0-9_-]*+")
_LISTEN_KEY = re.compile(rb"[A-Za-z0-9]*+")
LISTEN_KEY_BYTES = 60
"""Letters and digits at least that make a stream's name the key of a private one; Binance's have 64."""
_LINE_NAMES = (b"authorization", b"cookie", b"cookies")
_PEM_LABEL = re.compile(rb"[a-z0-9 ]{0,64}private key[a-z0-9 ]{0,16}-----")
_PEM_END = b"-----end "

# In lower case. Each kind of mark is told by how it begins.
_MARKS = rb":(?://|\\/\\/)|-----begin |(?:bearer|basic)[ +]+|eyj|/ws/|streams?=|stream\\*[\"']\s*:\s*\\*[\"']"
_STREAM = re.compile(rb"/ws/|streams?[=\\\"']")
_SCHEMES = (b"bearer ", b"basic ", b"bearer+", b"basic+")
_WORTH = (
    rb"(?i)://[^\s\"'<>]*@|:\\/\\/[^\s\"'<>]*@|-----begin |(?:bearer|basic)[ +]|eyj[a-z0-9_-]{5}|"
    rb"(?:/ws/|streams?=|stream\\*[\"']\s*:\s*\\*[\"'])[a-z0-9]{60}"
)


class Work:
    """What may still be looked at of one payload, all texts and documents inside of it together."""

    __slots__ = ("marks", "nested_bytes", "objects")

    def __init__(self) -> None:
        self.marks = MARKS_MOST
        self.objects = OBJECTS_MOST
        self.nested_bytes = NESTED_BYTES_MOST
        """Each is below zero where there was more."""


class SpanFinder:
    """Finds secrets by these names, and by their form."""

    def __init__(self, names: SecretNames):
        self._names = names
        # Without groups, so that `re` skips bytes that begin no mark.
        self._only_names = re.compile(names.pattern)
        self._marks = re.compile(names.pattern + b"|" + _MARKS)
        self.worth = (_WORTH + b"|" + names.pattern).decode()
        """For RE2: what a text has in it if anything is to be cut; others need not be looked at."""

    def spans(self, data: bytes, work: Work) -> Iterator[Value]:
        """The secrets of a text, in order; none that is cut already, none that is empty. Takes marks from `work`."""
        low = data.lower()
        position = 0
        last_at = data.rfind(b"@")  # no password of a URL stands behind it
        while found := self._marks.search(low, position):
            mark = found[0]
            value: Value | None
            work.marks -= 1
            if work.marks < 0:
                if self.has_worth(data[found.start() :]):
                    yield Value(found.start(), len(data), is_rest=True)
                return
            if mark.startswith(b":"):
                position = found.end()
                value = _in_url(data, position) if position < last_at else None
            elif mark.startswith(b"-"):
                value, position = _in_pem(low, found.end()), found.end()
            elif mark.startswith(_SCHEMES):
                value, position = _after_scheme(data, low, found)
            elif mark == b"eyj":
                value, position = _jwt(data, found.start())
            elif _STREAM.match(mark):
                value, position = _listen_key(data, found.end())
            else:
                value, position = self._after_name(data, found, position)
            if value is not None and value.end > value.start:
                if not _is_text(data[value.start : value.end]):
                    value = value._replace(end=len(data))  # of binary data nothing says where it ends
                position = max(position, value.end)
                work.marks = max(0, work.marks - (value.end - value.start) // MARK_BYTES)
                if data.count(b"*", value.start, value.end) < value.end - value.start:
                    yield value

    def is_worth(self, data: bytes, work: Work) -> bool:
        """Whether there is a secret in it, or the name of one, whatever is around it."""
        return (
            self._only_names.search(data.lower()) is not None
            or next(self.spans(data, work), None) is not None
        )

    def has_worth(self, data: bytes) -> bool:
        """Whether RE2, in no time, sees the name or form of a secret."""
        import pyarrow as pa
        import pyarrow.compute as pc

        return bool(pc.match_substring_regex(pa.array([data], pa.binary()), self.worth)[0].as_py())

    def first_name(self, low: bytes, position: int = 0) -> int | None:
        """Where in bytes in lower case the first name of a secret from a position on stands, whatever is around it;
        short ones, which chance may write, left out."""
        while found := self._only_names.search(low, position):
            if found.end() - found.start() >= LONG_NAME:
                return found.start()
            position = found.end()
        return None

    def _after_name(self, data: bytes, found: re.Match[bytes], position: int) -> tuple[Value | None, int]:
        start = found.start()
        least = max(position, start - _NAME_LEFT)
        while start > least and data[start - 1] in _NAME_CHARACTERS:
            start -= 1
        start = _without_escape(data, start, found.start())
        right = _NAME.match(data, found.end())
        end = right.end() if right else found.end()
        name = data[start:end]
        if name not in self._names:
            behind = (
                first
                for first in _behind_length(data, start, found.start())
                if data[first:end] in self._names
            )
            start = next(behind, -1)
            if start < 0:
                return None, end
            name = data[start:end]
        line = name.lower().endswith(_LINE_NAMES)
        return value_after(data, start, end, line=line), end


def _is_text(data: bytes) -> bool:
    """Whether this is UTF-8, or was a text of Python before."""
    try:
        data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return False
    return True


def _without_escape(data: bytes, start: int, upto: int) -> int:
    """The start of a name without the letter of an escape before it, such as the `n` of `\\ntoken` or `3D` of `%3D`."""
    if start == 0:
        return start
    if data[start - 1] == BACKSLASH and (escape := _ESCAPED.match(data, start, upto)):
        return escape.end()
    if data[start - 1] == 0x25 and upto - start >= 2:
        return start + 2
    return start


def _behind_length(data: bytes, start: int, upto: int) -> Iterator[int]:
    """Where a name may begin whose first characters are no part of it, but the length of a text of MessagePack: one
    that stands behind something else, or is broken, so that nothing else says where texts begin."""
    least = max(0, start - _SIZED_BYTES)
    if _SIZED_HEAD.search(data, least, start):
        for first in range(start + 1, min(start + 4, upto) + 1):
            if _SIZED.search(data, least, first):
                yield first


def _in_url(data: bytes, start: int) -> Value | None:
    """The password of a URL, behind its `://`."""
    found = _AUTHORITY.match(data, start)
    assert found is not None
    end = found.end()
    colon = data.find(b":", start, end)
    at = data.rfind(b"@", start, end)
    if colon >= 0 and at > colon:
        return Value(colon + 1, at)
    if colon < 0:
        return None
    # A password with an unescaped "/", "#" or quote breaks the URL but must not be shown for it.
    if data[end : end + 1] in _QUOTES and not data[colon + 1 : end].isdigit():
        word = _WORD.match(data, start, start + LOOSE_BYTES)
        at = data.find(b"@", end, word.end() if word else end)
        return Value(colon + 1, at) if at >= 0 else None
    loose = _LOOSE.match(data, start, start + LOOSE_BYTES)
    end = loose.end() if loose else start
    if _PORT.match(data, colon + 1, end):
        query = data.find(b"?", colon, end)
        end = query if query >= 0 else end
    at = data.rfind(b"@", colon, end)
    return Value(colon + 1, at) if at >= 0 else None


def _in_pem(low: bytes, start: int) -> Value | None:
    """What stands between the lines of a private key."""
    label = _PEM_LABEL.match(low, start)
    if label is None:
        return None
    end = low.find(_PEM_END, label.end())
    return Value(label.end(), end if end >= 0 else len(low))


def _after_scheme(data: bytes, low: bytes, found: re.Match[bytes]) -> tuple[Value | None, int]:
    """What follows `Bearer ` or `Basic ` and looks like a credential, not like a word."""
    run = _TOKEN_RUN.match(data, found.end())
    end = run.end() if run else found.end()
    text = data[found.end() : end]
    if low.startswith(b"bearer", found.start()):
        secret = len(text) >= 20 or (len(text) >= 8 and any(48 <= letter <= 57 for letter in text))
    else:
        secret = _is_login(text)
    return (Value(found.end(), end) if secret else None), end


def _is_login(text: bytes) -> bool:
    """Whether this is `user:password` in base64."""
    text = text.rstrip(b".")
    try:
        return len(text) >= 4 and b":" in base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        return False


def _jwt(data: bytes, start: int) -> tuple[Value | None, int]:
    """A JSON web token: three parts of base64 with dots between."""
    if data.startswith(b"eyJ", start) and (found := _JWT.match(data, start)):
        return Value(start, found.end()), found.end()
    run = _RUN.match(data, start)
    return None, run.end() if run else start + 3


def _listen_key(data: bytes, start: int) -> tuple[Value | None, int]:
    """The key of a private stream, where the name of a stream stands."""
    run = _LISTEN_KEY.match(data, start)
    end = run.end() if run else start
    if end - start >= LISTEN_KEY_BYTES and data[end : end + 1] != b"@":
        return Value(start, end), end
    return None, start
