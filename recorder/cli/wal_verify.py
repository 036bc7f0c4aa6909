"""`recorder wal verify`: every checksum computed, every row decoded, every sequence counted; a line for each damage."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from recorder.cli.options import Invocation, pass_invocation
from recorder.cli.output import counted, emit_json
from recorder.cli.wal_logs import Log, damage_of, loses, mebibytes, place_options, places, shown
from wal.checkpoint import CheckpointFile
from wal.verify import Verified
from wal.verify import verify as verify_log


@click.command()
@click.argument("tables", nargs=-1)
@place_options
@pass_invocation
def verify(invocation: Invocation, tables: tuple[str, ...], folder: Path | None, second: Path | None) -> None:
    """Read all of the logs, and say what is wrong where. Changes nothing, and may run beside a recorder.

    \b
    Exit codes: 0 nothing is lost (there may be damage that lost nothing), 1 rows are lost or cannot be read.

    \b
    Example:
        recorder wal verify
        recorder wal verify fills orders --json
    """
    found: list[tuple[Log, Verified]] = []
    for log in places(invocation, folder, second).chosen(tables):
        with shown(invocation, f"reading {log.name}") as show:
            verified = verify_log(log.folders, progress=show)
        _, damage = CheckpointFile(log.folder).read()
        if damage is not None:
            verified = dataclasses.replace(verified, damage=(*verified.damage, damage))
        found.append((log, verified))
        if not invocation.json:
            _show(log, verified)
    lost = any(loses(damage) for _, verified in found for damage in verified.damage)
    if invocation.json:
        emit_json({"lost": lost, "logs": [_json(log, verified) for log, verified in found]})
    if lost:
        click.get_current_context().exit(1)


def _show(log: Log, verified: Verified) -> None:
    for damage in verified.damage:
        click.echo(f"{log.name}: {damage}")
    what = counted(len(verified.damage), "damage") if verified.damage else "whole"
    if verified.damage and not any(loses(damage) for damage in verified.damage):
        what += ", nothing lost"
    size = f"{counted(len(verified.segments), 'segment')}, {mebibytes(verified.nbytes)}"
    click.echo(
        f"{log.name}: {counted(verified.rows, 'row')} in {counted(verified.frames, 'frame')} of {size}, "
        f"read in {verified.seconds:.1f} s: {what}"
    )


def _json(log: Log, verified: Verified) -> dict[str, object]:
    return {
        "table": log.name,
        "whole": verified.whole,
        "rows": verified.rows,
        "frames": verified.frames,
        "bytes": verified.nbytes,
        "seconds": verified.seconds,
        "segments": [
            {
                "number": one.number,
                "file": str(one.path),
                "epoch": f"{one.epoch:016x}",
                "made_ns": one.created_ns,
                "bytes": one.nbytes,
                "frames": one.frames,
                "rows": one.rows,
                "first": one.first,
                "stop": one.stop,
            }
            for one in verified.segments
        ],
        "damage": [damage_of(log, damage) for damage in verified.damage],
    }
