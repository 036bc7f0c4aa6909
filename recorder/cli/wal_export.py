"""`recorder wal export`: the rows of logs as Parquet files, streamed: memory holds one row group."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pyarrow as pa
import pyarrow.parquet as pq

from recorder.cli.errors import Failure
from recorder.cli.options import Invocation, PathName, pass_invocation
from recorder.cli.output import counted, emit_json
from recorder.cli.wal_logs import Log, Show, loses, mebibytes, place_options, places, shown, tell
from recorder.log_holder import torn_tail
from wal import names
from wal.format import Kind
from wal.reader import LogReader

SUFFIX = ".parquet"
GROUP_ROWS = 131_072
GROUP_BYTES = 64 * 2**20
"""A row group is written when it has so many rows, or so many bytes of Arrow."""


@dataclass(frozen=True)
class Written:
    """One file."""

    table: str
    file: Path
    rows: int

    @property
    def nbytes(self) -> int:
        """Of the file."""
        return self.file.stat().st_size


@click.command()
@click.argument("tables", nargs=-1)
@place_options
@click.option(
    "--out",
    type=PathName(path_type=Path),
    metavar="PATH",
    help=f"A folder, or of one log a file that ends in {SUFFIX}.  [default: this folder]",
)
@click.option("--force", is_flag=True, help="Replace files that are there.")
@pass_invocation
def export(
    invocation: Invocation,
    tables: tuple[str, ...],
    folder: Path | None,
    second: Path | None,
    out: Path | None,
    force: bool,
) -> None:
    """Write the rows of logs to Parquet, a file a table, zstd, every row once and in the log's order.

    Rows that were logged under another schema go to a file of their own: fills.parquet, fills-2.parquet. A file gets
    its name when it is complete.

    \b
    Exit codes: 0 done, 1 rows are lost or cannot be read: the others are written, and a note says which.

    \b
    Example:
        recorder wal export fills
        recorder wal export --out /mnt/rescued
        recorder wal export fills --out fills-2024.parquet
    """
    logs = places(invocation, folder, second).chosen(tables)
    out = out or Path()
    one_file = out.suffix == SUFFIX and not out.is_dir()
    if one_file and len(logs) > 1:
        raise click.UsageError(
            f"--out {out} is one file, and there are {len(logs)} logs; name one, or a folder"
        )
    written: list[Written] = []
    damaged = []
    for log in logs:
        target = out if one_file else out / f"{log.name}{SUFFIX}"
        target.parent.mkdir(parents=True, exist_ok=True)
        reader = LogReader(log.folders)
        with shown(invocation, f"exporting {log.name}") as show:
            files = _export(log, reader, target, show, force=force)
        written += files
        damage = [*reader.damage, *torn_tail(log.folders)]
        tell(log, damage)
        if any(map(loses, damage)):
            damaged.append(log.name)
        if not invocation.json:
            for one in files:
                click.echo(f"{log.name}: {counted(one.rows, 'row')} to {one.file}, {mebibytes(one.nbytes)}")
            if not files:
                click.echo(f"{log.name}: no rows")
    if invocation.json:
        emit_json(
            [
                {"table": one.table, "file": str(one.file), "rows": one.rows, "bytes": one.nbytes}
                for one in written
            ]
        )
    if damaged:
        raise Failure(
            f'{", ".join(damaged)}: rows are lost or cannot be read, the others are written; see "recorder wal verify"'
        )


def _export(log: Log, reader: LogReader, target: Path, show: Show, *, force: bool) -> list[Written]:
    """Write a log's rows; the files, one a schema.

    Raises:
        Failure: a file is there already.
    """
    files: dict[pa.Schema, _File] = {}
    order: list[_File] = []
    with contextlib.ExitStack() as parts:
        for rows in _batches(log, reader, show):
            schema = rows.schema.remove_metadata()
            if schema not in files:
                path = target if not order else target.with_stem(f"{target.stem}-{len(order) + 1}")
                if path.exists() and not force:
                    raise Failure(
                        f"{path} is there already; name another with --out, or replace it with --force"
                    )
                files[schema] = parts.enter_context(_File(path, schema))
                order.append(files[schema])
            files[schema].add(rows)
        for file in order:
            file.complete()
    return [Written(log.name, file.path, file.rows) for file in order]


def _batches(log: Log, reader: LogReader, show: Show) -> Iterator[pa.RecordBatch]:
    sizes = {path: path.stat().st_size for _, path in names.segments(log.folders) if path.exists()}
    total_bytes, done_bytes, before = sum(sizes.values()), 0, None
    for entry, contents in reader.entries(check=False):
        if before is not None and entry.path != before:
            done_bytes += sizes.get(before, 0)
        before = entry.path
        show(min(total_bytes, done_bytes + entry.frame.end), total_bytes)
        if entry.kind is Kind.ROWS and (rows := contents.rows()) is not None and rows.num_rows:
            yield rows


class _File:
    """A Parquet file that is being written, under a name of its own until it is complete."""

    def __init__(self, path: Path, schema: pa.Schema):
        self.path, self.rows = path, 0
        self._unfinished = path.with_name(f"{path.name}.part")
        self._writer = pq.ParquetWriter(self._unfinished, schema, compression="zstd")
        self._schema = schema
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_rows = self._waiting_bytes = 0

    def add(self, rows: pa.RecordBatch) -> None:
        self._waiting.append(rows.replace_schema_metadata(None))
        self._waiting_rows += rows.num_rows
        self._waiting_bytes += rows.nbytes
        if self._waiting_rows >= GROUP_ROWS or self._waiting_bytes >= GROUP_BYTES:
            self._write()

    def complete(self) -> None:
        self._write()
        self._writer.close()
        os.replace(self._unfinished, self.path)

    def _write(self) -> None:
        if self._waiting:
            table = pa.Table.from_batches(self._waiting, self._schema)
            self._writer.write_table(table, row_group_size=max(1, table.num_rows))
            self.rows += table.num_rows
        self._waiting, self._waiting_rows, self._waiting_bytes = [], 0, 0

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._writer.close()
        self._unfinished.unlink(missing_ok=True)
