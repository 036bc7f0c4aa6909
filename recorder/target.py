"""Where rows go, as a URL: `chdb:///path/to/db`, `http://user:secret@host:8123/database`, `https://a,b:8443`.

A `Target` never shows its password: `str`, `repr` and every error have `***` in its place.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote

from pydantic import SecretStr

from recorder.redact import MASK_TEXT, redacted

DEFAULT_PORTS = {"http": 8123, "https": 8443}


@dataclass(frozen=True)
class Target:
    """A parsed target.

    `path` is the folder of an embedded engine, `hosts` are `(name, port)` of servers; one of them is empty.
    `database` is empty where the URL names none.
    """

    scheme: str
    path: str = ""
    hosts: tuple[tuple[str, int], ...] = ()
    database: str = ""
    user: str = ""
    password: SecretStr | None = None

    @property
    def embedded(self) -> bool:
        """Whether rows go to an engine inside this process."""
        return self.scheme == "chdb"

    def __str__(self) -> str:
        if self.embedded:
            return f"chdb://{self.path}" + (f"?database={self.database}" if self.database else "")
        login = f"{self.user}:{MASK_TEXT}@" if self.password else f"{self.user}@" if self.user else ""
        hosts = ",".join(f"[{name}]:{port}" if ":" in name else f"{name}:{port}" for name, port in self.hosts)
        return f"{self.scheme}://{login}{hosts}" + (f"/{self.database}" if self.database else "")

    def __repr__(self) -> str:
        return f"Target({str(self)!r})"


def parse_target(text: str) -> Target:
    """Parse a target URL.

    Raises:
        ValueError: it is none; the message has no password in it.
    """
    scheme, separator, rest = text.strip().partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in ("chdb", *DEFAULT_PORTS):
        raise ValueError(
            f"{redacted(text)!r} is no target; write chdb:///path/to/db, http://host:8123 or https://host:8443"
        )
    rest, _, query = rest.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    database = options.pop("database", "")
    if options:
        raise ValueError(f"{redacted(text)!r}: ?{sorted(options)[0]}= is unknown; only ?database= may follow")
    if scheme == "chdb":
        if not rest:
            raise ValueError(f"{text!r} has no path; write chdb:///path/to/db")
        return Target(scheme, path=rest.rstrip("/") or "/", database=database)
    login, _, place = rest.rpartition("@")
    places, _, url_database = place.partition("/")
    user, _, password = login.partition(":")
    hosts = tuple(_host(item, DEFAULT_PORTS[scheme], text) for item in places.split(","))
    if twice := [f"{name}:{port}" for name, port in hosts if hosts.count((name, port)) > 1]:
        raise ValueError(f"{redacted(text)!r} names {twice[0]} twice")
    return Target(
        scheme,
        hosts=hosts,
        database=url_database.strip("/") or database,
        user=unquote(user),
        password=SecretStr(unquote(password)) if password else None,
    )


def _host(text: str, default_port: int, url: str) -> tuple[str, int]:
    match = re.fullmatch(
        r"(?:\[(?P<v6>[0-9a-fA-F:.]+)\]|(?P<name>[^\[\]:\s]+))(?::(?P<port>\d{1,5}))?", text.strip()
    )
    if match is None:
        raise ValueError(f"{redacted(url)!r}: {redacted(text)!r} is no host:port")
    port = int(match["port"] or default_port)
    if not 0 < port < 65_536:
        raise ValueError(f"{redacted(url)!r}: port {port} is outside 1 to 65535")
    return match["v6"] or match["name"], port
