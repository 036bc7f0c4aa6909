"""Opening the recorder's end of a ZeroMQ bus: who may reach it, and what stands in the way."""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import socket as sockets
import stat
from typing import TYPE_CHECKING

from recorder.bus.endpoint import ZmqEndpoint, import_zmq
from recorder.bus.errors import BusUnavailable
from recorder.settings_fields import Address

if TYPE_CHECKING:
    import zmq

BACKLOG = 128
"""Publishers that connect at the same moment; ZeroMQ's own connect again if there are more."""


class SocketFile:
    """A Unix domain socket's file that ZeroMQ listens at, made here.

    ZeroMQ makes such files in place of those of others, and removes whatever is there when it closes. This one takes
    nobody's, and removes only its own.

    Raises:
        BusUnavailable: somebody listens there, there is a file that is no socket, or it cannot be made.
    """

    def __init__(self, socket: zmq.Socket[bytes], endpoint: ZmqEndpoint):
        self._socket = socket
        self._endpoint = endpoint
        self._listens = False
        self._key = (0, 0)
        self._listen()

    @property
    def ours(self) -> bool:
        """Whether the file is there, and is this one. Its inode stays taken for as long as somebody listens."""
        try:
            found = os.lstat(self._endpoint.path)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self._key

    def renew(self) -> None:
        """Make the file again, after somebody removed it: who is connected connects again.

        Raises:
            BusUnavailable: as for a new one; ZeroMQ goes on listening where it did.
        """
        self._listen()

    def remove(self) -> None:
        """Remove the file, if it is this one."""
        if self.ours:
            with contextlib.suppress(OSError):
                os.unlink(self._endpoint.path)

    def _listen(self) -> None:
        zmq = import_zmq()
        path, address = self._endpoint.path, self._endpoint.address
        _free_path(self._endpoint)
        with sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM) as made:
            try:
                made.setblocking(False)
                made.bind(path)
                # Nobody can connect before it listens: until then the mode does not matter.
                os.chmod(path, 0o600)
                found = os.lstat(path)
                made.listen(BACKLOG)
                if self._listens:
                    self._socket.unbind(address)
                    self._listens = False
                self._socket.setsockopt(zmq.USE_FD, made.fileno())
                self._socket.bind(address)
            except (OSError, zmq.ZMQError) as error:
                # The file, if it was made, is one that nobody listens at: the next one to come replaces it.
                raise BusUnavailable(_why(self._endpoint, error.errno, str(error))) from error
            made.detach()  # it is ZeroMQ's now
        self._listens = True
        self._key = (found.st_dev, found.st_ino)


def bind(
    socket: zmq.Socket[bytes], endpoint: ZmqEndpoint, *, allow_remote: bool
) -> tuple[ZmqEndpoint, SocketFile | None]:
    """Bind a socket; the endpoint as it is now, with the port that was taken for port 0, and its file if it has one.

    A socket's file that nobody listens at is replaced; a new one is its user's alone.

    Raises:
        BusUnavailable: it is in use, not of this machine, or others would reach it and that is not allowed.
    """
    zmq = import_zmq()
    if endpoint.path:
        return endpoint, SocketFile(socket, endpoint)
    host = {"localhost": "127.0.0.1", "*": "0.0.0.0"}.get(endpoint.host, endpoint.host)
    if not Address(host, endpoint.port).loopback and not allow_remote:
        raise BusUnavailable(
            f"bus {endpoint.url}: other machines would reach it and it has no authentication; "
            f"use zmq://127.0.0.1:{endpoint.port}, or allow it by setting bus_allow_remote = true"
        )
    place = ZmqEndpoint(endpoint.url, host, endpoint.port, "", endpoint.options)
    try:
        socket.bind(place.address)
    except zmq.ZMQError as error:
        raise BusUnavailable(_why(endpoint, error.errno, str(error))) from error
    bound = socket.getsockopt_string(zmq.LAST_ENDPOINT)
    port = int(bound.rpartition(":")[2])
    shown = f"[{host}]" if ":" in host else host
    return ZmqEndpoint(f"zmq://{shown}:{port}", host, port, "", endpoint.options), None


def _free_path(endpoint: ZmqEndpoint) -> None:
    """Remove a socket's file that nobody listens at. ZeroMQ would take over one that is in use, too."""
    path = pathlib.Path(endpoint.path)
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        if not path.parent.is_dir():
            raise BusUnavailable(
                f"bus {endpoint.url}: there is no folder {path.parent}; make it, or choose another path"
            ) from None
        return
    except OSError as error:
        raise BusUnavailable(f"bus {endpoint.url}: cannot be opened: {error.strerror}") from error
    if not stat.S_ISSOCK(mode):
        raise BusUnavailable(f"bus {endpoint.url}: there is a file that is no socket; choose another path")
    with sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM) as probe:
        probe.setblocking(False)
        found = probe.connect_ex(endpoint.path)
    if found == errno.ECONNREFUSED:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
    elif found in (0, errno.EAGAIN, errno.EINPROGRESS):
        raise BusUnavailable(_why(endpoint, errno.EADDRINUSE, ""))
    elif found != errno.ENOENT:
        raise BusUnavailable(_why(endpoint, found, os.strerror(found)))


def _why(endpoint: ZmqEndpoint, code: int | None, text: str) -> str:
    if code == errno.EADDRINUSE:
        return f"bus {endpoint.url}: already in use; stop what listens there, or choose another address"
    if code in (errno.ENODEV, errno.EADDRNOTAVAIL, errno.EINVAL):
        return f"bus {endpoint.url}: no address of this machine; use zmq://127.0.0.1:{endpoint.port}"
    if code in (errno.EACCES, errno.EPERM):
        return f"bus {endpoint.url}: not permitted; choose another port or path, or another user"
    return f"bus {endpoint.url}: cannot be opened: {text}; choose another address"
