"""`recorder export parquet|csv|arrow`: a query's answer, or a table's rows, as one file, streamed.

Memory holds a row group, however long the answer is. Parquet and Arrow are made here of record batches; CSV is
ClickHouse's own.
"""

from __future__ import annotations

import contextlib
import datetime
import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from recorder.cli.errors import Failure
from recorder.cli.export_file import STANDARD_OUTPUT, Output, opened
from recorder.cli.options import Invocation, PathName, pass_invocation
from recorder.cli.output import counted, emit_json, note, notes, progress
from recorder.cli.query import sql_of
from recorder.cli.reader import open_reader
from recorder.cli.wal_filter import TIME, Moment
from recorder.cli.wal_logs import PLAIN_EVERY_S, mebibytes
from recorder.packs import packs_of
from recorder.settings_sources import did_you_mean
from recorder.version import version
from schemas.columns import Kind
from schemas.render import quote_name

if TYPE_CHECKING:
    from recorder.cli.export_forms import ArrowForm, ParquetForm
    from recorder.cli.reader import Reader
    from recorder.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])
Show = Callable[[int, int], None]
"""Told how many rows and bytes are written."""


@dataclass(frozen=True)
class Asked:
    """What is exported: a statement, or the rows of a table with a `ts_local` in [since_ns, until_ns)."""

    sql: str | None = None
    table: str | None = None
    since_ns: int | None = None
    until_ns: int | None = None
    binary: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """A statement, what it is called, its columns' types as ClickHouse names them, which Strings are bytes, and how
    many rows there are to come; no types or None where that is not known."""

    sql: str
    name: str
    types: Mapping[str, str] = field(default_factory=dict)
    binary: frozenset[str] = frozenset()
    rows: int | None = None


def _asked_options(function: F) -> F:
    for option in (
        click.option("--force", is_flag=True, help="Replace a file that is there."),
        click.option(
            "--out", required=True, type=PathName(), metavar="FILE", help='The file; "-" is standard output.'
        ),
        click.option("--until", type=Moment(), metavar="TIME", help="Rows whose ts_local is earlier."),
        click.option("--since", type=Moment(), metavar="TIME", help="Rows whose ts_local is this or later."),
        click.option("--table", "-t", metavar="NAME", help="All rows of this table or view, in its order."),
        click.option(
            "--file", "-f", "file", type=PathName(dir_okay=False, path_type=Path), help="Read the SQL here."
        ),
        click.argument("sql", required=False),
    ):
        function = option(function)
    return function


def _binary_option(function: F) -> F:
    return click.option(
        "--binary", multiple=True, metavar="COLUMN", help="A String column that holds bytes and no text."
    )(function)


@click.command()
@_asked_options
@_binary_option
@pass_invocation
def parquet(invocation: Invocation, /, out: str, force: bool, **asked: Any) -> None:
    """Write a query's answer to a Parquet file: zstd, statistics, in the order of the query.

    Columns that tables keep as bytes are binary, other Strings text. What was asked, of which database, when and by
    which version is in the file's metadata.

    \b
    Example:
        recorder export parquet "SELECT * FROM fills ORDER BY ts_local" --out fills.parquet
        recorder export parquet --table orders --since 2024-08-08 --until 2024-08-09 --out orders.parquet
    """
    from recorder.cli.export_forms import ParquetForm

    _export_batches(invocation, _asked(**asked), ParquetForm, out, force=force)


@click.command()
@_asked_options
@_binary_option
@pass_invocation
def arrow(invocation: Invocation, /, out: str, force: bool, **asked: Any) -> None:
    """Write a query's answer to an Arrow file (IPC, also known as Feather): zstd, in the order of the query.

    Columns are as in "recorder export parquet".

    \b
    Example:
        recorder export arrow "SELECT * FROM market_data WHERE symbol = 'BTCUSDT'" --out btc.arrow
        recorder export arrow --table fills --out - > fills.arrow
    """
    from recorder.cli.export_forms import ArrowForm

    _export_batches(invocation, _asked(**asked), ArrowForm, out, force=force)


@click.command()
@_asked_options
@pass_invocation
def csv(invocation: Invocation, /, out: str, force: bool, **asked: Any) -> None:
    """Write a query's answer to CSV by RFC 4180, with a header.

    NULL is nothing between the commas, an empty text "". Lists and maps are as ClickHouse writes them.

    \b
    Example:
        recorder export csv "SELECT symbol, sum(fill_qty) FROM fills GROUP BY symbol" --out volume.csv
        recorder export csv --table orders --since 2024-08-08T12:00:00 --out - | head
    """
    _export_csv(invocation, _asked(**asked), out, force=force)


def _asked(
    sql: str | None,
    file: Path | None,
    table: str | None,
    since: int | None,
    until: int | None,
    binary: tuple[str, ...] = (),
) -> Asked:
    if table is None:
        if since is not None or until is not None:
            raise click.UsageError("--since and --until go with --table; say it in the SQL with WHERE")
        return Asked(sql_of(sql, file), binary=binary)
    if sql is not None or file is not None:
        raise click.UsageError("give either SQL or --table")
    if since is not None and until is not None and until <= since:
        raise click.UsageError("--until is not after --since; no row can be between them")
    return Asked(None, table, since, until, binary)


def _export_batches(
    invocation: Invocation, asked: Asked, form: type[ParquetForm | ArrowForm], out: str, *, force: bool
) -> None:
    from recorder.cli import export_forms
    from recorder.cli.export_columns import columns_of, exact, schema_of

    settings = invocation.settings()
    began_s = time.monotonic()
    with opened(out, force=force, binary=True) as output, _reader(settings) as engine:
        source = _source(engine, asked, settings, _counts(invocation))
        answer, batches = engine.arrow(source.sql)
        if unknown := sorted(set(asked.binary).difference(answer.names)):
            raise click.UsageError(
                f"--binary {unknown[0]}: the answer has no such column{did_you_mean(unknown[0], answer.names)}"
            )
        columns = columns_of(answer, source.types, source.binary)
        schema = export_forms.with_metadata(schema_of(columns), _metadata(source, settings))
        with (
            export_forms.grouped(form, output, schema) as writer,
            _shown(invocation, source) as show,
        ):
            for batch in batches:
                writer.add(exact(batch, columns, schema))
                show(writer.rows, output.nbytes)
            writer.complete()
        output.complete()
    _report(invocation, out, writer.rows, output, time.monotonic() - began_s)


def _export_csv(invocation: Invocation, asked: Asked, out: str, *, force: bool) -> None:
    from recorder.cli.export_forms import CSV_SETTINGS, CsvRows, csv_line

    settings = invocation.settings()
    began_s = time.monotonic()
    with opened(out, force=force, binary=False) as output, _reader(settings) as engine:
        source = _source(engine, asked, settings, _counts(invocation))
        if not engine.write_as(CSV_SETTINGS):
            note("this user may set nothing on the server: NULL is \\N, and lines end without CR")
        rows = CsvRows()
        with _shown(invocation, source) as show:
            pieces = engine.stream(source.sql, "CSV" if source.types else "CSVWithNames")
            first = next(pieces, b"")  # before the header: what fails at once leaves standard output empty
            if source.types:
                output.write(csv_line(list(source.types)))
            for piece in itertools.chain((first,), pieces):
                output.write(piece)
                rows.add(piece)
                show(rows.rows, output.nbytes)
        output.complete()
    _report(invocation, out, rows.rows - (not source.types), output, time.monotonic() - began_s)


@contextlib.contextmanager
def _reader(settings: Settings) -> Iterator[Reader]:
    engine = open_reader(settings)
    try:
        yield engine
    finally:
        engine.close()


def _source(engine: Reader, asked: Asked, settings: Settings, count: bool) -> Source:
    """What to ask, and what is known of its answer.

    Raises:
        Failure: there is no such table, or it has no times.
        click.UsageError: the statement says itself where its answer goes, or is more than one.
    """
    kept_as_bytes = {
        table.name: {column.name for column in table.all_columns if column.type.kind is Kind.BYTES}
        for pack in packs_of(settings)
        for table in pack.tables
    }
    every = frozenset(itertools.chain.from_iterable(kept_as_bytes.values()))
    if asked.table is None:
        assert asked.sql is not None
        _refuse_own_output(engine, asked.sql)
        types = _types(engine, asked.sql)
        return Source(asked.sql, "query", types, every.union(asked.binary))
    keys = {
        one["name"]: one["sorting_key"]
        for one in _rows(
            engine, "SELECT name, sorting_key FROM system.tables WHERE database = currentDatabase()"
        )
    }
    if asked.table not in keys:
        near = did_you_mean(asked.table, keys) or f"; there are {', '.join(sorted(keys)) or 'none'}"
        raise click.UsageError(
            f"--table {asked.table!r}: database {settings.database} has no such table{near}"
        )
    name = quote_name(asked.table)
    types = _types(engine, f"SELECT * FROM {name}")
    where = _where(asked, types)
    sql = f"SELECT * FROM {name}{where}"
    rows = None
    if count:
        rows = int(_rows(engine, f"SELECT count() AS rows FROM {name}{where}")[0]["rows"])
    if keys[asked.table]:
        sql += f" ORDER BY {keys[asked.table]}"
    binary = frozenset(kept_as_bytes.get(asked.table, every)).union(asked.binary)
    return Source(sql, asked.table, types, binary, rows)


def _where(asked: Asked, types: Mapping[str, str]) -> str:
    if asked.since_ns is None and asked.until_ns is None:
        return ""
    if not types.get(TIME, "").startswith("DateTime64"):
        raise Failure(f"{asked.table} has no {TIME}; leave --since and --until out, or give SQL with a WHERE")
    bounds = ((">=", asked.since_ns), ("<", asked.until_ns))
    return " WHERE " + " AND ".join(
        f"{TIME} {sign} fromUnixTimestamp64Nano({at_ns}, 'UTC')"
        for sign, at_ns in bounds
        if at_ns is not None
    )


def _refuse_own_output(engine: Reader, sql: str) -> None:
    try:
        engine.refuse_own_output(sql)
    except click.UsageError as error:
        if "FORMAT" in error.message or "OUTFILE" in error.message:
            raise click.UsageError(
                "leave FORMAT and INTO OUTFILE out of the SQL; the command says the form, and --out the file"
            ) from error
        raise


def _types(engine: Reader, sql: str) -> dict[str, str]:
    """The types of an answer's columns; none where only asking tells them, or what is wrong with the statement."""
    try:
        return {one["name"]: one["type"] for one in _rows(engine, f"DESCRIBE TABLE (\n{sql}\n)")}
    except Failure:
        return {}


def _rows(engine: Reader, sql: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in b"".join(engine.stream(sql, "JSONEachRow")).splitlines()]


def _metadata(source: Source, settings: Settings) -> dict[str, str]:
    now = datetime.datetime.now(datetime.UTC)
    return {
        "query": source.sql,
        "database": settings.database,
        "version": version(),
        "exported_at": now.isoformat(timespec="seconds"),
        "types": json.dumps(source.types),
    }


def _report(invocation: Invocation, out: str, rows: int, output: Output, took_s: float) -> None:
    said = {"file": out, "rows": rows, "bytes": output.nbytes, "seconds": round(took_s, 3)}
    line = f"{out}: {counted(rows, 'row')}, {mebibytes(output.nbytes)} in {took_s:.1f} s"
    if out == STANDARD_OUTPUT:
        # What is on standard output is the export, and nothing else.
        click.echo(json.dumps(said) if invocation.json else line, err=True)
    elif invocation.json:
        emit_json(said)
    else:
        click.echo(line)


def _counts(invocation: Invocation) -> bool:
    """Whether somebody looks at a bar that a count of the rows would fill."""
    return notes().is_terminal and not invocation.json


@contextlib.contextmanager
def _shown(invocation: Invocation, source: Source) -> Iterator[Show]:
    """Progress: a bar on a terminal, a line every ten seconds elsewhere, nothing with `--json`."""
    if invocation.json:
        yield lambda rows, nbytes: None
    elif notes().is_terminal:
        with progress(transient=True) as bar:
            task = bar.add_task(source.name, total=source.rows)

            def show(rows: int, nbytes: int) -> None:
                said = f"{source.name}: {counted(rows, 'row')}, {mebibytes(nbytes)}"
                bar.update(task, description=said, completed=rows)

            yield show
    else:
        next_s = itertools.count(time.monotonic() + PLAIN_EVERY_S, PLAIN_EVERY_S)
        due_s = [next(next_s)]

        def tell(rows: int, nbytes: int) -> None:
            if time.monotonic() >= due_s[0]:
                due_s[0] = next(next_s)
                note(f"exporting {source.name}: {counted(rows, 'row')}, {mebibytes(nbytes)}")

        yield tell
