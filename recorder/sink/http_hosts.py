"""The hosts of a target, and which of them is used.

One host is used at a time. When a call cannot reach it, and it does not answer a ping either, the next that answers is
taken, in the order of the target; nothing goes back by itself. Hosts may stand for each other only where a row that is
in one is in the other:

- they are **one server** (the same `serverUUID()`) under several addresses, or
- every table that is recorded into is the **same replicated table** on them: a `Replicated…` engine with the same
  `zookeeper_path`, under different replica names.

This is seen at the start for all hosts that answer, at the first insert into a table that was not there then, and
whenever a host is taken, with what is remembered of the others. Hosts that differ are refused, and the message says in
what.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from recorder.sink.errors import HoldError, SinkUnavailable
from recorder.sink.http_access import Access
from recorder.sink.http_client import Host, HostClient, Manner
from recorder.sink.http_errors import HostFailed

log = logging.getLogger(__name__)

SAME_ANSWER_S = 0.5
"""For so long after no host answered, callers are told so without asking all of them again."""
NO_UUID = "00000000-0000-0000-0000-000000000000"
"""What an embedded engine behind an HTTP front says its server is."""


@dataclass(frozen=True)
class Replica:
    """A replicated table on one host: the path it shares with its replicas, and its own name under it."""

    path: str
    name: str


@dataclass(frozen=True)
class Facts:
    """What a host shows: its server, and the tables of the database, with their replicas (None for plain ones)."""

    server: str
    tables: Mapping[str, Replica | None] = field(default_factory=dict)


def server_uuid(client: HostClient, database: str) -> str:
    """What tells a server from another one; where it says no UUID of its own, that of the database."""
    ((uuid,),) = client.lines("SELECT toString(serverUUID())", {})
    if uuid != NO_UUID:
        return uuid
    found = client.lines(
        "SELECT toString(uuid) FROM system.databases WHERE name = {db:String}", {"db": database}
    )
    return found[0][0] if found else ""


def facts_of(client: HostClient, database: str) -> Facts:
    """Ask a host; raise `HostFailed` where it does not say."""
    server = server_uuid(client, database)
    tables: dict[str, Replica | None] = {
        name: None
        for (name,) in client.lines(
            "SELECT name FROM system.tables WHERE database = {db:String} AND engine LIKE '%MergeTree'",
            {"db": database},
        )
    }
    replicas = client.lines(
        "SELECT table, zookeeper_path, replica_name FROM system.replicas WHERE database = {db:String}",
        {"db": database},
    )
    return Facts(server, tables | {name: Replica(path, replica) for name, path, replica in replicas})


def difference(one: str, a: Facts, other: str, b: Facts, tables: Iterable[str]) -> str:
    """Why two hosts cannot stand for each other in recording into `tables`; empty where they can."""
    if a.server and a.server == b.server:
        return ""
    remedy = "name one host in target, or make every table replicated over all of them"
    for table in sorted(tables):
        if table not in a.tables and table not in b.tables:
            continue
        first, second = a.tables.get(table), b.tables.get(table)
        if first is None or second is None:
            where = one if first is None else other
            what = "is not replicated" if table in (a if first is None else b).tables else "is missing"
            return (
                f"{one} and {other} are two servers, and table {table} {what} on {where}: rows would be spread over "
                f"both; {remedy}"
            )
        if first.path != second.path:
            return (
                f"{one} and {other}: table {table} is replicated at {first.path} on the one and at {second.path} on "
                f"the other, so they are two tables; {remedy}"
            )
        if first.name == second.name:
            return f"{one} and {other}: table {table} is replica {first.name} on both; see to their macros"
    return ""


class Hosts:
    """See the module. Used from all threads of a sink."""

    def __init__(self, hosts: Sequence[Host], access: Access, manner: Manner, tables: Iterable[str]):
        self._hosts = tuple(hosts)
        self._access = access
        self._manner = manner
        self._lock = threading.RLock()
        self._tables = set(tables)
        self._facts: dict[Host, Facts] = {}
        self._compared: set[str] = set()  # tables that were there, and the same, on all hosts that answered
        self._active: Host | None = self._hosts[0] if len(self._hosts) == 1 else None
        self._begin = 0  # where the next choice begins
        self._no_answer: tuple[float, HostFailed] | None = None

    @property
    def named(self) -> Sequence[Host]:
        """The hosts of the target, in its order."""
        return self._hosts

    @property
    def several(self) -> bool:
        """Whether there is more than one."""
        return len(self._hosts) > 1

    def recorded_into(self, table: str) -> None:
        """Call before each insert: this table counts from now on, and hosts are compared once it is there.

        Raises:
            HostFailed: hosts differ in it, or none answers.
        """
        if self.several and table not in self._compared:
            with self._lock:
                if table not in self._compared:
                    self._tables.add(table)
                    self.see_all()

    def active(self) -> Host:
        """The host in use; takes one where there is none.

        Raises:
            HostFailed: none answers, or those that do must not stand for each other.
        """
        if (active := self._active) is not None:
            return active
        with self._lock:
            if self._active is None:
                if self._no_answer and time.monotonic() < self._no_answer[0] + SAME_ANSWER_S:
                    raise self._no_answer[1]
                try:
                    self._active = self._choose()
                except HostFailed as error:
                    self._no_answer = (time.monotonic(), error)
                    raise
            return self._active

    def failed(self, host: Host) -> None:
        """A call did not reach this host: leave it unless it answers a ping."""
        if not self.several or self._active is not host or host.pings(self._access.connect_timeout_s):
            return
        with self._lock:
            if self._active is host:
                self._active = None
                self._begin = (self._hosts.index(host) + 1) % len(self._hosts)
                self._no_answer = None

    def see_all(self) -> None:
        """Compare all hosts that answer; raises `HostFailed` where two of them differ, or none answers."""
        if not self.several:
            return
        with self._lock:
            up: dict[Host, Facts] = {}
            down = []
            for host in self._hosts:
                try:
                    up[host] = self._ask(host)
                except HostFailed as error:
                    if error.kind is HoldError:
                        raise
                    down.append(str(error))
            if not up:
                raise _none_can_be_used(down)
            self._admit(up)
            for line in down:
                log.warning("%s; recording goes on without it", line)
            if self._active not in up:  # what a silent host has is not known, so no row goes there
                self._active, self._no_answer = next(iter(up)), None
            self._compared |= {
                table for table in self._tables if all(table in facts.tables for facts in up.values())
            }

    def same_server(self, host: Host) -> list[Host]:
        """This host and others that are known to be the same server; the one in use comes first."""
        facts = dict(self._facts)
        mine = facts.get(host)
        if mine is None or not mine.server:
            return [host]
        same = [host, *(h for h, f in facts.items() if h is not host and f.server == mine.server)]
        with contextlib.suppress(HostFailed):
            active = self.active()
            same.sort(key=lambda h: h is not active)
        return same

    def replica(self, host: Host, table: str) -> Replica | None:
        """The table's replica on a host, as it was last seen."""
        facts = self._facts.get(host)
        return facts.tables.get(table) if facts is not None else None

    def close(self) -> None:
        """Close the connections to all."""
        for host in self._hosts:
            host.close()

    def _choose(self) -> Host:
        """The next host that answers and may stand for the others."""
        refused: HostFailed | None = None
        down = []
        for place in range(len(self._hosts)):
            host = self._hosts[(self._begin + place) % len(self._hosts)]
            try:
                self._admit({host: self._ask(host)})
            except HostFailed as error:
                if error.kind is HoldError:
                    refused = refused or error
                down.append(str(error))
            else:
                log.info("recording into %s", host.place)
                return host
        raise refused or _none_can_be_used(down)

    def _ask(self, host: Host) -> Facts:
        # One that fails here fails for nobody else.
        return facts_of(HostClient(host, self._access, self._manner), self._manner.database)

    def _admit(self, seen: Mapping[Host, Facts]) -> None:
        """Remember hosts as they were seen just now, unless they differ, among themselves or from one remembered."""
        known = self._facts | dict(seen)
        for a, b in itertools.combinations([host for host in self._hosts if host in known], 2):
            if a not in seen and b not in seen:
                continue
            tables = self._tables
            for host in (a, b):
                if host not in seen:
                    # A table that it lacked may have been made since, and has no row of ours: before the first one
                    # all hosts were looked at again, and none goes to a host that was silent then.
                    tables = tables & known[host].tables.keys()
            if why := difference(a.place, known[a], b.place, known[b], tables):
                raise HostFailed(HoldError, why, sent=False)
        self._facts = known


def _none_can_be_used(down: list[str]) -> HostFailed:
    return HostFailed(
        SinkUnavailable, f"none of {len(down)} hosts can be used: {'; '.join(down)}", sent=False
    )


class Follower:
    """One handle of the sink: the methods of a client, on whichever host is in use."""

    def __init__(self, hosts: Hosts, open_client: Callable[[Host], HostClient]):
        self._hosts = hosts
        self._open_client = open_client
        self._clients: dict[Host, HostClient] = {}
        self._kept: Host | None = None

    def now(self) -> HostClient:
        """The handle on the host in use, or on the one it is kept to."""
        return self.at(self._kept or self._hosts.active())

    @contextlib.contextmanager
    def keep_to(self, host: Host) -> Iterator[None]:
        """All calls go to this host, whichever is in use, for as long as the context lasts."""
        self._kept = host
        try:
            yield
        finally:
            self._kept = None

    def at(self, host: Host) -> HostClient:
        """The handle on this host."""
        if host not in self._clients:
            self._clients[host] = self._open_client(host)
        return self._clients[host]

    @property
    def server_settings(self) -> Mapping[str, object]:
        """The settings that the server knows."""
        return self.now().server_settings

    def query(self, *arguments: object, **options: object) -> object:
        """`Client.query`."""
        return self.now().query(*arguments, **options)

    def raw_query(self, *arguments: object, **options: object) -> bytes:
        """`Client.raw_query`."""
        return self.now().raw_query(*arguments, **options)

    def command(self, *arguments: object, **options: object) -> object:
        """`Client.command`."""
        return self.now().command(*arguments, **options)

    def close(self) -> None:
        """Forget all connections."""
        for client in self._clients.values():
            client.close()
