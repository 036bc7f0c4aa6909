"""One loopback port: metrics for Prometheus, health for supervisors, a status for people.

`/metrics` Prometheus text; `/healthz` 200 while the process and its workers live; `/readyz` 200 while rows
reach the database, else 503 with the reasons; both with the alarms that stand; `/status` everything as JSON;
`/` links to them. There is no authentication, so an address that other machines reach is refused unless it is
allowed by name. Runs on the recorder's own loop.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import orjson
from aiohttp import web

from recorder.errors import HealthPortError
from recorder.metrics import RecorderMetrics
from recorder.settings import Address, parse_address

PROMETHEUS_TEXT = "text/plain; version=0.0.4; charset=utf-8"

_INDEX = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>recorder</title></head>
<body style="font-family: sans-serif; margin: 2em">
<h1>recorder</h1>
<ul>
<li><a href="/status">/status</a>: balance, queues, lag, errors, as JSON</li>
<li><a href="/metrics">/metrics</a>: metrics for Prometheus</li>
<li><a href="/healthz">/healthz</a>: the process and its workers are alive</li>
<li><a href="/readyz">/readyz</a>: rows reach the database</li>
</ul></body></html>
"""


class HealthProvider(Protocol):
    """What the port tells of. Called on the loop; none may block."""

    metrics: RecorderMetrics

    def sick(self) -> Sequence[str]:
        """What is broken inside the process, such as a worker that died; empty when all is well."""

    def unready(self) -> Sequence[str]:
        """Why rows do not reach the database: the sink has not answered, migrations pending, tables held."""

    def alarms(self) -> Sequence[Mapping[str, Any]]:
        """The alarms that stand: which, of which table, since when, and why."""

    def status(self) -> Mapping[str, Any]:
        """Everything worth knowing, for JSON: balance, queues, held tables, lag, errors, settings, version."""


class HealthServer:
    """The port of one recorder: `start`, `close`.

    `addr` is `host:port`, port 0 takes a free one; `address` says which.
    """

    def __init__(self, addr: str | Address, provider: HealthProvider, *, allow_remote: bool = False):
        self.address = parse_address(addr) if isinstance(addr, str) else addr
        self._provider = provider
        self._allow_remote = allow_remote
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """Where it is reached."""
        return f"http://{self.address}/"

    async def start(self) -> None:
        """Open the port.

        Raises:
            HealthPortError: it is taken, not of this machine, or reachable by others and not allowed.
        """
        if not self.address.loopback and not self._allow_remote:
            raise HealthPortError(
                f"health port {self.address}: other machines would reach it and it has no authentication; "
                f"use 127.0.0.1:{self.address.port}, or set health_allow_remote = true"
            )
        app = web.Application(middlewares=[_guard])
        app.router.add_get("/", self._index)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/status", self._status)
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, self.address.host, self.address.port, reuse_address=True).start()
        except OSError as error:
            await runner.cleanup()
            raise HealthPortError(_why(self.address, error)) from error
        self._runner = runner
        self.address = Address(self.address.host, int(runner.addresses[0][1]))

    async def close(self) -> None:
        """Close the port. Idempotent."""
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()

    async def _index(self, _request: web.Request) -> web.Response:
        return web.Response(text=_INDEX, content_type="text/html")

    async def _metrics(self, _request: web.Request) -> web.Response:
        return web.Response(
            body=self._provider.metrics.exposition(), headers={"Content-Type": PROMETHEUS_TEXT}
        )

    async def _healthz(self, _request: web.Request) -> web.Response:
        return self._verdict("sick", self._provider.sick())

    async def _readyz(self, _request: web.Request) -> web.Response:
        return self._verdict("not ready", [*self._provider.sick(), *self._provider.unready()])

    async def _status(self, _request: web.Request) -> web.Response:
        return _json(dict(self._provider.status()))

    def _verdict(self, bad: str, reasons: Sequence[str]) -> web.Response:
        """An alarm alone is no bad verdict: rows that were lost make nobody unready who records again."""
        alarms = list(self._provider.alarms())
        if reasons:
            return _json({"status": bad, "reasons": list(reasons), "alarms": alarms}, status=503)
        return _json({"status": "ok", "alarms": alarms})


@web.middleware
async def _guard(request: web.Request, handler: Any) -> web.StreamResponse:
    """A web site may have a browser ask a loopback port under a name of its own; it gets nothing."""
    host = (request.host or "").rsplit(":", 1)[0].strip("[]") if request.host else ""
    local = request.transport is not None and str(request.transport.get_extra_info("sockname")[0])
    bound_to_loopback = bool(local) and Address(str(local), 0).loopback
    if bound_to_loopback and host and not Address(host, 0).loopback:
        return _json({"error": f"host {host} is not this machine; ask for 127.0.0.1"}, status=403)
    response: web.StreamResponse = await handler(request)
    response.headers["Cache-Control"] = "no-store"
    return response


def _json(value: Any, status: int = 200) -> web.Response:
    body = orjson.dumps(
        value, default=str, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS
    )
    return web.Response(body=body, status=status, content_type="application/json")


def _why(address: Address, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"health port {address}: already in use; stop what listens there, or set another health_addr"
    if error.errno == errno.EADDRNOTAVAIL or (isinstance(error, OSError) and error.errno in (-2, -3, -5)):
        return f"health port {address}: no address of this machine; use 127.0.0.1:{address.port}"
    if error.errno in (errno.EACCES, errno.EPERM):
        return (
            f"health port {address}: not permitted; ports below 1024 need privileges, set another health_addr"
        )
    return f"health port {address}: cannot be opened: {error.strerror or error}; set another health_addr"
