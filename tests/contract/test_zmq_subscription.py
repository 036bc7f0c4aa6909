"""The laws of a subscription, on ZeroMQ: over tcp and over a socket's file, with the real publisher."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import pytest
from harness.ports import free_port
from subscription_contract import AtLeastOnceContract

from recorder.bus.base import Encoding, Subscription
from recorder.bus.open import open_subscription
from recorder.bus.options import BusOptions
from recorder.bus.publisher import Publisher

BUFFER_BYTES = 4_000_000


class Zmq:
    """The bus under test. A subscription's address is the first one's, whatever port that took."""

    def __init__(self, url: str):
        self.url = url
        self.publisher = Publisher(url, name="contract", buffer_bytes=BUFFER_BYTES, outlive_s=0)

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        correlation_id: str | None = None,
        encoding: Encoding = Encoding.JSON,
    ) -> bool:
        return self.publisher.publish_raw(topic, payload, encoding, correlation_id)

    def subscription(
        self, *, window_messages: int = 8_192, window_bytes: int = 64 * 1024 * 1024
    ) -> Subscription:
        return open_subscription(self.url, BusOptions(window_messages, window_bytes))

    def unacknowledged(self) -> int:
        return self.publisher.stats().waiting

    def fill_bytes(self) -> int:
        return BUFFER_BYTES * 2

    def close(self) -> None:
        self.publisher.close(0)


@pytest.fixture(params=["tcp", "ipc"])
def bus(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[Zmq]:
    made = Zmq(f"zmq://{tmp_path}/bus.sock" if request.param == "ipc" else f"zmq://127.0.0.1:{free_port()}")
    yield made
    made.close()


class TestZmqSubscription(AtLeastOnceContract):
    """All laws."""
