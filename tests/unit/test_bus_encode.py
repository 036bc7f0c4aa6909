"""Rows to payloads: exact, or refused in the call."""

from __future__ import annotations

import collections
import datetime
import decimal
import enum
import types
import uuid
from typing import Any

import msgspec
import pytest

from recorder.bus.base import BusMessage, Encoding
from recorder.bus.decode import MAX_DEPTH, rows_of_message
from recorder.bus.encode import encode_rows


class Side(enum.StrEnum):
    BUY = "buy"


class Text(str):
    __slots__ = ()


class Row(msgspec.Struct):
    a: int
    b: str | None = None


def back(rows: Any) -> list[Any]:
    payload = encode_rows(rows)
    return [row.row for row in rows_of_message(BusMessage("t", payload, Encoding.MSGPACK, 1, 2, 3))]


def test_every_value_comes_back_or_as_its_exact_text() -> None:
    """Decimals and UUIDs as their text, everything else as it was."""
    np = pytest.importorskip("numpy")
    given = {
        "text": "ä\x00", "int": -(2**63), "big": 2**64 - 1, "float": 0.1, "bool": True, "none": None,
        "bytes": bytes(range(256)), "list": [1, (2.5, None), {"x": [b"y"]}], "side": Side.BUY, "own": Text("t"),
        "decimal": decimal.Decimal("1.10"), "tiny": decimal.Decimal("1E-18"), "float64": np.float64(0.1),
        "uuid": uuid.UUID(int=5),
    }  # fmt: skip
    (row,) = back(given)
    assert row == {
        **given, "list": [1, [2.5, None], {"x": [b"y"]}], "side": "buy", "decimal": "1.10", "tiny": "1E-18",
        "uuid": str(uuid.UUID(int=5)),
    }  # fmt: skip
    assert [type(row[name]) for name in ("side", "own", "bool", "float64")] == [str, str, bool, float]


def test_mappings_and_row_objects_one_or_many() -> None:
    """Any mapping is a row, and any msgspec Struct; a list or tuple of them are many."""
    assert back({"a": 1}) == [{"a": 1}]
    assert back(types.MappingProxyType({"a": 1})) == [{"a": 1}]
    assert back(collections.OrderedDict(a=1)) == [{"a": 1}]
    assert back(Row(1)) == [{"a": 1, "b": None}]
    assert back(({"a": 1}, Row(2, "x"))) == [{"a": 1}, {"a": 2, "b": "x"}]
    assert back([]) == []
    assert len(back([{}] * 4_096)) == 4_096


NOW = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("rows", "error", "says"),
    [
        ({"ts": NOW}, TypeError, "ts: a datetime is not sent; send times as integer nanoseconds"),
        ([{"a": 1}, {"ts": NOW.replace(tzinfo=None)}], TypeError, "ts: a datetime"),
        ({"day": NOW.date()}, TypeError, "day: a date is not sent"),
        ({"t": datetime.timedelta(1)}, TypeError, "t: a timedelta is not sent"),
        ({"x": [{"deep": (NOW,)}]}, TypeError, "a datetime is not sent"),
        (Row(NOW), TypeError, "a: a datetime"),  # type: ignore[arg-type]
        ({"x": {1, 2}}, TypeError, "x: a set cannot be sent exactly"),
        ({"x": 1j}, TypeError, "x: a complex cannot be sent exactly"),
        ({"x": object()}, TypeError, "x: a object cannot be sent"),
        ({1: "x"}, TypeError, "a int is no name: 1"),
        ({"x": 2**64}, ValueError, "does not fit 64 bits"),
        ({"x": "\ud800"}, ValueError, "no Unicode"),
        ("row", TypeError, "a str is no row"),
        (None, TypeError, "a NoneType is no row"),
        ([{"a": 1}, 5], TypeError, "a int is no row"),
        ([{}] * 4_097, ValueError, "4097 rows in one message; at most 4096"),
    ],
)  # fmt: skip
def test_what_cannot_be_sent_is_refused_in_the_call(rows: Any, error: type[Exception], says: str) -> None:
    """In one line that names the column and what to do."""
    with pytest.raises(error, match=says) as caught:
        encode_rows(rows)
    assert "\n" not in str(caught.value)


def test_depth_is_bounded_as_it_is_for_who_decodes() -> None:
    """What is accepted here is accepted there; what is too deep is refused here, a value in itself too."""

    def nested(depth: int) -> list[Any]:
        value: list[Any] = []
        for _ in range(depth - 1):
            value = [value]
        return value

    deepest = MAX_DEPTH - 2
    assert back([{"x": nested(deepest)}])
    with pytest.raises(ValueError, match="inside each other"):
        encode_rows([{"x": nested(deepest + 1)}])
    itself: list[Any] = []
    itself.append(itself)
    with pytest.raises(ValueError, match="inside each other"):
        encode_rows({"x": itself})
