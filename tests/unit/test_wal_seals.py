"""Seals and voids: read back as they were, never out of anything else, and which of them hold."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wal.errors import FormatError
from wal.places import Range
from wal.seals import Seal, Void, live_seals, pack_seal, pack_void, read_seal, read_void

U64 = st.integers(0, 2**64 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


def seal(token: str, *spans: tuple[int, int], epoch: int = 5) -> Seal:
    ranges = tuple(Range(epoch, first, stop) for first, stop in spans)
    return Seal(token, ranges, sum(one.rows for one in ranges), 10, 20, {"partitions": ["2026-01-02"]})


@st.composite
def seals(draw: st.DrawFn) -> Seal:
    cuts = sorted(draw(st.sets(U64, min_size=2, max_size=8)))
    cuts = cuts[: len(cuts) // 2 * 2]
    epoch = draw(U64)
    ranges = tuple(Range(epoch, first, stop) for first, stop in zip(cuts[::2], cuts[1::2], strict=True))
    first_ns, last_ns = sorted(draw(st.tuples(U64, U64)))
    about = draw(st.dictionaries(TEXT, JSON, max_size=3))
    return Seal(draw(TEXT), ranges, sum(one.rows for one in ranges), first_ns, last_ns, about)


@given(seals())
def test_a_seal_is_read_back(made: Seal) -> None:
    """Whatever its numbers, its token and what its owner keeps in it; the same seal makes the same bytes."""
    assert read_seal(pack_seal(made)) == made
    assert pack_seal(read_seal(pack_seal(made))) == pack_seal(made)


@given(st.lists(TEXT, max_size=5))
def test_a_void_is_read_back(tokens: list[str]) -> None:
    """All its tokens, in order."""
    assert read_void(pack_void(tokens)) == Void(tuple(tokens))


def test_the_payload_is_as_it_is_written_down() -> None:
    """Another program can read it: JSON whose large numbers are text."""
    assert pack_seal(seal("t", (1, 3), (7, 8), epoch=2**64 - 1)) == (
        b'{"about":{"partitions":["2026-01-02"]},"max_ns":"20","min_ns":"10",'
        b'"ranges":[["ffffffffffffffff",1,3],["ffffffffffffffff",7,8]],"rows":3,"token":"t"}'
    )
    assert pack_void(["a", "b"]) == b'{"void":["a","b"]}'


@pytest.mark.parametrize(
    "wrong",
    [
        {"token": ""},
        {"ranges": ()},
        {"ranges": (Range(5, 3, 3),), "rows": 0},
        {"ranges": (Range(5, -1, 0),), "rows": 1},
        {"ranges": (Range(5, 0, 2**64),), "rows": 2**64},
        {"ranges": (Range(5, 4, 6), Range(5, 0, 2))},
        {"ranges": (Range(5, 0, 3), Range(5, 2, 3))},
        {"ranges": (Range(5, 0, 2), Range(6, 2, 4))},
        {"rows": 5},
        {"min_ns": 21},
    ],
    ids=lambda wrong: "-".join(wrong),
)
def test_a_seal_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    """At its owner, before it is written, in words that name it."""
    sound: dict[str, Any] = {"token": "t", "ranges": (Range(5, 0, 4),), "rows": 4, "min_ns": 10, "max_ns": 20}
    Seal(**sound)
    with pytest.raises(ValueError, match="seal '"):
        Seal(**{**sound, **wrong})


def changed(path: list[Any], value: Any) -> bytes:
    content = json.loads(pack_seal(seal("t", (1, 3))))
    at = content
    for step in path[:-1]:
        at = at[step]
    if value is ...:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return json.dumps(content).encode()


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"7",
        b"[" * 100_000,
        b'{"rows": ' + b"9" * 5_000 + b"}",
        changed(["token"], ...),
        changed(["token"], 7),
        changed(["rows"], "2"),
        changed(["rows"], True),
        changed(["rows"], 3),
        changed(["ranges"], None),
        changed(["ranges"], [["5", 1, 3]]),
        changed(["ranges", 0, 0], 5),
        changed(["ranges", 0, 0], "no hexadecimal!!"),
        changed(["ranges", 0], ["0000000000000005", 1]),
        changed(["ranges", 0, 2], 3.0),
        changed(["min_ns"], 10),
        changed(["min_ns"], "ten"),
        changed(["about"], []),
    ],
    ids=[str(n) for n in range(20)],
)
def test_bytes_that_are_no_seal_are_said_to_be_none(payload: bytes) -> None:
    """Nothing but a FormatError, whatever they are: somebody else may have written them."""
    with pytest.raises(FormatError, match="this is no seal"):
        read_seal(payload)


@pytest.mark.parametrize("payload", [b"", b"{}", b"[]", b'{"void": 7}', b'{"void": [7]}'], ids=list("abcde"))
def test_bytes_that_are_no_void_are_said_to_be_none(payload: bytes) -> None:
    """As for seals."""
    with pytest.raises(FormatError, match="this is no void"):
        read_void(payload)


def test_what_is_no_json_is_refused_where_it_is_made() -> None:
    """Before a frame is written that nobody can read."""
    made = Seal("t", (Range(5, 0, 1),), 1, 0, 0, {"share": float("nan")})
    with pytest.raises(ValueError):
        pack_seal(made)


P, A, B = seal("p", (0, 10)), seal("a", (0, 5)), seal("b", (5, 10))
Q, A1, A2 = seal("q", (10, 20)), seal("a1", (0, 2)), seal("a2", (2, 5))
OTHER = seal("other", (0, 10), epoch=6)


@pytest.mark.parametrize(
    ("log", "holding"),
    [
        ([P, Q, OTHER], [P, Q, OTHER]),
        ([Q, P], [Q, P]),
        ([P, Void(("p",)), A, Q, B], [A, Q, B]),
        ([P, Q, Void(("p", "q"))], []),
        ([P, P, Q], [P, Q]),
        ([P, Void(("p",)), A, P, Void(("p",)), A, B], [A, B]),
        ([P, Void(("p",)), P], []),
        ([Void(("p",)), P, A], [A]),
        ([P, A, B], [A, B]),
        ([P, B], [B]),
        ([P, A, Void(("a",)), A1, A2, B], [A1, A2, B]),
        ([P, A, Void(("a",))], []),
        ([Void(("unheard of",)), P], [P]),
        ([], []),
    ],
    ids=[
        "as-they-were-made",
        "not-by-place",
        "halves-of-one-taken-back",
        "all-taken-back",
        "written-twice",
        "written-twice-with-its-void",
        "written-twice-around-its-void",
        "a-void-before-its-seal",
        "a-void-lost-both-halves-there",
        "a-void-lost-one-half-there",
        "a-void-lost-then-a-half-taken-back-and-halved",
        "a-void-lost-then-a-half-taken-back",
        "a-void-of-nothing",
        "nothing",
    ],
)
def test_which_seals_hold(log: list[Seal | Void], holding: list[Seal]) -> None:
    """Those that nobody took back; no two of them share a row; in the order in which they were made."""
    assert live_seals(log) == holding
