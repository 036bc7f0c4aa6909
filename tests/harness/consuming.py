"""A consumer between an in-process bus and a recorder, with room for faults in the bus."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from recorder import Recorder
from recorder.backoff import Backoff
from recorder.bus.base import Encoding, Subscription
from recorder.bus.inprocess import InProcessBus
from recorder.bus.options import BusOptions
from recorder.ingest.normalisers import open_normaliser
from recorder.service.consumer import Consumer
from recorder.service.rows import MessageRows
from recorder.service.topics import TopicMap

NOW_NS = time.time_ns() // 1_000_000 * 1_000_000


@contextlib.asynccontextmanager
async def consuming(
    recorder: Recorder,
    bus: InProcessBus,
    *,
    topics: dict[str, str] | None = None,
    wrap: Callable[[Subscription], Subscription] = lambda subscription: subscription,
    window: int = 8_192,
) -> AsyncIterator[Consumer]:
    """A running consumer; closed afterwards, which acknowledges what is durable by then."""
    options = BusOptions(window_messages=window)
    rows = MessageRows(
        recorder.tables, f"inproc://{bus.name}", recorder.recorder_run_id,
        open_normaliser=lambda name: open_normaliser(name, {}),
    )  # fmt: skip
    consumer = Consumer(
        recorder, wrap(bus.subscribe(options)), lambda: wrap(bus.subscribe(options)), rows, TopicMap(topics or {}),
        window=(options.window_messages, options.window_bytes), backoff=Backoff(0.01, 0.05),
    )  # fmt: skip
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.close()


def publish(bus: InProcessBus, topic: str, value: Any, **options: Any) -> None:
    """Put one message on the bus, dated now; it must have room."""
    options = {"ts_ns": NOW_NS} | options
    assert bus.publish(topic, json.dumps(value).encode(), Encoding.JSON, **options)
