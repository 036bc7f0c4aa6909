"""`recorder archive create`: a partition to Parquet, read back, with a receipt; once more adds what came late."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click

from recorder.archive_root import archive_store
from recorder.cli.archive import told
from recorder.cli.errors import Failure
from recorder.cli.options import Invocation, pass_invocation
from recorder.cli.output import counted, emit_json, note
from recorder.cli.wal_logs import mebibytes
from recorder.reading.reader import open_reader
from recorder.retaining.export import WAYS, exporter_of, wanted
from recorder.retaining.source import TableSource
from recorder.version import version
from retention.archive import Receipt, place_of, write_partition

if TYPE_CHECKING:
    from recorder.settings import Settings
    from retention.archive.server_export import Exporter


@click.command()
@click.argument("table")
@click.argument("partition")
@click.option(
    "--to",
    "root",
    metavar="ROOT",
    help="A folder, or s3://bucket/prefix.  [default: the setting archive]",
)
@click.option(
    "--export",
    "way",
    type=click.Choice(WAYS),
    help="client: the recorder writes; server: the database does.  [default: the setting archive_export]",
)
@pass_invocation
def create(invocation: Invocation, table: str, partition: str, root: str | None, way: str | None) -> None:
    """Archive a partition of a table: a day (2024-08-08) or a month (2024-08), as the table is partitioned.

    Every file is read back from where it lies, and compared with what the database gave, before the receipt is
    written. What was interrupted is completed by running it again; a run with nothing new adds nothing; rows that
    came since make an addendum. The database keeps its rows. Where it is to write the file itself and cannot, one
    line says why, and the recorder writes it.

    \b
    Exit codes: 0 all rows are archived and verified, 1 they are not, and why.

    \b
    Example:
        recorder archive create market_data 2024-08-08
        recorder archive create fills 2024-08 --to s3://my-bucket/trading
        recorder archive create fills 2024-08 --export server
    """
    settings = invocation.settings()
    place = place_of(table, partition)
    store = archive_store(settings, root)
    with (
        contextlib.closing(open_reader(settings)) as reader,
        _exporting(settings, wanted(settings, store, way)) as exporter,
    ):
        source = TableSource(reader, settings.database, place)
        with told(invocation, str(place), source.rows) as progress:
            done = write_partition(
                source, store, recorder_version=version(), progress=progress, exporter=exporter(source)
            )
    if invocation.json:
        emit_json(
            {
                "table": place.table,
                "partition": place.partition,
                "root": str(store),
                "rows": done.sums.rows,
                "bytes": sum(receipt.nbytes for receipt in done.receipts),
                "new": [_json(receipt) for receipt in done.new],
                "pieces": [_json(receipt) for receipt in done.receipts],
            }
        )
        return
    for receipt in done.new:
        what = "archived" if receipt.piece == 0 else f"addendum {receipt.piece}"
        size = f"{counted(receipt.files, 'file')}, {mebibytes(receipt.nbytes)}"
        click.echo(f"{place}: {what}, {counted(receipt.sums.rows, 'row')} in {size}, read back and verified")
    if not done.new:
        click.echo(f"{place}: nothing new, {counted(done.sums.rows, 'row')} are archived")


@contextlib.contextmanager
def _exporting(settings: Settings, wanted: bool) -> Iterator[Callable[[TableSource], Exporter | None]]:
    """What has the database write a source's rows, where it is to; reading alone needs no right to write."""
    from recorder.retaining.policies import quiet

    with contextlib.ExitStack() as opened:
        executor = None
        if wanted:
            try:
                executor = opened.enter_context(quiet(settings))
            except Failure as failure:
                note(f"written by the recorder and not by the database: {failure.message}")
        yield lambda source: None if executor is None else exporter_of(executor, source, settings, note)


def _json(receipt: Receipt) -> dict[str, object]:
    return {
        "piece": receipt.piece,
        "rows": receipt.sums.rows,
        "files": receipt.files,
        "bytes": receipt.nbytes,
        "row_sum": f"{receipt.sums.row_sum:016x}",
        "identity_sum": f"{receipt.sums.identity_sum:016x}",
        "manifest_sha256": receipt.manifest_sha256,
        "verified_ns": receipt.verified_ns,
    }
