"""URLs of ZeroMQ buses, and what they are to ZeroMQ. Imports little: trading processes load it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from recorder.bus.errors import BusUnavailable, BusUrlError

if TYPE_CHECKING:
    import zmq

_HOST = re.compile(r"[^\s\x00-\x1f\x7f]+")
MAX_PATH_BYTES = 107
"""Of a Unix domain socket's path, on Linux."""


@dataclass(frozen=True)
class ZmqEndpoint:
    """Where a ZeroMQ bus is: a host and port, or a path; `options` is what follows a question mark."""

    url: str
    host: str
    port: int
    path: str
    options: dict[str, str]

    @property
    def address(self) -> str:
        """As ZeroMQ writes it."""
        if self.path:
            return f"ipc://{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp://{host}:{self.port}"


def parse_zmq_url(url: str, *allowed: str) -> ZmqEndpoint:
    """A URL `scheme://host:port` or `scheme:///path`, with none but the allowed options.

    Raises:
        BusUrlError: it is none.
    """
    scheme = url.partition("://")[0]
    example = f"write {scheme}://127.0.0.1:5560, or {scheme}:///run/recorder/bus.sock"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise BusUrlError(f"bus {scheme}://: {error}; {example}") from None
    if "@" in parts.netloc:
        raise BusUrlError(f"bus {scheme}://: a user or password means nothing to ZeroMQ; {example}")
    found = parse_qs(parts.query, keep_blank_values=True, separator="&")
    if unknown := sorted(set(found) - set(allowed)) or parts.fragment:
        choices = f"; there are {', '.join(allowed)}" if allowed else ""
        raise BusUrlError(f"bus {url}: no such option: {', '.join(unknown)}{choices}")
    options = {name: ",".join(values) for name, values in found.items()}
    if parts.netloc:
        if not _HOST.fullmatch(host) or port is None or parts.path not in ("", "/"):
            raise BusUrlError(f"bus {url}: names no host and port; {example}")
        return ZmqEndpoint(url, host, port, "", options)
    if not parts.path.strip("/") or parts.path.endswith("/"):
        raise BusUrlError(f"bus {url}: names neither host and port nor a socket's path; {example}")
    length = len(parts.path.encode())
    if length > MAX_PATH_BYTES:
        raise BusUrlError(
            f"bus {url}: the socket's path has {length} bytes; at most {MAX_PATH_BYTES} fit, choose a shorter one"
        )
    return ZmqEndpoint(url, "", 0, parts.path, options)


def import_zmq() -> Any:
    """The module `zmq`.

    Raises:
        BusUnavailable: it is not installed.
    """
    try:
        import zmq
    except ImportError as error:
        raise BusUnavailable(
            f"ZeroMQ is not installed ({error}); pip install 'coldpath-recorder[zmq]'"
        ) from error
    return zmq


def prepare(socket: zmq.Socket[bytes], endpoint: ZmqEndpoint) -> None:
    """What every socket of a bus has set: a dead peer is noticed within seconds, and closing waits for nobody."""
    zmq = import_zmq()
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.HEARTBEAT_IVL, 2_000)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 6_000)
    socket.setsockopt(zmq.RECONNECT_IVL, 50)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1_000)
    if ":" in endpoint.host:
        socket.setsockopt(zmq.IPV6, 1)
