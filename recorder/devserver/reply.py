"""An answer on its way out: held back until it is known to be good or large, compressed, broken where it goes wrong.

Up to `HOLD_BYTES` an answer waits for its statement to end, so that one that fails early gets its own status. Of a
longer one the beginning is out by then: the error follows it in the body, between marks that clients look for, and
the connection is closed without the last chunk.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import fcntl
import json
import math
import secrets
import termios
from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web

from recorder.devserver import codecs
from recorder.devserver.engine import Outcome, Server
from recorder.devserver.errors import StatementError
from recorder.devserver.running import Run
from recorder.devserver.spool import COPY_BYTES, Spool

HOLD_BYTES = 1 << 20
_TYPES = {
    "TabSeparated": "text/tab-separated-values; charset=UTF-8",
    "TSV": "text/tab-separated-values; charset=UTF-8",
    "CSV": "text/csv; charset=UTF-8; header=absent",
    "CSVWithNames": "text/csv; charset=UTF-8; header=present",
    "JSON": "application/json; charset=UTF-8",
    "JSONCompact": "application/json; charset=UTF-8",
    "JSONStrings": "application/json; charset=UTF-8",
    "JSONEachRow": "application/x-ndjson; charset=UTF-8",
    "JSONCompactEachRow": "application/x-ndjson; charset=UTF-8",
    "XML": "application/xml; charset=UTF-8",
    "Markdown": "text/markdown; charset=UTF-8",
}
_BINARY = (
    "Arrow", "Avro", "BSON", "CapnProto", "MsgPack", "Native", "Npy", "ORC", "Parquet", "Protobuf", "RawBLOB",
    "RowBinary",
)  # fmt: skip
_PLAIN = "text/plain; charset=UTF-8"


def content_type(name: str) -> str:
    """The media type of a format."""
    if name.startswith(_BINARY):
        return "application/octet-stream"
    if name.startswith(("TabSeparated", "TSV")):
        return _TYPES["TSV"]
    return _TYPES.get(name, _PLAIN)


def summary(outcome: Outcome) -> str:
    """`X-ClickHouse-Summary`, with what the engine tells: progress and totals it does not."""
    return json.dumps(
        {
            "read_rows": str(outcome.read_rows),
            "read_bytes": str(outcome.read_bytes),
            "written_rows": str(outcome.written_rows),
            "written_bytes": str(outcome.written_bytes),
            "result_rows": str(outcome.result_rows),
            "elapsed_ns": str(outcome.elapsed_ns),
        },
        separators=(",", ":"),
    )


def headers(server: Server, query_id: str, **more: str) -> dict[str, str]:
    """The headers of every answer to a statement."""
    return {
        "X-ClickHouse-Server-Display-Name": server.name,
        "X-ClickHouse-Query-Id": query_id,
        "X-ClickHouse-Timezone": server.timezone,
        **more,
    }


def failure(server: Server, query_id: str, error: StatementError) -> web.Response:
    """The answer to a statement that failed."""
    more = {"WWW-Authenticate": 'Basic realm="ClickHouse server HTTP API"'} if error.status == 401 else {}
    return web.Response(
        status=error.status,
        body=error.told(server.version).encode("utf-8", "surrogateescape"),
        headers={
            **headers(server, query_id),
            "X-ClickHouse-Exception-Code": str(error.code),
            "Content-Type": _PLAIN,
            **more,
        },
    )


def _in_kernel(transport: asyncio.Transport) -> int:
    """Bytes that the system holds for a client: megabytes, so that our own buffer tells little."""
    bound = transport.get_extra_info("socket")
    queued = array.array("i", [0])
    with contextlib.suppress(OSError):  # a system that does not say
        fcntl.ioctl(bound.fileno(), termios.TIOCOUTQ, queued)
    return queued[0]


@dataclass(frozen=True)
class Manner:
    """How an answer goes out: in which format, whether it has rows at all (or says only that it is done), compressed by
    what, and how long its client may take nothing of it (up to twice as long, as it is looked at no more often).
    """

    format: str
    rows: bool
    encoding: str | None
    send_s: float


class Reply:
    """The answer to a statement that runs. `spool`, if given, takes all of it before any goes out."""

    def __init__(self, http: web.Request, server: Server, run: Run, manner: Manner, spool: Spool | None):
        self._http = http
        self._server = server
        self._run = run
        self._manner = manner
        self._spool = spool
        self._held = bytearray()
        self._written = False
        self._tag = secrets.token_hex(8)
        self._stream: web.StreamResponse | None = None
        self._compressor: codecs.Compressor | None = None

    async def write(self, data: bytes) -> None:
        """The next of it."""
        self._written = self._written or bool(data)
        if self._spool is not None:
            self._spool.write(data)
        elif self._stream is None and len(self._held) + len(data) <= HOLD_BYTES:
            self._held += data
        else:
            await self._begin({})
            await self._send(data)

    async def finish(self, outcome: Outcome) -> web.StreamResponse:
        """The statement ended well."""
        if outcome.rest:
            await self.write(outcome.rest)
        more = {"X-ClickHouse-Summary": summary(outcome)}
        if self._stream is None and self._spool is None and not self._compresses:
            return web.Response(body=bytes(self._held), headers={**self._said(), **more})
        await self._begin(more)
        if self._spool is not None:
            offset = 0
            while piece := self._spool.read_at(offset, COPY_BYTES):
                await self._send(piece)
                offset += len(piece)
        assert self._stream is not None
        if self._compressor is not None:
            await self._put(self._compressor.finish())
        await self._stream.write_eof()
        return self._stream

    async def fail(self, query_id: str, error: StatementError) -> web.StreamResponse:
        """The statement failed: its own status if nothing is out yet, else a broken body."""
        if self._stream is None:
            return failure(self._server, query_id, error)
        told = error.told(self._server.version).encode("utf-8", "surrogateescape")
        tag = self._tag.encode()
        await self._send(
            b"\r\n__exception__\r\n%s\r\n%s%d %s\r\n__exception__\r\n" % (tag, told, len(told), tag)
        )
        if self._compressor is not None:
            await self._put(self._compressor.finish())  # or the error would stay in the compressor
        if self._http.transport is not None:
            self._http.transport.close()  # what is written goes out; the last chunk does not
        return self._stream

    @property
    def _compresses(self) -> bool:
        return self._manner.encoding is not None

    def _said(self) -> dict[str, str]:
        """The headers that are known when the answer begins; a format only where there are rows."""
        said = headers(self._server, self._run.query_id)
        if self._run.timezone:
            said["X-ClickHouse-Timezone"] = self._run.timezone
        if not (self._manner.rows or self._written):
            return {**said, "Content-Type": _PLAIN}
        name = self._manner.format
        return {**said, "X-ClickHouse-Format": name, "Content-Type": content_type(name)}

    async def _begin(self, more: Mapping[str, str]) -> None:
        if self._stream is not None:
            return
        said = {**self._said(), "X-ClickHouse-Exception-Tag": self._tag}
        if (encoding := self._manner.encoding) is not None:
            said["Content-Encoding"] = encoding
            self._compressor = codecs.compressor(encoding)
        self._stream = web.StreamResponse(headers={**said, **more})
        if self._spool is not None and encoding is None:
            self._stream.content_length = self._spool.size
        elif self._http.version >= (1, 1):
            self._stream.enable_chunked_encoding()
        await self._stream.prepare(self._http)
        held, self._held = bytes(self._held), bytearray()
        if held:
            await self._send(held)

    async def _send(self, data: bytes) -> None:
        await self._put(data if self._compressor is None else self._compressor.compress(data))

    async def _put(self, data: bytes) -> None:
        assert self._stream is not None
        if not data:
            return
        writing = asyncio.ensure_future(self._stream.write(data))
        untaken: float = math.inf
        try:
            while not (await asyncio.wait({writing}, timeout=self._manner.send_s))[0]:
                untaken = self._less_than(untaken)
            await writing
        finally:
            writing.cancel()

    def _less_than(self, untaken: float) -> float:
        """What waits for the client, if it took something meanwhile.

        Raises:
            ConnectionAbortedError: it did not, and is cut off.
        """
        transport = self._http.transport
        if transport is None:
            return untaken  # the writing ends by itself
        if (now := transport.get_write_buffer_size() + _in_kernel(transport)) >= untaken:
            transport.abort()
            raise ConnectionAbortedError("the client takes nothing")
        return now
