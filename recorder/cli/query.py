"""`recorder query`: SQL against the embedded database, read-only, streamed."""

from __future__ import annotations

import json
import pathlib
import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from recorder.cli.database import connect_quietly, error_code, folder_of, must_exist, plain_message
from recorder.cli.errors import Failure
from recorder.cli.options import Invocation, pass_invocation
from recorder.cli.output import emit_table, note, write_bytes

if TYPE_CHECKING:
    from recorder.settings import Settings

TABLE = "table"
SHORT_FORMATS = {
    "json": "JSONEachRow",
    "jsonl": "JSONEachRow",
    "csv": "CSVWithNames",
    "tsv": "TSVWithNames",
    "arrow": "ArrowStream",
    "parquet": "Parquet",
    "md": "Markdown",
}
LINES = frozenset(
    {
        "CSV", "TSV", "TSVRaw", "TabSeparated", "TabSeparatedRaw", "JSONEachRow", "JSONStringsEachRow", "JSONLines",
        "JSONCompactEachRow", "JSONCompactStringsEachRow", "NDJSON", "RawBLOB",
    }
)  # fmt: skip
"""Formats of which pieces can be put together: one row a line, and nothing around them but header lines."""
BINARY = (
    "Arrow",
    "Parquet",
    "ORC",
    "Avro",
    "Native",
    "RowBinary",
    "MsgPack",
    "BSON",
    "Npy",
    "Protobuf",
    "CapnProto",
)

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


@click.command()
@click.argument("sql", required=False)
@click.option(
    "--file", "-f", "file", type=click.Path(dir_okay=False, path_type=pathlib.Path), help="Read the SQL here."
)
@click.option(
    "--format", "format_", metavar="NAME", help="table (default), json, jsonl, csv, tsv, md, arrow, parquet, or any "
    "format of ClickHouse.",
)  # fmt: skip
@click.option(
    "--max-rows", type=click.IntRange(min=1), default=1_000, show_default=True, help="Rows a table shows."
)
@pass_invocation
def query(
    invocation: Invocation, sql: str | None, file: pathlib.Path | None, format_: str | None, max_rows: int
) -> None:
    """Ask the database with SQL ("-" reads it from standard input). No statement can change a table or its rows.

    The answer has the form of --format: SQL with a FORMAT or INTO OUTFILE of its own is refused. Values leave as the
    bytes they are; a table shows bytes that are no text as escapes.

    \b
    Example:
        recorder query "SELECT strategy, count() FROM fills GROUP BY strategy"
        recorder query --format parquet "SELECT * FROM orders" > orders.parquet
        echo "SHOW TABLES" | recorder query -
    """
    text = _sql(sql, file)
    name = format_ or ("json" if invocation.json else TABLE)
    clickhouse_format = SHORT_FORMATS.get(name, name)
    if clickhouse_format.startswith(BINARY) and sys.stdout.isatty():
        raise click.UsageError(f"format {name} is not for a terminal; redirect it to a file with >")
    settings = invocation.settings()
    engine = _Reader(settings)
    try:
        engine.refuse_own_output(text)
        if name == TABLE:
            _show(engine, text, max_rows)
        elif name == "json":
            _json(engine.stream(text, clickhouse_format))
        else:
            for chunk in engine.stream(text, clickhouse_format):
                write_bytes(chunk)
    finally:
        engine.close()


def _sql(sql: str | None, file: pathlib.Path | None) -> str:
    if (sql is None) == (file is None):
        raise click.UsageError('give the SQL as one argument, as --file, or "-" for standard input')
    if file is not None:
        try:
            text = file.read_text(encoding="utf-8")
        except OSError as error:
            raise click.UsageError(f"{file}: {error.strerror}; name a file with SQL") from None
        except UnicodeDecodeError as error:
            raise click.UsageError(f"{file}: is not UTF-8 at byte {error.start}") from None
    else:
        text = sys.stdin.read() if sql == "-" else sql or ""
    text = text.strip().rstrip(";").strip()
    if not text:
        raise click.UsageError("there is no SQL; give it as one argument")
    return text


class _Reader:
    """A read-only handle of the embedded engine that gives an answer in pieces."""

    def __init__(self, settings: Settings):
        folder = folder_of(settings)
        must_exist(folder)
        self._connection = connect_quietly(folder, settings)
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
            plain = self._text(f"SELECT formatQuerySingleLine({_quoted(sql)})")
        except Exception as error:
            if _SEVERAL in str(error):
                raise click.UsageError("give one statement at a time; here are several") from error
            return  # it cannot be parsed: asking it says why
        clauses = _FORMAT_CLAUSE.search(plain), _OUTFILE_CLAUSE.search(plain)
        if not any(clauses) or _NO_ANSWER.match(plain):
            return
        tree = [
            line[1:]
            for line in self._text(f"EXPLAIN AST {sql}").splitlines()
            if line[:2].strip() and line[0] == " "
        ]
        if clauses[1] and any(node.startswith("Literal ") for node in tree):
            raise click.UsageError(
                "query writes no files of its own; leave INTO OUTFILE out and redirect the answer with >"
            )
        if clauses[0] and f"Identifier {clauses[0][1]}" in tree:
            raise click.UsageError(
                f"leave FORMAT {clauses[0][1]} out of the SQL and give it as --format {clauses[0][1]}"
            )

    def _text(self, sql: str) -> str:
        answer: bytes = self._connection.query(sql, "TSVRaw").bytes()
        return answer.decode("utf-8", "replace")

    def limit(self, rows: int) -> None:
        """Let the engine end every further answer soon after so many rows."""
        self._connection.query(f"SET max_result_rows = {rows}, result_overflow_mode = 'break'")

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
            raise _explained(error, clickhouse_format) from error

    def close(self) -> None:
        self._connection.close()


def _quoted(text: str) -> str:
    """A text as a literal of SQL."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _header_lines(clickhouse_format: str) -> int | None:
    """How many header lines every piece of a format begins with; None where pieces cannot be put together."""
    base = clickhouse_format.removesuffix("AndTypes").removesuffix("WithNames")
    if base not in LINES:
        return None
    if clickhouse_format.endswith("WithNamesAndTypes"):
        return 2
    return 1 if clickhouse_format.endswith("WithNames") else 0


def _explained(error: Exception, clickhouse_format: str) -> click.ClickException:
    code = error_code(error)
    if code == _READ_ONLY:
        return Failure(
            'query only reads; rows come in by recording them, and tables by "recorder migrate up"'
        )
    if code == _UNKNOWN_FORMAT:
        return click.UsageError(f"ClickHouse knows no format {clickhouse_format} for answers; see --help")
    return Failure(plain_message(error))


def _lines(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Whole lines of an answer that comes in pieces."""
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        yield from (line for line in lines if line)
    if rest:
        yield rest


def _json(pieces: Iterator[bytes]) -> None:
    """Rows as one JSON array, without holding them."""
    between = b"[\n"
    for line in _lines(pieces):
        write_bytes(between + line.decode("utf-8", "replace").encode())
        between = b",\n"
    write_bytes(b"[]\n" if between == b"[\n" else b"\n]\n")


def _show(engine: _Reader, sql: str, max_rows: int) -> None:
    """Rows as a table, at most `max_rows`."""
    engine.limit(max_rows + 1)
    lines = _lines(engine.stream(sql, "JSONCompactStringsEachRowWithNamesAndTypes"))
    first = next(lines, None)
    if first is None:
        return
    names, types = _values(first), _values(next(lines))
    rows: list[list[str]] = []
    cut = False
    for line in lines:
        if len(rows) == max_rows:
            cut = True
            break
        rows.append(_values(line))
    numbers = [
        name
        for name, kind in zip(names, types, strict=True)
        if any(part in kind for part in ("Int", "Float", "Decimal"))
    ]
    emit_table(names, rows, right=numbers)
    if cut:
        note(f"the first {max_rows:,} rows; --max-rows shows more, --format csv all")


def _values(line: bytes) -> list[str]:
    """A line's values; bytes that are no text become escapes."""
    values: list[str] = json.loads(line.decode("utf-8", "surrogateescape"))
    return [value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace") for value in values]
