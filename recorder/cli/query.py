"""`recorder query`: SQL against the database, embedded or a server's, read-only, streamed."""

from __future__ import annotations

import json
import os
import pathlib
import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from recorder.cli.options import Invocation, PathName, pass_invocation
from recorder.cli.output import counted, emit_table, note, write_bytes
from recorder.reading.reader import open_reader

if TYPE_CHECKING:
    from recorder.reading.reader import Reader

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


@click.command()
@click.argument("sql", required=False)
@click.option(
    "--file", "-f", "file", type=PathName(dir_okay=False, path_type=pathlib.Path), help="Read the SQL here."
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
    text = sql_of(sql, file)
    name = ("json" if invocation.json else TABLE) if format_ is None else format_
    if not re.fullmatch(r"\w+", name):
        raise click.UsageError(f"--format {name!r} is no name of a format; see --help")
    clickhouse_format = SHORT_FORMATS.get(name, name)
    if clickhouse_format.startswith(BINARY) and sys.stdout.isatty():
        raise click.UsageError(f"format {name} is not for a terminal; redirect it to a file with >")
    settings = invocation.settings()
    engine = open_reader(settings)
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


def sql_of(sql: str | None, file: pathlib.Path | None) -> str:
    """The statement that was given as an argument or a file ("-": standard input), without its semicolon.

    Raises:
        click.UsageError: there is none, or it is no text.
    """
    if (sql is None) == (file is None):
        raise click.UsageError('give the SQL as one argument, as --file, or "-" for standard input')
    given = "-" if file is not None and str(file) == "-" else sql
    where = "standard input" if given == "-" else str(file) if file is not None else "the SQL"
    try:
        # Arguments too are bytes: what they say does not depend on the locale.
        content = (
            sys.stdin.buffer.read()
            if given == "-"
            else file.read_bytes()
            if file
            else os.fsencode(given or "")
        )
        text = content.decode()
    except OSError as error:
        raise click.UsageError(f"{where}: {error.strerror}; name a file with SQL") from None
    except UnicodeDecodeError as error:
        raise click.UsageError(f"{where} is not UTF-8 at byte {error.start}") from None
    text = text.strip().rstrip(";").strip()
    if not text:
        raise click.UsageError("there is no SQL; give it as one argument")
    return text


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


def _show(engine: Reader, sql: str, max_rows: int) -> None:
    """Rows as a table, at most `max_rows`."""
    engine.limit(max_rows + 1)
    lines = _lines(engine.stream(sql, "JSONCompactStringsEachRowWithNamesAndTypes"))
    first = next(lines, None)
    if first is None:
        note("no rows")
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
        note(f"the first {counted(max_rows, 'row')}; --max-rows shows more, --format csv all")


def _values(line: bytes) -> list[str]:
    """A line's values; bytes that are no text become escapes."""
    values: list[str] = json.loads(line.decode("utf-8", "surrogateescape"))
    return [value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace") for value in values]
