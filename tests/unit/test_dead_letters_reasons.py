"""Every reason that the code writes into a dead letter, and what a retry of such a letter makes of it.

The letters are made by the parts of the recorder that make them. Where nothing was mended, a retry finds the same
fault: so the row or message came back as it was. Where the bytes cannot be a row, it says why.
"""

from __future__ import annotations

import json
import math
import pathlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from recorder.bad_rows import BadRow
from recorder.build import BatchBuilder
from recorder.bus.base import BusMessage, Encoding
from recorder.bus.decode import MAX_PAYLOAD_BYTES
from recorder.dead_letters.columns import build
from recorder.dead_letters.letter import Letter, name_of, parse_name
from recorder.dead_letters.rebuild import Fault, Rebuilder
from recorder.entries import Entry
from recorder.identity import UNDATED_NS, letter_log, source_log, source_seq
from recorder.ingest.capture import CaptureLines, too_long
from recorder.ingest.lines import Line
from recorder.ingest.normalisers import open_normaliser
from recorder.normalise.base import BadMessage, Message, NormalisedRow, Normaliser
from recorder.own_rows import dead_letter_row
from recorder.service.rows import POSITIONS, MessageRows
from recorder.service.topics import TopicMap
from schemas.core.tables import PACK

SOURCE = pathlib.Path(__file__).parents[2] / "recorder"
TABLES = {table.name: table for table in PACK.tables}
TIME_NS = 1_760_000_000_000_000_000
LOG = source_log("bus", "stream")
TOPICS = {"md.*": "normaliser:binance", "odd.*": "normaliser:odd", "gone.*": "ignore"}


class Odd:
    """A normaliser that fails in the way a message says."""

    def __init__(self) -> None:
        self.filtered: Counter[str] = Counter()
        self.ignored: Counter[str] = Counter()

    def normalise(self, message: Message) -> Sequence[NormalisedRow]:
        match json.loads(message.payload)["do"]:
            case "fail":
                raise RuntimeError("no")
            case "clash":
                return [NormalisedRow("orders", 1, {}), NormalisedRow("orders", 1, {})]
            case "ignore":
                self.ignored["ping"] += 1
                return []
            case reason:
                raise BadMessage(reason, "as asked")


def _open(name: str) -> Normaliser:
    return Odd() if name == "odd" else open_normaliser(name, {})


REBUILDER = Rebuilder(TABLES, TopicMap(TOPICS), _open)


def _letter(row: Mapping[str, Any], own_log: int = 5) -> Letter:
    """A dead letter as the recorder's row of it would be read back."""
    source = row["source_log"], row["source_seq"]
    return Letter(
        id=(own_log, 0), ts_local=row.get("ts_local", TIME_NS), run_id="run-1",
        correlation_id=row.get("correlation_id"), recorder_run_id="", table=row["table_name"], reason=row["reason"],
        detail=row["detail"], origin=row["origin"], source=None if None in source else source,
        payload_format=row["payload_format"], payload_bytes=len(row["payload"]), payload=row["payload"],
    )  # fmt: skip


def _fault(letter: Letter) -> Fault:
    """The one thing that is wrong with a letter if it is retried."""
    rebuilt = REBUILDER.rebuild(letter)
    built = build(rebuilt.rows, TABLES)
    assert not built.batches
    (fault,) = (*rebuilt.faults, *built.refused.values())
    return fault


# -- rows --


class Hostile(Mapping[str, Any]):
    """A row that cannot be read."""

    def __getitem__(self, key: str) -> Any:
        raise RuntimeError(key)

    def __iter__(self) -> Any:
        raise RuntimeError("no")

    def __len__(self) -> int:
        return 1


def _order(**fields: Any) -> dict[str, Any]:
    return {"client_order_id": "c-1", "symbol": "B", "status": "Open"} | fields


ROWS: dict[str, tuple[str, Any]] = {
    "unknown_field": ("orders", _order(odd=1)),
    "missing_field": ("orders", {"symbol": "B"}),
    "wrong_length": ("orders", (1, 2)),
    "wrong_row": ("orders", [1, 2]),
    "wrong_type": ("orders", _order(client_order_id=5)),
    "null": ("orders", _order(symbol=None)),
    "out_of_range": ("orders", _order(ts_local=5)),
    "lost_digits": ("market_data", {"symbol": "B", "bid_px1": 2**60 + 1}),
    "not_finite": ("market_data", {"symbol": "B", "bid_px1": math.nan}),
    "bad_decimal": ("orders", _order(qty="12x")),
    "bad_text": ("orders", _order(client_order_id="\ud800")),
    "unknown_choice": ("orders", _order(status="Odd")),
}


def _refused(table: str, row: Any) -> Letter:
    """What the builder makes of a bad row."""
    bad: list[BadRow] = []
    entry: Entry = (row, 1, None, 0)
    list(BatchBuilder(TABLES[table], epoch=7, run_id="run-1", on_bad=bad.append).add([entry]))
    (one,) = bad
    return _letter(dead_letter_row("", table, one))


@pytest.mark.parametrize("reason", ROWS)
def test_a_row_comes_back_as_it_was(reason: str) -> None:
    """Where nothing was mended the same is wrong with it, in the same words."""
    letter = _refused(*ROWS[reason])
    assert letter.reason == reason
    fault = _fault(letter)
    assert (fault.reason, fault.detail) == (reason, letter.detail)


def test_a_row_that_was_kept_as_text_says_so() -> None:
    """`not_readable`: its repr is for people."""
    letter = _refused("orders", Hostile())
    assert (letter.reason, letter.payload_format) == ("not_readable", "text")
    assert _fault(letter).reason == "not_kept"


def test_a_list_is_never_taken_for_a_tuple() -> None:
    """JSON writes both alike; one that was refused for what it is stays so, at any length."""
    values = [None] * len(TABLES["orders"].columns)
    assert _fault(_refused("orders", values)).reason == "wrong_row"


@pytest.mark.parametrize("payload", [b'{"client_order_id": "***', b'{"a": ***'], ids=["end", "middle"])
def test_bytes_that_redaction_broke_say_so(payload: bytes) -> None:
    """A row or message of which too much was cut is not JSON any more."""
    row = _refused("orders", _order(odd=1))
    assert _fault(_with(row, payload)).reason == "cut_bytes"


def _with(letter: Letter, payload: bytes) -> Letter:
    return replace(letter, payload=payload, payload_bytes=len(payload))


# -- messages --

MESSAGES: dict[str, tuple[str, Encoding, bytes]] = {
    "not_json": ("orders", Encoding.JSON, b"{"),
    "not_msgpack": ("orders", Encoding.MSGPACK, b"\xc1"),
    "too_large": ("orders", Encoding.JSON, b" " * (MAX_PAYLOAD_BYTES + 1)),
    "bad_name": ("orders", Encoding.MSGPACK, msgspec.msgpack.encode({"a": {1: 2}})),
    "too_deep": ("orders", Encoding.JSON, b'{"a":' + b"[" * 40 + b"]" * 40 + b"}"),
    "too_many_rows": ("orders", Encoding.JSON, b"[" + b",".join([b"{}"] * 4_097) + b"]"),
    "not_a_row": ("orders", Encoding.JSON, b"[5]"),
    "no_table": ("orders", Encoding.JSON, b'{"table": 5}'),
    "unknown_table": ("nowhere", Encoding.JSON, b'{"a": 1}'),
    "normaliser_failed": ("odd.x", Encoding.JSON, b'{"do": "fail"}'),
    "bad_slots": ("odd.x", Encoding.JSON, b'{"do": "clash"}'),
    "unknown_event": ("md.x", Encoding.JSON, b'{"e": "martian", "s": "B"}'),
    "unknown_message": ("md.x", Encoding.JSON, b'{"odd": 1}'),
    "venue_error": ("md.x", Encoding.JSON, b'{"code": -1121, "msg": "no"}'),
    "not_utf8": ("md.x", Encoding.JSON, b'{"e": "trade", "s": "\xff"}'),
    "bad_field": ("md.x", Encoding.JSON, b'{"e": "trade", "s": 5}'),
    # The venue's finer words need longer messages; what a retry does with them is what it does with any reason.
    "symbol_unknown": ("odd.x", Encoding.JSON, b'{"do": "symbol_unknown"}'),
    "unknown_market": ("odd.x", Encoding.JSON, b'{"do": "unknown_market"}'),
}


def _unread(
    topic: str, encoding: Encoding, payload: bytes, *, position: int = 3, ts_ns: int = TIME_NS
) -> Letter:
    """What the service makes of a bad message."""
    topics = TopicMap(TOPICS)
    message = BusMessage(topic, payload, encoding, ts_ns, LOG, position)
    rows = MessageRows(TABLES, "zmq://127.0.0.1:5570", "", open_normaliser=_open)
    made = rows.of(message, topics.route(topic)).letter
    assert made is not None
    return _letter(made.row, letter_log(LOG, ""))


@pytest.mark.parametrize("reason", MESSAGES)
def test_a_message_comes_back_as_it_was(reason: str) -> None:
    """Through its topic, decoding and normaliser, with the same result while nothing is mended."""
    letter = _unread(*MESSAGES[reason])
    assert letter.reason == reason
    fault = _fault(letter)
    assert (fault.reason, fault.detail) == (reason, letter.detail)


def test_a_position_without_identity_stays_out() -> None:
    """`bad_position`: its identity is another message's."""
    letter = _unread("orders", Encoding.JSON, b"{}", position=POSITIONS + 3)
    assert (letter.reason, _fault(letter).reason) == ("bad_position", "bad_position")


def test_a_message_that_is_ignored_or_makes_nothing_by_now_stays_and_says_so() -> None:
    """By its topic, or by its normaliser."""
    letter = _unread("odd.x", Encoding.JSON, b'{"do": "x"}')
    assert _fault(_with(letter, b'{"do": "ignore"}'))[:2] == (
        "left_out",
        "it is read now, and leaves no row: ping",
    )
    gone = replace(letter, origin=letter.origin.replace("odd.x", "gone.x"))
    assert _fault(gone).reason == "ignored_topic"


def test_a_message_without_a_time_is_never_dated_by_its_letter() -> None:
    """A letter of no time is filed under 2009; a row that relies on the message's time is refused."""
    letter = _unread("nowhere", Encoding.JSON, json.dumps(_order()).encode(), ts_ns=0)
    assert letter.ts_local == UNDATED_NS
    mapped = Rebuilder(TABLES, TopicMap({"nowhere": "orders"}), _open)
    (fault,) = build(mapped.rebuild(letter).rows, TABLES).refused.values()
    assert fault.reason == "out_of_range"


def test_a_topic_may_have_any_characters() -> None:
    """Blanks and digits at its end do not make another topic or position of it."""
    for topic in ("a b 7", " ", "x 3", "zażółć\n"):
        letter = _unread(topic, Encoding.JSON, json.dumps(_order()).encode())
        (row,) = Rebuilder(TABLES, TopicMap({topic: "orders"}), _open).rebuild(letter).rows
        assert (row.table, row.identity) == ("orders", (LOG, source_seq(3, 0)))


# -- files and the rest --

LINES: dict[str, tuple[bytes, str]] = {
    "no_local_time": (b"no time at all", "not_json"),
    "no_message": (b"1723161255030314667", "of_a_capture"),
    "bad_local_time": (b"1723161255 {}", "of_a_capture"),
}


def _of_file(bad: Any, payload_format: str = "text") -> Letter:
    row = BadRow(bad.reason, bad.detail, LOG, source_seq(bad.position, 0), bad.payload, payload_format)
    return _letter(dead_letter_row("", "", row, f"a file, line {bad.position + 1:,}"), letter_log(LOG, ""))


@pytest.mark.parametrize("reason", LINES)
def test_a_line_of_a_capture_is_not_retried(reason: str) -> None:
    """What it makes depends on the lines before it: `recorder ingest` is named instead."""
    line, found = LINES[reason]
    (bad,) = CaptureLines().decode([Line(1_233, line)])
    letter = _of_file(bad)
    assert letter.reason == reason
    assert _fault(letter).reason == found


def test_a_line_that_was_cut_is_not_retried() -> None:
    """`line_too_long`: the end of it was never kept."""
    letter = _of_file(too_long(Line(7, b'{"a": 1}', cut_bytes=20_000_000)))
    assert (letter.reason, _fault(letter).reason) == ("line_too_long", "cut_bytes")


@pytest.mark.parametrize("reason", ["bus_malformed", "bus_overflow", "bus_refused", "bus_address"])
def test_what_is_no_message_has_no_identity(reason: str) -> None:
    """A frame of a bus that could not be read, or anything a program kept by itself."""
    row = {"table_name": "", "reason": reason, "detail": "", "origin": "zmq://here", "source_log": None,
           "source_seq": None, "payload": b"\x00", "payload_format": "binary"}  # fmt: skip
    assert _fault(_letter(row)).reason == "no_identity"


ELSEWHERE = {"refused_": "test_dead_letters_retry.py: a constraint that is dropped"}
_REASONS = re.compile(
    r'(?:BadMessage|BadColumn|BadShape)\(\s*"(\w+)"|refused\(\s*column,\s*"(\w+)"|BadRecord\([^,()]+,\s*"(\w+)"'
    r'|_bad\("(\w+)"|reason(?:, detail)? = "(\w+)"|BadRow\(\s*f?"(\w+)|BusNotice\(\s*"(\w+)"|_letter\(message, "(\w+)"'
)


def test_every_reason_in_the_code_is_here() -> None:
    """Whoever writes a new reason says here what a retry makes of it."""
    found = set()
    for path in SOURCE.rglob("*.py"):
        if path.parent.name != "dead_letters":
            found |= {word for match in _REASONS.findall(path.read_text()) for word in match if word}
    here = {*ROWS, *MESSAGES, *LINES, *ELSEWHERE, "not_readable", "bad_position", "line_too_long"}
    here |= {"bus_malformed", "bus_overflow", "bus_refused", "bus_address"}
    assert found == here


@pytest.mark.parametrize("identity", [(0, 0), (2**64 - 1, 2**64 - 1), (1, 12)])
def test_a_name_is_read_as_it_was_written(identity: tuple[int, int]) -> None:
    """And nothing else is a name."""
    assert parse_name(name_of(identity)) == identity
    for wrong in ("", "12", "g-1", "1-", f"1-{2**64}", "1-1; DROP TABLE x"):
        with pytest.raises(ValueError, match="names no dead letter"):
            parse_name(wrong)
