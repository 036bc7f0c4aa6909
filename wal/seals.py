"""Seals: what was frozen for one insert, so that every attempt sends the same rows under the same token.

A seal's frame is durable before its rows are sent for the first time. A void takes seals back: nothing is sent under
their tokens any more, and their rows are free to be sealed anew, in other cuts. A token is used once: once taken back
it stays so, wherever in the log the void stands.

Payloads are JSON, UTF-8, keys in order; epochs are 16 hexadecimal digits, since many readers of JSON round whole
numbers above 2^53, and times, which are below 2^63, are text for the same reason:

    SEAL  {"about": {...}, "max_ns": "<int>", "min_ns": "<int>", "ranges": [["<epoch>", first, stop], ...],
           "rows": n, "token": "..."}
    VOID  {"void": ["<token>", ...]}

`about` is the owner's; this package only carries it.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from wal.errors import FormatError
from wal.places import PlaceSet, Range

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"
_SEQUENCE_MAX = 2**64 - 1
_EPOCH_DIGITS = 16


@dataclass(frozen=True)
class Seal:
    """One insert. Its rows are those of `ranges`, in that order: ranges of one epoch, in order and disjoint.

    Raises:
        ValueError: no token, no rows, ranges of two epochs or out of order, another number of rows than they have, or
            a latest time before the earliest.
    """

    token: str
    ranges: tuple[Range, ...]
    rows: int
    min_ns: int
    """Earliest and latest time of its rows, nanoseconds since 1970, by which a table is asked for them."""
    max_ns: int
    about: Mapping[str, Json] = field(default_factory=dict, hash=False)
    """What the owner has to remember: JSON, with text for keys."""

    def __post_init__(self) -> None:
        wrong = _wrong(self)
        if wrong:
            raise ValueError(f"seal {self.token!r}: {wrong}")

    @property
    def epoch(self) -> int:
        """Whose rows these are."""
        return self.ranges[0].epoch


def _wrong(seal: Seal) -> str:
    if not seal.token or not seal.ranges:
        return "it needs a token and at least one range"
    if any(one.rows <= 0 or one.first < 0 or one.stop > _SEQUENCE_MAX for one in seal.ranges):
        return f"a range without rows, or beyond what can be numbered, in {seal.ranges}"
    if any(
        left.epoch != right.epoch or left.stop > right.first
        for left, right in itertools.pairwise(seal.ranges)
    ):
        return f"its ranges are of one epoch, in order and disjoint, and not {seal.ranges}"
    held = sum(one.rows for one in seal.ranges)
    if held != seal.rows:
        return f"{seal.rows} rows are said, its ranges have {held}"
    return "" if seal.min_ns <= seal.max_ns else f"its rows end at {seal.max_ns}, before {seal.min_ns}"


@dataclass(frozen=True)
class Void:
    """Tokens that are taken back."""

    tokens: tuple[str, ...]


# -- to bytes and back --------------------------------------------------------------------------------------------


def pack_seal(seal: Seal) -> bytes:
    """A seal's payload.

    Raises:
        TypeError, ValueError: `about` is no JSON (a NaN is none).
    """
    content = {
        "token": seal.token,
        "ranges": [one.as_json() for one in seal.ranges],
        "rows": seal.rows,
        "min_ns": str(seal.min_ns),
        "max_ns": str(seal.max_ns),
        "about": dict(seal.about),
    }
    return _pack(content)


def read_seal(payload: bytes) -> Seal:
    """A seal from its payload.

    Raises:
        FormatError: it is none.
    """
    found = _read(payload, "seal")
    try:
        about = found["about"]
        if not isinstance(about, dict):
            raise TypeError(f"about is {type(about).__name__}, and not an object")
        return Seal(
            token=_text(found["token"]),
            ranges=tuple(_range(one) for one in found["ranges"]),
            rows=_whole(found["rows"]),
            min_ns=int(_text(found["min_ns"])),
            max_ns=int(_text(found["max_ns"])),
            about=about,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(
            f"this is no seal: {error!r} in {payload[:200]!r}; its rows count as unsealed"
        ) from error


def pack_void(tokens: Iterable[str]) -> bytes:
    """The payload that takes seals back."""
    return _pack({"void": list(tokens)})


def read_void(payload: bytes) -> Void:
    """Tokens from a void's payload.

    Raises:
        FormatError: it is none.
    """
    found = _read(payload, "void")
    try:
        return Void(tuple(_text(token) for token in found["void"]))
    except (KeyError, TypeError) as error:
        raise FormatError(f"this is no void: {error!r} in {payload[:200]!r}") from error


def _pack(content: Mapping[str, Any]) -> bytes:
    return json.dumps(
        content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def _read(payload: bytes, what: str) -> dict[str, Any]:
    try:
        found = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"this is no {what}, nor any JSON: {error}, in {payload[:200]!r}") from error
    if not isinstance(found, dict):
        raise FormatError(f"this is no {what}: a JSON object is expected, found {payload[:200]!r}")
    return found


def _range(found: Any) -> Range:
    epoch, first, stop = found
    if len(_text(epoch)) != _EPOCH_DIGITS:
        raise ValueError(f"an epoch has {_EPOCH_DIGITS} digits, and not {epoch!r}")
    return Range(int(epoch, 16), _whole(first), _whole(stop))


def _text(found: Any) -> str:
    if not isinstance(found, str):
        raise TypeError(f"text is expected, and not {found!r:.80}")
    return found


def _whole(found: Any) -> int:
    if not isinstance(found, int) or isinstance(found, bool):
        raise TypeError(f"a whole number is expected, and not {found!r:.80}")
    return found


# -- which of them hold -------------------------------------------------------------------------------------------


def live_seals(log: Iterable[Seal | Void]) -> list[Seal]:
    """The seals that hold, in the order in which they were made; `log` is in the order of the log.

    A seal that comes twice, as after a write that was done again, counts once. A void takes back by its token,
    wherever it stands: tokens are used once. A seal is also taken back by a later one that has rows of it, even one
    that was itself taken back: nobody seals rows anew before the void is durable, so there was one, and it was lost.
    """
    seals: dict[str, Seal] = {}
    void: set[str] = set()
    for said in log:
        if isinstance(said, Void):
            void.update(said.tokens)
        else:
            seals.setdefault(said.token, said)
    holding: list[Seal] = []
    later = PlaceSet()
    for seal in reversed(seals.values()):
        if seal.token not in void and not any(later.common_of(one) for one in seal.ranges):
            holding.append(seal)
        later.update(seal.ranges)
    return holding[::-1]
