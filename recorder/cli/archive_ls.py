"""`recorder archive ls`: what an archive holds. Manifests are read, and no rows."""

from __future__ import annotations

import datetime

import click

from recorder.archive_root import archive_store
from recorder.cli.archive import tables_at
from recorder.cli.errors import Failure
from recorder.cli.options import Invocation, pass_invocation
from recorder.cli.output import counted, emit_json, emit_table, note
from recorder.cli.wal_logs import mebibytes
from retention.archive import Partition, partition_of, places
from retention.errors import ManifestError


@click.command()
@tables_at
@pass_invocation
def ls(invocation: Invocation, tables: tuple[str, ...], root: str | None) -> None:
    """List archived partitions: rows, bytes, first and last ts_local, and whether every piece has a receipt.

    \b
    Exit codes: 0 done, 1 a manifest or receipt cannot be read: the others are listed.

    \b
    Example:
        recorder archive ls
        recorder archive ls fills --at s3://my-bucket/trading
    """
    store = archive_store(invocation.settings(), root)
    found: list[Partition] = []
    faults: list[str] = []
    for table in tables or (None,):
        for place in places(store, table):
            try:
                found.append(partition_of(store, place))
            except ManifestError as error:
                faults.append(str(error))
    found = [known for known in found if known.pieces]
    if invocation.json:
        emit_json([_json(known) for known in found])
    elif found:
        emit_table(
            ("table", "partition", "rows", "pieces", "files", "size", "first", "last", "receipt"),
            [_line(known) for known in found],
            right=("rows", "pieces", "files", "size"),
        )
    elif not faults:
        note(f'nothing is archived at {store}; "recorder archive create" does it')
    for fault in faults:
        note(fault)
    if faults:
        raise Failure(f"{counted(len(faults), 'partition')} cannot be listed; the others are")


def _line(known: Partition) -> tuple[object, ...]:
    return (
        known.place.table,
        known.place.partition,
        f"{known.sums.rows:,}",
        len(known.pieces),
        sum(len(piece.manifest.files) for piece in known.pieces),
        mebibytes(known.nbytes),
        _time(known.sums.min_ts_local_ns),
        _time(known.sums.max_ts_local_ns),
        known.verified,
    )


def _time(ts_ns: int | None) -> str | None:
    if ts_ns is None:
        return None
    return datetime.datetime.fromtimestamp(ts_ns // 10**9, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S")


def _json(known: Partition) -> dict[str, object]:
    return {
        "table": known.place.table,
        "partition": known.place.partition,
        "rows": known.sums.rows,
        "bytes": known.nbytes,
        "min_ts_local_ns": known.sums.min_ts_local_ns,
        "max_ts_local_ns": known.sums.max_ts_local_ns,
        "receipt": known.verified,
        "pieces": [
            {
                "piece": piece.manifest.piece,
                "rows": piece.manifest.sums.rows,
                "bytes": piece.manifest.nbytes,
                "files": [file.name for file in piece.manifest.files],
                "written_ns": piece.manifest.written_ns,
                "receipt": piece.receipt is not None,
            }
            for piece in known.pieces
        ],
    }
