"""Payloads to rows: exact in both encodings, and bounded against anything."""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorder.bus import decode as decode_module
from recorder.bus.base import BusMessage, Encoding
from recorder.bus.decode import MAX_DEPTH, decode, rows_of_message
from recorder.normalise.base import BadMessage

JSON, MSGPACK = Encoding.JSON, Encoding.MSGPACK
pack = msgspec.msgpack.encode


def message(payload: bytes, encoding: Encoding = JSON, topic: str = "orders") -> BusMessage:
    return BusMessage(topic, payload, encoding, 1, 2, 3)


def reason(payload: bytes, encoding: Encoding) -> str:
    with pytest.raises(BadMessage) as caught:
        rows_of_message(message(payload, encoding))
    return caught.value.reason


@pytest.mark.parametrize("encoding", [JSON, MSGPACK])
def test_one_row_or_many_in_either_encoding(encoding: Encoding) -> None:
    """A mapping is one row, a list of them many, slots count in its order, `table` names the table."""
    encode = msgspec.json.encode if encoding is JSON else pack
    (row,) = rows_of_message(message(encode({"a": 1}), encoding))
    assert row == ("orders", 0, {"a": 1})
    rows = rows_of_message(message(encode([{"a": 1}, {"table": "fills", "b": None}]), encoding))
    assert rows == [("orders", 0, {"a": 1}), ("fills", 1, {"b": None})]
    assert rows_of_message(message(encode([]), encoding)) == []
    (row,) = rows_of_message(message(encode({"a": 1}), encoding), "mapped")
    assert row.table == "mapped"


def test_numbers_are_exact() -> None:
    """What a float cannot hold becomes a Decimal; whole numbers of any length stay whole."""
    (row,) = rows_of_message(message(b'{"a": 0.1, "b": 12345678.123456789012345678, "c": 9007199254740993}'))
    assert row.row == {"a": 0.1, "b": decimal.Decimal("12345678.123456789012345678"), "c": 9007199254740993}
    (row,) = rows_of_message(message(pack({"b": decimal.Decimal("1.10"), "c": 2**64 - 1}), MSGPACK))
    assert row.row == {"b": "1.10", "c": 2**64 - 1}


def test_bytes_stay_bytes_in_msgpack() -> None:
    """Binary payloads keep every byte, those that look like a timestamp's beginning too."""
    payload = bytes(range(256)) + b"\xd6\xff\xd7\xff\xc7\x0c\xff"
    (row,) = rows_of_message(message(pack({"raw": payload}), MSGPACK))
    assert row.row == {"raw": payload}


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=8)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)
ROWS = st.dictionaries(st.text(max_size=3), SCALARS | st.lists(SCALARS, max_size=3) | VALUES, max_size=4)


@given(
    row_or_rows=ROWS | st.lists(ROWS, max_size=3) | VALUES, at=st.integers(0, 200), byte=st.integers(0, 255)
)
def test_however_a_message_is_decoded_it_says_the_same(row_or_rows: Any, at: int, byte: int) -> None:
    """Plain rows are decoded faster than others: to the same values of the same types, or refused as others are,
    whole or with a wrong byte."""

    def looked_at(payload: bytes) -> Any:
        value = decode_module._msgpack(payload)
        decode_module._check(value)
        return value

    def outcome(decode_it: Callable[[bytes], Any], payload: bytes) -> str:
        try:
            return repr(decode_it(payload))
        except BadMessage as error:
            return error.reason

    whole = pack(row_or_rows)
    for payload in (whole, whole[:at] + bytes([byte]) + whole[at + 1 :]):
        assert outcome(lambda p: decode(p, MSGPACK), payload) == outcome(looked_at, payload)


@pytest.mark.parametrize(
    "moment",
    [
        datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC),
        datetime.datetime(2024, 1, 1, 0, 0, 0, 5, tzinfo=datetime.UTC),
        datetime.datetime(9999, 1, 1, tzinfo=datetime.UTC),
    ],
)
def test_timestamps_of_msgpack_are_refused(moment: datetime.datetime) -> None:
    """In all three lengths, and deep inside: times are integer nanoseconds."""
    assert reason(pack({"ts": moment}), MSGPACK) == "not_msgpack"
    assert reason(pack([{"a": {"b": [1, moment]}}]), MSGPACK) == "not_msgpack"


@pytest.mark.parametrize(
    ("payload", "encoding", "expected"),
    [
        (b"", JSON, "not_json"),
        (b"\xff", JSON, "not_json"),
        (b'{"a": ', JSON, "not_json"),
        (b"{} {}", JSON, "not_json"),
        (b"[" * 100_000, JSON, "not_json"),
        (b"", MSGPACK, "not_msgpack"),
        (b"\xc1", MSGPACK, "not_msgpack"),
        (b"\x80\x80", MSGPACK, "not_msgpack"),
        (b"\x91" * 100_000, MSGPACK, "not_msgpack"),
        (b"\x81\xa1a\xa1\xff", MSGPACK, "not_msgpack"),
        (pack({"a": msgspec.msgpack.Ext(7, b"x")}), MSGPACK, "not_msgpack"),
        (b"\xdd\xff\xff\xff\xff", MSGPACK, "not_msgpack"),
        (pack({1: "a"}), MSGPACK, "bad_name"),
        (pack({"a": {1: "a"}}), MSGPACK, "bad_name"),
        (b"1", JSON, "not_a_row"),
        (b"[1]", JSON, "not_a_row"),
        (b'{"table": 3}', JSON, "no_table"),
        (b"[" + b",".join([b"{}"] * 4_097) + b"]", JSON, "too_many_rows"),
    ],
)
def test_what_is_no_message_is_refused(payload: bytes, encoding: Encoding, expected: str) -> None:
    """With a reason, whatever the bytes."""
    assert reason(payload, encoding) == expected


def test_depth_and_size_are_bounded() -> None:
    """As deep as allowed is fine, one deeper is not; a payload beyond the size is not even decoded."""

    def nested(depth: int) -> bytes:
        return b'{"a":' * (depth - 1) + b"{}" + b"}" * (depth - 1)

    assert rows_of_message(message(nested(MAX_DEPTH)))
    assert reason(nested(MAX_DEPTH + 1), JSON) == "too_deep"
    assert reason(b'{"a":' + b"[" * 500 + b"]" * 500 + b"}", JSON) == "too_deep"
    with pytest.raises(BadMessage, match="at most"):
        decode(b" " * (16 * 1024 * 1024 + 1), JSON)
