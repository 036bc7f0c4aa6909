"""What keeps a server from being used is one line: where, what, and what to do; no password is ever in it.

What answers here are real sockets, TLS and HTTP servers of the test's own, because most of it is not ClickHouse.
"""

from __future__ import annotations

import contextlib
import datetime
import http.server
import logging
import pathlib
import re
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trustme
from pydantic import SecretStr

from recorder.sink.errors import HoldError, SinkError, SinkUnavailable, UnknownError
from recorder.sink.http import HttpSink
from recorder.sink.http_access import Access, Tls
from recorder.target import parse_target

PASSWORD = "s3cret-of-mine"


class Front(http.server.ThreadingHTTPServer):
    """Answers every request with the same status, headers and body."""

    daemon_threads = True

    def __init__(self, status: int, body: bytes, headers: dict[str, str]):
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)

    def handle_error(self, *_: Any) -> None:
        """Clients that do not trust us hang up."""


@contextlib.contextmanager
def front(
    status: int = 200, body: bytes = b"", *, tls: ssl.SSLContext | None = None, **headers: str
) -> Iterator[int]:
    """The port of a `Front`."""
    server = Front(status, body, {name.replace("_", "-"): value for name, value in headers.items()})
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def listener(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """The port of something that takes connections and does with each what it likes."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection, contextlib.suppress(OSError):
                        talk(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


async def refusal(url: str, **options: Any) -> SinkError:
    """What starting a sink on a target raises; it is one line without a password, and holds nothing open."""
    target = parse_target(url.replace("://", f"://writer:{PASSWORD}@", 1))
    tls = Tls(**{name: options.pop(name) for name in list(options) if name in Tls.__dataclass_fields__})
    given: dict[str, Any] = {
        "user": target.user,
        "password": target.password,
        "connect_timeout_s": 2,
        **options,
    }
    sink = HttpSink(target, access=Access(target.scheme, tls=tls, **given), close_wait_s=1)
    try:
        with pytest.raises(SinkError) as caught:
            await sink.start()
    finally:
        await sink.close()
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    assert PASSWORD not in text
    assert PASSWORD not in repr(sink._access)
    return caught.value


async def test_nobody_listens() -> None:
    """A port that is closed, and a name that nobody knows."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    error = await refusal(f"http://127.0.0.1:{port}")
    assert isinstance(error, SinkUnavailable)
    assert f"http://127.0.0.1:{port}: connection refused; is the server running" in str(error)
    error = await refusal("http://no-such-host.invalid:8123")
    assert isinstance(error, SinkUnavailable)
    assert "http://no-such-host.invalid:8123: the name cannot be resolved; correct the host" in str(error)


async def test_a_host_that_does_not_let_us_connect() -> None:
    """A full backlog is what a firewall that drops packets looks like: the connection is given up in time."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        with contextlib.ExitStack() as waiting:
            for _ in range(8):
                knock = waiting.enter_context(socket.socket())
                knock.setblocking(False)
                knock.connect_ex(full.getsockname())
            error = await refusal(f"http://127.0.0.1:{full.getsockname()[1]}", connect_timeout_s=0.5)
    assert isinstance(error, SinkUnavailable)
    assert "no connection within connect_timeout_s" in str(error)


async def test_a_port_that_speaks_no_http() -> None:
    """Another program's port: one that greets, one that hangs up, one of ClickHouse's own protocol."""

    def greet(connection: socket.socket) -> None:
        connection.recv(1)
        connection.sendall(b"-ERR unknown command 'POST'\r\n" * 3)

    with listener(greet) as port:
        error = await refusal(f"http://127.0.0.1:{port}")
    assert isinstance(error, SinkUnavailable)
    assert "speaks no HTTP; name the server's HTTP port" in str(error)
    with listener(lambda connection: None) as port:
        assert "cut before the first answer" in str(await refusal(f"http://127.0.0.1:{port}"))
    native = b"Port 9000 is for clickhouse-client program\r\nYou must use port 8123 for HTTP.\r\n"
    with front(400, native) as port:
        error = await refusal(f"http://127.0.0.1:{port}")
    assert isinstance(error, SinkUnavailable)
    assert "name the server's HTTP port in target (8123, with TLS 8443)" in str(error)


async def test_a_port_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that takes connections and is silent is given up in time."""
    monkeypatch.setattr("recorder.sink.http_client.OPENING_S", 0)
    silence = threading.Event()
    with listener(lambda connection: bool(silence.wait(30)) and None) as port:
        error = await refusal(f"http://127.0.0.1:{port}", connect_timeout_s=1)
        silence.set()
    assert isinstance(error, SinkUnavailable)
    assert "connected, but no answer in time" in str(error)


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (
            500,
            SinkUnavailable,
            "HTTP status 500 without a code of ClickHouse (Bad day); the server behind it",
        ),
        (502, SinkUnavailable, "HTTP status 502"),
        (503, SinkUnavailable, "HTTP status 503"),
        (504, SinkUnavailable, "HTTP status 504"),
        (429, SinkUnavailable, "HTTP status 429"),
        (401, HoldError, "a proxy refuses the request"),
        (413, HoldError, "lower batch_bytes"),
        (404, UnknownError, "is this ClickHouse's HTTP port?"),
    ],
)
async def test_a_proxy_answers_instead(status: int, kind: type[SinkError], words: str) -> None:
    """A status without ClickHouse's code is a proxy's: 5xx and 429 pass, what it refuses holds."""
    with front(status, b"<html><style>b{}</style><h1>Bad   day</h1></html>") as port:
        error = await refusal(f"http://127.0.0.1:{port}")
    assert type(error) is kind
    assert words in str(error)
    assert "<" not in str(error)


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (516, HoldError, "refuses the login of user writer: wrong password, or no such user; correct target"),
        (
            497,
            HoldError,
            "user writer lacks a right; let an administrator run GRANT for what is named here: ",
        ),
        (81, HoldError, 'make it with "recorder migrate up"'),
        (241, SinkError, "memory"),
    ],
)
async def test_clickhouse_says_no(code: int, kind: type[SinkError], words: str) -> None:
    """Its code decides the class; its words stay, without version and address."""
    said = f"Code: {code}. DB::Exception: not enough memory or rights. (NAME) (version 26.9.2.1)".encode()
    with front(403, said, X_ClickHouse_Exception_Code=str(code)) as port:
        error = await refusal(f"http://127.0.0.1:{port}")
    assert isinstance(error, kind)
    assert error.code == code
    assert words in str(error)
    assert "version" not in str(error)


async def test_what_answers_is_no_clickhouse() -> None:
    """A page that is no answer is not taken for one."""
    for body in (b"<html>welcome to nginx</html>", b"21.3.4.25\tUTC\n"):
        with front(200, body) as port:
            error = await refusal(f"http://127.0.0.1:{port}")
        assert isinstance(error, SinkUnavailable)
        assert "not ClickHouse's; name the server's HTTP port" in str(error)


# -- TLS --


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def context(cert: trustme.LeafCert) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    cert.configure_cert(made)
    return made


@pytest.fixture
def ca(authority: trustme.CA, tmp_path: pathlib.Path) -> pathlib.Path:
    file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    return file


async def test_certificates_that_are_not_good(authority: trustme.CA, ca: pathlib.Path) -> None:
    """Expired, signed by somebody else, for another name: each says which, and the setting that mends it."""
    past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    expired = authority.issue_cert("127.0.0.1", not_after=past)
    with front(503, tls=context(expired)) as port:
        assert "certificate has expired; renew it there" in str(
            await refusal(f"https://127.0.0.1:{port}", ca=ca)
        )
    with front(503, tls=context(trustme.CA().issue_cert("127.0.0.1"))) as port:
        for options in ({"ca": ca}, {}):
            error = await refusal(f"https://127.0.0.1:{port}", **options)
            assert "is not trusted" in str(error)
            assert "in tls_ca" in str(error)


async def test_a_certificate_for_another_name(
    authority: trustme.CA, ca: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The line says which name was wanted, which are there and what to set; nothing is sent, and no dump is logged."""
    many = [f"h{n}.example" for n in range(7)]
    seen: list[bytes] = []

    def talk(connection: socket.socket) -> None:
        with context(authority.issue_cert(*many)).wrap_socket(connection, server_side=True) as tls:
            seen.append(tls.recv(100))

    with listener(talk) as port:
        error = await refusal(f"https://127.0.0.1:{port}", ca=ca)
        other = await refusal(f"https://127.0.0.1:{port}", ca=ca, server_name="else.where")
    assert isinstance(error, SinkUnavailable)
    has = "the server's certificate is for h0.example, h1.example, h2.example, h3.example, h4.example and 2 more"
    what = "set tls_server_name to a name that it has, or name the host so in target"
    assert str(error) == f"target: https://127.0.0.1:{port}: {has}, not for 127.0.0.1; {what}"
    assert f"{has}, not for else.where; {what}" in str(other)
    assert seen == [b"", b""]
    assert caplog.text == ""


def test_others_in_the_process_hear_of_certificates_as_ever(caplog: pytest.LogCaptureFixture) -> None:
    """Only what the sink itself asks for is kept from the log."""
    Access("http").pool("a", 1)
    log = logging.getLogger("urllib3.connection")
    log.warning("Certificate did not match expected hostname: %s. Certificate: %s", "a", {})
    assert "Certificate did not match" in caplog.text


# The driver tells urllib3 not to warn, and pytest has warnings of its own: what else the process says is below.
@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
@pytest.mark.parametrize("how", ["trusted", "named", "unverified"])
async def test_certificates_that_will_do(
    authority: trustme.CA, ca: pathlib.Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Signed by the authority given, for the name given, or not looked at, which warns: the server is reached."""
    cert = authority.issue_cert("clickhouse.example" if how == "named" else "127.0.0.1")
    options: dict[str, dict[str, Any]] = {
        "trusted": {"ca": ca},
        "named": {"ca": ca, "server_name": "clickhouse.example"},
        "unverified": {"verify": False},
    }
    with front(503, tls=context(cert)) as port:
        error = await refusal(f"https://127.0.0.1:{port}", **options[how])
    assert "HTTP status 503" in str(error)  # so the connection was made
    assert ("tls_verify is off" in caplog.text) == (how == "unverified")


UNVERIFIED = """
import sys
from recorder.sink.http_access import Access, Tls

pool = Access("https", tls=Tls(verify=False)).pool("127.0.0.1", 1)
print(*(pool.request("GET", sys.argv[1]).status for _ in range(3)))
"""


def test_that_certificates_are_not_looked_at_is_said_once(authority: trustme.CA) -> None:
    """By the recorder's own warning, however many connections there are; urllib3 would warn of each."""
    with front(503, tls=context(authority.issue_cert("127.0.0.1")), Connection="close") as port:
        done = subprocess.run(
            [sys.executable, "-c", UNVERIFIED, f"https://127.0.0.1:{port}"],
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
    assert done.stdout.split() == ["503"] * 3
    (line,) = done.stderr.splitlines()
    assert "tls_verify is off" in line


async def test_client_certificates(authority: trustme.CA, ca: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """A server that wants one is told apart from one that refuses ours; with the right one it is reached."""
    wanting = context(authority.issue_cert("127.0.0.1"))
    wanting.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(wanting)
    files = {}
    for name, signer in (("good", authority), ("bad", trustme.CA())):
        leaf = signer.issue_cert("writer@example.org")
        files[name] = tmp_path / f"{name}.pem", tmp_path / f"{name}.key"
        leaf.cert_chain_pems[0].write_to_path(str(files[name][0]))
        leaf.private_key_pem.write_to_path(str(files[name][1]))
    with front(503, tls=wanting) as port:
        url = f"https://127.0.0.1:{port}"
        good = await refusal(url, ca=ca, cert=files["good"][0], key=files["good"][1])
        assert "HTTP status 503" in str(good)
        # OpenSSL may see the end of the connection before the alert that says why.
        assert re.search(
            r"name one in tls_cert|want a client certificate \(tls_cert\)", str(await refusal(url, ca=ca))
        )
        bad = await refusal(url, ca=ca, cert=files["bad"][0], key=files["bad"][1])
        assert re.search("refuses our client certificate|was cut", str(bad))


async def test_tls_where_there_is_none_and_none_where_there_is(
    authority: trustme.CA, ca: pathlib.Path
) -> None:
    """https:// to a plain port and http:// to a TLS port say so."""
    with front(503) as port:
        error = await refusal(f"https://127.0.0.1:{port}", ca=ca)
        assert "speaks no TLS" in str(error)
    with front(503, tls=context(authority.issue_cert("127.0.0.1"))) as port:
        error = await refusal(f"http://127.0.0.1:{port}")
        assert isinstance(error, SinkUnavailable)
        assert re.search("speak TLS on this port|no HTTP", str(error))
        assert "https://" in str(error)


async def test_files_that_cannot_be_used(tmp_path: pathlib.Path) -> None:
    """A file for TLS or with the password that is missing or something else is named with its setting."""
    none = tmp_path / "none.pem"
    error = await refusal("https://127.0.0.1:1", ca=none)
    assert f"tls_ca {none}: No such file" in str(error)
    none.write_text("hello")
    error = await refusal("https://127.0.0.1:1", ca=none)
    assert f"tls_ca {none}: is no PEM file; name the PEM file of the authority" in str(error)
    none.write_text("-----BEGIN CERTIFICATE-----\nhello\n-----END CERTIFICATE-----\n")
    assert f"tls_ca {none}: no certificate can be read" in str(await refusal("https://127.0.0.1:1", ca=none))
    leaf, key = tmp_path / "leaf.pem", tmp_path / "other.key"
    trustme.CA().issue_cert("a").cert_chain_pems[0].write_to_path(str(leaf))
    trustme.CA().issue_cert("b").private_key_pem.write_to_path(str(key))
    error = await refusal("https://127.0.0.1:1", cert=leaf, key=key)
    said = f"tls_cert {leaf} and tls_key {key}: do not make a certificate with its key (key values mismatch); give"
    assert said in str(error)
    error = await refusal("https://127.0.0.1:1", cert=leaf)
    assert f"tls_cert {leaf}: holds no private key, and tls_key is not set; name the file of its key" in str(
        error
    )
    error = await refusal("https://127.0.0.1:1", cert=leaf, key=leaf)
    assert f"tls_key {leaf}: holds no private key; name the PEM file" in str(error)
    missing = tmp_path / "password"
    error = await refusal("http://127.0.0.1:1", password=None, password_file=missing)
    assert f"target_password_file {missing} (No such file or directory); name a file" in str(error)
    error = await refusal("http://127.0.0.1:1", password=None, password_file=tmp_path)
    assert f"target_password_file {tmp_path} (Is a directory); name a file" in str(error)
    missing.write_bytes(b"\xff")
    error = await refusal("http://127.0.0.1:1", password=None, password_file=missing)
    assert f"target_password_file {missing} (it is not UTF-8); name a file" in str(error)
    assert str(SecretStr(PASSWORD)) not in str(error)
