"""A request's body: the rest of a statement, or an insert's data, told apart as it comes.

The query of the URL and the body are one text, with a line break between them. What comes after an insert's last word
is data and goes to a spool; a statement is held in memory, up to `max_query_size`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from recorder.devserver import codecs
from recorder.devserver.errors import Code, StatementError
from recorder.devserver.spool import Spool
from recorder.devserver.statement import Insert, insert_of


@dataclass(frozen=True)
class ExternalTable:
    """A table that a request brings along: a file of its form. `structure` is SQL, `path` where its rows lie."""

    name: str
    path: str
    format: str
    structure: str

    @classmethod
    def of(cls, name: str, path: str, said: Mapping[str, str]) -> ExternalTable:
        """The table that a file of a form is, by the parameters named after it.

        Raises:
            StatementError: its columns are not said.
        """
        structure = said.get(f"{name}_structure", "")
        if not structure and (types := said.get(f"{name}_types", "")):
            structure = ", ".join(f"_{index} {kind}" for index, kind in enumerate(types.split(","), 1))
        if not structure:
            raise StatementError.ours(
                Code.BAD_ARGUMENTS,
                f"The columns of external table {name} are missing; give {name}_structure.",
            )
        return cls(name, path, said.get(f"{name}_format", "") or "TabSeparated", structure)


@dataclass(frozen=True)
class Whole:
    """A request that has come in whole: its text, and the insert it is with its data."""

    text: bytes
    insert: Insert | None
    tables: tuple[ExternalTable, ...] = ()


class Body:
    """Takes a body in pieces.

    Raises (from all of its methods):
        StatementError: it is too large, not what its encoding says, or inserts: from a file of its own, or at all where
            the server does not take data.
    """

    def __init__(
        self, query: bytes, encoding: str, spool: Spool, max_query_bytes: int, *, takes_data: bool = True
    ):
        self._undo = codecs.decompressor(encoding)
        self._spool = spool
        self._most = max_query_bytes
        self._takes_data = takes_data
        self._text = bytearray(query + b"\n" if query else b"")
        self._insert = _insert(bytes(self._text)) if query else None
        if self._insert is not None:
            self._cut()

    def feed(self, data: bytes) -> None:
        """The next bytes as they came over the wire."""
        for piece in self._undo.feed(data):
            if self._insert is not None:
                self._spool.write(piece)
                continue
            self._text += piece
            if len(self._text) > self._most:
                self._decide()

    def finish(self) -> Whole:
        """There are no more."""
        self._undo.finish()
        if self._insert is None:
            self._insert = _insert(bytes(self._text))
            if self._insert is not None:
                self._cut()
        return Whole(bytes(self._text), self._insert)

    def _decide(self) -> None:
        """The text is as long as a statement may be: what is behind it must be data."""
        self._insert = _insert(bytes(self._text))
        if self._insert is None or self._insert.data_start > self._most:
            raise StatementError.ours(
                Code.SYNTAX_ERROR,
                f"Max query size exceeded: the statement is longer than {self._most} bytes (can be increased with the "
                "`max_query_size` setting).",
            )
        self._cut()

    def _cut(self) -> None:
        assert self._insert is not None
        if not self._takes_data:
            raise no_data()
        data = bytes(self._text[self._insert.data_start :])
        if data:
            self._spool.write(data)
        self._text = bytearray(self._insert.sql)


def no_data() -> StatementError:
    """What comes with data to a server that takes none."""
    return StatementError.ours(
        Code.READONLY,
        "Cannot execute query in readonly mode: this server only answers questions; it takes no rows and no tables.",
    )


def _insert(text: bytes) -> Insert | None:
    try:
        return insert_of(text)
    except ValueError:
        raise StatementError.ours(
            Code.UNKNOWN_TYPE_OF_QUERY,
            "INSERT ... FROM INFILE reads a file of the client; send its bytes as the request's body.",
        ) from None
