"""Laws of redaction at its bounds: whatever the bytes, the work ends, no secret stays, and cutting again is nothing."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from harness.redaction_work import Steps, bounds
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from recorder.redact import Redactor

encode = msgspec.msgpack.encode
REDACTOR = Redactor()
WITH_PATTERN = Redactor(patterns=["^0wn-[0-9]{3}"])
MARK = b"hunter2"
LAWS = settings(deadline=None, max_examples=300)

names = st.sampled_from(["apiKey", "token", "secret", "listenKey", "Authorization"])
plain_names = st.sampled_from(["s", "price", "tokenId", "e", "jwtx"])
secrets = st.text(max_size=6).map(lambda text: MARK.decode() + text)
texts = st.text(max_size=6) | st.sampled_from(["BTCUSDT", "http://host:8123/x?a=b@c", "a=b&c=d"])
numbers = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False)
marked = secrets.map(lambda text: f'{{"token": "{text.encode("ascii", "ignore").decode()}"}}')
leaves = texts | numbers | st.none() | st.booleans() | marked | marked.map(str.encode)


def inside(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    maps = st.lists(st.tuples(plain_names, children) | st.tuples(names, secrets), max_size=5).map(dict)
    return st.lists(children, max_size=5) | maps | maps.map(encode)


documents = st.recursive(leaves, inside, max_leaves=25).map(lambda value: [value])
small = st.integers(0, 30)


@LAWS
@given(documents, small, small, st.integers(0, 200), st.integers(0, 6))
@example([[{"token": "hunter2"}] * 9], 1, 5, 0, 1)
@example([encode({"a": encode({"b": {"token": "hunter2"}})})] * 2, 9, 9, 30, 9)
def test_behind_a_bound_no_secret_stays(
    document: Any, marks: int, objects: int, nested_bytes: int, containers: int
) -> None:
    """Whichever bound is reached, wherever: lengths stay true, no secret is left, and cutting again changes nothing."""
    packed = encode(document)
    for redactor in (REDACTOR, WITH_PATTERN):
        with bounds(marks=marks, objects=objects, nested_bytes=nested_bytes, containers=containers):
            cut, count = redactor.cut(packed)
            again = redactor.cut(cut)
        assert len(cut) == len(packed)
        assert MARK not in cut
        assert (cut == packed) == (count == 0)
        assert again == (cut, 0)


@LAWS
@given(st.lists(texts | numbers | st.dictionaries(plain_names, texts), max_size=20), small, st.integers(0, 6))
def test_behind_a_bound_what_has_no_secret_stays(document: Any, objects: int, containers: int) -> None:
    """Many objects alone cost nothing of the data: RE2 sees that nothing in the rest is worth cutting."""
    packed = encode(document)
    assume(not REDACTOR._finder.has_worth(packed))
    with bounds(objects=objects, containers=containers):
        assert REDACTOR.cut(packed) == (packed, 0)


PIECES = st.sampled_from(
    [b"\x91", b"\x81", b"\x90", b"\xdd\x00\x00\x00\x09", b"\xa5token", b"\xa7hunter2", b"\xc4\x08\x81\xa5token\xc0",
     b"\xd9\x30token=", b"\xa6token=", b"\x01", b"\xc1", b"\xd4\x01a", b"\xc7\x06\x01token=", b"*", b"://u:p@h",
     b"\xff"]
)  # fmt: skip


@LAWS
@given(
    st.sampled_from([b"\x91", b"\x82", b"\x9f", b"\xdd\x00\x00\x01\x00"]),
    st.lists(PIECES | st.binary(max_size=3), max_size=24).map(b"".join),
    small,
    small,
    st.integers(0, 60),
    st.integers(0, 6),
)
def test_any_bytes_at_any_bound(
    head: bytes, rest: bytes, marks: int, objects: int, nested_bytes: int, containers: int
) -> None:
    """Broken, cut off, lying about lengths: nothing raises, and what was cut is not cut again."""
    data = head + rest
    for redactor in (REDACTOR, WITH_PATTERN):
        with bounds(marks=marks, objects=objects, nested_bytes=nested_bytes, containers=containers):
            cut, count = redactor.cut(data)
            assert len(cut) == len(data)
            assert (cut == data) == (count == 0)
            assert redactor.cut(cut) == (cut, 0)


def of_many(kind: str, count: int) -> bytes:
    """A document of that many pieces, each of which would cost one who looks at all of them."""
    number = count.to_bytes(4, "big")
    return {
        "empty arrays": b"\xdd" + number + b"\x90" * count,
        "numbers": b"\xdd" + number + b"\x01" * count,
        "arrays in arrays": b"\x91" * count,
        "maps in maps": b"\x81\xa1a" * count,
        "names": b"\xdf" + number + b"".join(b"\xa4%04x\x01" % (place % 65_536) for place in range(count)),
        "texts": b"\xdd" + number + b"\xa2ab" * count,
        "extensions": b"\xdd" + number + b"\xd4\x01a" * count,
        "marks in a text": encode(["token=a," * count]),
        "marks in texts": encode(["token=a,"] * count),
        "marks in extensions": b"\xdd" + number + b"\xc7\x08\x01://a:b@," * count,
        "documents in texts": encode([encode([1, 2, 3])] * count),
        "marks in documents in texts": encode([encode(["token=a,"])] * count),
        "a secret of arrays": b"\x81\xa5token\xdd" + number + b"\x90" * count,
        "documents one after the other": b"\x91\xa1a" * count,
    }[kind]


KINDS = ("empty arrays", "numbers", "arrays in arrays", "maps in maps", "names", "texts", "extensions",
         "marks in a text", "marks in texts", "marks in extensions", "documents in texts",
         "marks in documents in texts", "a secret of arrays", "documents one after the other")  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("patterns", [(), ("^0wn-[0-9]{3}",)], ids=["built-in names", "own pattern"])
def test_the_work_ends_at_the_bounds(kind: str, patterns: tuple[str, ...]) -> None:
    """Beyond them ten times the bytes take not one step more; up to them, steps grow with the bytes and no faster."""
    redactor = Redactor(patterns=patterns)
    steps = Steps(redactor)
    pieces = 400
    with bounds(marks=pieces, objects=pieces, nested_bytes=4 * pieces, containers=pieces):
        redactor.cut(of_many(kind, 4 * pieces))  # what is remembered of names is remembered now
        large, huge = (steps.of(of_many(kind, count * pieces)) for count in (4, 40))
        assert huge <= large + 20
        assert large < 300 * pieces
    with bounds():
        redactor.cut(of_many(kind, 4 * pieces))
        small_, larger = (steps.of(of_many(kind, count * pieces)) for count in (1, 4))
        assert larger <= 4.5 * small_ + 400


@pytest.mark.parametrize("kind", KINDS)
def test_a_hostile_megabyte_is_within_the_bounds_as_built(kind: str) -> None:
    """As long as it was, done once, and with nothing hidden where nothing is worth it."""
    packed = of_many(kind, 1_000_000 // (len(of_many(kind, 2)) - len(of_many(kind, 1))))
    cut, count = REDACTOR.cut(packed)
    assert len(cut) == len(packed)
    assert (count > 0) == ("marks" in kind or "secret" in kind)
    assert b"token=a" not in cut
    assert REDACTOR.cut(cut) == (cut, 0)
