"""How servers of a target are reached over HTTP(S): login, TLS, compression, connections. Opens clients, keeps none.

Nothing is repeated behind our back: urllib3 would send an insert again after an error of TLS (`Once`), the driver after
some statuses (`query_retries`) and after a connection that broke, unless the body is no bytes (`http_body`). What is
still repeated by the driver are reads of which the connection broke. Proxies that the environment names are not used.

Names in certificates are compared by urllib3, before anything is sent: unlike OpenSSL it tells which are there.
"""

from __future__ import annotations

import contextlib
import logging
import pathlib
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import clickhouse_connect
from clickhouse_connect.driver import httputil
from clickhouse_connect.driver.httpclient import HttpClient
from pydantic import SecretStr
from urllib3 import BaseHTTPResponse, PoolManager, Timeout
from urllib3.util.ssl_ import create_urllib3_context

from recorder.sink.errors import SinkUnavailable, UnknownError
from recorder.sink.http_errors import HostFailed

log = logging.getLogger(__name__)

OLDEST_VERSION = (24, 8)
"""Older servers are refused: they lack settings that an insert needs, and nobody tried them."""
OPENING_S = 5.0
"""How long a server that is connected may take for each of the three questions a new client has."""
_FOREVER_S = 100 * 365 * 86_400
_KEY = b"PRIVATE KEY-----"
_NEEDED = {
    "tls_ca": "name the PEM file of the authority that signed the server's certificate",
    "tls_cert": "name the PEM file of the client certificate",
    "tls_key": "name the PEM file of the client certificate's key",
}


class Once(PoolManager):
    """Connections over which every request goes once, with the limits of the thread that calls, whatever the driver
    asks for: its client is shared by all threads, and has one limit for all."""

    def __init__(self, **options: Any):
        super().__init__(**options)
        self._limits = threading.local()
        logging.getLogger("urllib3.connection").addFilter(_no_certificates)

    @contextlib.contextmanager
    def within(self, connect_s: float, read_s: float | None) -> Iterator[None]:
        """The limits of this thread's requests, for as long as the context lasts; None is none."""
        before = getattr(self._limits, "timeout", None)
        self._limits.timeout = Timeout(connect=connect_s, read=read_s)
        try:
            yield
        finally:
            self._limits.timeout = before

    def urlopen(  # type: ignore[override]
        self, method: str, url: str, redirect: bool = True, **options: Any
    ) -> BaseHTTPResponse:
        """`PoolManager.urlopen`, without repeats."""
        timeout = getattr(self._limits, "timeout", None) or options.get("timeout")
        _calling.ours = True
        try:
            return super().urlopen(method, url, redirect, **{**options, "timeout": timeout, "retries": 0})
        finally:
            _calling.ours = False


_calling = threading.local()


def _no_certificates(record: logging.LogRecord) -> bool:
    """Keep urllib3 from logging a whole certificate that is for another name: our error says what is in it.

    Requests of others in the process log it as ever.
    """
    return not (
        getattr(_calling, "ours", False)
        and record.msg.startswith("Certificate did not match expected hostname")
    )


@dataclass(frozen=True)
class Tls:
    """What a TLS connection is made with; files are PEM. Unset authorities are the system's."""

    ca: pathlib.Path | None = None
    cert: pathlib.Path | None = None
    key: pathlib.Path | None = None
    server_name: str | None = None
    verify: bool = True

    def context(self) -> ssl.SSLContext:
        """For all connections to a host: made once, because reading authorities takes longer than a handshake.

        Raises:
            HostFailed: a file cannot be used.
        """
        context = create_urllib3_context(cert_reqs=ssl.CERT_REQUIRED if self.verify else ssl.CERT_NONE)
        for name, file in (("tls_ca", self.ca), ("tls_cert", self.cert), ("tls_key", self.key)):
            if file is not None:
                _must_read(name, file)
        try:
            if self.ca is not None:
                context.load_verify_locations(self.ca)
            else:
                context.load_default_certs()
        except (ssl.SSLError, ValueError) as error:
            raise _unusable(
                f"tls_ca {self.ca}: no certificate can be read from it ({_ssl_reason(error)}); name the PEM file of "
                "the authority that signed the server's certificate"
            ) from None
        if self.cert is not None:
            _load_own(context, self.cert, self.key)
        return context


@dataclass(frozen=True)
class Access:
    """See the module. `password_file` is read at each client that is opened, so that a new password is taken up."""

    scheme: str
    user: str = ""
    password: SecretStr | None = None
    password_file: pathlib.Path | None = None
    tls: Tls = Tls()
    compression: str = "lz4"
    connect_timeout_s: float = 5.0

    def place(self, name: str, port: int) -> str:
        """The URL of a host, without credentials: for messages."""
        return f"{self.scheme}://[{name}]:{port}" if ":" in name else f"{self.scheme}://{name}:{port}"

    def pool(self, name: str, connections: int) -> Once:
        """Connections to the host of that name: at most so many are kept alive; more are opened where they are needed.

        Raises:
            HostFailed: a file for TLS cannot be used.
        """
        tls = self.tls
        options: dict[str, Any] = {"maxsize": connections, "num_pools": 1}
        if self.scheme == "https":
            options |= {"verify": tls.verify, "ssl_context": tls.context()}
            if not tls.verify:
                log.warning(
                    "tls_verify is off: the certificate of %s is not checked, and whoever is in between can read and "
                    "change every row; set tls_ca instead",
                    name,
                )
            if tls.server_name:
                options["server_hostname"] = tls.server_name
            if tls.verify:
                options["assert_hostname"] = tls.server_name or name.rstrip(".")
        pool = Once(**httputil.get_pool_manager_options(**options))
        # Or the driver closes all connections at some age, under calls of other threads; `Host` sees to DNS itself.
        httputil.all_managers[pool] = int(time.time()) + _FOREVER_S
        return pool

    def client(self, pool: Once, name: str, port: int) -> HttpClient:
        """A client of one host, connected: its version is known and not too old. Errors are the driver's.

        Without a session of its own it may be called from many threads at once.

        Raises:
            HostFailed: the server is too old, or the password cannot be read.
        """
        logging.getLogger("clickhouse_connect.driver").setLevel(logging.ERROR)  # we say ourselves what failed
        tls = self.tls
        password = self._password()
        client = clickhouse_connect.get_client(
            interface=self.scheme,
            host=name,
            port=port,
            username=self.user or None,
            password=password,
            pool_mgr=pool,
            compress=self.compression if self.compression != "none" else False,
            client_cert=str(tls.cert) if tls.cert and self.scheme == "https" else None,
            # A certificate is the login of a user without a password; else it only opens the connection.
            tls_mode="strict" if password or not self.user else None,
            server_host_name=tls.server_name if self.scheme == "https" else None,
            verify=tls.verify,
            query_retries=0,
            autogenerate_session_id=False,  # a session is locked for as long as a statement of it runs
            show_clickhouse_errors="scrub",
            client_name="recorder",
        )
        assert isinstance(client, HttpClient)
        refuse_old(client.server_version or "", self.place(name, port))
        return client

    def _password(self) -> str:
        if self.password_file is None:
            return self.password.get_secret_value() if self.password else ""
        try:
            return self.password_file.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise _unusable(
                # Not a colon behind the path: what follows "password:" is taken for one, and cut out.
                f"cannot read target_password_file {self.password_file} ({why}); name a file with the password that "
                "this user may read"
            ) from None


def refuse_old(version: str, place: str) -> None:
    """Refuse a server that is too old.

    Raises:
        HostFailed: it is; or its version cannot be read.
    """
    try:
        year, month = map(int, version.split(".")[:2])
    except ValueError:
        raise HostFailed(
            UnknownError, f"{place}: says its version is {version[:40]!r}; is it ClickHouse? See target"
        ) from None
    if (year, month) < OLDEST_VERSION:
        oldest = ".".join(map(str, OLDEST_VERSION))
        raise HostFailed(
            SinkUnavailable,
            f"{place}: ClickHouse {version} is too old, the recorder needs {oldest} or newer; upgrade it",
        )


def close_pool(pool: PoolManager) -> None:
    """Close its connections, and let the driver forget it."""
    pool.clear()
    httputil.all_managers.pop(pool, None)


def _must_read(setting: str, file: pathlib.Path) -> None:
    try:
        text = file.read_bytes()
    except OSError as error:
        raise _unusable(f"{setting} {file}: {error.strerror}; name a file that can be read") from None
    if b"-----BEGIN " not in text:
        raise _unusable(f"{setting} {file}: is no PEM file; {_NEEDED[setting]}")
    if setting == "tls_key" and _KEY not in text:
        raise _unusable(f"{setting} {file}: holds no private key; {_NEEDED[setting]}")


def _load_own(context: ssl.SSLContext, cert: pathlib.Path, key: pathlib.Path | None) -> None:
    """Show this certificate to servers that want one."""
    if key is None and _KEY not in cert.read_bytes():
        raise _unusable(
            f"tls_cert {cert}: holds no private key, and tls_key is not set; name the file of its key in tls_key"
        )
    try:
        # Without a password of its own a locked key would ask for one on the terminal.
        context.load_cert_chain(cert, key, password="")
    except (ssl.SSLError, ValueError) as error:
        files = f"tls_cert {cert}" + (f" and tls_key {key}" if key else "")
        raise _unusable(
            f"{files}: do not make a certificate with its key ({_ssl_reason(error)}); give a certificate and the key "
            "it was made with, without a password"
        ) from None


def _ssl_reason(error: Exception) -> str:
    """What OpenSSL says, without its source file and line."""
    return (getattr(error, "reason", None) or str(error)).replace("_", " ").lower()


def _unusable(message: str) -> HostFailed:
    return HostFailed(SinkUnavailable, message, sent=False, reached=False)
