"""Secrets in what a bus brings and nobody can read: none of them is in what the dead letters keep of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from harness.backends import Backend
from harness.consuming import NOW_NS, consuming
from harness.recorders import order, rows, settings_for
from harness.waiting import until

from recorder import Recorder
from recorder.bus import wire
from recorder.bus.base import Subscription
from recorder.bus.open import open_subscription
from recorder.bus.options import BusOptions

zmq = pytest.importorskip("zmq")

SECRET = "hunter2-s3cr3t-0123456789"
EPOCH = 77
encode = msgspec.msgpack.encode
AS_JSON, AS_MSGPACK = range(len(wire.ENCODINGS))


class AtUrl:
    """A bus by its URL, for `consuming`."""

    def __init__(self, url: str):
        self.name = url
        self._url = url

    def subscribe(self, options: BusOptions) -> Subscription:
        return open_subscription(self._url, options)


@contextlib.contextmanager
def speaking(path: pathlib.Path) -> Iterator[Any]:
    """A socket that says whatever it likes to who listens at this file."""
    context = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.linger = 0
    socket.connect(f"ipc://{path}")
    try:
        yield socket
    finally:
        socket.close()
        context.term()


def document() -> dict[str, Any]:
    """What a producer may send with secrets in it."""
    return {
        "symbol": "BTCUSDT",
        "apiKey": SECRET,
        "nested": [{"token": SECRET, "n": 1}],
        "s": f"signature={SECRET}",
    }


def wrong_records() -> list[bytes]:
    """Records that are none, with secrets in each: by a wrong field, of another shape, of another type."""
    packed, text = encode(document()), json.dumps(document()).encode()
    later = {"z": document()}
    return [
        encode((-1, "orders", AS_JSON, None, text)),
        encode((-1, "orders", AS_MSGPACK, None, packed)),
        encode((NOW_NS, "orders", 9, None, packed)),
        encode((NOW_NS, "orders", AS_MSGPACK, "c" * 2_000, encode([later] * 40))),
        encode((NOW_NS, "orders", AS_JSON, None, text.decode())),
        encode((NOW_NS, "orders", AS_JSON, None)) + b"",
        encode([NOW_NS, "orders", document()]),
        encode(document()),
        encode(text.decode()),
        encode(packed),
        encode(f"token={SECRET}"),
        encode([later] * 300),
        b"\xc9" + len(packed).to_bytes(4, "big") + b"\x05" + packed,
    ]


def frame_that_is_none() -> bytes:
    """A frame whose body is no array of records."""
    sound = wire.pack_data(EPOCH, redelivered=False, follows=0, first=0, shed=0, records=[])
    return sound[: -len(encode([])) - 4] + encode({"z": 1} | document())


async def test_records_of_a_broken_batch_are_kept_without_their_secrets(
    backend: Backend, database: str, tmp_path: pathlib.Path
) -> None:
    """Of a frame from the wire, through the consumer, into the database: each record that is none is a dead letter of
    its own, the good ones beside it are rows, and neither these nor a frame that is none tell a secret."""
    path = tmp_path / "bus"
    good = wire.record(NOW_NS, "orders", AS_MSGPACK, None, encode(order(1)))
    wrong = wrong_records()
    records = [good, *wrong, wire.record(NOW_NS, "orders", AS_JSON, None, json.dumps(order(2)).encode())]
    with Recorder(settings_for(backend, database, tmp_path, dead_letter_ratio=1.0)) as recorder:
        bus: Any = AtUrl(f"zmq://{path}")
        async with consuming(recorder, bus):
            with speaking(path) as socket:
                socket.send(wire.pack_hello(EPOCH, wire.Hello(0, 0, 0, 0, "p")))
                socket.send(
                    wire.pack_data(EPOCH, redelivered=False, follows=0, first=0, shed=0, records=records)
                )
                socket.send(frame_that_is_none())
                await until(lambda: recorder.balance()["orders"].inserted == 2, "the good records")
                await until(
                    lambda: recorder.balance()["dead_letters"].inserted == len(wrong) + 1, "dead letters"
                )
        sql = "SELECT reason, hex(payload), detail, origin FROM dead_letters ORDER BY source_seq"
        found = await asyncio.to_thread(rows, recorder, sql)
    letters = [
        (reason, bytes.fromhex(payload), f"{detail} {origin}") for reason, payload, detail, origin in found
    ]
    assert sorted(reason for reason, *_ in letters) == ["bus_malformed", *["not_json"] * len(wrong)]
    for _, payload, said in letters:
        assert b"hunter2" not in payload, payload
        assert b"s3cr3t" not in payload, payload
        assert SECRET not in said
    assert sum(b"BTCUSDT" in payload for _, payload, _ in letters) >= 9, "what is no secret is there"
