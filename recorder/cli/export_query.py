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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from recorder.cli.export_file import STANDARD_OUTPUT, Output, opened
from recorder.cli.export_source import Asked, Source, source_of
from recorder.cli.options import Invocation, PathName, pass_invocation
from recorder.cli.output import counted, emit_json, note, notes, progress
from recorder.cli.query import sql_of
from recorder.cli.wal_filter import Moment
from recorder.cli.wal_logs import PLAIN_EVERY_S, mebibytes
from recorder.reading.reader import open_reader
from recorder.redact import redacted
from recorder.settings_sources import did_you_mean
from recorder.version import version

if TYPE_CHECKING:
    import pyarrow as pa

    from recorder.cli.export_forms import ArrowForm, ParquetForm
    from recorder.reading.reader import Reader
    from recorder.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])
Show = Callable[[int, int], None]
"""Told how many rows and bytes are written."""


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
        source = source_of(engine, asked, settings)
        answer, batches = _arrow(engine, source)
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
        source = source_of(engine, asked, settings)
        if not engine.write_as(CSV_SETTINGS):
            note("this user may set nothing on the server: NULL is \\N, and lines end without CR")
        rows = CsvRows()
        with _shown(invocation, source) as show:
            form = "CSV" if source.types else "CSVWithNames"
            pieces = itertools.chain.from_iterable(engine.stream(sql, form) for sql in source.statements)
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


def _arrow(engine: Reader, source: Source) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """The batches of all statements, one after the other."""
    schema, first = engine.arrow(source.statements[0])
    others = (engine.arrow(sql)[1] for sql in source.statements[1:])
    return schema, itertools.chain(first, itertools.chain.from_iterable(others))


def _metadata(source: Source, settings: Settings) -> dict[str, str]:
    now = datetime.datetime.now(datetime.UTC)
    return {
        "query": redacted(source.sql),
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


@contextlib.contextmanager
def _shown(invocation: Invocation, source: Source) -> Iterator[Show]:
    """Progress: a bar on a terminal, a line every ten seconds elsewhere, nothing with `--json`."""
    if invocation.json:
        yield lambda rows, nbytes: None
    elif notes().is_terminal:
        with progress(transient=True) as bar:
            task = bar.add_task(source.name, total=source.rows)
            began_s = time.monotonic()

            def show(rows: int, nbytes: int) -> None:
                said = f"{source.name}: {counted(rows, 'row')}, {mebibytes(nbytes)}"
                rate = rows / max(1e-3, time.monotonic() - began_s)
                bar.update(task, description=said, completed=rows, rate=f"{rate:,.0f}")

            yield show
    else:
        next_s = itertools.count(time.monotonic() + PLAIN_EVERY_S, PLAIN_EVERY_S)
        due_s = [next(next_s)]

        def tell(rows: int, nbytes: int) -> None:
            if time.monotonic() >= due_s[0]:
                due_s[0] = next(next_s)
                note(f"exporting {source.name}: {counted(rows, 'row')}, {mebibytes(nbytes)}")

        yield tell
