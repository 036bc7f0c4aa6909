"""What a request says besides its body: the query in the URL, settings, query parameters, and how to answer.

The URL's parameters are settings unless they are named here, as in ClickHouse. Headers win over parameters.
"""

from __future__ import annotations

import base64
import binascii
import re
import urllib.parse
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from recorder.devserver.errors import Code, StatementError

DEFAULT_FORMAT = "TabSeparated"
DEFAULT_SESSION_S, MAX_SESSION_S = 60, 3600
MAX_QUERY_BYTES = 262_144
"""`max_query_size` where the request does not set it."""
MOST_QUERY_BYTES = 16 << 20
"""What it may set it to: a statement is held and read in memory."""

_RESERVED = frozenset(
    (
        "query", "user", "password", "quota_key", "query_id", "stacktrace", "role", "buffer_size", "wait_end_of_query",
        "session_id", "session_timeout", "session_check", "close_session", "client_protocol_version", "database",
        "default_format", "compress", "decompress",
    )
)  # fmt: skip
_EXTERNAL = ("_format", "_types", "_structure")
_SETTING_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*\Z")
_PARAMETER = "param_"
_DIGITS = 20


@dataclass(frozen=True)
class Credentials:
    """Who a request says it is from."""

    user: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class Request:
    """A request without its body. `database` is empty where the request names none."""

    query: bytes
    query_id: str
    database: str
    default_format: str
    settings: Mapping[str, str]
    parameters: Mapping[str, str]
    session_id: str
    session_s: int
    session_check: bool
    close_session: bool
    wait_end: bool
    readonly_method: bool
    external: Mapping[str, str]

    @property
    def log_comment(self) -> str:
        """What the request calls its statement in `system.processes`."""
        return self.settings.get("log_comment", "")

    @property
    def max_query_bytes(self) -> int:
        """How long a statement may be, inline data aside; 0 in the setting is the most."""
        return up_to(self.settings.get("max_query_size", ""), MOST_QUERY_BYTES, otherwise=MAX_QUERY_BYTES)


def up_to(text: str, most: int, *, otherwise: int) -> int:
    """A number of a setting, where 0 and more than `most` are `most`; `otherwise` where it is no whole number."""
    if not (text.isascii() and text.isdecimal()):
        return otherwise
    return min(int(text) or most, most) if len(text) < _DIGITS else most


def parse(method: str, query_string: str, headers: Mapping[str, str], *, multipart: bool = False) -> Request:
    """Read a request's URL and headers.

    Raises:
        StatementError: something in it cannot be.
    """
    return build(
        urllib.parse.parse_qsl(query_string, keep_blank_values=True, errors="surrogateescape"),
        headers,
        readonly_method=method in ("GET", "HEAD"),
        multipart=multipart,
    )


def build(
    pairs: Iterable[tuple[str, str]],
    headers: Mapping[str, str],
    *,
    readonly_method: bool,
    multipart: bool,
) -> Request:
    """Sort parameters by what they mean.

    Raises:
        StatementError: something in them cannot be.
    """
    known: dict[str, str] = {}
    settings: dict[str, str] = {}
    parameters: dict[str, str] = {}
    external: dict[str, str] = {}
    for name, value in pairs:
        if not name:
            continue
        if name in _RESERVED:
            known.setdefault(name, value)
        elif name.startswith(_PARAMETER):
            parameters.setdefault(name.removeprefix(_PARAMETER), value)
        elif multipart and name.endswith(_EXTERNAL):
            external[name] = value
        elif _SETTING_NAME.match(name):
            settings[name] = value
        else:
            raise StatementError.ours(Code.UNKNOWN_SETTING, f"Unknown setting '{name}'.")
    _refuse(known)
    return Request(
        query=known.get("query", "").encode("utf-8", "surrogateescape"),
        query_id=_query_id(known, headers),
        database=headers.get("X-ClickHouse-Database", "") or known.get("database", ""),
        default_format=headers.get("X-ClickHouse-Format", "")
        or known.get("default_format", "")
        or DEFAULT_FORMAT,
        settings=settings,
        parameters=parameters,
        session_id=known.get("session_id", ""),
        session_s=_session_s(known.get("session_timeout")),
        session_check=_flag(known, "session_check"),
        close_session=_flag(known, "close_session"),
        wait_end=_flag(known, "wait_end_of_query")
        or settings.get("http_wait_end_of_query", "0") not in ("0", "false"),
        readonly_method=readonly_method,
        external=external,
    )


def credentials(query_string: str, headers: Mapping[str, str]) -> Credentials:
    """Who sends it: by `X-ClickHouse-User` and `-Key`, or basic authentication, or the URL; one way at a time.

    Raises:
        StatementError: two ways at once, or a scheme that is not served.
    """
    url = dict(urllib.parse.parse_qsl(query_string, keep_blank_values=True))
    in_url = "user" in url or "password" in url
    user, key = headers.get("X-ClickHouse-User"), headers.get("X-ClickHouse-Key")
    authorization = headers.get("Authorization")
    if ((user or key) and (authorization or in_url)) or (authorization and in_url):
        raise StatementError.ours(
            Code.AUTHENTICATION_FAILED,
            "Invalid authentication: give user and password in one way only: X-ClickHouse headers, or the "
            "Authorization header, or parameters.",
        )
    if user or key:
        return Credentials(user or "default", key or "")
    if authorization:
        return _basic(authorization)
    return Credentials(url.get("user", "default"), url.get("password", ""))


def _basic(header: str) -> Credentials:
    scheme, _, text = header.partition(" ")
    if scheme.lower() != "basic":
        raise StatementError.ours(
            Code.AUTHENTICATION_FAILED,
            f"Invalid authentication: '{scheme}' HTTP Authorization scheme is not supported.",
        )
    try:
        user, _, password = base64.b64decode(text, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        raise StatementError.ours(
            Code.AUTHENTICATION_FAILED,
            "Invalid authentication: the Authorization header is not base64 of UTF-8.",
        ) from None
    return Credentials(user, password)


def _refuse(known: Mapping[str, str]) -> None:
    for name in ("compress", "decompress"):
        if _flag(known, name):
            raise StatementError.ours(
                Code.NOT_IMPLEMENTED,
                f"{name}=1, ClickHouse's own block compression, is not served; use "
                + ("Accept-Encoding." if name == "compress" else "Content-Encoding."),
            )
    if role := known.get("role"):
        raise StatementError.ours(Code.UNKNOWN_ROLE, f"There is no role `{role}`: this server has no roles.")


def _query_id(known: Mapping[str, str], headers: Mapping[str, str]) -> str:
    given = known.get("query_id") or headers.get("X-ClickHouse-Query-Id", "")
    if not fits_header(given):
        raise StatementError.ours(
            Code.BAD_ARGUMENTS,
            "The query_id has control characters or is not UTF-8; it goes back in a header.",
        )
    return given or str(uuid.uuid4())


def fits_header(text: str) -> bool:
    """Whether a header may say it."""
    return not any(char < " " or char == "\x7f" or "\ud800" <= char <= "\udfff" for char in text)


def _flag(known: Mapping[str, str], name: str) -> bool:
    return known.get(name, "0") in ("1", "true")


def _session_s(text: str | None) -> int:
    if text is None:
        return DEFAULT_SESSION_S
    if not (text.isascii() and text.isdecimal()):
        raise StatementError.ours(Code.INVALID_SESSION_TIMEOUT, f"Invalid session timeout: '{text}'.")
    if len(text) > _DIGITS or int(text) > MAX_SESSION_S:
        raise StatementError.ours(
            Code.INVALID_SESSION_TIMEOUT,
            f"Session timeout '{text[:_DIGITS]}' is larger than max_session_timeout: {MAX_SESSION_S}.",
        )
    return int(text)
