"""One request and its answer."""

from __future__ import annotations

import asyncio
import pathlib
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web

from recorder.devserver import codecs, reply, request
from recorder.devserver.body import Body, Whole
from recorder.devserver.engine import Outcome, Server
from recorder.devserver.errors import Code, StatementError
from recorder.devserver.execute import Executor, Job, read, unlimited
from recorder.devserver.hooks import Answer, Cut, Hooks, Statement
from recorder.devserver.pipe import Pipe
from recorder.devserver.running import Run, Running, on_thread
from recorder.devserver.sessions import Session, Sessions
from recorder.devserver.spool import Spool

ANSWER_SPOOL_BYTES = 1 << 40
"""An answer that is waited for whole may be as large as the disk."""
_LINGER_NOT = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Limits:
    """What a request may take, and where it lies meanwhile."""

    body_bytes: int
    folder: pathlib.Path


class Exchange:
    """Made for one request; `answer` is called once."""

    def __init__(
        self,
        http: web.Request,
        server: Server,
        *,
        executor: Executor,
        running: Running,
        sessions: Sessions,
        hooks: Hooks | None,
        limits: Limits,
        admits: Callable[[str, str], bool],
        end: Callable[[Run], None],
    ):
        self._http = http
        self._server = server
        self._executor = executor
        self._running = running
        self._sessions = sessions
        self._hooks = hooks
        self._limits = limits
        self._admits = admits
        self._end = end
        self._query_id = http.query.get("query_id", "") or http.headers.get("X-ClickHouse-Query-Id", "")

    async def answer(self) -> web.StreamResponse:
        """Run what the request says, and answer it."""
        try:
            return await self._answer()
        except StatementError as error:
            return reply.failure(self._server, self._query_id, error)
        except Answer as instead:
            return self._instead(instead)
        except Cut as cut:
            self._cut(reset=cut.reset)
            return web.Response()
        except OSError as error:
            if isinstance(error, ConnectionError):
                raise
            failed = StatementError.ours(Code.STD_EXCEPTION, f"The server cannot keep the request: {error}.")
            return reply.failure(self._server, self._query_id, failed)

    async def _answer(self) -> web.StreamResponse:
        self._authenticate()
        http = self._http
        asked = request.parse(http.method, http.rel_url.raw_query_string, http.headers)
        self._query_id = asked.query_id
        if http.method == "POST" and not http.body_exists and "Content-Length" not in http.headers:
            raise StatementError.ours(
                Code.HTTP_LENGTH_REQUIRED,
                "The Transfer-Encoding is not chunked and there is no Content-Length header for POST request.",
            )
        data = Spool(self._limits.folder, limit_bytes=self._limits.body_bytes)
        handed_over = False
        try:
            whole = await self._body(asked, data)
            statement = Statement(
                sql=whole.text.decode("utf-8", "replace"),
                insert=whole.insert is not None or read(whole).first == "INSERT",
                bytes=data.size,
                query_id=asked.query_id,
                log_comment=asked.log_comment,
            )
            if self._hooks is not None:
                await self._hooks.before(statement)
            query = read(whole)
            run = Run(asked.query_id)
            self._running.begin(run, counts=not unlimited(query))
            handed_over = True
            return await self._run(Job(asked, whole, query, run, "", data.path), data, statement)
        finally:
            if not handed_over:
                data.close()

    def _authenticate(self) -> None:
        who = request.credentials(self._http.rel_url.raw_query_string, self._http.headers)
        if not self._admits(who.user, who.password):
            raise StatementError.ours(
                Code.AUTHENTICATION_FAILED,
                f"{who.user}: Authentication failed: password is incorrect, or there is no user with such name.",
            )

    async def _body(self, asked: request.Request, data: Spool) -> Whole:
        http = self._http
        body = Body(asked.query, http.headers.get("Content-Encoding", ""), data, asked.max_query_bytes)
        sql, received = asked.query.decode("utf-8", "replace"), 0
        if http.body_exists:
            async for piece in http.content.iter_any():
                received += len(piece)
                if self._hooks is not None and piece:
                    await self._hooks.received(sql, len(piece), received)
                body.feed(piece)
        return body.finish()

    async def _run(self, job: Job, data: Spool, statement: Statement) -> web.StreamResponse:
        """Hand the statement to the engine and its answer to the client. From here on all is let go of when it ends."""
        try:
            session = self._session(job)
            pipe = Pipe()
        except BaseException:
            self._running.end(job.run)
            data.close()
            raise
        job = Job(job.request, job.whole, job.query, job.run, pipe.path, job.data)
        done = on_thread("devserver-query", lambda: self._executor.execute(job, session))

        def let_go(finished: asyncio.Future[Outcome]) -> None:
            finished.cancelled() or finished.exception()  # looked at, whoever still waits
            pipe.close_writer()
            data.close()
            self._running.end(job.run)
            if session is not None:
                self._sessions.give_back(session, job.request.session_s)
                if job.request.close_session:
                    session.until_s = 0.0

        done.add_done_callback(let_go)
        spool = None
        if job.request.wait_end or self._hooks is not None:
            spool = Spool(self._limits.folder, limit_bytes=ANSWER_SPOOL_BYTES)
        out = reply.Reply(
            self._http, self._server, self._said(job), encoding=self._encoding(job), spool=spool
        )
        try:
            return await self._pass_on(job, pipe, done, out, statement)
        except (asyncio.CancelledError, ConnectionError):
            if self._ends_with_client(job):
                self._end(job.run)
            raise
        finally:
            pipe.close_reader()
            if spool is not None:
                spool.close()

    async def _pass_on(
        self, job: Job, pipe: Pipe, done: asyncio.Future[Outcome], out: reply.Reply, statement: Statement
    ) -> web.StreamResponse:
        while piece := await pipe.read():
            await out.write(piece)
        try:
            outcome = await asyncio.shield(done)
        except StatementError as error:
            if self._hooks is not None:
                await self._hooks.after(statement)
            return await out.fail(job.run.query_id, error)
        if self._hooks is not None:
            await self._hooks.after(statement)
        return await out.finish(outcome)

    def _session(self, job: Job) -> Session | None:
        if not job.request.session_id:
            return None
        return self._sessions.take(job.request.session_id, must_exist=job.request.session_check)

    def _said(self, job: Job) -> dict[str, str]:
        name = job.query.format or job.request.default_format
        return reply.headers(
            self._server,
            job.run.query_id,
            **{"X-ClickHouse-Format": name, "Content-Type": reply.content_type(name)},
        )

    def _encoding(self, job: Job) -> str | None:
        default = self._server.defaults.get("enable_http_compression", "0")
        if job.request.settings.get("enable_http_compression", default) not in ("1", "true"):
            return None
        return codecs.wanted(self._http.headers.get("Accept-Encoding", ""))

    def _ends_with_client(self, job: Job) -> bool:
        """Whether a statement that only reads ends when nobody waits for it; its writes would end it anyway."""
        name = "cancel_http_readonly_queries_on_client_close"
        wanted = job.request.settings.get(name, self._server.defaults.get(name, "0"))
        return job.query.answers and wanted in ("1", "true")

    def _instead(self, instead: Answer) -> web.Response:
        said = reply.headers(self._server, self._query_id)
        if instead.code:
            said["X-ClickHouse-Exception-Code"] = str(instead.code)
        return web.Response(status=instead.status, text=str(instead), headers=said)

    def _cut(self, *, reset: bool) -> None:
        transport = self._http.transport
        if transport is None:
            return
        if reset:
            bound = transport.get_extra_info("socket")
            if bound is not None:
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
            transport.abort()
        else:
            transport.close()
