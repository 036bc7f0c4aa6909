"""Laws of the health port, asked over a real socket."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from recorder.errors import HealthPortError
from recorder.health import HealthServer
from recorder.metrics import RecorderMetrics


class _Provider:
    def __init__(self) -> None:
        self.metrics = RecorderMetrics()
        self.faults: list[str] = []
        self.waits: list[str] = []
        self.alarmed: list[Mapping[str, Any]] = []

    def sick(self) -> Sequence[str]:
        return self.faults

    def unready(self) -> Sequence[str]:
        return self.waits

    def alarms(self) -> Sequence[Mapping[str, Any]]:
        return self.alarmed

    def status(self) -> Mapping[str, Any]:
        return {"tables": {"fills": {"lag": {"p99_s": 0.5}}}, "raw": b"\xff"}


@pytest.fixture
def provider() -> _Provider:
    return _Provider()


@pytest_asyncio.fixture
async def server(provider: _Provider) -> AsyncIterator[HealthServer]:
    server = HealthServer("127.0.0.1:0", provider)
    await server.start()
    yield server
    await server.close()


async def _get(server: HealthServer, path: str, **headers: str) -> tuple[int, str, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(server.url.rstrip("/") + path, headers=headers) as answer,
    ):
        return answer.status, answer.content_type, await answer.text()


async def test_metrics_are_prometheus_text(server: HealthServer) -> None:
    """Prometheus gets its text format."""
    status, kind, text = await _get(server, "/metrics")
    assert (status, kind) == (200, "text/plain")
    assert "recorder_uptime_seconds" in text
    assert "process_resident_memory_bytes" in text


async def test_health_and_readiness_are_two_things(server: HealthServer, provider: _Provider) -> None:
    """A database that is away makes the recorder unready, not sick; a dead worker makes it both."""
    assert (await _get(server, "/healthz"))[0] == 200
    assert (await _get(server, "/readyz"))[0] == 200
    provider.waits.append("fills is held: missing column fees")
    assert (await _get(server, "/healthz"))[0] == 200
    status, kind, text = await _get(server, "/readyz")
    assert (status, kind) == (503, "application/json")
    assert "missing column fees" in text
    provider.faults.append("orders: its worker died")
    assert (await _get(server, "/healthz"))[0] == 503
    assert "its worker died" in (await _get(server, "/readyz"))[2]


async def test_alarms_are_told_beside_the_verdict(server: HealthServer, provider: _Provider) -> None:
    """Whoever asks for health or readiness reads which alarms stand; they alone make nobody sick or unready."""
    provider.alarmed.append({"alarm": "RecorderDataLoss", "table": "orders", "why": "lost 3 rows in all"})
    for path in ("/healthz", "/readyz"):
        status, _, text = await _get(server, path)
        assert status == 200
        assert json.loads(text) == {"status": "ok", "alarms": provider.alarmed}
    provider.waits.append("fills is held: missing column fees")
    status, _, text = await _get(server, "/readyz")
    assert status == 503
    assert json.loads(text)["alarms"] == provider.alarmed


async def test_status_is_json_whatever_it_holds(server: HealthServer) -> None:
    """The status is JSON, even where a value is none by nature."""
    status, kind, text = await _get(server, "/status")
    assert (status, kind) == (200, "application/json")
    assert '"p99_s": 0.5' in text


async def test_index_links_to_the_rest(server: HealthServer) -> None:
    """The index page names every address, and another one is a 404."""
    _, kind, text = await _get(server, "/")
    assert kind == "text/html"
    for path in ("/status", "/metrics", "/healthz", "/readyz"):
        assert f'href="{path}"' in text
    assert (await _get(server, "/nothing"))[0] == 404


async def test_a_web_site_gets_nothing(server: HealthServer) -> None:
    """A browser that was lured to the loopback port under a site's own name is refused."""
    status, _, text = await _get(server, "/status", Host="evil.example:80")
    assert status == 403
    assert "p99_s" not in text
    assert (await _get(server, "/status", Host=f"localhost:{server.address.port}"))[0] == 200


async def test_remote_addresses_need_leave(provider: _Provider) -> None:
    """An address that other machines reach is refused with the remedy, unless it is allowed."""
    with pytest.raises(HealthPortError, match="health_allow_remote = true"):
        await HealthServer("0.0.0.0:0", provider).start()
    allowed = HealthServer("0.0.0.0:0", provider, allow_remote=True)
    await allowed.start()
    await allowed.close()


async def test_a_taken_port_is_a_clear_error(provider: _Provider) -> None:
    """A port in use is named, with what to do."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(HealthPortError, match=f"127.0.0.1:{port}: already in use"):
            await HealthServer(f"127.0.0.1:{port}", provider).start()


async def test_an_address_of_another_machine_is_a_clear_error(provider: _Provider) -> None:
    """An address that is not this machine's is told apart from a taken port."""
    with pytest.raises(HealthPortError, match="no address of this machine"):
        await HealthServer("192.0.2.1:0", provider, allow_remote=True).start()


async def test_close_frees_the_port_and_may_be_repeated(provider: _Provider) -> None:
    """After close nobody listens, and the same port can be opened again at once."""
    server = HealthServer("127.0.0.1:0", provider)
    await server.start()
    address = server.address
    assert (await _get(server, "/healthz"))[0] == 200
    await server.close()
    await server.close()
    with pytest.raises(OSError):
        await asyncio.open_connection(address.host, address.port)
    again = HealthServer(address, provider)
    await again.start()
    await again.close()
