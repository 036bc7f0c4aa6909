"""ClickHouse's HTTP interface over the engine of this process.

`DevServer` is the real engine (chDB) behind a front of ours: for development and tests, and for reading what a
recorder in the same process records. It is no ClickHouse server: no users or grants but one, no quotas, no progress,
one process a folder.

One request is one statement. Its body comes in whole (in bounded memory), a thread of its own runs it, its answer goes
out as it is made. A client that goes away ends a statement that only reads.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import os
import pathlib
import ssl
import urllib.parse
from collections.abc import Coroutine, Mapping
from typing import Any, Self

from aiohttp import web

from recorder.devserver.address import DevServerError, listen, tls_context
from recorder.devserver.door import Door, silent
from recorder.devserver.engine import Engine, Server
from recorder.devserver.exchange import Exchange
from recorder.devserver.execute import Executor
from recorder.devserver.front import Front
from recorder.devserver.hooks import Hooks
from recorder.devserver.request import MOST_QUERY_BYTES
from recorder.devserver.running import Run, Running, on_thread
from recorder.devserver.sessions import Sessions
from recorder.settings_fields import Address, parse_address
from recorder.sink.chdb import ENGINE_NICE

MAX_CONCURRENT = 100
READ_ONLY_CONCURRENT = 4
MAX_BODY_BYTES = 4 << 30
MAX_ANSWER_BYTES = 1 << 50
"""An answer that is waited for whole may be as large as the disk, but not beside a recorder."""
READ_ONLY_BODY_BYTES = 1 << 20
READ_ONLY_ANSWER_BYTES = 256 << 20
READ_ONLY_LIMITS = {
    "max_memory_usage": 1 << 30,
    "max_execution_time": 60,
    "max_temporary_data_on_disk_size_for_query": 256 << 20,
    "max_untracked_memory": 4 << 20,
}
"""Of these settings a statement beside a recorder gets no more: it is the recorder's memory, and its disk."""
MAX_CONNECTIONS = 1_000
READ_ONLY_CONNECTIONS = 64
"""Each is a descriptor of the process: beside a recorder, one that its log may need."""
KEEP_ALIVE_S = 60.0
FIRST_REQUEST_S = 30.0
"""How long a connection may be open without a request."""
MAX_URL_BYTES = 1 << 20
MAX_HEADER_BYTES, READ_ONLY_HEADER_BYTES = 128 << 10, 16 << 10
"""Of one header; there may be 128."""
SWEEP_S = 1.0
END_EVERY_S = 0.25
CLOSE_WAIT_S = 5.0
"""What a closing server waits for statements it has ended."""
_NO_HANDLE = (
    "There is no handle {path}\n\nUse / or /ping for health checks.\nOr /replicas_status for more sophisticated health "
    "checks.\n\nSend queries from your program with POST method or GET /?query=...\n"
)


class DevServer:
    """See the module.

    `path` is the engine's folder; where this process has it open already, it is joined. `addr` is `host:port`, port 0
    takes a free one; errors name the `option` it came from. Requests come from `user` with `password`, which None
    leaves open. `tls` is a context, or `tls_cert`, `tls_key` and `tls_client_ca` are PEM files. Beyond loopback it
    opens with `allow_remote` and a password alone.

    `max_concurrent` statements run at a time, on `max_connections`; more are refused. `settings` of ClickHouse hold for
    each, whatever it says itself; `nice` is the priority of the threads that run them. A body may have
    `max_body_bytes`, an answer that is waited for whole `max_answer_bytes`.

    `read_only` answers questions and nothing else: beside a recorder, so few at a time, with one thread each, at the
    priority of its engine and with the `READ_ONLY_` limits, unless said otherwise.

    Raises:
        DevServerError: an address or a TLS file that cannot be.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        addr: str | Address = "127.0.0.1:0",
        option: str = "--addr",
        database: str = "default",
        user: str = "default",
        password: str | None = None,
        tls: ssl.SSLContext | None = None,
        tls_cert: str | os.PathLike[str] | None = None,
        tls_key: str | os.PathLike[str] | None = None,
        tls_client_ca: str | os.PathLike[str] | None = None,
        hooks: Hooks | None = None,
        read_only: bool = False,
        allow_remote: bool = False,
        max_concurrent: int | None = None,
        max_connections: int | None = None,
        settings: Mapping[str, Any] | None = None,
        nice: int | None = None,
        max_body_bytes: int | None = None,
        max_answer_bytes: int | None = None,
        keep_free_bytes: int | None = None,
        tmp_dir: str | os.PathLike[str] | None = None,
    ):
        try:
            self._wanted = parse_address(addr) if isinstance(addr, str) else addr
        except ValueError as error:
            raise DevServerError(str(error)) from None
        if not self._wanted.loopback and not (allow_remote and password):
            # Whoever opens it beside a recorder has no way to ask for a password.
            remedy = "reach it through a tunnel" if read_only else "allow remote access and set a password"
            raise DevServerError(
                f"address {self._wanted}: other machines would reach it; use 127.0.0.1:{self._wanted.port}, or {remedy}"
            )
        if tls is None and tls_cert is not None:
            tls = tls_context(tls_cert, tls_key, tls_client_ca)
        self._option = option
        self._tls = tls
        self._path = pathlib.Path(os.path.realpath(path))
        self._tmp_dir = pathlib.Path(tmp_dir) if tmp_dir else self._path.with_name(self._path.name + ".tmp")
        self._database = database
        self._user, self._password = user, password
        self._hooks = hooks
        self._nice = nice if nice is not None else ENGINE_NICE if read_only else 0
        self._engine = Engine(self._path, keep_free_bytes=keep_free_bytes, tmp_dir=self._tmp_dir)
        self._running = Running(max_concurrent or (READ_ONLY_CONCURRENT if read_only else MAX_CONCURRENT))
        self._sessions = Sessions()
        self._read_only = read_only
        given = settings if settings is not None else {"max_threads": 1} if read_only else {}
        self._settings = {name: str(value) for name, value in given.items()}
        self._max_body_bytes = max_body_bytes or (READ_ONLY_BODY_BYTES if read_only else MAX_BODY_BYTES)
        self._max_connections = max_connections or (READ_ONLY_CONNECTIONS if read_only else MAX_CONNECTIONS)
        self._max_answer_bytes = max_answer_bytes or (
            READ_ONLY_ANSWER_BYTES if read_only else MAX_ANSWER_BYTES
        )
        self._front: Front
        self._server: Server | None = None
        self._address: Address | None = None
        self._runner: web.AppRunner | None = None
        self._door: Door
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closing = asyncio.Event()

    @property
    def address(self) -> Address:
        """Where it listens."""
        assert self._address is not None, "not started"
        return self._address

    @property
    def url(self) -> str:
        """Where it is reached."""
        return f"{'https' if self._tls else 'http'}://{self.address}"

    async def start(self) -> Self:
        """Open the engine and the port.

        Raises:
            DevServerError: the port cannot be opened.
            SinkUnavailable: the folder cannot be used.
        """
        bound = listen(self._wanted, self._option)
        try:
            self._server = await on_thread(
                "devserver-open", lambda: self._engine.open(self._database), nice=self._nice
            )
            self._front = self._make_front(self._server)
            app = web.Application()
            app.router.add_route("*", "/{tail:.*}", self._handle)
            self._runner = web.AppRunner(
                app,
                access_log=None,
                handle_signals=False,
                handler_cancellation=True,
                auto_decompress=False,
                shutdown_timeout=1.0,
                keepalive_timeout=KEEP_ALIVE_S,
                logger=silent(),
                max_line_size=MAX_URL_BYTES,
                max_field_size=READ_ONLY_HEADER_BYTES if self._read_only else MAX_HEADER_BYTES,
                read_bufsize=1 << 18,
            )
            await self._runner.setup()
            self._door = Door(self._runner, self._max_connections, FIRST_REQUEST_S)
            await self._door.open(bound, self._tls)
        except BaseException:
            bound.close()
            await self.close()
            raise
        self._address = Address(self._wanted.host, int(bound.getsockname()[1]))
        self.spawn(self._sweep())
        return self

    async def close(self) -> bool:
        """Take no more requests, end what runs, close the engine. Idempotent.

        False where a statement would not end: the engine stays open, and the process should end by `os._exit`.
        """
        runner, self._runner = self._runner, None
        self._closing.set()
        if runner is not None and self._address is not None:
            self._door.close()
        for run in self._running.all():
            self.spawn(self.end(run))
        if runner is not None:
            await runner.cleanup()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_WAIT_S):
                await self._running.idle()
                # What ends statements has connections of its own: the engine must not be closed around them.
                await asyncio.gather(*self._tasks, return_exceptions=True)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for session in self._sessions.all():
            if not session.busy:
                await on_thread("devserver-close", session.close)
        await on_thread("devserver-close", self._engine.close)
        return not self._running.all()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        """Let something go on beside the requests."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def end(self, run: Run) -> None:
        """End a statement: ask until it has ended, because it may not be in the engine's list yet."""
        run.cancelled = True
        wait_s = 0.02
        while self._running.by_id(run.query_id) is run:
            with contextlib.suppress(Exception):
                await on_thread("devserver-kill", lambda: self._engine.kill(run.mark))
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, END_EVERY_S)

    async def _handle(self, http: web.Request) -> web.StreamResponse:
        assert self._server is not None
        self._door.heard(http)
        if self._strange_host(http):
            return web.Response(status=403, text="This host is not this machine; ask for 127.0.0.1.\n")
        if not self._password and _from_a_page(http):
            return web.Response(
                status=403,
                text="A web page asks, and this server has no password that would keep it out; set one.\n",
            )
        asks = http.path in ("/", "/query")
        if http.path in ("/ping", "/replicas_status") or (http.path == "/" and _greets(http)):
            return web.Response(text="Ok.\n", content_type="text/html", headers=self._greeting())
        if http.method == "OPTIONS":
            return web.Response(status=204)
        if not asks or http.method not in ("GET", "HEAD", "POST", "PUT"):
            return web.Response(status=404, text=_NO_HANDLE.format(path=http.path))
        return await Exchange(http, self._front).answer()

    def _make_front(self, server: Server) -> Front:
        return Front(
            server,
            Executor(
                self._engine,
                self._running,
                self._database,
                settings=self._settings,
                limits=READ_ONLY_LIMITS if self._read_only else {},
                read_only=self._read_only,
                reaching=server.reaching,
            ),
            self._running,
            self._sessions,
            self._hooks,
            nice=self._nice,
            admits=self._admits,
            beside=self.spawn,
            end=lambda run: self.spawn(self.end(run)),
            body_bytes=self._max_body_bytes,
            query_bytes=READ_ONLY_BODY_BYTES if self._read_only else MOST_QUERY_BYTES,
            answer_bytes=self._max_answer_bytes,
            takes_data=not self._read_only,
            folder=self._tmp_dir,
        )

    def _greeting(self) -> dict[str, str]:
        assert self._server is not None
        return {"X-ClickHouse-Server-Display-Name": self._server.name}

    def _admits(self, user: str, password: str) -> bool:
        """Whether these credentials are the right ones."""
        known = hmac.compare_digest(user.encode("utf-8", "replace"), self._user.encode())
        if self._password is None:
            return known
        right = hmac.compare_digest(password.encode("utf-8", "replace"), self._password.encode())
        return known and right

    def _strange_host(self, http: web.Request) -> bool:
        """Whether a browser may have been led here under another name.

        A password keeps such out by itself, and so does TLS: the certificate is not for a name of theirs.
        """
        if self._password or self._tls is not None or not http.host:
            return False
        host = http.host.rsplit(":", 1)[0] if not http.host.endswith("]") else http.host
        return self._wanted.loopback and not Address(host.strip("[]"), 0).loopback

    async def _sweep(self) -> None:
        """Close sessions that nobody uses any more."""
        while not self._closing.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), SWEEP_S)
            self._door.sweep()
            for session in self._sessions.expired():
                await on_thread("devserver-close", session.close)


def _from_a_page(http: web.Request) -> bool:
    """Whether a browser says that a page of another site makes it ask. `Origin: null` is anybody's."""
    if http.headers.get("Sec-Fetch-Site", "").strip().lower() in ("cross-site", "same-site"):
        return True
    origins = http.headers.getall("Origin", [])
    return not all(_of_this_machine(origin) for origin in origins)


def _of_this_machine(origin: str) -> bool:
    try:
        host = urllib.parse.urlsplit(origin.strip()).hostname
    except ValueError:
        return False
    return host is not None and Address(host, 0).loopback


def _greets(http: web.Request) -> bool:
    return http.method in ("GET", "HEAD") and not http.query_string
