"""A sink over clickhouse-connect: all that does not depend on how the server is reached.

A subclass says how to open a client, how one batch travels, and which server it is. Common are the pinned
settings, the look-up, the classes of errors, the handles, and how an insert that hangs is cut (`unfinished`).

Invariants: every call is bounded in time and number; what waits longer than its limit for a handle was never
sent. Inserts, look-ups, queries, commands and kills have handles of their own: none waits for another kind.
Nothing is repeated here; that is the caller's, after its look-up.
"""

from __future__ import annotations

import abc
import asyncio
import atexit
import contextlib
import logging
import os
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import pyarrow as pa
from clickhouse_connect.driver.binding import quote_identifier
from clickhouse_connect.driver.client import Client

from recorder.batch import Batch
from recorder.sink import statements
from recorder.sink.base import ServerInfo
from recorder.sink.codes import sink_error
from recorder.sink.errors import InsertStillRunning, InsertTimeout, Retryable, SinkError, SinkUnavailable
from recorder.sink.handles import Handles, ended, join
from recorder.sink.unfinished import UnfinishedInserts
from recorder.sink.uptime import Uptime

log = logging.getLogger(__name__)
T = TypeVar("T")

LONGEST_S = 10 * 365 * 86_400.0
"""The time limit of what has none."""


class ClientSink(abc.ABC):
    """See the module. Its coroutines may be called from any event loop of the process that made it."""

    def __init__(
        self,
        *,
        handles: int = 32,
        look_up_handles: int = 8,
        query_handles: int = 4,
        command_handles: int = 2,
        kill_handles: int = 1,
        query_timeout_s: float = 30.0,
        kill_wait_s: float = 5.0,
        close_wait_s: float = 10.0,
    ):
        self._query_timeout_s = query_timeout_s
        self._kill_wait_s = kill_wait_s
        self._close_wait_s = close_wait_s
        cut = {**statements.READING, "max_execution_time": f"{query_timeout_s:.3f}"}
        self._inserts = Handles("insert", lambda: self._open({}), handles)
        self._look_ups = Handles("look-up", lambda: self._open(cut), look_up_handles)
        self._queries = Handles("query", lambda: self._open(cut), query_handles)
        self._commands = Handles("command", lambda: self._open({}), command_handles)
        self._kills = Handles("kill", lambda: self._open_for_kills(cut), kill_handles)
        self._unfinished = UnfinishedInserts(
            self._kills,
            kill=self._kill,
            runs=self._runs,
            resolved=self._resolved,
            told=self._told,
            kill_wait_s=kill_wait_s,
        )
        self._uptime = Uptime()
        self._pid = os.getpid()
        self._closed = False
        self._at_exit = _close_at_exit(weakref.ref(self))
        atexit.register(self._at_exit)

    # What a subclass says.

    @abc.abstractmethod
    def _open(self, settings: Mapping[str, Any]) -> Client:
        """Open a client with these session settings; raise `SinkUnavailable` with the remedy where that fails."""

    @abc.abstractmethod
    def _send(self, client: Client, batch: Batch, settings: Mapping[str, Any]) -> None:
        """Insert the batch's rows as one statement."""

    @abc.abstractmethod
    def _server_uuid(self, client: Client) -> str:
        """What tells this server from another one."""

    def _open_for_kills(self, settings: Mapping[str, Any]) -> Client:
        """A client that asks what runs, and stops it; like any other where nothing is said."""
        return self._open(settings)

    def _looking_up(self, client: Client, table: str) -> contextlib.AbstractContextManager[None]:
        """Around a look-up in the table: may refuse it, or its answer."""
        return contextlib.nullcontext()

    async def _earlier_inserts(self, batch: Batch) -> int:
        """How many inserts that other recorders began before this sink was made may yet bring rows of the batch."""
        return 0

    def _quoted(self, table: str) -> str:
        """The table's name in a statement."""
        return quote_identifier(table)

    def _told(self, error: BaseException, what: str) -> SinkError:
        """What an error of a call means; `what` names the table or statement."""
        return sink_error(error, what)

    def _may_have_run(self, error: BaseException) -> bool:
        """Whether an insert that ended with this error of the transport may have reached the server."""
        return True

    def _kill(self, client: Client, token: str) -> None:
        """Ask what runs under a token to stop, wherever it was sent."""
        client.query(statements.KILL, parameters={"comment": token})

    def _runs(self, client: Client, token: str) -> bool:
        """Whether a statement runs under a token where it was sent; raise where that cannot be known."""
        answer = client.query(statements.RUNNING, parameters={"comment": token})
        return int(answer.result_rows[0][0]) > 0

    def _resolved(self, token: str) -> None:  # noqa: B027 - for who keeps something of an insert until then
        """No insert under this token can commit any more."""

    # The protocol.

    async def start(self) -> None:
        """Connect; raise `SinkUnavailable` with the remedy where that fails."""
        await self.server()

    async def close(self) -> None:
        """Let running calls end, then release everything. Idempotent.

        Calls that run longer than `close_wait_s` are killed, and have as long again, at most `kill_wait_s`, to end.

        Raises:
            SinkError: a call could not be ended; its handle stays open, and the process should end by `os._exit`.
        """
        await asyncio.get_running_loop().run_in_executor(None, self.close_now)

    def close_now(self) -> None:
        """`close`, for where no event loop runs."""
        if self._closed or os.getpid() != self._pid:
            return
        self._closed = True
        atexit.unregister(self._at_exit)
        working = (self._inserts, self._look_ups, self._queries, self._commands)
        for handles in working:
            handles.close()
        kill_wait_s = min(self._kill_wait_s, self._close_wait_s)
        if stuck := join(working, self._close_wait_s):
            self._unfinished.ask_all_to_stop()
            stuck = join(working, kill_wait_s)
        self._kills.close()
        stuck += self._kills.join(kill_wait_s)
        if stuck:
            raise SinkError(
                f"{stuck} calls of the database still run {self._close_wait_s + kill_wait_s:g} s after they were told "
                "to end; see what it is busy with (system.processes, its log): what they insert may still get in"
            )

    async def server(self) -> ServerInfo:
        """Which server answers now."""

        def ask(client: Client) -> tuple[str, str, int, int]:
            facts = client.query("SELECT version(), uptime(), toUnixTimestamp(now())").result_rows
            version, uptime, now = facts[0]
            return version, self._server_uuid(client), int(uptime), int(now)

        version, server_uuid, uptime, now = await self._ask(self._look_ups, ask, "target")
        return ServerInfo(version, server_uuid, self._uptime.started_at_s(uptime, now, time.monotonic()))

    async def insert(self, batch: Batch, *, timeout_s: float) -> None:
        """Insert the batch's record batch as one insert under its token, with the pinned settings.

        Raises:
            InsertTimeout: cut after `timeout_s`, and ended for certain.
            InsertStillRunning: cut after `timeout_s`, or asked for again, and not ended yet.
            SinkError: what the server said.
        """
        self._check_process()
        await self._unfinished.see_ended(batch)

        def send(client: Client) -> None:
            settings = statements.insert_settings(batch, timeout_s, client.server_settings)
            self._send(client, batch, settings)

        call = self._inserts.submit(send)
        self._unfinished.began(batch.token, call)
        try:
            in_time = await ended(call, timeout_s)
        except asyncio.CancelledError:
            if not call.cancel():  # it runs, and nobody waits for it any more
                self._unfinished.doubt(batch.token)
                self._unfinished.ask_to_stop(batch.token)
            raise
        if not in_time:
            if call.cancel():
                raise Retryable(
                    f"{batch.table}: no free handle within {timeout_s:g} s; nothing was sent "
                    f"({self._inserts.opened} inserts are running)"
                )
            await self._unfinished.cut(batch, call, timeout_s)
        error = call.exception()
        if error is None:
            return  # also where the kill came too late: the server said yes
        told = self._told(error, batch.table)
        if isinstance(told, SinkUnavailable) and self._may_have_run(error):
            self._unfinished.doubt(batch.token)
        if not in_time and not isinstance(told, InsertTimeout):
            told = InsertTimeout(
                f"{batch.table}: insert of {batch.rows} rows cut after {timeout_s:g} s ({told})",
                code=told.code,
            )
        raise told from error

    async def look_up(self, batch: Batch) -> set[tuple[int, int]]:
        """The identities `(_log, _seq)` among the batch's rows that the table has, each once.

        Raises:
            InsertStillRunning: an insert of this batch, or for rows of a source one of a recorder before this one, may
                still commit, so no answer would be worth anything.
        """
        self._check_process()
        await self._unfinished.see_ended(batch)
        if batch.from_source and (earlier := await self._earlier_inserts(batch)):
            raise InsertStillRunning(
                f"{batch.table}: {earlier} inserts that began before this recorder did are running; rows that come "
                "again are looked up when they have ended"
            )
        question = statements.look_up(batch, self._quoted(batch.table))

        def ask(client: Client) -> pa.Table:
            with self._looking_up(client, batch.table):
                return _as_arrow(client, question.sql, question.parameters)

        return statements.present(batch, await self._ask(self._look_ups, ask, batch.table))

    async def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Sequence[Sequence[Any]]:
        """Rows of a statement; parameters are bound on the server (`{name:Type}`)."""
        bound = dict(parameters or {})
        rows: Sequence[Sequence[Any]] = await self._ask(
            self._queries, lambda client: client.query(sql, parameters=bound).result_rows, "query"
        )
        return rows

    async def query_arrow(self, sql: str, parameters: Mapping[str, Any] | None = None) -> pa.Table:
        """The same as an Arrow table; String columns come as binary, so that every byte survives."""
        return await self._ask(self._queries, lambda client: _as_arrow(client, sql, parameters), "query")

    async def command(self, sql: str) -> None:
        """Run a statement that returns nothing; it takes as long as it takes."""
        await self._ask(self._commands, lambda client: client.command(sql), "command", timeout_s=LONGEST_S)

    # How it is done.

    async def _ask(
        self, handles: Handles, work: Callable[[Client], T], what: str, *, timeout_s: float | None = None
    ) -> T:
        """Run a question; it is given up after `timeout_s`, by default `query_timeout_s` (the server's limit too)."""
        self._check_process()
        limit_s = self._query_timeout_s + 1.0 if timeout_s is None else timeout_s
        call = handles.submit(work)
        if not await ended(call, limit_s):
            call.cancel()
            raise SinkUnavailable(f"{what}: no answer within {limit_s:g} s")
        try:
            return call.result()
        except Exception as error:
            raise self._told(error, what) from error

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise SinkUnavailable(
                f"this sink belongs to process {self._pid} and process {os.getpid()} was forked from it; "
                "open a new sink in the child, or start it with the spawn method"
            )


def _as_arrow(client: Client, sql: str, parameters: Mapping[str, Any] | None) -> pa.Table:
    raw = client.raw_query(sql, parameters=dict(parameters or {}), fmt="ArrowStream")
    with pa.ipc.open_stream(raw) as reader:
        return reader.read_all()


def _close_at_exit(sink: weakref.ref[ClientSink]) -> Callable[[], None]:
    """The guard for a sink nobody closed: an open handle at interpreter exit crashes the process."""

    def close() -> None:
        if (forgotten := sink()) is not None:
            try:
                forgotten.close_now()
            except SinkError:
                log.exception("closing the sink at exit failed")

    return close
