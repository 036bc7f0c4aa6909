"""A frame that does not decode as a whole: each record by itself."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from recorder.build import BatchBuilder
from recorder.bus import wire
from recorder.bus.base import BusMessage, Encoding
from recorder.bus.decode import rows_of_message
from recorder.bus.salvage import salvage
from recorder.normalise.base import BadMessage
from recorder.service.rows import MessageRows
from recorder.service.topics import Route
from schemas.core.tables import PACK

encode = msgspec.msgpack.encode


def data(count: int, body: bytes) -> wire.Data:
    return wire.Data(False, 0, 0, count, 0, memoryview(body))


def array(*records: bytes) -> bytes:
    return b"\xdd" + len(records).to_bytes(4, "big") + b"".join(records)


good = st.builds(
    wire.record,
    st.integers(0, 2**63 - 1),
    st.text(max_size=20),
    st.integers(0, 1),
    st.none() | st.text(max_size=20),
    st.binary(max_size=20),
)
value = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
row = st.fixed_dictionaries({"table": st.just("orders"), "n": value})
wrong = st.builds(
    encode, value | row | st.lists(row, max_size=5) | st.tuples(value, value, value, value, value)
)


@given(st.lists(good | wrong, min_size=1, max_size=12))
def test_every_good_record_comes_and_every_wrong_one_as_its_bytes(records: list[bytes]) -> None:
    """In order, none more and none less; no bytes of a wrong one, whatever they are, are rows of a table."""
    saved = salvage(data(len(records), array(*records)))
    assert saved is not None
    assert len(saved.records) == len(records)
    for place, (sent, got) in enumerate(zip(records, saved.records, strict=True)):
        if place not in saved.faults:
            assert wire.record(*got) == sent
            continue
        assert got[4] == sent
        with pytest.raises(BadMessage):
            rows_of_message(BusMessage("orders", got[4], wire.ENCODINGS[got[2]], 1, 1, place))
        assert wire.unpack_records(data(1, array(wire.record(*got)))) == [got]


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ((7, "t", 0, "c", "text"), (7, "t", "c")),
        ((7, b"t\xff", 0, "c", b""), (7, "t\ufffd", "c")),
        ((7, "t" * 256, 0, None, b""), (7, "", None)),
        ((7, "t", 0, b"c", b""), (7, "t", None)),
        ((-1, "t", 0, "c", b""), (0, "t", "c")),
        ((7, "t", 9, "c", b""), (7, "t", "c")),
        ((7, "t", 0, "c"), (0, "", None)),
    ],
)
def test_what_can_be_read_of_a_wrong_record_is_kept(
    fields: tuple[object, ...], found: tuple[int, str, str | None]
) -> None:
    """Its time, topic and correlation id, so that its dead letter says whose it is."""
    saved = salvage(data(1, array(encode(fields))))
    assert saved is not None
    ts_ns, topic, encoding, correlation_id, payload = saved.records[0]
    assert (ts_ns, topic, correlation_id) == found
    assert (wire.ENCODINGS[encoding], payload) == (Encoding.JSON, encode(fields))
    assert list(saved.faults) == [0]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x01",
        b"\x81\x01\x01",
        b"\xdd\0\0",
        b"\xdd\0\0\0\2\x01",
        b"\x92\xc1\x01",
        b"\x92\x01\x01\x01",
        b"\x91\x01",
        b"\xdd\xff\xff\xff\xff" + b"\x01" * 1_000,
        b"\x92\x01" + b"\x91" * 100_000 + b"\x01",
    ],
    ids=range(10),
)
def test_a_body_that_is_no_array_of_so_many_is_not_taken_apart(body: bytes) -> None:
    """Nothing says where one record ends and the next begins."""
    assert salvage(data(2, body)) is None


def test_any_form_of_array_is_taken_apart() -> None:
    """msgpack has three."""
    one = encode("no record")
    for body in (b"\x92" + one * 2, b"\xdc\0\2" + one * 2, b"\xdd\0\0\0\2" + one * 2):
        saved = salvage(data(2, body))
        assert saved is not None
        assert [record[4] for record in saved.records] == [one, one]


MARK = "hunter2"
secret = st.text(max_size=40).map(lambda text: MARK + text)
member = st.tuples(
    st.sampled_from(["apiKey", "token", "secret", "listenKey", "Authorization"]), secret
) | st.tuples(st.sampled_from(["symbol", "qty", "e"]), st.text(max_size=8) | st.integers(0, 2**40))
told = st.recursive(
    st.lists(member, min_size=1, max_size=4).map(dict),
    lambda inner: st.lists(inner, max_size=3) | st.fixed_dictionaries({"z": inner, "s": st.text(max_size=4)}),
    max_leaves=6,
)
packed = told.map(encode) | told.map(lambda value: json.dumps(value).encode())
unreadable = st.one_of(
    st.tuples(st.integers(-9, -1), st.just("orders"), st.integers(0, 1), st.none(), packed).map(encode),
    st.tuples(st.just(7), st.just("orders"), st.integers(2, 9), st.none(), packed).map(encode),
    st.tuples(st.just(7), packed, st.just(0), secret.map(lambda text: f"token={text}"), packed).map(encode),
    st.tuples(st.just(7), st.just("orders"), told).map(encode),
    told.map(encode),
    told.map(lambda value: encode(json.dumps(value))),
    packed.map(encode),
    packed.map(lambda data: encode(msgspec.msgpack.Ext(5, data))),
)


def kept(payload: bytes, place: int, encoding: Encoding = Encoding.JSON) -> bytes:
    """What a dead letter has of a message, as it stands in the batch that goes to the database."""
    table = PACK.table("dead_letters")
    maker = MessageRows({}, "zmq://x", "run", open_normaliser=lambda name: None)  # type: ignore[arg-type, return-value]
    letter = maker.of(
        BusMessage("orders", payload, encoding, 1, 1, place), Route("orders", table="orders")
    ).letter
    assert letter is not None
    builder = BatchBuilder(table, epoch=1, run_id="r", on_bad=lambda bad: None)
    assert list(builder.add([(letter.row, 1, None, 100)])) == [1]
    return bytes(builder.seal()[0].data["payload"][0].as_py())


@settings(deadline=None)
@given(st.lists(unreadable, min_size=1, max_size=3))
@example([encode((7, f"token={MARK}", 0, "", encode({"apiKey": MARK.ljust(0x20)})))])  # 0x20 is a blank
@example([encode((7, b"", 0, f"token={MARK}".ljust(0x41), b""))])  # 0x41, its length, is the letter A
def test_of_a_wrong_record_no_secret_is_kept(records: list[bytes]) -> None:
    """Whatever its shape and whatever is packed in it: its dead letter has its bytes without the secrets in them."""
    saved = salvage(data(len(records), array(*records)))
    assert saved is not None
    for place in saved.faults:
        _, _, encoding, _, payload = saved.records[place]
        assert MARK.encode() not in kept(payload, place, wire.ENCODINGS[encoding])
    frame = b"CR\x01\x02" + b"\0" * 37 + array(*records)[:-1]
    assert MARK.encode() not in kept(frame, 0)
