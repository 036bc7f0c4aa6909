"""A frame that does not decode as a whole: each record by itself."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorder.bus import wire
from recorder.bus.base import BusMessage, Encoding
from recorder.bus.decode import rows_of_message
from recorder.bus.salvage import salvage
from recorder.normalise.base import BadMessage

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
