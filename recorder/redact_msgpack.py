"""Secrets in MessagePack, overwritten where they stand, so that every length stays true. Pure.

One pass over the objects, without recursion into containers, then one over their texts. Where the bytes are broken or
cut off, or where the name of a secret stands outside of every text that was seen (then the lengths lie), all from the
first such name on is overwritten: nothing says where the secret ends.

The work is bounded, whatever the bytes: so many marks in all texts together (as in one text, `MARKS_MOST`), so many
objects (`OBJECTS_MOST`), so many containers inside each other (`CONTAINERS_MOST`), so many bytes of documents inside of
texts (`NESTED_BYTES_MOST`) and of those inside of each other (`NESTED_MOST`). Of what lies behind a bound it is only
asked, of RE2 and as a whole, whether there is the name or form of a secret in it. If so it is overwritten, as what is
broken: from the first name of a secret on. Masks have as many bytes and marks as what they hide, or fewer, and what
masks have more of ends nothing sooner: so cutting twice is cutting once.

Source: the MessagePack specification, https://github.com/msgpack/msgpack/blob/master/spec.md
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple, Protocol

from recorder.redact_names import SecretNames
from recorder.redact_spans import SpanFinder, Work

NESTED_MOST = 8
"""How deep MessagePack inside of binary MessagePack values is looked into."""
CONTAINERS_MOST = 512
"""How many containers inside each other are gone into; messages of the bus have at most 32."""

_SIZED = {0xC4: (1, 1), 0xC5: (2, 1), 0xC6: (4, 1), 0xD9: (1, 1), 0xDA: (2, 1), 0xDB: (4, 1),
          0xC7: (1, 2), 0xC8: (2, 2), 0xC9: (4, 2)}  # fmt: skip
"""By first byte: bytes of the length that follows, and 1 for texts and binary values, 2 for extensions."""
_FIXED = {0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8,
          0xD4: 2, 0xD5: 3, 0xD6: 5, 0xD7: 9, 0xD8: 17}  # fmt: skip
"""By first byte: bytes that follow of a number, or of an extension of fixed length, its type first."""
_CONTAINERS = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}
"""By first byte: bytes of the count that follows, and objects a count."""


def is_msgpack(data: bytes) -> bool:
    """Whether this begins like a map or an array of MessagePack, which no text in UTF-8 and no JSON does."""
    if not data:
        return False
    first = data[0]
    if 0x80 <= first <= 0x9F:
        return True
    if 0xDC <= first <= 0xDF:  # in UTF-8 the first of two bytes
        return len(data) < 2 or not 0x80 <= data[1] <= 0xBF
    return False


class _Head(NamedTuple):
    """What the first bytes of an object say: where its content begins, its length, and how many objects are in it."""

    start: int
    length: int
    objects: int
    is_text: bool = False
    is_map: bool = False
    is_extension: bool = False


class _Frame:
    """A container under way. `hidden` says that all in it is secret; `secret_next` that the next value is."""

    __slots__ = ("hidden", "is_map", "left", "secret_next")

    def __init__(self, left: int, *, is_map: bool, hidden: bool):
        self.left = left
        self.is_map = is_map
        self.hidden = hidden
        self.secret_next = False


class TextCutter(Protocol):
    """What cuts a text and keeps its length, and knows what a secret looks like."""

    names: SecretNames
    finder: SpanFinder

    def cut_in_place(self, text: bytes, work: Work) -> tuple[bytes, int]:
        """The text without what the finder finds, and how many secrets were cut out. Takes marks from `work`."""

    def matched(self, texts: Sequence[bytes]) -> Collection[int]:
        """Places of the texts in which one of the patterns is."""

    def has_worth(self, data: bytes) -> bool:
        """Whether there may be a secret in it, asked of RE2 as a whole."""


def redact_msgpack(
    data: bytes, cutter: TextCutter, work: Work | None = None, depth: int = 0
) -> tuple[bytes, int]:
    """The bytes without their secrets, as long as before, and how many were cut out."""
    walk = _Walk(data, cutter, work or Work(), depth)
    walk.run()
    return bytes(walk.out), walk.count


class _Walk:
    def __init__(self, data: bytes, cutter: TextCutter, work: Work, depth: int):
        self.out = bytearray(data)
        self.count = 0
        self._data = data
        self._cutter = cutter
        self._finder = cutter.finder
        self._work = work
        self._depth = depth
        self._frames: list[_Frame] = []
        self._texts: list[tuple[int, int, int]] = []  # to be cut: where they begin, their content, its end
        self._seen: list[tuple[int, int]] = []  # contents of texts and extensions, in order
        self._broken = False
        self._at_bound = False  # the walk ended at one, and not because something is broken
        self._uncounted = False  # nothing of the secret under way was overwritten so far

    def run(self) -> None:
        """Go through all objects, then through their texts."""
        end = self._take_objects()
        hidden = end < len(self._data) and self._hide_rest(end)
        bound = self._cut_texts()
        if bound is not None:
            self._at_bound = True
            hidden |= self._hide_rest(bound)
        self._broken |= hidden  # its mask is a run of objects that nothing accounts for
        low = self._data.lower()
        if not self._broken and (self._at_bound or not self._frames):
            self._hide_where_lengths_lie(low)
        elif (first := self._finder.first_name(low)) is not None:
            self._uncounted = True
            self._overwrite(first, len(self._data))

    def _take_objects(self) -> int:
        """The structure; where it ends, breaks off, or reaches a bound."""
        position = 0
        while position < len(self._data):
            if self._is_at_bound():
                self._at_bound = True
                break
            head = _head(self._data, position)
            if head is None or head.start + head.length > len(self._data):
                break
            # What follows the first object must be another document; numbers that are left over show lengths that lie.
            self._broken |= position > 0 and not self._frames and not head.objects
            self._take(position, head)
            position = head.start + head.length
        return position

    def _take(self, position: int, head: _Head) -> None:
        frame = self._frames[-1] if self._frames else None
        is_key = frame is not None and frame.is_map and frame.left % 2 == 0
        secret = frame is not None and not is_key and frame.secret_next
        hidden = frame is not None and (frame.hidden or secret)
        if frame is not None:
            frame.left -= 1
            frame.secret_next = False
        self._uncounted = secret or self._uncounted
        if head.objects:
            self._frames.append(_Frame(head.objects, is_map=head.is_map, hidden=hidden))
        elif hidden:
            self._hide(position, head)
        elif head.is_text:
            content = self._data[head.start : head.start + head.length]
            if not 0xC4 <= self._data[position] <= 0xC6 and not is_utf8(content):  # not binary
                self._broken = True
            if is_key and frame is not None:
                frame.secret_next = content in self._cutter.names
            elif content:
                self._texts.append((position, head.start, head.start + head.length))
        elif head.is_extension and self._is_worth(head.start, head.start + head.length):
            self._uncounted = True
            self._hide(position, head)
        if head.is_text or head.is_extension:
            self._seen.append((head.start, head.start + head.length))
        while self._frames and self._frames[-1].left == 0:
            self._frames.pop()

    def _hide(self, position: int, head: _Head) -> None:
        """Overwrite an object's content; null, true and false are no secrets."""
        first = self._data[position]
        if first in (0xC0, 0xC2, 0xC3):
            return
        start = position if first <= 0x7F or first >= 0xE0 else head.start
        self._overwrite(start, head.start + head.length)

    def _is_at_bound(self) -> bool:
        if self._depth == 0:  # documents in texts are counted by their length: masks are made of objects
            self._work.objects -= 1
            if self._work.objects < 0:
                return True
        return self._work.marks < 0 or len(self._frames) > CONTAINERS_MOST

    def _cut_texts(self) -> int | None:
        """Cut the texts; the text at which a bound was reached, or None."""
        matched = frozenset(self._cutter.matched([self._data[start:end] for _, start, end in self._texts]))
        for place, (position, start, end) in enumerate(self._texts):
            content = self._data[start:end]
            if place in matched:
                cut = b"*" * len(content)
                count = int(cut != content)
            elif is_msgpack(content) and self._depth < NESTED_MOST:
                self._work.nested_bytes -= len(content)
                if self._work.nested_bytes < 0:
                    return position
                cut, count = redact_msgpack(content, self._cutter, self._work, self._depth + 1)
            else:
                cut, count = self._cutter.cut_in_place(content, self._work)
            if self._work.marks < 0:
                return position
            if count:
                self.out[start:end] = cut
                self.count += count
        return None

    def _is_worth(self, start: int, end: int) -> bool:
        return self._finder.is_worth(self._data[start:end], self._work)

    def _hide_rest(self, position: int) -> bool:
        """Overwrite all from a broken object, or a bound, on, if there is anything in it to hide; whether there is."""
        frame = self._frames[-1] if self._frames else None
        secret = frame is not None and (frame.hidden or frame.secret_next)
        rest = self._data[position:]
        worth = self._cutter.has_worth(rest) if self._at_bound else self._finder.is_worth(rest, self._work)
        if secret or worth:
            self._uncounted = True
            self._overwrite(position, len(self._data))
        return secret or worth

    def _hide_where_lengths_lie(self, low: bytes) -> None:
        """Overwrite all from the name of a secret on that stands in no text that was seen."""
        seen = iter(self._seen)
        start, end = next(seen, (len(low), len(low)))
        position = self._finder.first_name(low)
        while position is not None:
            while end <= position and start < len(low):
                start, end = next(seen, (len(low), len(low)))
            if position < start:
                self._uncounted = True
                self._overwrite(position, len(low))
                return
            position = self._finder.first_name(low, end)  # whatever else is in that text, it is no lie

    def _overwrite(self, start: int, end: int) -> None:
        hidden = b"*" * (end - start)
        if self.out[start:end] != hidden:
            self.out[start:end] = hidden
            self.count += self._uncounted
            self._uncounted = False


def is_utf8(text: bytes) -> bool:
    """Whether this is a text."""
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _head(data: bytes, position: int) -> _Head | None:
    """The head of the object at a position; None where there is none, or where it is cut off."""
    first, start = data[position], position + 1
    if first <= 0x7F or first >= 0xE0 or first in (0xC0, 0xC2, 0xC3):
        return _Head(start, 0, 0)
    if first <= 0x8F:
        return _Head(start, 0, 2 * (first & 0x0F), is_map=True)
    if first <= 0x9F:
        return _Head(start, 0, first & 0x0F)
    if first <= 0xBF:
        return _Head(start, first & 0x1F, 0, is_text=True)
    if (length := _FIXED.get(first)) is not None:
        return _Head(start, length, 0, is_extension=first >= 0xD4)
    if (sized := _SIZED.get(first)) is not None:
        width, kind = sized
        if start + width > len(data):
            return None
        length = int.from_bytes(data[start : start + width], "big")
        extension = kind == 2
        return _Head(start + width, length + extension, 0, is_text=not extension, is_extension=extension)
    if (container := _CONTAINERS.get(first)) is not None:
        width, each = container
        if start + width > len(data):
            return None
        objects = each * int.from_bytes(data[start : start + width], "big")
        return _Head(start + width, 0, objects, is_map=each == 2)
    return None
