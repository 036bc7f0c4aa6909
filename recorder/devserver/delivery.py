"""A statement on its way: handed to the engine, its answer handed to the client, everything let go of at its end.

The statement may outlive the request: an insert goes on when its client has gone, as in ClickHouse. So what it holds
(its data, its session, its place among the running) is let go of when the engine is done with it, whoever waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator

from aiohttp import web

from recorder.devserver import codecs, native, reply
from recorder.devserver.engine import Outcome
from recorder.devserver.errors import StatementError
from recorder.devserver.execute import Job
from recorder.devserver.front import Front
from recorder.devserver.hooks import Statement
from recorder.devserver.pipe import Pipe
from recorder.devserver.running import on_thread
from recorder.devserver.sessions import Session
from recorder.devserver.spool import Spool

__all__ = ["Delivery", "Job"]

MOST_HEAD_BYTES = 64 << 20
"""The most of an answer that is held for the types in its first block; the engine makes blocks of a few megabytes."""


class Delivery:
    """`begin` once, then `deliver` once."""

    def __init__(self, http: web.Request, front: Front, job: Job, *, data_bytes: int):
        self._http = http
        self._front = front
        self._job = job
        self._statement = Statement(
            sql=job.whole.text.decode("utf-8", "replace"),
            insert=job.query.inserts,
            bytes=data_bytes,
            query_id=job.request.query_id,
            log_comment=job.request.log_comment,
        )
        self._pipe: Pipe | None = None
        self._session: Session | None = None
        self._done: asyncio.Future[Outcome]

    async def begin(self, kept: contextlib.ExitStack) -> None:
        """Start the statement; `kept` is closed when it has ended, or here where it does not start.

        Raises:
            StatementError: it may not run now.
        """
        front, job = self._front, self._job
        with contextlib.ExitStack() as undo:
            undo.push(kept)
            if front.hooks is not None:
                await front.hooks.before(self._statement)
            front.running.begin(job.run, counts=not job.query.looks_at_others)
            undo.callback(front.running.end, job.run)
            session = self._session = self._take_session()
            if session is not None:
                undo.callback(front.sessions.give_back, session, self._session_s)
            self._pipe = pipe = Pipe()
            undo.callback(pipe.close_writer)
            self._done = on_thread(
                "devserver-query",
                lambda: front.executor.execute(job, session, pipe.path),
                nice=front.nice,
            )
            let_go = undo.pop_all()

        def ended(done: asyncio.Future[Outcome]) -> None:
            if not done.cancelled():
                done.exception()  # looked at, if nobody waits any more
            let_go.close()

        self._done.add_done_callback(ended)

    async def deliver(self) -> web.StreamResponse:
        """Pass the answer on."""
        assert self._pipe is not None
        pipe: Pipe | None = self._pipe
        with contextlib.ExitStack() as kept:
            try:
                return await self._pass_on(self._pipe, self._reply(kept))
            except asyncio.CancelledError:  # the client has gone
                if self._ends_with_client:
                    self._front.end(self._job.run)
                else:
                    pipe = None
                    self._front.beside(self._end_at_output(self._pipe))
                raise
            except (ConnectionError, StatementError, OSError):
                self._front.end(self._job.run)
                raise
            finally:
                if pipe is not None:
                    pipe.close_reader()

    async def _pass_on(self, pipe: Pipe, out: reply.Reply) -> web.StreamResponse:
        hooks = self._front.hooks
        async for piece in self._pieces(pipe):
            await out.write(piece)
        try:
            outcome = await asyncio.shield(self._done)
        except StatementError as error:
            if hooks is not None:
                await hooks.after(self._statement)
            return await out.fail(self._job.request.query_id, error)
        if hooks is not None:
            await hooks.after(self._statement)
        return await out.finish(outcome)

    async def _pieces(self, pipe: Pipe) -> AsyncIterator[bytes]:
        """The answer as it comes; one in Native with the time zones of its columns."""
        if self._format == "Native" and self._job.query.answers and (head := await pipe.read()):
            try:
                if native.has_times(head):
                    head = native.with_types(head, await self._types())
            except native.MoreError:
                head = await self._long_head(pipe, head)
            except native.OtherError:
                pass
            yield head
        while piece := await pipe.read():
            yield piece

    async def _long_head(self, pipe: Pipe, head: bytes) -> bytes:
        """The same for a first block of many pieces: read to its end only where there is a zone to say in it."""
        types = await self._types()
        if not any(map(native.has_zone, types)):
            return head
        held, more = bytearray(head), True
        while more and len(held) < MOST_HEAD_BYTES:
            wanted = 2 * len(held)  # so that all readings together are as long as two of the whole
            while len(held) < wanted and (more := bool(piece := await pipe.read())):
                held += piece
            whole = bytes(held)
            with contextlib.suppress(native.MoreError):
                try:
                    return await on_thread(
                        "devserver-head", functools.partial(native.with_types, whole, types)
                    )
                except native.OtherError:
                    break
        return bytes(held)

    async def _types(self) -> list[str]:
        front, job, session = self._front, self._job, self._session
        return await on_thread("devserver-types", lambda: front.executor.types(job, session), nice=front.nice)

    async def _end_at_output(self, pipe: Pipe) -> None:
        """Nobody waits for the statement any more: it may go on until it has something to say."""
        try:
            if await pipe.read():
                self._front.end(self._job.run)
        finally:
            pipe.close_reader()

    def _take_session(self) -> Session | None:
        request = self._job.request
        if not request.session_id:
            return None
        return self._front.sessions.take(request.session_id, must_exist=request.session_check)

    @property
    def _session_s(self) -> float:
        return 0.0 if self._job.request.close_session else self._job.request.session_s

    def _reply(self, kept: contextlib.ExitStack) -> reply.Reply:
        job, spool = self._job, None
        if job.request.wait_end or self._front.hooks is not None:
            spool = kept.enter_context(
                Spool(self._front.folder, limit_bytes=self._front.answer_bytes, holds="answer")
            )
        return reply.Reply(
            self._http,
            self._front.server,
            job.run,
            reply.Manner(self._format, job.query.tells, self._encoding, self._front.send_s(job.request)),
            spool,
        )

    @property
    def _format(self) -> str:
        job = self._job
        return job.query.format or job.request.settings.get("format", "") or job.request.default_format

    @property
    def _encoding(self) -> str | None:
        if self._setting("enable_http_compression") not in ("1", "true"):
            return None
        return codecs.wanted(self._http.headers.get("Accept-Encoding", ""))

    @property
    def _ends_with_client(self) -> bool:
        """Whether a statement that only reads ends as soon as nobody waits for it."""
        wanted = self._setting("cancel_http_readonly_queries_on_client_close")
        return self._job.query.answers and wanted in ("1", "true")

    def _setting(self, name: str) -> str:
        return self._job.request.settings.get(name, self._front.server.defaults.get(name, "0"))
