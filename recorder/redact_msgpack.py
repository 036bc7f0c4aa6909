"""Secrets in MessagePack, overwritten where they stand, so that every length stays true. Pure.

One pass over the objects, without recursion into containers. Where the bytes are broken or cut off, or where the name
of a secret stands outside of every text that was seen (then the lengths lie), all from the first such name on is
overwritten: nothing says where the secret ends.

Source: the MessagePack specification, https://github.com/msgpack/msgpack/blob/master/spec.md
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from recorder.redact_names import SecretNames
from recorder.redact_spans import SpanFinder

CutInPlace = Callable[[bytes], tuple[bytes, int]]
NESTED_MOST = 8
"""How deep MessagePack inside of binary MessagePack values is looked into."""

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


def redact_msgpack(
    data: bytes, names: SecretNames, cut_in_place: CutInPlace, finder: SpanFinder, depth: int = 0
) -> tuple[bytes, int]:
    """The bytes without their secrets, as long as before, and how many were cut out.

    `cut_in_place` cuts a text, and keeps its length.
    """
    walk = _Walk(data, names, cut_in_place, finder, depth)
    walk.run()
    return bytes(walk.out), walk.count


class _Walk:
    def __init__(
        self, data: bytes, names: SecretNames, cut_in_place: CutInPlace, finder: SpanFinder, depth: int
    ):
        self.out = bytearray(data)
        self.count = 0
        self._data = data
        self._names = names
        self._cut_in_place = cut_in_place
        self._finder = finder
        self._depth = depth
        self._frames: list[_Frame] = []
        self._seen: list[tuple[int, int]] = []  # texts, in order
        self._broken = False
        self._uncounted = False  # nothing of the secret under way was overwritten so far

    def run(self) -> None:
        """Go through all objects."""
        position = 0
        while position < len(self._data):
            head = _head(self._data, position)
            if head is None or head.start + head.length > len(self._data):
                self._hide_rest(position)
                break
            # What follows the first object must be another document; numbers that are left over show lengths that lie.
            self._broken |= position > 0 and not self._frames and not head.objects
            self._take(position, head)
            position = head.start + head.length
        if self._broken or self._frames:
            first = next(self._finder.names_in(self._data), None)
            if first is not None:
                self._uncounted = True
                self._overwrite(first, len(self._data))
        self._hide_where_lengths_lie()

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
                frame.secret_next = content in self._names
            else:
                self._cut(head.start, content)
        elif head.is_extension and self._finder.is_worth(self._data[head.start : head.start + head.length]):
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

    def _cut(self, start: int, content: bytes) -> None:
        if is_msgpack(content) and self._depth < NESTED_MOST:
            cut, count = redact_msgpack(
                content, self._names, self._cut_in_place, self._finder, self._depth + 1
            )
        else:
            cut, count = self._cut_in_place(content)
        if count:
            self.out[start : start + len(content)] = cut
            self.count += count

    def _hide_rest(self, position: int) -> None:
        """Overwrite all from a broken object on, if there is anything in it to hide."""
        frame = self._frames[-1] if self._frames else None
        secret = frame is not None and (frame.hidden or frame.secret_next)
        rest = self._data[position:]
        if secret or self._finder.is_worth(rest):
            self._uncounted = True
            self._overwrite(position, len(self._data))

    def _hide_where_lengths_lie(self) -> None:
        """Overwrite all from the name of a secret on that stands in no text that was seen."""
        seen = iter(self._seen)
        start, end = next(seen, (len(self._data), len(self._data)))
        for position in self._finder.names_in(self._data):
            while end <= position and start < len(self._data):
                start, end = next(seen, (len(self._data), len(self._data)))
            if position < start:
                self._uncounted = True
                self._overwrite(position, len(self._data))
                return

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
