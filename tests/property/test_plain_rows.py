"""Rows decoded straight into their table's columns: the same to the last value, and the same faults, as the other way.

The general way is to decode mappings, which `test_bus_decode` and `test_build_rows` hold to its own laws.
"""

from __future__ import annotations

import base64
import json
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given, settings

from recorder.bad_rows import BadRow
from recorder.build import BatchBuilder
from recorder.bus.base import BusMessage, Encoding
from recorder.bus.decode import PlainRows, rows_of_message
from recorder.entries import Block
from recorder.identity import SLOTS
from schemas.columns import REQUIRED, Column, Kind
from schemas.core.tables import PACK
from schemas.table import Table

TABLES = {table.name: table for table in PACK.tables}
NOW_NS = 1_700_000_000_000_000_000
MARKET = TABLES["market_data"]

numbers = st.integers(-(2**63), 2**64 - 1) | st.floats() | st.booleans()
plain = st.none() | numbers | st.text(max_size=6)
anything = st.recursive(
    plain | st.binary(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
_FITTING: dict[Kind, st.SearchStrategy[Any]] = {
    Kind.TIME: st.integers(NOW_NS, NOW_NS + 10**15),
    Kind.INT: st.integers(0, 100),
    Kind.FLOAT: st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53),
    Kind.DECIMAL: st.decimals(-1_000, 1_000, places=4).map(str) | st.integers(-1_000, 1_000),
    Kind.TEXT: st.text(max_size=6),
    Kind.BYTES: st.binary(max_size=6),
    Kind.BOOL: st.booleans(),
    Kind.FLOATS: st.lists(st.floats(allow_nan=False) | st.integers(0, 100), max_size=3),
    Kind.TAGS: st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
}


def _fitting(column: Column) -> st.SearchStrategy[Any]:
    fitting = (
        st.sampled_from(column.type.choices)
        if column.type.kind is Kind.CHOICE
        else _FITTING[column.type.kind]
    )
    return st.none() | fitting if column.nullable else fitting


@st.composite
def rows(draw: st.DrawFn, table: Table) -> list[dict[str, Any]]:
    """Rows of a table as somebody publishes them: some values left out, now and then one that does not fit."""
    found = []
    for _ in range(draw(st.integers(0, 4))):
        row = {}
        for column in table.columns:
            if column.default is REQUIRED or draw(st.booleans()):
                row[column.name] = draw(_fitting(column) if draw(st.integers(0, 30)) else anything)
        row["ts_local"] = row.get("ts_local") or NOW_NS
        if draw(st.integers(0, 20)) == 0:
            row.pop(draw(st.sampled_from(sorted(row))))
        if draw(st.integers(0, 20)) == 0:
            row[draw(st.sampled_from(["table", "colour", ""]))] = draw(anything)
        found.append(row)
    return found


def built(table: Table, some: Any) -> tuple[list[Any], list[tuple[Any, ...]]]:
    """What a builder makes of rows: the batches, and what it says of the bad ones."""
    bad: list[BadRow] = []
    builder = BatchBuilder(table, epoch=7, run_id="run", on_bad=bad.append, ignore_unknown=False)
    for _ in builder.add([Block(list(some), 1, 9, range(len(some)), 0)]):
        pass
    told = [(one.reason, one.detail, one.seq, one.ts_local, _all_fields(table, one)) for one in bad]
    return [batch.data for batch in builder.seal()], told


def _all_fields(table: Table, bad: BadRow) -> str:
    """A letter's row with what it leaves to the defaults, which may be said or not."""
    defaults = {column.name: column.default for column in table.columns if column.default is not REQUIRED}
    row = defaults | json.loads(bad.payload)
    return json.dumps(row, sort_keys=True, default=lambda raw: {"base64": base64.b64encode(raw).decode()})


@pytest.mark.parametrize("name", ["market_data", "orders", "metrics_timeseries", "dead_letters", "fills"])
@settings(max_examples=150)
@given(data=st.data())
def test_a_message_makes_the_same_rows_either_way(name: str, data: st.DataObject) -> None:
    table = TABLES[name]
    some = data.draw(rows(table))
    payload = msgspec.msgpack.encode(some[0] if len(some) == 1 and data.draw(st.booleans()) else some)
    straight = PlainRows(table).of(payload)
    if straight is None:
        return
    general = rows_of_message(BusMessage(name, payload, Encoding.MSGPACK, NOW_NS, 9, 1))
    assert {row.table for row in general} <= {name}
    assert built(table, straight) == built(table, [row.row for row in general])


@pytest.mark.parametrize("name", sorted(TABLES))
def test_rows_of_every_table_are_decoded_straight(name: str) -> None:
    """With each value of a kind that its column takes, and with as little as a row may say."""
    table = TABLES[name]
    samples: dict[Kind, Any] = {
        Kind.TIME: NOW_NS, Kind.INT: 1, Kind.FLOAT: 1.5, Kind.DECIMAL: "1.5", Kind.TEXT: "x", Kind.BYTES: b"x",
        Kind.BOOL: True, Kind.FLOATS: (1.5, 2), Kind.TAGS: {"a": "b"}, Kind.CHOICE: "x",
    }  # fmt: skip
    full = {column.name: samples[column.type.kind] for column in table.columns}
    least = {column.name: full[column.name] for column in table.columns if column.default is REQUIRED}
    for row in (full, least):
        (found,) = PlainRows(table).of(msgspec.msgpack.encode([row])) or ()
        assert repr({name: getattr(found, name) for name in row}) == repr(row)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        b"\x90\x90",
        msgspec.msgpack.encode(3),
        msgspec.msgpack.encode([{"colour": 1}]),
        msgspec.msgpack.encode([{"table": "market_data"}]),
        msgspec.msgpack.encode([[1, 2]]),
        msgspec.msgpack.encode([{"symbol": {"a": 1}}]),
        msgspec.msgpack.encode([{"symbol": b"A"}]),
        msgspec.msgpack.encode([{3: "A"}]),
        msgspec.msgpack.encode([{}]),
        b"\x91\x81\xa6symbol\xa1\xff",
        b"\x91\x81\xa6symbol\xd6\xff\x00\x00\x00\x00",
        msgspec.msgpack.encode([{"symbol": "A"}] * (SLOTS + 1)),
    ],
    ids=[
        "nothing", "no msgpack", "more than one value", "a number", "an unknown column", "a table", "a list for a row",
        "a mapping in a column", "bytes for a text", "a number for a name", "a required column missing",
        "no UTF-8", "a timestamp", "too many",
    ],
)  # fmt: skip
def test_anything_else_is_left_to_the_general_way(payload: bytes) -> None:
    assert PlainRows(MARKET).of(payload) is None


def test_of_a_name_said_twice_the_last_counts() -> None:
    """Either way."""
    payload = b"\x91\x82\xa6symbol\xa1A\xa6symbol\xa1B"
    (straight,) = PlainRows(MARKET).of(payload) or ()
    (general,) = rows_of_message(BusMessage("market_data", payload, Encoding.MSGPACK, NOW_NS, 9, 1))
    assert straight.symbol == general.row["symbol"] == "B"  # type: ignore[attr-defined]
