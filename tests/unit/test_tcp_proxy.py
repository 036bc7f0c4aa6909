"""The proxy that fault tests put into the network: each kind of trouble as both ends see it, on real sockets."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from harness.tcp_proxy import TcpProxy, Way

WAIT_S = 20.0


class Peer:
    """A server of one connection at a time, which keeps what it got and can answer."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(WAIT_S)
        self.address: tuple[str, int] = self.listener.getsockname()

    def accept(self) -> socket.socket:
        """The next connection."""
        end, _ = self.listener.accept()
        end.settimeout(WAIT_S)
        return end


@pytest.fixture
def peer() -> Iterator[Peer]:
    peer = Peer()
    with peer.listener:
        yield peer


@pytest.fixture
def proxy(peer: Peer) -> Iterator[TcpProxy]:
    with TcpProxy(peer.address) as proxy:
        yield proxy


def connect(proxy: TcpProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=WAIT_S)


@pytest.fixture
def ends(proxy: TcpProxy, peer: Peer) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection through the proxy: the client's end and the server's."""
    with connect(proxy) as client, peer.accept() as server:
        yield client, server


def read(end: socket.socket, count: int) -> bytes:
    """Exactly so many bytes."""
    data = b""
    while len(data) < count:
        piece = end.recv(count - len(data))
        assert piece, f"closed after {len(data)} of {count} bytes"
        data += piece
    return data


def read_to_reset(end: socket.socket) -> bytes:
    """What comes before the reset, which must come."""
    data = b""
    while True:
        try:
            piece = end.recv(65_536)
        except ConnectionResetError:
            return data
        assert piece, "closed in order, not reset"
        data += piece


def silent(end: socket.socket) -> bool:
    """Whether nothing comes, not even an end, for a moment."""
    end.settimeout(0.1)
    try:
        end.recv(1)
    except TimeoutError:
        return True
    finally:
        end.settimeout(WAIT_S)
    return False


def eventually(true: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < deadline_s
        time.sleep(0.002)


Ends = tuple[socket.socket, socket.socket]


def test_passes_bytes_and_ends_on_both_ways(ends: Ends, proxy: TcpProxy) -> None:
    """Every byte arrives in order, and a half-close one way leaves the other way open."""
    client, server = ends
    data = bytes(range(256)) * 8_192

    def send() -> None:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)

    sender = threading.Thread(target=send)
    sender.start()
    assert read(server, len(data)) == data
    assert server.recv(1) == b""
    sender.join()
    server.sendall(b"answer")
    server.close()
    assert read(client, 6) == b"answer"
    assert client.recv(1) == b""
    assert proxy.passed == {"to_server": len(data), "to_client": 6}
    eventually(lambda: proxy.live == 0)


def test_passes_a_reset_on(ends: Ends) -> None:
    """When the server resets its connection, so is the client's."""
    client, server = ends
    server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    server.close()
    assert read_to_reset(client) == b""


def test_delay_holds_bytes_and_keeps_the_rate(ends: Ends, proxy: TcpProxy) -> None:
    """A byte takes the delay each way; many chunks sent together take it once."""
    client, server = ends
    proxy.delay(0.2)
    began = time.monotonic()
    for _ in range(20):
        client.sendall(b"x" * 1_000)
        time.sleep(0.005)
    read(server, 20_000)
    there_s = time.monotonic() - began
    assert 0.2 <= there_s < 2.0  # one after the other, they would take 4 s
    began = time.monotonic()
    server.sendall(b"y")
    read(client, 1)
    assert time.monotonic() - began >= 0.2
    proxy.delay(10 * WAIT_S)
    proxy.pass_on()
    client.sendall(b"x")
    read(server, 1)


def test_throttle_bounds_the_rate(ends: Ends, proxy: TcpProxy) -> None:
    """So many bytes take at least their time at the rate."""
    client, server = ends
    proxy.throttle(100_000)
    began = time.monotonic()
    client.sendall(b"x" * 30_000)
    read(server, 30_000)
    assert time.monotonic() - began >= 0.29


def test_cut_resets_both_ends_of_live_connections_only(ends: Ends, proxy: TcpProxy, peer: Peer) -> None:
    """A cut tells both ends by RST, and the next connection passes."""
    client, server = ends
    assert proxy.cut() == 1
    read_to_reset(client)
    read_to_reset(server)
    assert (proxy.cuts, proxy.live) == (1, 0)
    with connect(proxy) as again, peer.accept() as end:
        again.sendall(b"x")
        assert read(end, 1) == b"x"


@pytest.mark.parametrize("count", [0, 1, 70_000])
@pytest.mark.parametrize("way", ["to_server", "to_client"])
def test_cut_after_passes_exactly_so_many_bytes(ends: Ends, proxy: TcpProxy, way: Way, count: int) -> None:
    """The bytes before the cut arrive and those after it do not; both ends are reset."""
    source, target = ends if way == "to_server" else ends[::-1]
    proxy.cut_after(count, way)
    data = bytes(range(250)) * 400

    def send() -> None:
        with contextlib.suppress(OSError):
            source.sendall(data)

    sender = threading.Thread(target=send)
    sender.start()
    assert read_to_reset(target) == data[:count]
    sender.join()
    read_to_reset(source)
    assert proxy.cuts == 1


def test_cut_after_counts_over_connections_and_cuts_once(proxy: TcpProxy, peer: Peer) -> None:
    """Bytes of two connections count together; the one that goes on is cut, the other lives, and so do later ones."""
    with (
        connect(proxy) as one,
        peer.accept() as one_server,
        connect(proxy) as two,
        peer.accept() as two_server,
    ):
        proxy.cut_after(10, "to_server")
        one.sendall(b"123456")
        read(one_server, 6)
        two.sendall(b"abcdef")
        assert read_to_reset(two_server) == b"abcd"
        one.sendall(b"7" * 100)
        assert read(one_server, 100) == b"7" * 100


def test_refuse_and_listen_again_on_the_same_port(ends: Ends, proxy: TcpProxy, peer: Peer) -> None:
    """New connections are refused and live ones go on; nobody else gets the port meanwhile."""
    client, server = ends
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        connect(proxy)
    with pytest.raises(OSError, match="in use"), socket.socket() as other:
        other.bind(("127.0.0.1", proxy.port))
    client.sendall(b"x")
    assert read(server, 1) == b"x"
    proxy.pass_on()
    with connect(proxy) as again, peer.accept() as end:
        again.sendall(b"y")
        assert read(end, 1) == b"y"


def test_a_black_hole_accepts_and_says_nothing(ends: Ends, proxy: TcpProxy, peer: Peer) -> None:
    """Nothing passes on old and new connections, no end is told; afterwards what was held arrives."""
    client, server = ends
    proxy.black_hole()
    client.sendall(b"held")
    with connect(proxy) as other:
        other.sendall(b"new")
        assert silent(server)
        assert silent(client)
        assert silent(other)
        proxy.pass_on()
        assert read(server, 4) == b"held"
        with peer.accept() as end:
            assert read(end, 3) == b"new"


def test_a_cut_ends_a_black_hole_for_who_waits_in_it(proxy: TcpProxy) -> None:
    """A connection that waits to be passed on is cut like any other."""
    proxy.black_hole()
    with connect(proxy) as client:
        eventually(lambda: proxy.live == 1)
        assert proxy.cut() == 1
        read_to_reset(client)


@pytest.mark.parametrize("lose", ["server", "client"])
def test_half_open_tells_one_end_only(ends: Ends, proxy: TcpProxy, peer: Peer, lose: str) -> None:
    """One end is reset; the other goes on writing, and hears nothing. New connections pass."""
    client, server = ends
    left, lost = (client, server) if lose == "server" else (server, client)
    assert proxy.half_open("server" if lose == "server" else "client") == 1
    read_to_reset(lost)
    left.sendall(b"x" * 1_000_000)
    assert silent(left)
    with connect(proxy) as again, peer.accept() as end:
        again.sendall(b"y")
        assert read(end, 1) == b"y"
    assert proxy.cut() >= 1
    read_to_reset(left)


def test_a_server_that_is_not_there_resets_the_client(peer: Peer) -> None:
    """The proxy accepts before it knows, so the client sees a reset."""
    peer.listener.close()
    with TcpProxy(peer.address) as proxy:
        try:
            client = connect(proxy)
        except ConnectionResetError:
            return  # so soon that it was not connected yet
        with client:
            read_to_reset(client)


def test_closing_ends_everything(peer: Peer) -> None:
    """No thread, connection or port is left, and closing again does nothing."""
    proxy = TcpProxy(peer.address).start()
    with connect(proxy) as client, peer.accept() as server:
        proxy.close()
        read_to_reset(client)
        read_to_reset(server)
    assert "tcp-proxy" not in [thread.name for thread in threading.enumerate()]
    with pytest.raises(ConnectionRefusedError):
        connect(proxy)
    proxy.close()
