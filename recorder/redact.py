"""Cuts secrets out of bytes and texts, before they reach a log, a sink or a dead letter.

A secret is found by the name before it (`"apiKey": "..."`, `signature=...`, `X-MBX-APIKEY: ...`) or by its form (a
password in a URL, a private key in PEM, a bearer token). What is cut is replaced by `***`; everything else stays byte
for byte. In MessagePack the mask is as long as what it hides, so that lengths stay true. `docs/redaction.md` says what
is cut and what is not.

Laws: it never raises, whatever the bytes; cutting twice is cutting once; where the end of a secret cannot be found, all
that follows is cut; the time is linear in the bytes. A payload with so many marks of secrets, or so many objects, that
even this would be long (`MARKS_MOST` and `OBJECTS_MOST` in `redact_spans.py`) loses all that follows them.

A `Redactor` is a value. Log lines and errors are made where no recorder is at hand, so one redactor is *in force* in
the process: it knows the built-in names and those of every recorder that was made in it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from recorder.redact_msgpack import is_msgpack, is_utf8, redact_msgpack
from recorder.redact_names import SecretNames
from recorder.redact_spans import SpanFinder, Work
from recorder.redact_values import MASK, Value

if TYPE_CHECKING:
    import pyarrow as pa

MASK_TEXT = MASK.decode()
_ASTERISK = b"*"


class Redactor:
    """The names and forms of secrets, and what cuts them out. Thread-safe; pickles by its arguments.

    `keys` are names of secrets beside the built-in ones. `patterns` are regular expressions as RE2 knows them, so that
    none of them can take long; what one of them matches is cut.

    Raises:
        ValueError: a key is no name, or a pattern is no regular expression, or it matches nothing or the mask.
    """

    def __init__(self, keys: Iterable[str] = (), patterns: Iterable[str] = ()):
        self.keys = tuple(dict.fromkeys(keys))
        self.patterns = tuple(dict.fromkeys(patterns))
        self._names = SecretNames(self.keys)
        self._finder = SpanFinder(self._names)
        for pattern in self.patterns:
            _check(pattern)

    def extended(self, keys: Iterable[str] = (), patterns: Iterable[str] = ()) -> Redactor:
        """This one with more names and patterns; itself if there are none."""
        more_keys, more_patterns = (*self.keys, *keys), (*self.patterns, *patterns)
        if set(more_keys) <= set(self.keys) and set(more_patterns) <= set(self.patterns):
            return self
        return Redactor(more_keys, more_patterns)

    def __reduce__(self) -> tuple[Any, ...]:
        return Redactor, (self.keys, self.patterns)

    @cached_property
    def worth(self) -> tuple[str, ...]:
        """Regular expressions (RE2) one of which matches every text that has something to cut."""
        return (self._finder.worth, *self.patterns)

    def is_secret(self, name: str) -> bool:
        """Whether this is the name of a secret."""
        return name.encode("utf-8", "replace") in self._names

    def cut(self, data: bytes) -> tuple[bytes, int]:
        """The bytes without their secrets, and how many were cut out."""
        if is_msgpack(data):
            return redact_msgpack(data, _InPlace(self._names, self._finder, self.patterns))
        return self._cut_text(data)

    def text(self, text: str) -> str:
        """The text without its secrets."""
        data = text.encode("utf-8", "surrogatepass")
        found, count = self._cut_text(data)
        return _decoded(found) if count else text

    def value(self, value: Any, name: str = "") -> Any:
        """A field of a log line: `***` if its name is a secret's, else without secrets, also inside of mappings,
        sequences and what objects show."""
        if name and value not in (None, "") and self.is_secret(name):
            return MASK_TEXT
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, bytes):
            return self.cut(value)[0]
        if isinstance(value, Mapping):
            return {key: self.value(item, str(key)) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(item) for item in value]
        if value is None or isinstance(value, int | float):
            return value
        return self._shown(value)

    def _shown(self, value: Any) -> Any:
        """An object as it is, or its text if there are secrets in what it shows."""
        try:
            text = repr(value) + str(value)
            return self.text(str(value)) if self.text(text) != text else value
        except Exception as error:  # noqa: BLE001 - an object may raise anything
            return f"<{type(value).__name__}: {type(error).__name__} in its text>"

    def _cut_text(self, data: bytes) -> tuple[bytes, int]:
        count, is_capped = 0, True
        while is_capped:  # where the rest is gone, what is before it may read otherwise
            pieces: list[bytes] = []
            end, is_capped = 0, False
            for value in self._finder.spans(data, Work()):
                pieces += (data[end : value.start], value.quote, MASK, value.quote)
                end, is_capped = value.end, value.is_rest
                count += 1
            if pieces:
                data = b"".join((*pieces, data[end:]))
        return _cut_patterns(data, self.patterns, count) if self.patterns else (data, count)


class _InPlace:
    """Cuts the texts of MessagePack, with masks as long as what they hide."""

    def __init__(self, names: SecretNames, finder: SpanFinder, patterns: Sequence[str]):
        self.names = names
        self.finder = finder
        self._patterns = patterns

    def cut_in_place(self, text: bytes, work: Work) -> tuple[bytes, int]:
        """See `TextCutter`."""
        pieces: list[bytes] = []
        end = count = 0
        for value in self.finder.spans(text, work):
            if value.is_rest:
                break  # whoever asked sees that there is no work left, and hides the text
            mask = _mask_as_long(value)
            if mask != text[value.start : value.end]:
                pieces += (text[end : value.start], mask)
                end = value.end
                count += 1
        return (b"".join((*pieces, text[end:])), count) if count else (text, 0)

    def matched(self, texts: Sequence[bytes]) -> Collection[int]:
        """See `TextCutter`. All texts at once: making RE2's machine takes 60 µs each time."""
        if not self._patterns or not texts:
            return ()
        import pyarrow as pa
        import pyarrow.compute as pc

        sound = [text if is_utf8(text) else None for text in texts]
        other = [None if text is not None else raw for text, raw in zip(sound, texts, strict=True)]
        columns = pa.array(sound, pa.string()), pa.array(other, pa.binary())
        found: set[int] = set()
        for pattern in self._patterns:
            for column in columns:
                found.update(pc.indices_nonzero(pc.match_substring_regex(column, pattern)).to_pylist())
        return found

    def has_worth(self, data: bytes) -> bool:
        """See `TextCutter`. What a pattern matches in a text need not be matched among other bytes: rather too much."""
        return bool(self._patterns) or self.finder.has_worth(data)


def _mask_as_long(value: Value) -> bytes:
    length, quotes = value.end - value.start, 2 * len(value.quote)
    if not value.quote:
        return _ASTERISK * length
    if length > quotes:
        return value.quote + _ASTERISK * (length - quotes) + value.quote
    return b"0".ljust(length)  # too short for quotes, and a document stays one


def _check(pattern: str) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc

    empty = masked = False
    try:
        for kind in (pa.binary(), pa.string()):
            found = pc.match_substring_regex(pa.array([b"", MASK], kind), pattern).to_pylist()
            empty, masked = empty or found[0], masked or found[1]
    except pa.ArrowInvalid as error:
        raise ValueError(f"{pattern!r} is no regular expression as RE2 knows them: {error}") from None
    if empty or masked:
        what = "the empty text" if empty else f"the mask {MASK_TEXT}"
        raise ValueError(f"{pattern!r} matches {what}; write what the secret looks like and nothing else")


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:  # a pattern that matches bytes cut through a character
        return data.decode("utf-8", "replace")


def _cut_patterns(data: bytes, patterns: Iterable[str], count: int) -> tuple[bytes, int]:
    """The bytes without what the patterns match: characters of a text in UTF-8, bytes of all else.

    RE2 takes Arrow's texts for UTF-8 and its binary values for Latin-1, where `.` is one byte.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    array: pa.Array = pa.array([data], pa.string() if is_utf8(data) else pa.binary())
    for pattern in patterns:
        if found := pc.count_substring_regex(array, pattern)[0].as_py():
            array = pc.replace_substring_regex(array, pattern, MASK_TEXT)
            count += found
    # Not as a text of Python: `\C`, any byte, may have cut through a character.
    return bytes(array[0].as_buffer().to_pybytes()), count


_in_force = Redactor()


def in_force() -> Redactor:
    """The redactor of this process's log lines and errors."""
    return _in_force


def put_in_force(keys: Iterable[str] = (), patterns: Iterable[str] = ()) -> None:
    """Let this process's log lines and errors lose these secrets too, from now on."""
    global _in_force
    _in_force = _in_force.extended(keys, patterns)


def redacted(text: str) -> str:
    """A text for people (a message, an error, a line of a log) without its secrets."""
    return _in_force.text(text)
