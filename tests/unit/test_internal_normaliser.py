"""The identity: internal events already are rows."""

from __future__ import annotations

from decimal import Decimal

import pytest

from recorder.normalise.base import BadMessage, Message
from recorder.normalise.internal import InternalNormaliser


def rows(payload: bytes, topic: str = "") -> list[tuple[str, int, object]]:
    return [tuple(row) for row in InternalNormaliser().normalise(Message(payload, 1, topic))]  # type: ignore[misc]


def test_a_mapping_is_a_row_of_the_topics_table() -> None:
    """Nothing is added, renamed or converted."""
    assert rows(b'{"symbol":"X","qty":"1.10"}', "fills") == [("fills", 0, {"symbol": "X", "qty": "1.10"})]


def test_a_table_key_wins_and_leaves_the_row() -> None:
    """An array may hold rows of several tables; a row's slot is its place."""
    assert rows(b'[{"table":"orders","a":1},{"a":2}]', "fills") == [
        ("orders", 0, {"a": 1}),
        ("fills", 1, {"a": 2}),
    ]


def test_numbers_keep_every_digit() -> None:
    """What a float cannot say stays a Decimal."""
    [(_, _, row)] = rows(b'{"a":0.1,"b":0.12345678901234567890123,"c":1e3,"d":123456789012345678901}', "t")
    assert row == {
        "a": 0.1,
        "b": Decimal("0.12345678901234567890123"),
        "c": 1000.0,
        "d": 123456789012345678901,
    }
    assert [type(value) for value in row.values()] == [float, Decimal, float, int]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("payload", "topic", "reason"), [
    (b"", "t", "not_json"), (b'{"a":', "t", "not_json"), (b"\xff", "t", "not_json"), (b'{"a":"\xff"}', "t", "not_json"),
    (b"[" * 100_000, "t", "not_json"), (b"5", "t", "not_a_row"), (b"[5]", "t", "not_a_row"),
    (b"null", "t", "not_a_row"),
    (b"{}", "", "no_table"), (b'{"table":5}', "t", "no_table"), (b'{"table":""}', "t", "no_table"),
    (b"[" + b",".join([b"{}"] * 4_097) + b"]", "t", "too_many_rows"),
], ids=lambda value: repr(value)[:40])  # fmt: skip
def test_what_is_no_row_is_bad(payload: bytes, topic: str, reason: str) -> None:
    """With a short code and what to do."""
    with pytest.raises(BadMessage) as caught:
        rows(payload, topic)
    assert caught.value.reason == reason
