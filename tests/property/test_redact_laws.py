"""Laws of redaction: secrets are cut out whole, all else stays as it was, cutting again changes nothing."""

from __future__ import annotations

import ast
import json
import urllib.parse
from typing import Any

import msgspec
import pyarrow as pa
from hypothesis import example, given, settings
from hypothesis import strategies as st

from recorder.redact import Redactor
from recorder.redact_columns import ColumnRedactor
from recorder.redact_msgpack import _head, is_msgpack
from schemas.core.tables import PACK

REDACTOR = Redactor()
LAWS = settings(deadline=None, max_examples=200)
MARK = "hunter2"
"""Begins every secret text, so that a part of one is recognised."""
SECRET_NAMES = (
    "apiKey", "api_key", "X-MBX-APIKEY", "secret", "clientSecret", "signature", "token", "access_token",
    "refreshToken", "listenKey", "Authorization", "password", "DB_PASSWORD", "passphrase", "Cookie", "privateKey",
)  # fmt: skip
NAMES = st.sampled_from(SECRET_NAMES)
PLAIN_NAMES = st.sampled_from(
    [
        "symbol",
        "price",
        "tokenId",
        "quoteToken",
        "signatureVersion",
        "secretary",
        "tokens_seen",
        "e",
        "passenger",
    ]
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
SECRET_TEXTS = TEXTS.map(lambda text: MARK + text)
PLAIN_TEXTS = TEXTS | st.sampled_from(
    ["TOKENUSDT", "BTCUSDT", "http://host:8123/x?a=b@c", 'say "hi" \\ ok', "a=b&c=d"]
)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
PLAIN_VALUES = PLAIN_TEXTS | st.integers() | FLOATS | st.none() | st.booleans()


def documents(secrets: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, Any]]:
    """Documents and how they should look afterwards: `***` in the place of secrets."""

    def member(children: st.SearchStrategy[tuple[Any, Any]]) -> st.SearchStrategy[tuple[str, Any, Any]]:
        plain = st.tuples(PLAIN_NAMES, children).map(lambda pair: (pair[0], *pair[1]))
        secret = st.tuples(NAMES, secrets).map(lambda pair: (pair[0], pair[1], masked(pair[1])))
        return plain | secret

    def inside(children: st.SearchStrategy[tuple[Any, Any]]) -> st.SearchStrategy[tuple[Any, Any]]:
        lists = st.lists(children, max_size=4).map(
            lambda items: ([a for a, _ in items], [b for _, b in items])
        )
        maps = st.lists(member(children), max_size=5).map(
            lambda items: ({name: a for name, a, _ in items}, {name: b for name, _, b in items})
        )
        return lists | maps

    leaves = PLAIN_VALUES.map(lambda value: (value, value))
    return inside(st.recursive(leaves, inside, max_leaves=12))


def masked(value: Any) -> Any:
    return value if value in (None, [], {}) or isinstance(value, bool) else "***"


NESTED = st.recursive(
    SECRET_TEXTS | st.integers() | FLOATS,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(TEXTS, children, max_size=3),
    max_leaves=6,
)
ANY_SECRET = SECRET_TEXTS | st.integers() | FLOATS | NESTED | st.none() | st.booleans()


def encoded(document: Any, levels: int, *, ascii_only: bool, indent: int | None) -> bytes:
    """JSON, as a text in JSON, and so on."""
    text = json.dumps(document, ensure_ascii=ascii_only, indent=indent)
    for _ in range(levels):
        text = json.dumps({"e": "x", "body": text, "n": 1}, ensure_ascii=ascii_only)
    return text.encode()


@LAWS
@given(documents(ANY_SECRET), st.integers(0, 3), st.booleans(), st.sampled_from([None, 2]))
@example(({"apiKey": 'a"b\\'}, {"apiKey": "***"}), 2, False, None)
@example(({"token": {'"': ["}", '\\"']}, "e": 1}, {"token": "***", "e": 1}), 1, False, 2)
def test_json_with_secrets_becomes_the_same_json_with_masks(
    document: tuple[Any, Any], levels: int, ascii_only: bool, indent: int | None
) -> None:
    """Byte for byte, whatever the secret's type and the other values are, and however often it is encoded."""
    given_, expected = (encoded(d, levels, ascii_only=ascii_only, indent=indent) for d in document)
    assert REDACTOR.cut(given_)[0] == expected
    assert REDACTOR.cut(expected) == (expected, 0)


@LAWS
@given(documents(ANY_SECRET))
def test_a_literal_of_python_with_secrets_becomes_the_same_with_masks(document: tuple[Any, Any]) -> None:
    """As `repr` shows a mapping in a dead letter or an error."""
    cut, _ = REDACTOR.cut(repr(document[0]).encode())
    assert ast.literal_eval(cut.decode()) == document[1]


@LAWS
@given(documents(SECRET_TEXTS), st.data())
def test_of_a_secret_that_was_cut_off_nothing_stays(document: tuple[Any, Any], data: st.DataObject) -> None:
    """A payload may end anywhere: what is there of a secret is cut to the end."""
    whole = encoded(document[0], data.draw(st.integers(0, 2)), ascii_only=False, indent=None)
    part = whole[: data.draw(st.integers(0, len(whole)))]
    cut, _ = REDACTOR.cut(part)
    assert MARK.encode() not in cut
    assert REDACTOR.cut(cut) == (cut, 0)


FIELDS = st.lists(st.tuples(NAMES | PLAIN_NAMES, SECRET_TEXTS), min_size=1, max_size=6)


def is_secret(name: str) -> bool:
    return name in SECRET_NAMES


@LAWS
@given(FIELDS)
def test_queries(fields: list[tuple[str, str]]) -> None:
    """`key=value&key=value` in a URL, alone or in JSON."""
    url = "GET /api/v3/order?" + urllib.parse.urlencode(fields)
    expected = "GET /api/v3/order?" + "&".join(
        f"{urllib.parse.quote_plus(name)}={'***' if is_secret(name) else urllib.parse.quote_plus(text)}"
        for name, text in fields
    )
    assert REDACTOR.text(url) == expected
    assert REDACTOR.text(json.dumps({"url": url})) == json.dumps({"url": expected})


LINES = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="\"'\\<>"), max_size=12
)


@LAWS
@given(st.lists(st.tuples(NAMES | PLAIN_NAMES, LINES.map(MARK.__add__)), min_size=1, max_size=6))
def test_header_lines(fields: list[tuple[str, str]]) -> None:
    """A secret's header is cut to the end of its line, alone or in JSON."""
    head = "".join(f"{name}: {text}\r\n" for name, text in fields) + "\r\nbody"
    expected = (
        "".join(f"{name}: {'***' if is_secret(name) else text}\r\n" for name, text in fields) + "\r\nbody"
    )
    assert REDACTOR.text(head) == expected
    assert REDACTOR.text(json.dumps({"head": head, "n": 1})) == json.dumps({"head": expected, "n": 1})


WORDS = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="\"'\\<>&,;)]}("), max_size=12
)


@LAWS
@given(st.lists(st.tuples(NAMES | PLAIN_NAMES, WORDS.map(MARK.__add__)), min_size=1, max_size=6))
def test_fields_of_a_log_line(fields: list[tuple[str, str]]) -> None:
    """`key=value key="value"`, with and without quotes."""
    bare = " ".join(f"{name}={text}" for name, text in fields)
    quoted = " ".join(f"{name}={json.dumps(text)}" for name, text in fields)
    assert REDACTOR.text(bare) == " ".join(f"{n}={'***' if is_secret(n) else t}" for n, t in fields)
    assert REDACTOR.text(quoted) == " ".join(f'{n}="{"***" if is_secret(n) else t}"' for n, t in fields)


def same(found: Any, secret: Any) -> bool:
    """Whether what was decoded may stand for a secret."""
    if isinstance(secret, str):
        return bool(found == "*" * len(secret.encode()))
    if isinstance(secret, list):
        return len(found) == len(secret) and all(map(same, found, secret))
    if isinstance(secret, dict):
        return len(found) <= len(secret)
    return secret is None or isinstance(secret, bool) or found != secret or found == 42


def check(found: Any, given_: Any) -> None:
    """Everything but the secrets is as it was."""
    if isinstance(given_, dict):
        assert found.keys() == given_.keys()
        for name, value in given_.items():
            if is_secret(name):
                assert same(found[name], value)
            else:
                check(found[name], value)
    elif isinstance(given_, list):
        assert len(found) == len(given_)
        for one, other in zip(found, given_, strict=True):
            check(one, other)
    else:
        assert found == given_


SMALL = st.integers(-(2**63), 2**64 - 1)
PACKED_SECRETS = SECRET_TEXTS | SMALL | FLOATS | st.lists(SECRET_TEXTS | SMALL, max_size=3)


def fits(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(fits, value.values()))
    if isinstance(value, list):
        return all(map(fits, value))
    return not isinstance(value, int) or -(2**63) <= value < 2**64


@LAWS
@given(documents(PACKED_SECRETS).filter(lambda pair: fits(pair[0])), st.data())
def test_msgpack_stays_as_long_as_it_was(document: tuple[Any, Any], data: st.DataObject) -> None:
    """Every length stays true, so it decodes to the same with asterisks; cut off anywhere nothing of a secret stays."""
    packed = msgspec.msgpack.encode(document[0])
    cut, _ = REDACTOR.cut(packed)
    assert len(cut) == len(packed)
    check(msgspec.msgpack.decode(cut), document[0])
    assert MARK.encode() not in cut
    assert REDACTOR.cut(cut) == (cut, 0)
    part = REDACTOR.cut(packed[: data.draw(st.integers(0, len(packed)))])[0]
    assert MARK.encode() not in part
    assert REDACTOR.cut(part) == (part, 0)


@LAWS
@given(documents(SECRET_TEXTS).filter(lambda pair: fits(pair[0])), st.data())
def test_msgpack_with_a_broken_byte(document: tuple[Any, Any], data: st.DataObject) -> None:
    """Behind a byte that begins nothing no secret stays; whatever a byte becomes, what reads as MessagePack keeps its
    length."""
    packed = bytearray(msgspec.msgpack.encode({"symbol": "A", "doc": document[0]}))
    heads = heads_of(bytes(packed))
    position = data.draw(st.sampled_from(heads))
    broken = packed[:position] + b"\xc1" + packed[position + 1 :]
    cut, _ = REDACTOR.cut(bytes(broken))
    assert MARK.encode() not in cut
    assert REDACTOR.cut(cut) == (cut, 0)
    packed[position] ^= data.draw(st.integers(1, 255))
    cut, _ = REDACTOR.cut(bytes(packed))
    assert len(cut) == len(packed) or not is_msgpack(bytes(packed))


def heads_of(packed: bytes) -> list[int]:
    """Where objects begin."""
    heads, position = [], 0
    while position < len(packed):
        heads.append(position)
        head = _head(packed, position)
        assert head is not None
        position = head.start + head.length
    return heads


PIECES = st.sampled_from(
    [b"token", b"apiKey", b"Authorization", b"password", b'"', b"'", b"\\", b'\\"', b":", b"=", b"{", b"}", b"[", b"]",
     b"(", b")", b",", b" ", b"\n", b"\\n", b"&", b"***", b"*", b"x", b"1", b"://", b"u:p@h", b"/", b"@", b"%22",
     b"%3D", b"-----BEGIN PRIVATE KEY-----", b"-----END PRIVATE KEY-----", b"Bearer ", b"Basic dXNlcjpw",
     b"eyJhbGciOi.eyJzdWIiOi.x",
     b"null", b"--", b"\x82", b"\xa5token", b"\xa3abc", b"\xd9", b"\xff", b"/ws/", b"stream=", b"a" * 60]
)  # fmt: skip


@LAWS
@given(st.lists(PIECES | st.binary(max_size=3), max_size=24).map(b"".join))
def test_any_bytes_are_cut_once(data: bytes) -> None:
    """Nothing raises; what was cut is not cut again; what has nothing to cut stays, and is seen to have nothing."""
    cut, count = REDACTOR.cut(data)
    assert (cut == data) == (count == 0)
    assert REDACTOR.cut(cut) == (cut, 0)
    if count:
        array = pa.array([b""] * 20 + [data], pa.binary())
        assert ColumnRedactor(PACK.table("dead_letters"), REDACTOR)._worth(array) == [20]


WITH_PATTERNS = Redactor(patterns=["sk-.{3}", "[^a-z*]ö", r"k\W{2}"])


@LAWS
@given(st.lists(TEXTS | st.sampled_from(["sk-", "é", "€ö", "k", "🔑", "token=", '"'])).map("".join))
@example("sk-éé")
def test_patterns_leave_a_text_a_text(text: str) -> None:
    """Whatever they match: characters are whole afterwards; text and bytes lose the same."""
    cut = WITH_PATTERNS.text(text)
    assert WITH_PATTERNS.cut(text.encode())[0].decode() == cut
    assert set(cut) <= {*text, "*"}


@LAWS
@given(st.text(st.characters(exclude_characters="\n"), max_size=8))  # which a dot is not
@example("sk-é\ud800")
def test_patterns_raise_for_no_text(text: str) -> None:
    """Also for what UTF-8 cannot hold."""
    assert "sk-" not in WITH_PATTERNS.text(f"sk-{text}abc")


@LAWS
@given(st.text())
def test_any_text_is_cut_without_an_error(text: str) -> None:
    """Texts may hold what UTF-8 cannot."""
    assert isinstance(REDACTOR.text(text), str)
    assert REDACTOR.text(f'{{"token":"{MARK}{text}') == '{"token":"***' or '"' in text
