"""`recorder run`, and messages of odd shapes and strangers' frames over its bus: each is a row, a letter or nothing."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator

import pytest
import zmq
from harness.backends import Backend, Place
from harness.ingest_files import run_command
from harness.recorders import order, wait_until
from harness.running import RunningRecorder

from recorder import Publisher
from recorder.bus import wire
from recorder.bus.base import Encoding

SMALL_WINDOW = {"RECORDER_BUS_WINDOW_MESSAGES": "4", "RECORDER_BUS_WINDOW_BYTES": "20000"}


@pytest.fixture
def place(backend: Backend, tmp_path: pathlib.Path) -> Iterator[Place]:
    """A database for the recorder's process alone."""
    with backend.place(tmp_path) as found:
        yield found


def asked(folder: pathlib.Path, place: Place, sql: str) -> list[dict[str, object]]:
    """What the database says, by the command, after the recorder has ended."""
    found = run_command(
        "--data-dir", folder / "data", "query", "--format", "jsonl", sql, cwd=folder, **place.variables
    )
    assert found.returncode == 0, found.stderr
    return [json.loads(line) for line in found.stdout.splitlines()]


def test_messages_of_every_size_go_through_a_window_less_than_them(
    place: Place, tmp_path: pathlib.Path
) -> None:
    """As many rows as a message may have, none, more bytes than the window, one row too many, an unknown topic."""
    numbers = iter(range(100_000))
    with (
        RunningRecorder(tmp_path, **place.variables, **SMALL_WINDOW) as recorder,
        Publisher(recorder.ready().bus_url) as publisher,
    ):

        def publish(count: int, **more: str) -> None:
            rows = [order(0, client_order_id=str(next(numbers)), **more) for _ in range(count)]
            assert publisher.publish("orders", rows)

        for _ in range(5):
            publish(1)
            publish(4_096)
            publish(0)
            publish(1, account_id="x" * 100_000)
            publish(20)
        too_many = json.dumps([order(n) for n in range(4_097)]).encode()
        assert publisher.publish_raw("orders", too_many, Encoding.JSON)
        assert publisher.publish("no such topic", order(1))
        assert publisher.publish("", order(2))
        assert publisher.flush(60), publisher.stats()
        assert recorder.bus()["unacknowledged"] == 0
        assert recorder.stop() == 0
    sql = (
        "SELECT count() AS rows, uniqExact(client_order_id) AS different, max(length(account_id)) AS longest"
    )
    (found,) = asked(tmp_path, place, f"{sql} FROM orders")
    published = next(numbers)
    assert {name: int(str(value)) for name, value in found.items()} == {
        "rows": published, "different": published, "longest": 100_000,
    }  # fmt: skip
    letters = asked(
        tmp_path, place, "SELECT toString(reason) AS r, length(payload) AS n FROM dead_letters ORDER BY r, n"
    )
    assert [row["r"] for row in letters] == ["no_table", "too_many_rows", "unknown_table"]


def test_strangers_frames_and_topics_that_are_no_text_cost_a_letter_each(
    place: Place, tmp_path: pathlib.Path
) -> None:
    """They are told with their bytes, once through a SIGKILL; what is a message of them is acknowledged; all else goes
    on."""
    epoch = 77
    odd = b"\x95\x01\xa2\xff\xfe\x00\xc0\xc4\x03abc"
    """A record whose topic is no UTF-8."""
    good = wire.record(1_700_000_000_000_000_000, "orders", 0, None, json.dumps(order(1)).encode())
    context = zmq.Context()
    stranger = context.socket(zmq.DEALER)
    stranger.setsockopt(zmq.LINGER, 0)

    def resolved() -> int:
        """What the recorder says is safe, the newest that it said."""
        stranger.send(wire.pack_ping(epoch, 2, 0))
        assert stranger.poll(20_000)
        _, answer = wire.unpack_from_recorder(stranger.recv())
        return answer.resolved if isinstance(answer, wire.Ack) else -1

    frame = wire.pack_data(epoch, redelivered=True, follows=0, first=0, shed=0, records=[odd, good])
    with RunningRecorder(tmp_path, **place.variables) as recorder:
        try:
            for run in (1, 2):
                recorder.ready(run)
                stranger.connect(recorder.bus_url.replace("zmq://", "tcp://"))
                stranger.send(wire.pack_hello(epoch, wire.Hello(0, 2, 0, 0, "stranger")))
                stranger.send(frame)
                wait_until(lambda: resolved() == 2, "both safe")
                if run == 1:
                    for junk in (b"GET / HTTP/1.1\r\n", wire.pack_bye(5), bytes(100_000)):
                        stranger.send(junk)
                    wait_until(lambda: recorder.bus()["undecodable"] == 3, "two frames and one message told")
                    wait_until(lambda: recorder.rows("dead_letters", "pending") == 0, "letters in")
                    stranger.disconnect(recorder.bus_url.replace("zmq://", "tcp://"))
                    recorder.kill()
                    recorder.start()
            with Publisher(recorder.bus_url) as publisher:
                assert publisher.publish("orders", order(2))
                assert publisher.flush(60)
            assert recorder.stop() == 0
        finally:
            stranger.close()
            context.term()
    assert asked(tmp_path, place, "SELECT client_order_id AS c FROM orders ORDER BY c") == [
        {"c": "c-1"},
        {"c": "c-2"},
    ]
    letters = asked(
        tmp_path, place, "SELECT toString(reason) AS r, hex(payload) AS p FROM dead_letters ORDER BY r, p"
    )
    assert [(row["r"], row["p"]) for row in letters if row["r"] == "not_json"] == [
        ("not_json", odd.hex().upper())
    ]
    assert sorted(str(row["p"])[:8] for row in letters if row["r"] == "bus_malformed") == [
        "00000000",
        "47455420",
    ]
    assert len(letters) == 3
