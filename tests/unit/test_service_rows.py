"""A bus message to rows: identity, time and correlation filled in, and one dead letter for what is wrong."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from recorder.bus.base import BusMessage, Encoding
from recorder.identity import UNDATED_NS, source_seq
from recorder.normalise.base import Message, NormalisedRow
from recorder.packs import packs_of
from recorder.service.rows import POSITIONS, MessageRows, Rows
from recorder.service.topics import DEFAULT, Route
from recorder.settings import Settings
from schemas.core.trading import Order

TABLES = {table.name: table for pack in packs_of(Settings()) for table in pack.tables}
TS_NS = 1_800_000_000_000_000_000
COLUMNS = [column.name for column in TABLES["orders"].columns]


class Fixed:
    """A normaliser that answers what it was told to."""

    snapshot_interval_s = 2.0

    def __init__(self, answer: Any):
        self.filtered: Counter[str] = Counter()
        self.ignored: Counter[str] = Counter()
        self.answer = answer

    def normalise(self, message: Message) -> Sequence[NormalisedRow]:
        if isinstance(self.answer, Exception):
            raise self.answer
        return [NormalisedRow(*row) for row in self.answer]

    def snapshots(self, now_ns: int) -> list[NormalisedRow]:
        return [NormalisedRow("orders", 0, {"ts_local": now_ns})]


@dataclasses.dataclass
class Plain:
    """A row of a kind that no row is."""

    ts_local: int = 0


def made(
    payload: Any = None, *, topic: str = "orders", answer: Any = None, route: Route = DEFAULT, **fields: Any
) -> Rows:
    """What a message made."""
    rows = MessageRows(TABLES, "zmq://here", "run-1", open_normaliser=lambda name: Fixed(answer))
    raw = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    given = {"ts_ns": TS_NS, "position": 3, "encoding": Encoding.JSON} | fields
    return rows.of(BusMessage(topic, raw, log=9, **given), route)


def test_rows_have_the_identity_of_their_message() -> None:
    """Position and place in it; the table from the topic, or from the row."""
    rows, letter = made([{"symbol": "A"}, {"symbol": "B", "table": "fills"}, {"symbol": "C"}])
    assert letter is None
    assert {part.table: list(part.seqs) for part in rows} == {
        "orders": [source_seq(3, 0), source_seq(3, 2)],
        "fills": [source_seq(3, 1)],
    }


def one(encoding: Encoding, row: dict[str, Any], **fields: Any) -> Any:
    """What a message of one row makes; the same whether it is the row or a list of it."""
    pack = msgspec.msgpack.encode if encoding is Encoding.MSGPACK else msgspec.json.encode
    row = {"symbol": "A", "status": "Open", **row}
    found = []
    for payload in (row, [row]):
        ((part,), letter) = made(pack(payload), encoding=encoding, **fields)
        assert (part.table, list(part.seqs), letter) == ("orders", [source_seq(3, 0)], None)
        found += part.rows
    assert found[0] == found[1]
    return found[0]


def said_by(row: Any, name: str) -> Any:
    return row[name] if isinstance(row, dict) else getattr(row, name)


@pytest.mark.parametrize("encoding", list(Encoding))
@pytest.mark.parametrize("said", [None, 0])
def test_time_and_correlation_are_filled_in_where_a_row_has_none(
    said: int | None, encoding: Encoding
) -> None:
    """The message's own, the same at every delivery."""
    row = one(encoding, {"ts_local": said}, correlation_id="c")
    assert (said_by(row, "ts_local"), said_by(row, "correlation_id")) == (TS_NS, "c")


@pytest.mark.parametrize("encoding", list(Encoding))
@pytest.mark.parametrize("said", [5, "soon", False, 0.0, 1.5])
def test_what_a_row_says_itself_stands(said: Any, encoding: Encoding) -> None:
    """Also where it is wrong: then the builder says so."""
    row = one(encoding, {"ts_local": said, "correlation_id": "own"}, correlation_id="c")
    found = said_by(row, "ts_local")
    assert (found, type(found), said_by(row, "correlation_id")) == (said, type(said), "own")


def test_a_row_of_another_table_than_its_topic_goes_there() -> None:
    """In msgpack too, though a message of the topic's own rows is decoded straight into its columns."""
    raw = msgspec.msgpack.encode([{"symbol": "A", "table": "fills"}])
    (part,), _ = made(raw, encoding=Encoding.MSGPACK)
    assert (part.table, part.rows) == ("fills", [{"symbol": "A", "ts_local": TS_NS}])


@pytest.mark.parametrize("shape", ["object", "tuple"])
@pytest.mark.parametrize(("own", "own_correlation"), [(0, None), (5, "own")])
def test_rows_of_normalisers_are_filled_in_too(shape: str, own: int, own_correlation: str | None) -> None:
    """Row objects and tuples are made anew, not changed."""
    row: Any = Order(symbol="A", status="Open", ts_local=own, correlation_id=own_correlation)
    if shape == "tuple":
        row = tuple(getattr(row, name) for name in COLUMNS)
    ((found,), _) = made(answer=[("orders", 2, row)], route=Route("*", normaliser="x"), correlation_id="c")
    assert list(found.seqs) == [source_seq(3, 2)]
    (value,) = found.rows
    if shape == "tuple":
        value = Order(**dict(zip(COLUMNS, value, strict=True)))
    assert (value.ts_local, value.correlation_id) == (own or TS_NS, own_correlation or "c")


@pytest.mark.parametrize(
    ("payload", "fields", "reason", "payload_format"),
    [
        (b"{", {}, "not_json", "text"),
        (b"\xc1", {"encoding": Encoding.MSGPACK}, "not_msgpack", "binary"),
        (b"\x01", {"encoding": Encoding.MSGPACK}, "not_a_row", "msgpack"),
        (b"{}", {"topic": "nowhere"}, "unknown_table", "json"),
        (b"{}", {"topic": ""}, "no_table", "json"),
        (b"{}", {"position": POSITIONS}, "bad_position", "json"),
        (b"{}", {"answer": KeyError("x"), "route": Route("*", normaliser="x")}, "normaliser_failed", "json"),
        (b"{}", {"answer": [("orders", 1, {}), ("orders", 1, {})], "route": Route("*", normaliser="x")}, "bad_slots",
         "json"),
        (b"{}", {"answer": [("orders", 1, Plain())], "route": Route("*", normaliser="x")}, "normaliser_failed",
         "json"),
        (b"{}", {"answer": [("orders", "one", {})], "route": Route("*", normaliser="x")}, "normaliser_failed",
         "json"),
        (b"{}", {"encoding": Encoding.MSGPACK, "route": Route("*", normaliser="x")}, "not_json", "binary"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_letter_with_the_bytes(
    payload: bytes, fields: dict[str, Any], reason: str, payload_format: str
) -> None:
    """Dated and numbered by the message, so that it is kept once; nothing else is made."""
    rows, letter = made(payload, **fields)
    assert not rows
    assert letter is not None
    position = fields.get("position", 3) % POSITIONS
    assert (letter.table, letter.seq) == ("dead_letters", source_seq(position, 0))
    said = letter.row
    assert (said["reason"], said["payload"], said["payload_format"]) == (reason, payload, payload_format)
    assert (said["source_log"], said["ts_local"]) == (9, TS_NS)
    assert said["origin"] == f"zmq://here {fields.get('topic', 'orders')} {fields.get('position', 3)}"


def test_rows_that_have_a_table_go_there_though_others_have_none() -> None:
    """One letter for the message, that names the tables."""
    rows, letter = made([{"symbol": "A"}, *({"table": f"x{n}"} for n in range(9))])
    assert len(rows) == 1
    assert letter is not None
    assert letter.seq == source_seq(3, 1)
    assert letter.row["detail"].startswith("9 of 10 rows are for tables that no loaded pack has: 'x0', 'x1'")


@pytest.mark.parametrize("ts_ns", [0, -1, 2**63])
def test_a_letter_of_an_undated_message_has_the_time_of_the_undated(ts_ns: int) -> None:
    """A time that no column takes would lose the letter."""
    _, letter = made(b"{", ts_ns=ts_ns)
    assert letter is not None
    assert letter.row["ts_local"] == UNDATED_NS


def test_snapshots_come_at_their_interval() -> None:
    """And only from normalisers that were used and make any."""
    rows = MessageRows(TABLES, "zmq://here", "run-1", open_normaliser=lambda name: Fixed([]))
    assert rows.snapshots(TS_NS) == []
    rows.of(BusMessage("t", b"{}", Encoding.JSON, TS_NS, 9, 0), Route("t", normaliser="x"))
    assert len(rows.snapshots(TS_NS)) == 1
    assert rows.snapshots(TS_NS + 1_999_999_999) == []
    assert len(rows.snapshots(TS_NS + 2_000_000_000)) == 1


def test_a_pattern_that_goes_elsewhere_has_another_normaliser() -> None:
    """Settings may change while it runs; state of one normaliser is nothing for another."""
    opened: list[str] = []

    def open_one(name: str) -> Fixed:
        opened.append(name)
        return Fixed([])

    rows = MessageRows(TABLES, "zmq://here", "run-1", open_normaliser=open_one)
    for name in ("x", "x", "y"):
        rows.of(BusMessage("t", b"{}", Encoding.JSON, TS_NS, 9, 0), Route("t", normaliser=name))
    assert opened == ["x", "y"]


def test_a_snapshot_of_a_wrong_shape_costs_that_snapshot() -> None:
    """A normaliser is a plug-in: whatever it answers, the others' rows come."""

    class Odd(Fixed):
        def snapshots(self, now_ns: int) -> Any:
            return [("orders", 1)]

    rows = MessageRows(
        TABLES, "zmq://here", "run-1", open_normaliser=lambda name: Odd([]) if name == "odd" else Fixed([])
    )
    for name in ("odd", "x"):
        rows.of(BusMessage("t", b"{}", Encoding.JSON, TS_NS, 9, 0), Route(name, normaliser=name))
    assert [row.table for row in rows.snapshots(TS_NS)] == ["orders"]


def test_normalisers_of_other_routes_are_let_go_and_their_counts_stay() -> None:
    """One that gets no messages any more would write what it saw last for ever."""
    rows = MessageRows(TABLES, "zmq://here", "run-1", open_normaliser=lambda name: Fixed([]))
    gone, stays = Route("a*", normaliser="x"), Route("b*", normaliser="x")
    for route in (gone, stays):
        rows.of(BusMessage("t", b"{}", Encoding.JSON, TS_NS, 9, 0), route)
        rows.normalisers[route].filtered["ping"] = 3
        rows.normalisers[route].ignored["pong"] = 4
    rows.keep([stays, Route("c*", table="orders")])
    assert list(rows.normalisers) == [stays]
    assert (rows.filtered_before, rows.ignored_before) == ({"ping": 3}, {"pong": 4})
    assert len(rows.snapshots(TS_NS)) == 1
