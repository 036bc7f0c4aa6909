"""The reader of `recorder query` and `recorder export` on a server: answers pass through as the server wrote them.

An error in the middle of an answer comes after rows that are out already. The server marks it at the end of the body
(`X-ClickHouse-Exception-Tag`), or, an older one, only writes it there and cuts the connection; so the end of an answer
is held back until it is known to be one.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from urllib3.exceptions import HTTPError

from recorder.failure import Failure
from recorder.reading.database import plain_message, server_client
from recorder.reading.reader import ARROW, Reader, explained
from recorder.sink.http_errors import failure_of

if TYPE_CHECKING:
    import pyarrow as pa

    from recorder.settings import Settings

PIECE_BYTES = 64 << 10
HELD_BACK_BYTES = 32 << 10
"""More than the longest error that a server writes at the end of an answer (16 KiB)."""
_UNKNOWN_DATABASE = 81
_OWN_WORDS = frozenset({0, 192, 193, 194, 497, 516, _UNKNOWN_DATABASE})
"""Codes of which the connection says more than the server does."""


class ServerReader(Reader):
    """On the first host of the target that is there."""

    def __init__(self, settings: Settings):
        self._stack = contextlib.ExitStack()
        self._database = settings.database
        self._settings: dict[str, Any] = {"send_progress_in_http_headers": "0"}
        try:
            client = self._stack.enter_context(server_client(settings, database=settings.database))
            self._client = client.connect()
            self._host = client.host
            self._connect_s = settings.connect_timeout_s
            known = client.server_settings
            # A user who may only read must not even say so.
            if known["readonly"].value == "0":
                self._settings["readonly"] = "2"
            # Nor may one with readonly = 1, as beside a recorder, set anything else: who reads stops reading then.
            self._may_limit = known["readonly"].value != "1" and not known["max_result_rows"].readonly
            if "http_write_exception_in_output_format" in known:
                self._settings["http_write_exception_in_output_format"] = "0"
            self._user = settings.target.user
        except BaseException:
            self._stack.close()
            raise

    def _text(self, sql: str) -> str:
        return b"".join(self._pieces(sql, "TSVRaw")).decode("utf-8", "replace")

    def limit(self, rows: int) -> None:
        """Let the engine end every further answer soon after so many rows, where the user may ask for that."""
        if self._may_limit:
            self._settings |= {"max_result_rows": str(rows), "result_overflow_mode": "break"}

    def write_as(self, settings: Mapping[str, str]) -> bool:
        """Have every further answer written by these settings of the server; whether the user may ask for that."""
        if self._may_limit:
            self._settings |= settings
        return self._may_limit

    def arrow(self, sql: str) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        """The answer as Arrow, batch by batch.

        Raises:
            Failure: the statement failed, here or at any batch.
        """
        import pyarrow as pa

        source = _Pieces(self.stream(sql, ARROW))
        reader = pa.ipc.open_stream(io.BufferedReader(source, PIECE_BYTES))

        def batches() -> Iterator[pa.RecordBatch]:
            yield from reader
            source.drain()

        return reader.schema, batches()

    def stream(self, sql: str, clickhouse_format: str) -> Iterator[bytes]:
        """The answer in the given format, piece by piece.

        Raises:
            Failure: the statement failed; pieces before it may be out already.
        """
        try:
            yield from self._pieces(sql, clickhouse_format)
        except (GeneratorExit, Failure):
            raise
        except Exception as error:
            failure = failure_of(error, self._host.place, self._user)
            raise explained(failure if failure.code in _OWN_WORDS else error, clickhouse_format) from error

    def close(self) -> None:
        """Release it."""
        self._stack.close()

    def _pieces(self, sql: str, clickhouse_format: str) -> Iterator[bytes]:
        # As a header: a clause behind the statement would be lost behind a comment, and not every statement takes one.
        wanted = {"X-ClickHouse-Format": clickhouse_format}
        with self._host.pool.within(self._connect_s, None):  # an answer takes as long as it takes
            answer: Any = self._client.raw_stream(sql, settings=self._settings, transport_settings=wanted)
        tag = answer.headers.get("X-ClickHouse-Exception-Tag", "")
        held = b""
        try:
            for piece in answer.stream(PIECE_BYTES, decode_content=True):
                held += piece
                if len(held) > HELD_BACK_BYTES + PIECE_BYTES:
                    yield held[:-HELD_BACK_BYTES]
                    held = held[-HELD_BACK_BYTES:]
        except HTTPError as error:
            raise _broken(held, tag) from error
        finally:
            answer.close()
        if tag and f"__exception__\r\n{tag}".encode() in held:
            raise _broken(held, tag)
        yield held


class _Pieces(io.RawIOBase):
    """Pieces of bytes as something to read."""

    def __init__(self, pieces: Iterator[bytes]):
        super().__init__()
        self._pieces = pieces
        self._left = memoryview(b"")

    def readable(self) -> bool:
        """It is for reading."""
        return True

    def readinto(self, target: Any, /) -> int:
        """Fill `target`, at most with what is left of one piece."""
        while not self._left and (piece := next(self._pieces, None)) is not None:
            self._left = memoryview(piece)
        part = self._left[: len(target)]
        target[: len(part)] = part
        self._left = self._left[len(part) :]
        return len(part)

    def drain(self) -> None:
        """Read to the end: what stands there may be an error."""
        for _ in self._pieces:
            pass


def _broken(end: bytes, tag: str) -> Failure:
    """What to say of an answer that did not come to its end."""
    text = end.decode("utf-8", "replace")
    found = re.search(
        r"Code: \d+\. DB::Exception: .*", text[text.rfind("__exception__\r\n" + tag) :], re.DOTALL
    )
    if found is None:
        return Failure(
            "the connection was cut in the middle of the answer; what came before is not all of it"
        )
    message = re.sub(rf"\s*\d+ {re.escape(tag)}\s*__exception__\s*$", "", found[0]) if tag else found[0]
    return Failure(plain_message(Exception(message)))
