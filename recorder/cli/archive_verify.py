"""`recorder archive verify`: every byte hashed, every row decoded and summed up; a line for each fault."""

from __future__ import annotations

import click

from recorder.archive_root import archive_store
from recorder.cli.archive import tables_at, told
from recorder.cli.errors import Failure
from recorder.cli.options import Invocation, pass_invocation
from recorder.cli.output import counted, emit_json
from recorder.cli.wal_logs import mebibytes
from retention.archive import Checked, check, places


@click.command()
@tables_at
@pass_invocation
def verify(invocation: Invocation, tables: tuple[str, ...], root: str | None) -> None:
    """Read archived partitions back, and say what is wrong where. Changes nothing; the database is not asked.

    A piece without a receipt is one whose run was interrupted: "archive create" completes it.

    \b
    Exit codes: 0 all is what the database gave, 1 something is not, or nothing is there.

    \b
    Example:
        recorder archive verify
        recorder archive verify fills --at s3://my-bucket/trading --json
    """
    store = archive_store(invocation.settings(), root)
    found: list[Checked] = []
    for table in tables or (None,):
        there = places(store, table)
        if table is not None and not there:
            raise Failure(f'nothing of {table} is archived at {store}; see "recorder archive ls"')
        for place in there:
            with told(invocation, str(place)) as progress:
                checked = check(store, place, progress)
            found.append(checked)
            if not invocation.json:
                _show(checked)
    if not found:
        # No answer to a mistyped root, or to a disk that is not mounted.
        raise Failure(f'nothing is archived at {store}; see --at, or "recorder archive create"')
    wrong = any(checked.faults for checked in found)
    if invocation.json:
        emit_json({"whole": not wrong, "partitions": [_json(checked) for checked in found]})
    if wrong:
        click.get_current_context().exit(1)


def _show(checked: Checked) -> None:
    for fault in checked.faults:
        click.echo(f"{checked.place}: {fault}")
    what = counted(len(checked.faults), "fault") if checked.faults else "whole"
    if checked.unverified:
        what += f", {counted(checked.unverified, 'piece')} without a receipt"
    click.echo(f"{checked.place}: {counted(checked.rows, 'row')}, {mebibytes(checked.nbytes)}: {what}")


def _json(checked: Checked) -> dict[str, object]:
    return {
        "table": checked.place.table,
        "partition": checked.place.partition,
        "whole": not checked.faults,
        "rows": checked.rows,
        "bytes": checked.nbytes,
        "receipts": checked.receipts,
        "without_receipt": checked.unverified,
        "faults": list(checked.faults),
    }
