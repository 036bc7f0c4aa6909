"""What `recorder query` and `recorder export` ask of a database: an answer in pieces, in a form, and no change."""

from __future__ import annotations

import abc
import itertools
import pathlib
import re
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from recorder.failure import Failure
from recorder.reading.database import connect_quietly, error_code, folder_of, must_exist, plain_message
from schemas.quote import quote_text

if TYPE_CHECKING:
    import pyarrow as pa

    from recorder.settings import Settings

LINES = frozenset(
    {
        "CSV", "TSV", "TSVRaw", "TabSeparated", "TabSeparatedRaw", "JSONEachRow", "JSONStringsEachRow", "JSONLines",
        "JSONCompactEachRow", "JSONCompactStringsEachRow", "NDJSON", "RawBLOB",
    }
)  # fmt: skip
"""Formats of which pieces can be put together: one row a line, and nothing around them but header lines."""
ARROW = "ArrowStream"
_OUTPUT_WORDS = re.compile(r"\b(?:format|outfile)\b", re.IGNORECASE)
"""Without one of these words there is no such clause, and nothing to ask the parser."""
_FORMAT_CLAUSE = re.compile(r" FORMAT `?(\w+)`?(?: SETTINGS .*)?\s*$", re.DOTALL)
_OUTFILE_CLAUSE = re.compile(r" INTO OUTFILE '")
_NO_ANSWER = re.compile(r"INSERT ")
"""Its FORMAT is that of the rows it brings, and it is refused for other reasons."""
_SEVERAL = "Multi-statements are not allowed"
_NO_STREAM = "Streaming query is not supported"
_READ_ONLY = 164
_UNKNOWN_FORMAT = 73
_UNKNOWN_DATABASE = 81
_OUTFILE_REFUSED = "INTO_OUTFILE_NOT_ALLOWED"
"""Over HTTP the parser's word on a clause of the statement may be to refuse it, even where it is only explained."""
_NO_FILES = "query writes no files of its own; leave INTO OUTFILE out and redirect the answer with >"


class Reader(abc.ABC):
    """A read-only handle of a database."""

    def refuse_own_output(self, sql: str) -> None:
        """See that a statement leaves the form and the place of its answer to the options.

        Only the engine's parser can tell: `format` is also a function, a good name of a column, and text in strings
        and comments. Its formatter takes comments away and writes each clause in one way, and the tree it explains
        has what the clauses name right below the statement; a clause is where both say so.

        Raises:
            click.UsageError: it has a FORMAT or an INTO OUTFILE, or is more than one statement, which may.
        """
        if not _OUTPUT_WORDS.search(sql):
            return
        try:
            plain = self._text(f"SELECT formatQuerySingleLine({quote_text(sql)})")
        except Exception as error:
            if _SEVERAL in str(error):
                raise click.UsageError("give one statement at a time; here are several") from error
            return  # it cannot be parsed: asking it says why
        clauses = _FORMAT_CLAUSE.search(plain), _OUTFILE_CLAUSE.search(plain)
        if not any(clauses) or _NO_ANSWER.match(plain):
            return
        try:
            shown = self._text(f"EXPLAIN AST {sql}")
        except Exception as error:
            if _OUTFILE_REFUSED in str(error):
                raise click.UsageError(_NO_FILES) from error
            raise
        tree = [line[1:] for line in shown.splitlines() if line[:2].strip() and line[0] == " "]
        if clauses[1] and any(node.startswith("Literal ") for node in tree):
            raise click.UsageError(_NO_FILES)
        if clauses[0] and f"Identifier {clauses[0][1]}" in tree:
            raise click.UsageError(
                f"leave FORMAT {clauses[0][1]} out of the SQL and give it as --format {clauses[0][1]}"
            )

    @abc.abstractmethod
    def _text(self, sql: str) -> str:
        """The answer of a small statement, as `TSVRaw`."""

    @abc.abstractmethod
    def limit(self, rows: int) -> None:
        """Let the engine end every further answer soon after so many rows."""

    @abc.abstractmethod
    def write_as(self, settings: Mapping[str, str]) -> bool:
        """Have every further answer written by these settings of the engine; whether the user may ask for that."""

    @abc.abstractmethod
    def stream(self, sql: str, clickhouse_format: str) -> Iterator[bytes]:
        """The answer in the given format, piece by piece.

        Raises:
            Failure: the statement failed; pieces before it may be out already.
        """

    @abc.abstractmethod
    def arrow(self, sql: str) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        """The answer as Arrow, batch by batch, never held whole where the statement can be streamed.

        Raises:
            Failure: the statement failed, here or at any batch.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Release it."""


def open_reader(settings: Settings) -> Reader:
    """The reader of the target of `settings`.

    Raises:
        Failure, SinkError: there is no such database, or it cannot be opened.
    """
    if settings.target.embedded:
        return EmbeddedReader(settings)
    from recorder.reading.server_reader import ServerReader

    return ServerReader(settings)


class EmbeddedReader(Reader):
    """On the engine in this process; `connect` opens it, by default without merges."""

    def __init__(
        self,
        settings: Settings,
        *,
        connect: Callable[[pathlib.Path, Settings], Any] = connect_quietly,
    ):
        folder = folder_of(settings)
        must_exist(folder)
        self._open: list[Generator[pa.RecordBatchReader]] = []
        self._connection = connect(folder, settings)
        try:
            self._connection.query(f"USE `{settings.database}`")
            # The engine refuses every change from here on, of this setting too.
            self._connection.query("SET readonly = 2")
        except Exception as error:
            self.close()
            if error_code(error) == _UNKNOWN_DATABASE:
                raise Failure(
                    f"{folder} has no database {settings.database}; name another with RECORDER_DATABASE, "
                    'or make it with "recorder migrate up"'
                ) from error
            raise Failure(plain_message(error)) from error

    def _text(self, sql: str) -> str:
        answer: bytes = self._connection.query(sql, "TSVRaw").bytes()
        return answer.decode("utf-8", "replace")

    def limit(self, rows: int) -> None:
        """Let the engine end every further answer soon after so many rows."""
        self._connection.query(f"SET max_result_rows = {rows}, result_overflow_mode = 'break'")

    def write_as(self, settings: Mapping[str, str]) -> bool:
        """Have every further answer written by these settings of the engine; always possible here."""
        self._connection.query("SET " + ", ".join(f"{name} = '{value}'" for name, value in settings.items()))
        return True

    def arrow(self, sql: str) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        """The answer as Arrow, batch by batch.

        Raises:
            Failure: the statement failed, here or at any batch.
        """
        answers = self._arrow_answers(sql)
        self._open.append(answers)
        first = next(answers)

        def batches() -> Iterator[pa.RecordBatch]:
            try:
                for answer in itertools.chain((first,), answers):
                    yield from answer
            finally:
                answers.close()
                self._open.remove(answers)

        return first.schema, batches()

    def _arrow_answers(self, sql: str) -> Generator[pa.RecordBatchReader]:
        """One answer a piece, all of one schema; at least one."""
        import pyarrow as pa

        some = False
        try:
            try:
                with self._connection.send_query(sql, ARROW) as pieces:
                    for piece in pieces:
                        some = True
                        yield pa.ipc.open_stream(_content(piece))
            except Exception as error:
                if _NO_STREAM not in str(error):
                    raise
            # An answer without rows has no piece, and what cannot be streamed none so far.
            if not some:
                yield pa.ipc.open_stream(_content(self._connection.query(sql, ARROW)))
        except GeneratorExit:
            raise
        except Exception as error:
            raise explained(error, ARROW) from error

    def stream(self, sql: str, clickhouse_format: str) -> Iterator[bytes]:
        """The answer in the given format, piece by piece where the format has no frame, else whole.

        The engine writes every piece as an answer of its own. Lines can be put together again, header lines of all
        but the first piece left out; a file with a frame (Parquet, JSON, ...) cannot, and is held in memory.

        Raises:
            Failure: the statement failed; pieces before it may be out already.
        """
        headers = _header_lines(clickhouse_format)
        try:
            if headers is None:
                yield self._connection.query(sql, clickhouse_format).bytes()
                return
            try:
                answer = self._connection.send_query(sql, clickhouse_format)
            except Exception as error:
                if _NO_STREAM not in str(error):
                    raise
                yield self._connection.query(sql, clickhouse_format).bytes()
                return
            header = b""
            for piece in answer:
                content: bytes = piece.bytes()
                if headers and not header:
                    header = b"".join(line + b"\n" for line in content.split(b"\n", headers)[:headers])
                elif headers:
                    content = content.removeprefix(header)
                yield content
        except GeneratorExit:
            raise
        except Exception as error:
            raise explained(error, clickhouse_format) from error

    def close(self) -> None:
        """Release it, and what is left of its answers."""
        try:
            for answer in tuple(self._open):
                answer.close()  # while there is a connection: without one, giving up an answer crashes the engine
        finally:
            self._connection.close()


def _content(answer: Any) -> pa.Buffer:
    """The bytes of an answer where the engine has them: they are its own for as long as somebody holds the buffer."""
    import pyarrow as pa

    content = answer.get_memview()
    seen = pa.py_buffer(content.view())
    return pa.foreign_buffer(seen.address, seen.size, (answer, content))


def _header_lines(clickhouse_format: str) -> int | None:
    """How many header lines every piece of a format begins with; None where pieces cannot be put together."""
    base = clickhouse_format.removesuffix("AndTypes").removesuffix("WithNames")
    if base not in LINES:
        return None
    if clickhouse_format.endswith("WithNamesAndTypes"):
        return 2
    return 1 if clickhouse_format.endswith("WithNames") else 0


def explained(error: Exception, clickhouse_format: str) -> click.ClickException:
    """What to say of a statement that failed, or of one that the command does not do."""
    code = error_code(error)
    if code == _READ_ONLY:
        return Failure(
            'query only reads; rows come in by recording them, and tables by "recorder migrate up"'
        )
    if code == _UNKNOWN_FORMAT:
        return click.UsageError(f"ClickHouse knows no format {clickhouse_format} for answers; see --help")
    return Failure(plain_message(error))
