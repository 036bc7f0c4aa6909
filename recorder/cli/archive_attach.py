"""`recorder archive attach`: one view over a table's live rows and its archived ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from recorder.archive_root import archive_store
from recorder.cli.errors import Failure
from recorder.cli.options import Invocation, pass_invocation
from recorder.cli.output import counted, emit_json, note

if TYPE_CHECKING:
    from retention.archive import Partition, Store
    from schemas.executor import SqlExecutor
    from schemas.renames import Renames

BY_DAY, BY_MONTH = ("toYYYYMMDD(", "toDate("), ("toYYYYMM(",)
VIEW_BYTES = 64 << 20
"""Of the statement: it names every file."""
REACH = 'see "recorder archive verify"; a server reads its own disk, below its user_files_path only'


@click.command()
@click.argument("table")
@click.option("--at", "root", metavar="ROOT", help="A folder.  [default: the setting archive]")
@pass_invocation
def attach(invocation: Invocation, table: str, root: str | None) -> None:
    """Make a view TABLE_with_archive over live rows and archived ones. A row that is both counts once.

    The view names the files of all pieces that have a receipt; run it again after "archive create". It stays right when
    partitions are dropped or restored. The archive must be a folder that the database itself can read: always one
    of this machine for the embedded engine, one below its user_files_path for a server.

    \b
    Exit codes: 0 the view is there and answers, 1 it is not, and why.

    \b
    Example:
        recorder archive attach fills
        recorder query "SELECT symbol, count() FROM fills_with_archive GROUP BY symbol"
    """
    from recorder.packs import packs_of
    from recorder.reading.database import client_of, folder_of, must_exist
    from retention.archive import partitions
    from retention.archive.view import SUFFIX

    settings = invocation.settings()
    renames = next((pack.renames[table] for pack in packs_of(settings) if table in pack.renames), ())
    store = archive_store(settings, root)
    known = list(partitions(store, table))
    if settings.target.embedded:
        must_exist(folder_of(settings))
    with client_of(settings, create=False) as client:
        pieces, unverified = make_view(client, settings.database, table, known, store, renames)
    name = table + SUFFIX
    if invocation.json:
        emit_json({"view": name, "pieces": pieces, "without_receipt": unverified, "root": str(store)})
        return
    click.echo(f"{name}: {table} and {counted(pieces, 'archived piece')} at {store}")
    if unverified:
        note(
            f'{counted(unverified, "piece")} without a receipt left out; "recorder archive create" completes them'
        )


def make_view(
    client: Any, database: str, table: str, known: Sequence[Partition], store: Store, renames: Renames
) -> tuple[int, int]:
    """Make the view, and ask it once; how many pieces are in it, and how many are not, for want of a receipt.

    Raises:
        Failure: there is nothing to attach, or the database cannot read the files.
    """
    from recorder.reading.database import plain_message
    from retention.archive.view import FOLDERS, SUFFIX, Shown, view_sql
    from schemas.executor import ClientExecutor
    from schemas.quote import quote_name

    pieces = [piece for one in known for piece in one.pieces]
    verified = sum(piece.receipt is not None for piece in pieces)
    if not verified:
        raise Failure(f'nothing of {table} is archived with a receipt at {store}; see "recorder archive ls"')
    executor = ClientExecutor(client)
    columns = [
        Shown(*row)
        for row in executor.query(
            "SELECT name, type, default_expression FROM system.columns WHERE database = {db:String} "
            "AND table = {table:String} AND default_kind IN ('', 'DEFAULT') ORDER BY position",
            {"db": database, "table": table},
        )
    ]
    if not columns:
        raise Failure(f"{database} has no table {table}; see \"recorder query 'SHOW TABLES'\"")
    _see_partitions(executor, database, table, known)
    folders = {*FOLDERS, *(part.partition("=")[0] for part in str(store).split("/") if "=" in part)}
    for piece in pieces:
        if taken := [name for name in piece.manifest.schema.names if name in folders]:
            raise Failure(
                f"{piece.manifest.place}: has a column {taken[0]}, for which ClickHouse would read the folder's name; "
                "it cannot be attached: restore it (archive restore)"
            )
    read = files_of(store)
    _see_files(executor, known, read, store)
    sql = view_sql(database, table, columns, known, read, renames)
    name = f"{quote_name(database)}.{quote_name(table + SUFFIX)}"
    try:
        client.command(sql, settings={"max_query_size": VIEW_BYTES})
        client.command(f"SELECT count() FROM (SELECT * FROM {name} LIMIT 1)")
    except Exception as error:
        raise Failure(
            f"{table}{SUFFIX}: the database does not take the view, or cannot read the files at {store} "
            f"({plain_message(error)}); {REACH}"
        ) from error
    return verified, len(pieces) - verified


def _see_partitions(executor: SqlExecutor, database: str, table: str, known: Sequence[Partition]) -> None:
    """Refuse a table that is partitioned by something else than its archive: what is live could not be told by it.

    Raises:
        Failure: it is.
    """
    found = executor.query(
        "SELECT partition_key FROM system.tables WHERE database = {db:String} AND name = {table:String}",
        {"db": database, "table": table},
    )
    key = str(found[0][0]).removeprefix("(")
    for one in known:
        by = BY_DAY if len(one.place.id) == 8 else BY_MONTH
        if one.pieces and not key.startswith(by):
            raise Failure(
                f"{one.place}: {table} is partitioned by {found[0][0] or 'nothing'}, expected {by[0]}…) as when it was "
                "archived; it cannot be attached: restore it (archive restore)"
            )


def _see_files(
    executor: SqlExecutor, known: Sequence[Partition], read: Callable[[Sequence[str], str], str], store: Store
) -> None:
    """Refuse an archive of which the database sees fewer rows: of several files it passes over those that it lacks.

    Raises:
        Failure: it does.
    """
    from recorder.reading.database import plain_message
    from retention.archive.rowhash import LOG

    for one in known:
        pieces = [piece.manifest for piece in one.pieces if piece.receipt is not None]
        if not pieces:
            continue
        files = [f"{one.place.folder}/{file.name}" for manifest in pieces for file in manifest.files]
        try:
            ((rows,),) = executor.query(f"SELECT count() FROM {read(files, f'{LOG} UInt64')}")
        except Exception as error:
            raise Failure(
                f"{one.place}: the database cannot read its files at {store} ({plain_message(error)}); {REACH}"
            ) from error
        if int(rows) != (expected := sum(manifest.sums.rows for manifest in pieces)):
            raise Failure(
                f"{one.place}: the database sees {int(rows)} rows in its files at {store}, expected {expected}; {REACH}"
            )


def files_of(store: Store) -> Callable[[Sequence[str], str], str]:
    """How a database reads files of a store.

    Raises:
        Failure: it is none that can be read without writing credentials into a view.
    """
    from retention.archive.marked import folder_of
    from schemas.quote import quote_text

    root = folder_of(store)
    if root is None:
        raise Failure(
            f"{store}: only a folder can be attached; a bucket's files are restored, or read with s3()"
        )
    folder = str(root.absolute())
    if any(sign in folder for sign in "*?{}"):
        raise Failure(
            f"{folder}: its name has one of * ? {{ }}, which ClickHouse takes for a pattern; rename it"
        )

    def files(names: Sequence[str], structure: str) -> str:
        listed = f"{{{','.join(names)}}}" if len(names) > 1 else names[0]
        return f"file({quote_text(f'{folder}/{listed}')}, 'Parquet', {quote_text(structure)})"

    return files
