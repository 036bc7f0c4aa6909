"""A host of a target, and the handles on it: calls with limits of their own, and errors that name host and remedy.

A `Host` has the connections to it and one client of the driver for all handles, opened at the first call and again
after an error that this may mend (a changed password, another server version). A `HostClient` is one handle on it, in
the manner of its kind; it belongs to one thread.
"""

from __future__ import annotations

import ipaddress
import math
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from clickhouse_connect.driver.binding import quote_identifier
from clickhouse_connect.driver.httpclient import HttpClient
from urllib3.exceptions import ClosedPoolError

from recorder.sink.errors import SinkUnavailable
from recorder.sink.http_access import OPENING_S, Access, Once, close_pool
from recorder.sink.http_body import Body
from recorder.sink.http_errors import LOGIN_CODES, UNKNOWN_SETTING, HostFailed, failure_of

T = TypeVar("T")

RESOLVE_EVERY_S = 30.0
"""How often it is seen whether a host's name has moved to other addresses."""

_REOPENING = LOGIN_CODES | {UNKNOWN_SETTING}


@dataclass(frozen=True)
class Manner:
    """How a kind of handle calls: its session settings, its limits, the database it is in.

    `create_database` makes that where it is missing; `database` is empty for none.
    """

    settings: Mapping[str, Any]
    database: str = ""
    create_database: bool = False
    connect_timeout_s: float = 5.0
    read_timeout_s: float | None = None


class Host:
    """One host of a target and the connections to it, shared by all handles.

    A name that moves to other addresses is followed: kept connections are closed, new ones go where it leads now.
    """

    def __init__(self, access: Access, name: str, port: int, connections: int):
        self.name = name
        self.port = port
        self.place = access.place(name, port)
        self._access = access
        self._connections = connections
        self._lock = threading.Lock()
        self._pool: Once | None = None
        self._client: HttpClient | None = None
        self._addresses: frozenset[Any] = frozenset()
        self._resolved_s = 0.0

    def __repr__(self) -> str:
        return f"Host({self.place})"

    @property
    def pool(self) -> Once:
        """The connections; raises `HostFailed` where a file for TLS cannot be used."""
        with self._lock:
            if self._pool is None:
                self._pool = self._access.pool(self.name, self._connections)
            return self._pool

    def client(self, manner: Manner) -> HttpClient:
        """The driver's client for all handles, connected by the first that asks; in the manner's database.

        Those that ask meanwhile connect too, rather than wait for one that may hang.
        """
        client = self._client
        if client is None:
            limit_s = manner.connect_timeout_s + OPENING_S
            read_s = limit_s if manner.read_timeout_s is None else min(limit_s, manner.read_timeout_s)
            with self.pool.within(manner.connect_timeout_s, read_s):
                client = self._access.client(self.pool, self.name, self.port)
                self._use_database(client, manner)
            self._client = client
        return client

    def forget(self) -> None:
        """The next call connects anew: with the password and the settings that there are then."""
        self._client = None

    def follow(self) -> None:
        """Close kept connections if the name leads elsewhere now.

        Asks at most every `RESOLVE_EVERY_S`, one caller at a time: the others go on with the connections there are,
        because a name service that is down answers after many seconds.
        """
        with self._lock:
            if self._pool is None or time.monotonic() < self._resolved_s + RESOLVE_EVERY_S:
                return
            self._resolved_s = math.inf  # nobody else asks meanwhile
        try:
            addresses = self._resolve()
        finally:
            with self._lock:
                self._resolved_s = time.monotonic()
        if not addresses:
            return  # connections that are there stay
        with self._lock:
            if self._pool is not None and self._addresses and self._addresses.isdisjoint(addresses):
                self._pool.clear()
            self._addresses = addresses

    def pings(self, timeout_s: float) -> bool:
        """Whether it answers at all."""
        with suppress(Exception):
            answer = self.pool.request("GET", f"{self.place}/ping", timeout=timeout_s, retries=False)
            return bool(answer.status < 500)
        return False

    def close(self) -> None:
        """Close its connections."""
        self.forget()
        with self._lock:
            if self._pool is not None:
                close_pool(self._pool)
                self._pool = None

    def _resolve(self) -> frozenset[Any]:
        """Where the name leads; empty where that is not to be had, or it is an address itself."""
        with suppress(ValueError):
            ipaddress.ip_address(self.name)
            return frozenset()
        try:
            found = socket.getaddrinfo(self.name, self.port, type=socket.SOCK_STREAM)
        except OSError:
            return frozenset()
        return frozenset(entry[4] for entry in found)

    def _use_database(self, client: HttpClient, manner: Manner) -> None:
        name = manner.database
        if not name:
            return
        if not int(str(client.command("EXISTS DATABASE " + quote_identifier(name)))):
            if not manner.create_database:
                raise HostFailed(
                    SinkUnavailable,
                    f'{self.place} has no database {name}; run "recorder migrate up", or name another one',
                    code=81,
                )
            client.command("CREATE DATABASE IF NOT EXISTS " + quote_identifier(name))
        client.database = name


class HostClient:
    """One handle on one host. Every error is a `HostFailed`."""

    def __init__(
        self, host: Host, access: Access, manner: Manner, failed: Callable[[Host], None] = lambda _: None
    ):
        self.host = host
        self._access = access
        self._manner = manner
        self._failed = failed

    @property
    def server_settings(self) -> Mapping[str, Any]:
        """The settings that the server knows."""
        settings: Mapping[str, Any] = self._call(lambda client: client.server_settings)
        return settings

    def query(self, *arguments: Any, **options: Any) -> Any:
        """`Client.query`."""
        return self._call(lambda client: client.query(*arguments, **self._with_settings(options)))

    def raw_query(self, *arguments: Any, **options: Any) -> bytes:
        """`Client.raw_query`."""
        return self._call(lambda client: client.raw_query(*arguments, **self._with_settings(options)))

    def command(self, *arguments: Any, **options: Any) -> Any:
        """`Client.command`."""
        return self._call(lambda client: client.command(*arguments, **self._with_settings(options)))

    def lines(self, sql: str, parameters: Mapping[str, Any]) -> list[list[str]]:
        """Rows of text that needs no escapes."""
        text = self.raw_query(sql, parameters=dict(parameters), fmt="TabSeparatedRaw").decode()
        return [line.split("\t") for line in text.splitlines()]

    def insert(
        self,
        table: str,
        columns: Sequence[str],
        body: Body,
        settings: Mapping[str, Any],
        *,
        read_timeout_s: float,
    ) -> None:
        """Insert an Arrow stream into a table (quoted); returns when ClickHouse itself said yes."""

        def send(client: HttpClient) -> None:
            summary = client.raw_insert(
                table,
                column_names=columns,
                insert_block=body.pieces,  # type: ignore[arg-type]  # a list: see `http_body`
                # The answer comes when all is done, and its status is the truth.
                settings={
                    **self._manner.settings,
                    **settings,
                    "wait_end_of_query": "1",
                    "send_progress_in_http_headers": "0",
                },
                fmt="ArrowStream",
                compression=body.encoding,
                transport_settings={"Content-Length": str(body.size)},
            )
            if not summary.query_id():
                raise HostFailed(
                    SinkUnavailable,
                    f"{self.host.place}: the answer is not ClickHouse's (no X-ClickHouse-Query-Id): a proxy answers in "
                    "its place, or takes its headers away",
                )

        self._call(send, read_timeout_s=read_timeout_s)

    def connect(self) -> HttpClient:
        """The driver's own client, connected: for what this class has no method for."""
        return self._call(lambda client: client)

    def close(self) -> None:
        """Nothing is held: the connections are the host's."""

    def _with_settings(self, options: Mapping[str, Any]) -> dict[str, Any]:
        return {**options, "settings": {**self._manner.settings, **options.get("settings", {})}}

    def _call(self, work: Callable[[HttpClient], T], *, read_timeout_s: float | None = None) -> T:
        opening = True
        read_s = self._manner.read_timeout_s if read_timeout_s is None else read_timeout_s
        try:
            self.host.follow()
            client = self.host.client(self._manner)
            opening = False
            with self.host.pool.within(self._manner.connect_timeout_s, read_s):
                try:
                    return work(client)
                except Exception as error:
                    if not isinstance(error.__cause__, ClosedPoolError):
                        raise
                    return work(client)  # the name moved under the call: nothing was sent
        except Exception as error:
            failure = failure_of(error, self.host.place, self._access.user, opening=opening)
            if opening:
                failure.sent = False
            if failure.code in _REOPENING:
                self.host.forget()
            if not failure.reached:
                self._failed(self.host)
            raise failure from error
