"""Where connections come in: not more than there are descriptors for, and none that says nothing."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time

from aiohttp import web

TLS_HANDSHAKE_S = 10.0
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nX-ClickHouse-Exception-Code: 202\r\n"
    b"Content-Type: text/plain; charset=UTF-8\r\nContent-Length: %d\r\n\r\n%s"
)


def silent() -> logging.Logger:
    """For what aiohttp says of requests that it cannot read: with the whole URL, in which a password may be."""
    logger = logging.Logger("recorder.devserver.http")
    logger.disabled = True
    return logger


class _Full(asyncio.Protocol):
    """A connection too many: told so, and closed."""

    def __init__(self, limit: int):
        said = f"Code: 202. DB::Exception: Too many connections. Maximum: {limit}. (TOO_MANY_SIMULTANEOUS_QUERIES)\n"
        self._answer = _FULL % (len(said), said.encode())

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(self._answer)
        transport.close()


class Door:
    """The socket of a server, for at most `limit` connections. One without a request after `first_s` is closed."""

    def __init__(self, runner: web.AppRunner, limit: int, first_s: float):
        assert runner.server is not None
        self._server = runner.server
        self._limit = limit
        self._first_s = first_s
        self._silent: dict[asyncio.BaseProtocol, float] = {}
        self._listening: asyncio.Server | None = None

    async def open(self, bound: socket.socket, tls: ssl.SSLContext | None) -> None:
        """Take connections."""
        loop = asyncio.get_running_loop()
        handshake_s = TLS_HANDSHAKE_S if tls is not None else None
        self._listening = await loop.create_server(
            self._come, sock=bound, ssl=tls, backlog=128, ssl_handshake_timeout=handshake_s
        )

    def close(self) -> None:
        """Take no more; those that are open stay. Idempotent."""
        if self._listening is not None:
            self._listening.close()
            self._listening = None

    def heard(self, http: web.Request) -> None:
        """A request has come."""
        self._silent.pop(http.protocol, None)

    def sweep(self) -> None:
        """Close the connections that have said nothing for too long."""
        late_s = time.monotonic() - self._first_s
        for protocol in [protocol for protocol, since_s in self._silent.items() if since_s < late_s]:
            del self._silent[protocol]
            protocol.force_close()  # type: ignore[attr-defined]

    def _come(self) -> asyncio.BaseProtocol:
        if len(self._server.connections) >= self._limit:
            return _Full(self._limit)
        protocol = self._server()
        self._silent[protocol] = time.monotonic()
        return protocol
