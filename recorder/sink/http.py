"""The sink for ClickHouse servers: over HTTP(S), through clickhouse-connect.

A batch travels as one `INSERT … FORMAT ArrowStream`, one record batch, with the pinned settings and the token in every
insert, as deduplication token and as `log_comment`. The driver repeats no insert (`http_access`, `http_body`).

Several hosts stand for each other as `http_hosts` says. What failover must keep is that **a token never runs twice**:

1. It is remembered which host an insert was sent to, until the server itself said how it ended. An insert whose
   connection broke, that timed out or was given up is *doubtful*.
2. A doubtful insert is killed and asked for at the host it was sent to (or the same server under another address), not
   at the one in use. Until that host says that it runs nothing under the token, look-up and insert of the batch raise
   `InsertStillRunning`. Other batches go on, on the host in use.
3. A host that does not answer may be known to be gone all the same: where another replica of the table says that its
   session with the keeper has ended, and the insert's own time limit, and `GONE_AFTER_S` beyond it, have passed. It can
   commit nothing without a session, and on its way to a new one it meets its time limit.
4. Then the table is asked, on the host in use, after `SYSTEM SYNC REPLICA … LIGHTWEIGHT`: what the gone host committed
   is there before the look-up answers.

Rows that a bus delivers again may have been sent by a recorder that was killed, whose insert the server goes on with.
So before the first look-up of such rows each host that answers is asked until it runs no recorder's insert that began
before this sink was made. One host at least must answer; an insert ends at its own time limit at the latest.

What no question reaches is a request that still lies in the network or in the sockets of a server that stands still.
There the token itself guards: the server, or the keeper for all replicas, takes a block under it once.

A balancer or a name with addresses of several servers defeats 2: name each server as a host of its own.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from clickhouse_connect.driver.binding import quote_identifier
from clickhouse_connect.driver.client import Client

from recorder.batch import Batch
from recorder.sink import statements
from recorder.sink.client_sink import ClientSink
from recorder.sink.codes import sink_error
from recorder.sink.errors import SinkError
from recorder.sink.http_access import OPENING_S, Access
from recorder.sink.http_body import body_of
from recorder.sink.http_client import Host, HostClient, Manner
from recorder.sink.http_errors import HostFailed
from recorder.sink.http_hosts import Follower, Hosts, Replica, server_uuid
from recorder.target import Target

T = TypeVar("T")

GONE_AFTER_S = 60.0
"""How long after its time limit an insert is given to end on a host that the keeper has lost."""
REPLICAS_SEEN_S = 30.0
"""How long it is remembered whether a table is replicated."""
_KILL_HANDLES = 4


@dataclass(frozen=True)
class _Sent:
    """Where an insert went, and when its own time limit has passed."""

    host: Host
    table: str
    limit_s: float


class HttpSink(ClientSink):
    """Inserts into `database` of the target's server or servers.

    `tables` are compared over several hosts from the start, others from their first insert on. `create_database` makes
    the database where it is missing; else its absence is `SinkUnavailable`. `settings` are session settings of every
    handle. The bounds are those of `ClientSink`; each handle may keep one connection.
    """

    def __init__(
        self,
        target: Target,
        database: str = "default",
        *,
        access: Access | None = None,
        tables: Iterable[str] = (),
        create_database: bool = False,
        settings: Mapping[str, Any] | None = None,
        kill_handles: int = _KILL_HANDLES,
        **bounds: Any,
    ):
        super().__init__(kill_handles=kill_handles, **bounds)
        self._access = access or Access(target.scheme, target.user, target.password)
        self._database = database
        self._create_database = create_database
        self._settings = dict(settings or {})
        connections = sum(
            handles.limit
            for handles in (self._inserts, self._look_ups, self._queries, self._commands, self._kills)
        )
        self._hosts = Hosts(
            [Host(self._access, name, port, connections) for name, port in target.hosts],
            self._access,
            self._manner({}, self._access.connect_timeout_s, self._access.connect_timeout_s + OPENING_S),
            tables,
        )
        self._sent: dict[str, _Sent] = {}
        self._made_s = time.monotonic()
        self._earlier_ended = False
        self._replicas: dict[tuple[Host, str], tuple[float, Replica | None]] = {}

    @property
    def database(self) -> str:
        """The database that unqualified table names mean."""
        return self._database

    async def start(self) -> None:
        """Connect; raise `SinkError` with the remedy where that fails, or where hosts must not stand for each other."""
        self._check_process()
        await self._ask(
            self._commands, lambda _: self._hosts.see_all(), "target", timeout_s=self._query_timeout_s
        )
        await super().start()

    def close_now(self) -> None:
        """`close`, for where no event loop runs."""
        try:
            super().close_now()
        finally:
            self._hosts.close()

    # Handles.

    def _manner(
        self, settings: Mapping[str, Any], connect_timeout_s: float, read_timeout_s: float | None
    ) -> Manner:
        return Manner(
            {**self._settings, **settings},
            self._database,
            self._create_database,
            connect_timeout_s,
            read_timeout_s,
        )

    def _open(self, settings: Mapping[str, Any]) -> Client:
        limited = settings.get("max_execution_time")
        # Longer than the server's own limit, so that its word comes first. Inserts bring their own.
        read_timeout_s = float(limited) + 2.0 if limited else None
        return self._follower(self._manner(settings, self._access.connect_timeout_s, read_timeout_s))

    def _open_for_kills(self, settings: Mapping[str, Any]) -> Client:
        # Short, so that a host which hangs leaves time to ask another way within `kill_wait_s`.
        connect_s = min(self._access.connect_timeout_s, self._kill_wait_s / 4)
        return self._follower(self._manner(settings, connect_s, self._kill_wait_s / 2))

    def _follower(self, manner: Manner) -> Client:
        def on(host: Host) -> HostClient:
            return HostClient(host, self._access, manner, self._hosts.failed)

        return cast("Client", Follower(self._hosts, on))

    # Calls.

    def _quoted(self, table: str) -> str:
        return f"{quote_identifier(self._database)}.{quote_identifier(table)}"

    def _told(self, error: BaseException, what: str) -> SinkError:
        return error.told(what) if isinstance(error, HostFailed) else sink_error(error, what)

    def _may_have_run(self, error: BaseException) -> bool:
        return not isinstance(error, HostFailed) or error.sent

    def _send(self, client: Client, batch: Batch, settings: Mapping[str, Any]) -> None:
        body = body_of(batch.data, self._access.compression)
        self._hosts.recorded_into(batch.table)
        handle = cast("Follower", client).now()
        limit_s = float(settings["max_execution_time"])
        self._sent[batch.token] = _Sent(handle.host, batch.table, time.monotonic() + limit_s)
        try:
            handle.insert(
                self._quoted(batch.table),
                batch.data.schema.names,
                body,
                settings,
                read_timeout_s=limit_s + self._kill_wait_s + 2.0,
            )
        except HostFailed as error:
            if not error.sent or error.code:
                self._sent.pop(batch.token, None)
            raise
        self._sent.pop(batch.token, None)

    @contextlib.contextmanager
    def _looking_up(self, client: Client, table: str) -> Iterator[None]:
        follower = cast("Follower", client)
        handle = follower.now()
        with follower.keep_to(handle.host):  # the replica that is asked is the one that was synced
            if self._replica_on(handle, table) is not None:
                # Without it a look-up may miss rows that other replicas have committed.
                handle.command(f"SYSTEM SYNC REPLICA {self._quoted(table)} LIGHTWEIGHT")
            yield

    async def _earlier_inserts(self, batch: Batch) -> int:
        if self._earlier_ended:
            return 0
        running = await self._ask(self._look_ups, self._running_since_before, batch.table)
        self._earlier_ended = running == 0
        return running

    def _running_since_before(self, client: Client) -> int:
        """Recorders' inserts older than this sink that run on the hosts that answer."""
        follower = cast("Follower", client)
        in_use = follower.now().host
        running = 0
        for host in self._hosts.named:
            since_s = time.monotonic() - self._made_s
            try:
                ((count,),) = follower.at(host).lines(statements.OLDER, {"since_s": since_s})
            except HostFailed:
                if host is in_use:
                    raise
                continue
            running += int(count)
        return running

    def _replica_on(self, handle: HostClient, table: str) -> Replica | None:
        """The table's replica on that host; remembered for a while."""
        key = (handle.host, table)
        seen_s, replica = self._replicas.get(key, (0.0, None))
        if not seen_s or time.monotonic() > seen_s + REPLICAS_SEEN_S:
            found = handle.lines(
                "SELECT zookeeper_path, replica_name FROM system.replicas "
                "WHERE database = {db:String} AND table = {table:String}",
                {"db": self._database, "table": table},
            )
            replica = Replica(*found[0]) if found else None
            self._replicas[key] = (time.monotonic(), replica)
        return replica

    def _server_uuid(self, client: Client) -> str:
        return server_uuid(cast("Follower", client).now(), self._database)

    # What became of an insert.

    def _resolved(self, token: str) -> None:
        self._sent.pop(token, None)

    def _places(self, client: Client, token: str) -> list[HostClient]:
        """Handles on the server that a token was sent to."""
        follower = cast("Follower", client)
        sent = self._sent.get(token)
        if sent is None:  # not sent yet, or its end is known
            return [follower.now()]
        return [follower.at(host) for host in self._hosts.same_server(sent.host)]

    def _kill(self, client: Client, token: str) -> None:
        _first_that_answers(
            self._places(client, token),
            lambda handle: handle.command(statements.KILL, parameters={"comment": token}),
        )

    def _runs(self, client: Client, token: str) -> bool:
        def ask(handle: HostClient) -> bool:
            ((count,),) = handle.lines(statements.RUNNING, {"comment": token})
            return int(count) > 0

        sent = self._sent.get(token)
        if sent is not None and self._hosts.several and self._is_gone(cast("Follower", client), sent):
            return False
        return _first_that_answers(self._places(client, token), ask)

    def _is_gone(self, follower: Follower, sent: _Sent) -> bool:
        """Whether the host an insert was sent to can commit it no more, although it does not answer (rule 3)."""
        there = self._hosts.replica(sent.host, sent.table)
        if there is None or time.monotonic() < sent.limit_s + GONE_AFTER_S:
            return False
        handle = follower.now()
        if handle.host is sent.host:
            return False
        active = handle.lines(
            "SELECT replica_is_active[{replica:String}] FROM system.replicas WHERE database = {db:String} "
            "AND table = {table:String} AND zookeeper_path = {path:String} "
            "AND mapContains(replica_is_active, {replica:String})",
            {"db": self._database, "table": sent.table, "path": there.path, "replica": there.name},
        )
        return active == [["0"]]


def _first_that_answers(handles: list[HostClient], ask: Callable[[HostClient], T]) -> T:
    """The answer of the first handle that reaches its host; the last one's error where none does."""
    for handle in handles[:-1]:
        try:
            return ask(handle)
        except HostFailed as error:
            if error.reached:
                raise
    return ask(handles[-1])
