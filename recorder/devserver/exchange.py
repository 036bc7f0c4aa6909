"""One request and its answer: who asks, what, with which data."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import socket
import struct
import urllib.parse
from collections.abc import Coroutine
from typing import Any, TypeVar

from aiohttp import BodyPartReader, web

from recorder.devserver import reply, request
from recorder.devserver.body import Body, ExternalTable, Whole, no_data
from recorder.devserver.delivery import Delivery, Job
from recorder.devserver.errors import Code, StatementError
from recorder.devserver.front import Front
from recorder.devserver.hooks import Answer, Cut
from recorder.devserver.request import Request
from recorder.devserver.spool import Spool, too_large

log = logging.getLogger(__name__)
T = TypeVar("T")

LINGER_S = 1.0
"""How long a client that did not send in time has for reading what it is told."""
FIELD_BYTES = 1 << 26
"""The most that a field of a form may have: a query, or a query parameter."""
PART_BYTES = 1 << 18
_LINGER_NOT = struct.pack("ii", 1, 0)


class Exchange:
    """Made for one request; `answer` is called once."""

    def __init__(self, http: web.Request, front: Front):
        self._http = http
        self._front = front
        given = http.query.get("query_id", "") or http.headers.get("X-ClickHouse-Query-Id", "")
        self._query_id = given if request.fits_header(given) else ""
        self._received = 0

    async def answer(self) -> web.StreamResponse:
        """Run what the request says, and answer it."""
        try:
            return await self._answer()
        except StatementError as error:
            return reply.failure(self._front.server, self._query_id, error)
        except Answer as instead:
            return self._instead(instead)
        except Cut as cut:
            self._cut(reset=cut.reset)
            return web.Response()
        except ConnectionError:
            return web.Response()  # to nobody: the client has gone
        except OSError as error:
            failed = StatementError.ours(Code.STD_EXCEPTION, f"The server cannot keep the request: {error}.")
            return reply.failure(self._front.server, self._query_id, failed)
        except web.HTTPException:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an answer
            # Without its text or trace: they may quote what the request holds.
            log.error(
                "a request failed by %s of ours; see docs/devserver.md, and report it", type(error).__name__
            )
            failed = StatementError.ours(Code.STD_EXCEPTION, f"The server failed by {type(error).__name__}.")
            return reply.failure(self._front.server, self._query_id, failed)

    async def _answer(self) -> web.StreamResponse:
        http = self._http
        self._authenticate()
        multipart = http.content_type == "multipart/form-data"
        asked = request.parse(http.method, http.rel_url.raw_query_string, http.headers, multipart=multipart)
        self._query_id = asked.query_id
        if http.method == "POST" and not http.body_exists and "Content-Length" not in http.headers:
            raise StatementError.ours(
                Code.HTTP_LENGTH_REQUIRED,
                "The Transfer-Encoding is not chunked and there is no Content-Length header for POST request.",
            )
        with contextlib.ExitStack() as kept:
            data = kept.enter_context(self._spool())
            if multipart:
                asked, whole = await self._form(asked, data, kept)
            else:
                whole = await self._body(asked, data)
            delivery = Delivery(http, self._front, Job.of(asked, whole, data.path), data_bytes=data.size)
            await delivery.begin(kept.pop_all())
        return await delivery.deliver()

    def _spool(self) -> Spool:
        return Spool(self._front.folder, limit_bytes=self._front.body_bytes)

    def _authenticate(self) -> None:
        who = request.credentials(self._http.rel_url.raw_query_string, self._http.headers)
        if not self._front.admits(who.user, who.password):
            raise StatementError.ours(
                Code.AUTHENTICATION_FAILED,
                f"{who.user}: Authentication failed: password is incorrect, or there is no user with such name.",
            )

    async def _body(self, asked: Request, data: Spool) -> Whole:
        http = self._http
        body = self._taken(asked, data, http.headers.get("Content-Encoding", ""))
        if http.body_exists:
            while piece := await self._in_time(asked, http.content.readany()):
                await self._tell(asked, piece)
                body.feed(piece)
        return body.finish()

    async def _in_time(self, asked: Request, piece: Coroutine[Any, Any, T]) -> T:
        """The next of the body, which a client may not keep us waiting for."""
        limit_s = self._front.receive_s(asked)
        try:
            async with asyncio.timeout(limit_s):
                return await piece
        except TimeoutError:
            if (transport := self._http.transport) is not None:
                asyncio.get_running_loop().call_later(LINGER_S, transport.abort)
            raise StatementError.ours(
                Code.SOCKET_TIMEOUT,
                f"Timeout exceeded while reading from socket: nothing of the body came for {limit_s:g} s.",
            ) from None

    def _taken(self, asked: Request, data: Spool, encoding: str = "") -> Body:
        most = min(asked.max_query_bytes, self._front.query_bytes)
        return Body(asked.query, encoding, data, most, takes_data=self._front.takes_data)

    async def _form(self, asked: Request, data: Spool, kept: contextlib.ExitStack) -> tuple[Request, Whole]:
        """A form: fields are parameters as in the URL, files are tables."""
        pairs = urllib.parse.parse_qsl(
            self._http.rel_url.raw_query_string, keep_blank_values=True, errors="surrogateescape"
        )
        files: dict[str, Spool] = {}
        try:
            parts = await self._http.multipart()
            while (part := await self._in_time(asked, parts.next())) is not None:
                if not isinstance(part, BodyPartReader) or not part.name:
                    raise ValueError("a part of it has no name")
                if part.filename is not None:
                    if not self._front.takes_data:
                        raise no_data()
                    files[part.name] = kept.enter_context(self._spool())
                    while piece := await self._in_time(asked, part.read_chunk(PART_BYTES)):
                        await self._tell(asked, piece)
                        files[part.name].write(piece)
                else:
                    pairs.append((part.name, await self._field(asked, part)))
        except ValueError as error:
            raise StatementError.ours(Code.BAD_ARGUMENTS, f"The form cannot be read: {error}.") from error
        again = request.build(pairs, self._http.headers, readonly_method=False, multipart=True)
        again = dataclasses.replace(again, query_id=asked.query_id)
        tables = tuple(ExternalTable.of(name, file.path, again.external) for name, file in files.items())
        body = self._taken(again, data)
        return again, dataclasses.replace(body.finish(), tables=tables)

    async def _field(self, asked: Request, part: BodyPartReader) -> str:
        value = bytearray()
        while piece := await self._in_time(asked, part.read_chunk(PART_BYTES)):
            await self._tell(asked, piece)
            value += piece
            if len(value) > FIELD_BYTES:
                raise StatementError.ours(
                    Code.QUERY_IS_TOO_LARGE,
                    f"The form's field {part.name} is larger than {FIELD_BYTES} bytes.",
                )
        return value.decode("utf-8", "surrogateescape")

    async def _tell(self, asked: Request, piece: bytes) -> None:
        self._received += len(piece)
        if self._received > self._front.body_bytes:
            raise too_large(self._front.body_bytes)
        if self._front.hooks is not None and piece:
            await self._front.hooks.received(
                asked.query.decode("utf-8", "replace"), len(piece), self._received
            )

    def _instead(self, instead: Answer) -> web.Response:
        said = reply.headers(self._front.server, self._query_id)
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
