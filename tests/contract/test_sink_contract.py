"""The contract of sinks, for each database that tests run on with the sink it has."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from harness.backends import Backend
from sink_contract import SinkContract

from recorder.sink.client_sink import ClientSink


@pytest.fixture
async def sink(backend: Backend, database: str) -> AsyncIterator[ClientSink]:
    sink = backend.sink(database, kill_wait_s=2)
    await sink.start()
    yield sink
    await sink.close()


class TestSink(SinkContract):
    """The laws, here."""
