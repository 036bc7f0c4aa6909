"""One partition of a table as the archive takes it: sorted Arrow, exact, block by block, from either kind of database.

Only reads. Of the answer no more is held than a block, but for what the engine itself sorts.
"""

from __future__ import annotations

import abc
import io
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa

from recorder.cli.database import connect_quietly, error_code, folder_of, must_exist, plain_message
from recorder.cli.errors import Failure
from retention.archive import Place
from retention.archive.rowhash import LOG, SEQ

if TYPE_CHECKING:
    from recorder.cli.server_reader import ServerReader
    from recorder.settings import Settings

BLOCK_ROWS = 16_384
_SETTINGS = (
    "output_format_arrow_string_as_string = 0, output_format_arrow_low_cardinality_as_dictionary = 0, "
    f"output_format_arrow_date_as_uint16 = 0, max_block_size = {BLOCK_ROWS}, optimize_read_in_order = 1"
)
"""Strings as the bytes they are, and blocks that are read in the table's order instead of being sorted whole."""
_DERIVED = ("ALIAS", "EPHEMERAL", "MATERIALIZED")
_UNKNOWN_DATABASE = 81


class Answers(abc.ABC):
    """What is asked of a database."""

    @abc.abstractmethod
    def arrow(self, sql: str) -> Iterator[pa.RecordBatch]:
        """The rows of a statement, block by block."""

    @abc.abstractmethod
    def small(self, sql: str) -> list[list[Any]]:
        """The rows of a small answer."""

    @abc.abstractmethod
    def close(self) -> None:
        """Release it."""


class TableSource:
    """One partition of a table; see `retention.archive.Source`."""

    def __init__(self, answers: Answers, database: str, place: Place):
        self.database, self.place, self._answers = database, place, answers
        where = f"database = {_text(database)} AND table = {_text(place.table)}"
        named = answers.small(
            f"SELECT sorting_key FROM system.tables WHERE {where.replace('table =', 'name =')}"
        )
        if not named:
            raise Failure(f"{database} has no table {place.table}; see \"recorder query 'SHOW TABLES'\"")
        self.order_by: str = named[0][0]
        columns = answers.small(
            f"SELECT name, type FROM system.columns WHERE {where} AND default_kind NOT IN {_DERIVED} ORDER BY position"
        )
        self.columns: Mapping[str, str] = dict(columns)
        if lacking := [name for name in (LOG, SEQ) if name not in self.columns]:
            raise Failure(
                f"{place.table} has no column {lacking[0]}, by which its rows are told apart; "
                "only tables of a pack can be archived"
            )
        parts = answers.small(
            f"SELECT partition_id, toInt64(sum(rows)) FROM system.parts WHERE {where} AND active "
            "GROUP BY partition_id ORDER BY partition_id"
        )
        mine = [part for part in parts if part[0] == place.id or part[0].startswith(f"{place.id}-")]
        if not mine:
            there = f"{parts[0][0]} to {parts[-1][0]}, {len(parts)} in all" if parts else "none"
            if len(parts) == 1:
                there = parts[0][0]
            raise Failure(f"{place.table} has no partition {place.partition}; it has: {there}")
        self.rows = sum(int(part[1]) for part in mine)
        ids = ", ".join(_text(part[0]) for part in mine)
        self._from = f"FROM {_name(database)}.{_name(place.table)} WHERE _partition_id IN ({ids})"

    def batches(self) -> Iterator[pa.RecordBatch]:
        """See `Source`."""
        order = ", ".join(part for part in (self.order_by, "_log", "_seq") if part)
        columns = ", ".join(map(_name, self.columns))
        return self._answers.arrow(f"SELECT {columns} {self._from} ORDER BY {order} SETTINGS {_SETTINGS}")

    def identities(self) -> Iterator[pa.RecordBatch]:
        """See `Source`."""
        return self._answers.arrow(f"SELECT _log, _seq {self._from} SETTINGS {_SETTINGS}")


def open_answers(settings: Settings) -> Answers:
    """The database of `settings`.

    Raises:
        Failure, SinkError: there is no such database, or it cannot be opened.
    """
    if settings.target.embedded:
        return _Embedded(settings)
    return _Server(settings)


class _Embedded(Answers):
    """The engine in this process, which writes every block as an answer of its own."""

    def __init__(self, settings: Settings):
        folder = folder_of(settings)
        must_exist(folder)
        self._connection = connect_quietly(folder, settings)
        try:
            self._connection.query(f"USE {_name(settings.database)}")
            self._connection.query("SET readonly = 2")
        except Exception as error:
            self.close()
            if error_code(error) == _UNKNOWN_DATABASE:
                raise Failure(
                    f"{folder} has no database {settings.database}; name another with RECORDER_DATABASE, "
                    'or make it with "recorder migrate up"'
                ) from error
            raise Failure(plain_message(error)) from error

    def arrow(self, sql: str) -> Iterator[pa.RecordBatch]:
        """See `Answers`."""
        try:
            with self._connection.send_query(sql, "ArrowStream") as answer:
                for piece in answer:
                    yield from pa.ipc.open_stream(piece.bytes())
        except RuntimeError as error:
            raise Failure(plain_message(error)) from error

    def small(self, sql: str) -> list[list[Any]]:
        """See `Answers`."""
        try:
            return _lines(self._connection.query(sql, "JSONCompactEachRow").bytes())
        except RuntimeError as error:
            raise Failure(plain_message(error)) from error

    def close(self) -> None:
        """See `Answers`."""
        self._connection.close()


class _Server(Answers):
    """A server, whose answer comes through as it writes it."""

    def __init__(self, settings: Settings):
        from recorder.cli.server_reader import ServerReader

        self._reader: ServerReader = ServerReader(settings)

    def arrow(self, sql: str) -> Iterator[pa.RecordBatch]:
        """See `Answers`."""
        answer = io.BufferedReader(_Pieces(self._reader.stream(sql, "ArrowStream")))
        if answer.peek(1):
            yield from pa.ipc.open_stream(answer)

    def small(self, sql: str) -> list[list[Any]]:
        """See `Answers`."""
        return _lines(b"".join(self._reader.stream(sql, "JSONCompactEachRow")))

    def close(self) -> None:
        """See `Answers`."""
        self._reader.close()


class _Pieces(io.RawIOBase):
    """Pieces of an answer as a file to read from."""

    def __init__(self, pieces: Iterator[bytes]):
        self._pieces, self._rest = pieces, memoryview(b"")

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """As many bytes as are there."""
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = memoryview(piece)
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


def _lines(answer: bytes) -> list[list[Any]]:
    return [orjson.loads(line) for line in answer.splitlines() if line]


def _text(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _name(name: str) -> str:
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"
