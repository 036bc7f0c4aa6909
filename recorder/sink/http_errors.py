"""What went wrong between us and a ClickHouse server, in one line with what to do. No password is ever in it.

The driver wraps what urllib3 wraps what the socket said; `failure_of` looks for the innermost cause that a person can
do something about. Whether the request was sent at all is part of the answer: what was never sent never ran.
"""

from __future__ import annotations

import http.client
import re
import socket
import ssl
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from clickhouse_connect.driver.exceptions import (
    DatabaseError,
    OperationalError,
    ProgrammingError,
    StreamCompleteException,
)
from urllib3 import exceptions as urllib3
from urllib3.util.ssl_match_hostname import CertificateError

from recorder.sink.codes import MESSAGE_CHARS, classify
from recorder.sink.errors import HoldError, SinkError, SinkUnavailable, UnknownError

LOGIN_CODES = frozenset({192, 193, 194, 516})
UNKNOWN_SETTING = 115
_ACCESS_DENIED = 497
_UNKNOWN_DATABASE = 81

_PREFIX = re.compile(
    r"^Received ClickHouse exception, code: \d+, server response: (?:Code: \d+\. )?(?:DB::Exception: )?"
)
_STATUS = re.compile(
    r"^HTTP driver received HTTP status (?P<status>\d{3})(?:, server response: (?P<body>.*))?", re.DOTALL
)
_TAGS = re.compile(r"<(?:script|style).*?</(?:script|style)>|<[^>]*>", re.DOTALL | re.IGNORECASE)
_NOT_OURS = "not ClickHouse's; name the server's HTTP port in target (8123, with TLS 8443)"
_PASSING = frozenset({408, 425, 429})
_REFUSED = frozenset({401, 403, 407})
_EXPIRED, _NOT_YET = 10, 9
NAMES_SHOWN = 5
"""Of a certificate."""


class HostFailed(Exception):  # noqa: N818 - says what happened
    """A call to a host failed. `kind` says what the caller does next.

    `sent` is false where the request certainly never left, `reached` where the host (or what stands in for it) gave
    an answer of its own.
    """

    def __init__(
        self, kind: type[SinkError], message: str, *, code: int = 0, sent: bool = True, reached: bool = True
    ):
        super().__init__(message)
        self.kind = kind
        self.code = code
        self.sent = sent
        self.reached = reached

    def told(self, what: str) -> SinkError:
        """The sink's error; `what` names the table or statement."""
        return self.kind(f"{what}: {self}", code=self.code)


def failure_of(error: BaseException, place: str, user: str, *, opening: bool = False) -> HostFailed:
    """What an error of the driver means; `place` is the URL of the host, without credentials.

    `opening` says that nothing came from there yet: it may be no ClickHouse at all.
    """
    if isinstance(error, HostFailed):
        return error
    if isinstance(error, SinkError):
        return HostFailed(type(error), str(error), code=error.code)
    if code := getattr(error, "code", None) or 0:
        return _of_server(error, int(code), place, user)
    if isinstance(error, DatabaseError) and (found := _STATUS.match(str(error))):
        return _of_proxy(int(found["status"]), found["body"] or "", place)
    if isinstance(error, ProgrammingError):
        return HostFailed(UnknownError, f"{place}: {_short(str(error))}", sent=False)
    if isinstance(error, pa.ArrowInvalid):
        return HostFailed(
            SinkUnavailable, f"{place}: the answer is cut short or not ClickHouse's ({_short(str(error))})"
        )
    if isinstance(error, OperationalError | urllib3.HTTPError | http.client.HTTPException | OSError):
        return _of_transport(error, place, opening=opening)
    return HostFailed(UnknownError, f"{place}: {_short(str(error)) or type(error).__name__}")


def _of_server(error: BaseException, code: int, place: str, user: str) -> HostFailed:
    """ClickHouse itself said no."""
    message = _short(_PREFIX.sub("", " ".join(str(error).split())))
    name = f"user {user}" if user else "the default user"
    if code in LOGIN_CODES:
        message = (
            f"{place}: the server refuses the login of {name}: wrong password, or no such user; correct target or "
            "target_password_file"
        )
    elif code == _ACCESS_DENIED:
        message = (
            f"{place}: {name} lacks a right; let an administrator run GRANT for what is named here: {message}"
        )
    elif code == _UNKNOWN_DATABASE:
        message = f'{place}: {message}; make it with "recorder migrate up", or name another in target'
    return HostFailed(classify(code, message), message, code=code)


def _of_proxy(status: int, body: str, place: str) -> HostFailed:
    """An answer without ClickHouse's code: a proxy's, a balancer's, or another program's."""
    text = _short(_TAGS.sub(" ", body))[:200]
    said = f"{place}: HTTP status {status} without a code of ClickHouse" + (f" ({text})" if text else "")
    if status >= 500 or status in _PASSING:
        # What it stands before may have run the statement all the same.
        return HostFailed(
            SinkUnavailable, f"{said}; the server behind it is down or overloaded", reached=status == 500
        )
    if status in _REFUSED:
        return HostFailed(HoldError, f"{said}; a proxy refuses the request: see to its rules or its login")
    if status == 413:
        return HostFailed(
            HoldError, f"{said}; a proxy refuses bodies of this size: raise its limit, or lower batch_bytes"
        )
    if "port 9000" in text.lower() or "clickhouse-client" in text.lower():
        return HostFailed(
            SinkUnavailable, f"{said}; name the server's HTTP port in target (8123, with TLS 8443)"
        )
    return HostFailed(
        UnknownError, f"{said}; is this ClickHouse's HTTP port? Name it in target (8123, with TLS 8443)"
    )


def _of_transport(error: BaseException, place: str, *, opening: bool) -> HostFailed:
    """No answer. The causes are looked through from the outside in; the first that is known says why."""
    causes = list(_causes(error))

    def first(*kinds: type[BaseException]) -> BaseException | None:
        return next((cause for cause in causes if isinstance(cause, kinds)), None)

    def gone(message: str, *, sent: bool = False) -> HostFailed:
        return HostFailed(SinkUnavailable, f"{place}: {message}", sent=sent, reached=False)

    if found := first(ssl.SSLCertVerificationError):
        return gone(_of_certificate(found))
    if found := first(CertificateError):
        return gone(_of_name(found))
    if found := first(ssl.SSLError):
        return gone(_of_tls(found), sent=True)
    if first(socket.gaierror, urllib3.NameResolutionError):
        return gone("the name cannot be resolved; correct the host in target, or see to DNS")
    if first(ConnectionRefusedError):
        return gone(
            "connection refused; is the server running, and is this its HTTP port (8123, with TLS 8443)?"
        )
    if refused := first(urllib3.NewConnectionError):
        return gone(f"no connection ({_reason(refused)}); see to the network, or correct the host in target")
    if first(urllib3.ConnectTimeoutError):  # its subclass NewConnectionError came before
        return gone(
            "no connection within connect_timeout_s; is the host up, and does a firewall let us through?"
        )
    if first(http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError, urllib3.IncompleteRead):
        if opening and place.startswith("http://"):
            return gone(
                "the connection was cut before the first answer; does the server speak TLS on this port? Then write "
                "https:// in target; else name its HTTP port (8123)",
                sent=True,
            )
        return gone("the connection was cut before the answer", sent=True)
    if first(http.client.HTTPException, urllib3.InvalidHeader):
        return gone(
            "what listens there speaks no HTTP; name the server's HTTP port in target (8123), or write https:// where "
            "it speaks TLS (8443)",
            sent=True,
        )
    if first(urllib3.ReadTimeoutError, TimeoutError):
        return gone(
            "connected, but no answer in time; does the server hang, or is this another program's port?",
            sent=True,
        )
    if first(urllib3.ClosedPoolError):
        return gone("the connections were being renewed")
    if first(StreamCompleteException) or str(error).startswith("Unexpected response"):
        return HostFailed(SinkUnavailable, f"{place}: the answer is cut short, or {_NOT_OURS}")
    return gone(f"no answer ({_reason(error)})", sent=True)


def _of_certificate(error: BaseException) -> str:
    code = getattr(error, "verify_code", 0)
    why = getattr(error, "verify_message", "") or str(error)
    if code == _EXPIRED:
        return "the server's certificate has expired; renew it there"
    if code == _NOT_YET:
        return "the server's certificate is not valid yet; see to the clocks of both machines"
    return f"the server's certificate is not trusted ({why}); name the file of the authority that signed it in tls_ca"


def _of_name(error: BaseException) -> str:
    """The certificate is good, and for another name; urllib3 leaves it on its error."""
    found: Any = getattr(error, "_peer_cert", None) or {}
    names = [name for _, name in found.get("subjectAltName", ())]
    if not names:
        return "the server's certificate names no host; let the server have one with its name (as subjectAltName)"
    wanted = re.search(r"hostname '([^']*)'", str(error))
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return (
        f"the server's certificate is for {', '.join(names[:NAMES_SHOWN])}{more}, not for "
        f"{wanted[1] if wanted else 'this name'}; set tls_server_name to a name that it has, or name the host so in "
        "target"
    )


def _of_tls(error: BaseException) -> str:
    if isinstance(error, ssl.SSLEOFError):
        return (
            "the TLS connection was cut; did the server end, does it want a client certificate (tls_cert), or does it "
            "speak no TLS on this port?"
        )
    reason = (getattr(error, "reason", None) or str(error)).replace("_", " ").lower()
    if any(word in reason for word in ("certificate required", "handshake failure", "peer did not return")):
        return f"the server wants a client certificate ({reason}); name one in tls_cert and tls_key"
    if any(
        word in reason
        for word in ("unknown ca", "bad certificate", "certificate unknown", "certificate expired")
    ):
        return f"the server refuses our client certificate ({reason}); name another in tls_cert"
    if any(word in reason for word in ("wrong version number", "record layer failure", "http request")):
        return f"what listens there speaks no TLS ({reason}); write http://, or name its TLS port in target (8443)"
    return f"TLS failed ({reason})"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error, and all it was raised for, each once."""
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        cause = waiting.pop(0)
        if isinstance(cause, BaseException) and id(cause) not in seen:
            seen.add(id(cause))
            yield cause
            waiting += [cause.__cause__, cause.__context__, getattr(cause, "reason", None), *cause.args]


def _reason(error: BaseException) -> str:
    """The innermost words, without addresses of Python objects."""
    *_, last = _causes(error)
    return _short(getattr(last, "strerror", None) or str(last) or type(last).__name__)


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= MESSAGE_CHARS else text[:MESSAGE_CHARS] + " …"
