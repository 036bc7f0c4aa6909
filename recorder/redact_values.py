"""Where a secret's value begins and ends in a text, after the name that was found. Pure.

Every function looks at bytes from a position on and moves forward only, or back over what it just passed, so that the
time is linear in what it passes; the regular expressions are possessive where they repeat, so they never try again.
A value with more than `SIGNS_MOST` quotes and brackets in it ends where the data ends.

A quote is a run of backslashes and `"` or `'`. In JSON that is a string inside JSON, the quotes of the inner document
carry one backslash, one level deeper three, then seven: `n`. Inside a string with quotes of `n`, a run of `b`
backslashes before a quote ends the string where `b % (2n + 2) == n`, is an escaped quote otherwise, and ends a string
further out where `b < n`.
"""

from __future__ import annotations

import re
from typing import NamedTuple

MASK = b"***"
BACKSLASH = 0x5C

_AFTER_NAME = re.compile(
    rb"(?P<quote>\\*+[\"']|%22)?+\]?+(?P<gap>(?:\s|\\++[nrt])*+)(?P<sign>=>|==?+|:=|:(?![:/])|%3[Dd]|%3[Aa])?+"
)
_GAP = re.compile(rb"(?:\s|\\++[nrt])*+")
_BLANKS = re.compile(rb"[ \t]*+")
_OTHER_PAIR = re.compile(rb"[\w.-]++=[^=\s]")
_QUOTE = re.compile(rb"(?:[bBrRuU]{1,2}(?=\\*+[\"']))?+(\\*+)([\"'])")
_NOTHING = re.compile(
    rb"(?:null|none|true|false|nan|undefined)(?![\w.-])|\{\s*+\}|\[\s*+\]|\(\s*+\)|\*\*\*", re.IGNORECASE
)
"""What is no secret: nothing, yes and no, and what was cut already."""
_BARE = re.compile(rb"(?:[^\s&\"'<>\\,;]++|[,;](?![\w.-]++[=:])|\\\\|\\(?![nrt\"']))*+")
"""Up to the next pair: whoever ran on to the end of the text first would do so for every one of its pairs."""
_BARE_ENCODED = re.compile(rb"(?:[^\s&\"'<>\\%]++|%(?!26|22|20|0[aAdD]|3[bB]|7[dD]|2[cC]))*+")
_MEMBER = re.compile(rb"[^\s,}\])\"'\\({\[]*+")
_NESTED = re.compile(rb"[][{}()\"']")
_FOLLOWS = re.compile(rb"(?:\s|\\++[nrt])*+(?:[,}\]):;&|]|\\*+[\"']|$)")
_LINE_END = re.compile(rb"[\r\n]|\\++[nr]|\\*+[\"']")
_SCHEME = re.compile(rb"(?:bearer|basic|token|digest|negotiate|hmac[\w-]*+)[ \t+]++", re.IGNORECASE)
SIGNS_MOST = 65_536
"""Quotes and brackets in a value that are looked at, some 1 µs each, before its end counts as not to be found."""
PAIR_BYTES = 1_024
"""A quoted text as long as this behind a name and a comma is taken for the name's value, whatever follows it."""
_CLOSERS = b"),;]}"
_OPENERS = b"{[("


class Value(NamedTuple):
    """A secret: from `start` to `end`.

    `quote` is set for a value of a document that stands without quotes of its own, such as a number or an object: it
    is the quote of the name, which what stands in its place gets too, so that the document stays one. `is_rest` says
    that it is all the rest of a text with too many marks.
    """

    start: int
    end: int
    quote: bytes = b""
    is_rest: bool = False


def value_after(data: bytes, name_start: int, name_end: int, *, line: bool) -> Value | None:
    """The value that belongs to the name of a secret at `name_start` to `name_end`, or None where there is none.

    `line` says that its values are whole header lines, such as those of `Cookie`.
    """
    after = _AFTER_NAME.match(data, name_end)
    assert after is not None  # every part of it is optional
    quote, sign, start = after["quote"] or b"", after["sign"], after.end()
    if sign is None:
        return _without_sign(data, name_start, name_end, quote, after.start("gap"), start)
    if sign.startswith(b"%"):
        return _encoded(data, start)
    quote = b"" if quote == b"%22" else quote
    named = bool(quote)
    # An empty header or field does not take the next line for its value.
    gap = (_GAP if named else _BLANKS).match(data, start)
    begin = gap.end() if gap else start
    if found := _QUOTE.match(data, begin):
        if not named and data.endswith(found[1] + found[2], 0, name_start):
            return None  # `"token: "`: the quote ends the text that the name stands in
        return Value(found.end(), string_end(data, found.end(), found[2], len(found[1])))
    if _NOTHING.match(data, begin):
        return None
    if data[begin : begin + 1] and data[begin] in _OPENERS:
        return Value(begin, nested_end(data, begin, _level(quote)), quote if named else b"")
    if named:
        return Value(begin, _member_end(data, begin, _level(quote)), quote)
    if sign.startswith(b":") and (line or _begins_line(data, name_start)):
        return Value(begin, _line_end(data, name_start, begin))
    if begin > start and not after["gap"] and _OTHER_PAIR.match(data, begin):
        return None  # `token= table=fills`
    scheme = _SCHEME.match(data, begin) if line else None
    return Value(begin, _bare_end(data, scheme.end() if scheme else begin))


def _without_sign(
    data: bytes, name_start: int, name_end: int, quote: bytes, gap_start: int, start: int
) -> Value | None:
    """The value of a name that no `:` or `=` follows: an option, a pair, or bytes shown by Python."""
    if data[start : start + 1] == b"," and _opening_quote(data, name_start, quote):
        return _of_pair(data, name_start, quote, start + 1)
    if data.startswith(b"-", name_start) and not quote and start > gap_start:  # --password hunter2
        if found := _QUOTE.match(data, start):
            return Value(found.end(), string_end(data, found.end(), found[2], len(found[1])))
        return Value(start, _bare_end(data, start))
    if re.match(rb"\\++x[89a-fA-F]", data[name_end : name_end + 16]):  # repr of msgpack
        end = _LINE_END.search(data, name_end)
        return Value(name_end, end.start() if end else len(data))
    length = name_end - name_start
    if name_start and data[name_start - 1] == 0xA0 | length and data[name_end : name_end + 1] >= b"\x80":
        return Value(name_end, len(data))  # MessagePack behind something else: nothing says how it goes on
    return None


def _of_pair(data: bytes, name_start: int, quote: bytes, start: int) -> Value | None:
    """The second of a list or tuple of two, such as `("X-MBX-APIKEY", "...")`."""
    before = data[max(0, name_start - len(quote) - 8) : name_start - len(quote)].rstrip(b" \t\r\nbBrRuU")
    if not before.endswith((b"(", b"[")):
        return None
    gap = _GAP.match(data, start)
    found = _QUOTE.match(data, gap.end() if gap else start)
    if found is None:
        return None
    end = string_end(data, found.end(), found[2], len(found[1]))
    closing = data[end + len(found[1]) + 1 : end + len(found[1]) + 9].lstrip()
    is_pair = not closing or closing.startswith((b")", b"]")) or end - found.end() > PAIR_BYTES
    return Value(found.end(), end) if is_pair else None


def _encoded(data: bytes, start: int) -> Value:
    """A value in a URL that is a part of another URL."""
    if data.startswith(b"%22", start):
        end = data.find(b"%22", start + 3)
        return Value(start + 3, end if end >= 0 else len(data))
    found = _BARE_ENCODED.match(data, start)
    return Value(start, found.end() if found else start)


def _opening_quote(data: bytes, name_start: int, quote: bytes) -> bool:
    """Whether the name is a quoted one: with the quote before it that is after it, or where the text was cut off."""
    return bool(quote) and (name_start < len(quote) or data.endswith(quote, 0, name_start))


def _level(quote: bytes) -> int:
    return max(0, len(quote) - 1)


def _backslashes(data: bytes, position: int, start: int) -> int:
    """How many there are right before a position, not looking before `start`."""
    first = position
    while first > start and data[first - 1] == BACKSLASH:
        first -= 1
    return position - first


def string_end(data: bytes, start: int, quote: bytes, level: int) -> int:
    """Where the text of a string ends whose opening quote ends at `start`; the end of the data where it is cut off."""
    at, signs = start, 0
    while (at := data.find(quote, at)) >= 0 and signs < SIGNS_MOST:
        signs += 1
        run = _backslashes(data, at, start)
        if run < level:
            return at - run
        # More backslashes than the quote's own may also be those of a literal of Python around a JSON document.
        if run % (2 * level + 2) == level and (run == level or _FOLLOWS.match(data, at + 1)):
            return at - level
        at += 1
    return len(data)


def nested_end(data: bytes, start: int, level: int) -> int:
    """Where an object, list or call ends that begins at `start`, behind its bracket."""
    depth, at, signs = 0, start, 0
    while (found := _NESTED.search(data, at)) and signs < SIGNS_MOST:
        at = found.end()
        signs += 1
        sign = found[0]
        if sign in b"\"'":
            run = _backslashes(data, found.start(), start)
            if run < level:
                return found.start() - run
            at = min(len(data), string_end(data, at, sign, run) + run + 1)
            signs += data.count(sign, found.end(), at)
        elif sign in b"{[(":
            depth += 1
        else:
            depth -= 1
            if depth <= 0:
                return at
    return len(data)


def _member_end(data: bytes, start: int, level: int) -> int:
    """Where a number or another bare value of an object ends; one like `Decimal('1')` with its bracket."""
    found = _MEMBER.match(data, start)
    end = found.end() if found else start
    if data[end : end + 1] and data[end] in _OPENERS and end > start:
        return nested_end(data, end, level)
    return end


def _bare_end(data: bytes, start: int) -> int:
    """Where a value without quotes ends, in a query, in `key=value` or in a sentence."""
    found = _BARE.match(data, start)
    end = found.end() if found else start
    if data[end : end + 1] in (b'"', b"'"):
        end -= _backslashes(data, end, start)
    if b"(" in data[start:end] and data[end : end + 1] in (b'"', b"'"):
        return nested_end(data, data.index(b"(", start), 0)
    return start + len(data[start:end].rstrip(_CLOSERS))


def _begins_line(data: bytes, name_start: int) -> bool:
    """Whether a name is the first thing in its line, or in the quotes around a header."""
    if name_start == 0 or data[name_start - 1] in b"\r\n\"'":
        return True
    return data[name_start - 1] in b"nr" and _backslashes(data, name_start - 1, max(0, name_start - 16)) > 0


def _line_end(data: bytes, name_start: int, start: int) -> int:
    """Where a header line ends: at the end of the line, or at the quote that ends the text it stands in."""
    around = b""
    if name_start and data[name_start - 1] in b"\"'":
        first = name_start - 1 - _backslashes(data, name_start - 1, 0)
        around = data[first:name_start]
    inside = _backslashes(data, name_start - 1, max(0, name_start - 16)) if name_start else 0
    at, signs = start, 0
    while (found := _LINE_END.search(data, at)) and signs < SIGNS_MOST:
        signs += 1
        sign = found[0]
        if sign[-1] in b"\r\nnr":
            return found.start()
        if around and sign[-1:] == around[-1:] and len(sign) <= len(around):
            return found.start()
        if not around and inside and sign[-1:] == b'"' and len(sign) <= inside:
            return found.start()
        at = found.end()
    return len(data)
