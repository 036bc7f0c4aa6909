"""A port in front of a server's that can turn what the server says into garbage; on any loopback address."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def relay(port: int, *, listen: tuple[str, int] = ("127.0.0.1", 0)) -> Iterator[tuple[int, threading.Event]]:
    """Its port, and an event: the next that the server says once it is set arrives as zeros, which clears it."""
    garble = threading.Event()

    def carry(source: socket.socket, target: socket.socket, to_client: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if to_client and garble.is_set():
                    garble.clear()
                    data = bytes(len(data))
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def serve(listener: socket.socket) -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as ends:
            while True:
                client = ends.enter_context(listener.accept()[0])
                server = ends.enter_context(socket.create_connection(("127.0.0.1", port)))
                for way in ((client, server, False), (server, client, True)):
                    threading.Thread(target=carry, args=way, daemon=True).start()

    with socket.create_server(listen) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        try:
            yield listener.getsockname()[1], garble
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
