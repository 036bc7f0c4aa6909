"""`recorder wal requeue`: have rows sent again that are done. It shows and asks first, and sends nothing itself."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import pyarrow as pa

from recorder.cli.errors import EXIT_FAILURE, Failure
from recorder.cli.options import Invocation, pass_invocation
from recorder.cli.output import counted, emit_json, note
from recorder.cli.wal_alone import alone, name_inside
from recorder.cli.wal_chosen import Choice, chosen
from recorder.cli.wal_filter import Wanted, wanted_options
from recorder.cli.wal_logs import Log, place_options, places, tell
from recorder.log_holder import holder
from wal import names
from wal.checkpoint import Checkpoint, CheckpointFile
from wal.commit import GroupCommit
from wal.errors import FormatError
from wal.places import Range
from wal.requeue import Requeue, requeue
from wal.seals import pack_void
from wal.segment import Segment
from wal.writer import LogWriter

SYNC_S = 60.0
"""How long taking seals back may take."""
TOKENS = 1_000
"""Tokens in one void."""
LISTED = 5
"""Ranges that are named in a line."""


@click.command("requeue")
@click.argument("table")
@place_options
@wanted_options
@click.option(
    "--segment", "segments", type=click.IntRange(min=1), multiple=True, metavar="NUMBER",
    help="Rows of this segment; may be given several times.",
)  # fmt: skip
@click.option("--all", "everything", is_flag=True, help="All rows that the log still has.")
@click.option("--dry-run", is_flag=True, help="Only say what it would do; beside a running recorder, too.")
@click.option("--yes", "-y", is_flag=True, help="Do it without asking.")
@pass_invocation
def requeue_rows(
    invocation: Invocation,
    table: str,
    folder: Path | None,
    second: Path | None,
    since: int | None,
    until: int | None,
    epoch: int | None,
    first: int,
    stop: int | None,
    segments: tuple[int, ...],
    everything: bool,
    dry_run: bool,
    yes: bool,
) -> None:
    """Have rows of a log sent again: those that ClickHouse was known to have, and may have no more.

    The next start of the recorder, or "recorder replay", looks each of them up first: rows that are there are not sent,
    rows that are not are inserted under their identity. That brings back what a person or a TTL has deleted. Choose
    rows as "recorder wal cat" does, try there which these are, or by segment. Rows that are not done yet are sent
    anyway; rows that were purged cannot be sent.

    The log must have no writer: stop the recorder first.

    \b
    Exit codes: 0 done, 1 not all that was asked for can be sent again (the rest is done), 2 wrong use.

    \b
    Example:
        recorder wal requeue fills --since 2024-08-08T12:00 --until 2024-08-08T13:00 --dry-run
        recorder wal requeue fills --epoch 9f3c0a1b2c3d4e5f --from 1000 --to 2000
        recorder wal requeue fills --segment 12 --yes
    """
    choice = Choice(Wanted(since, until, epoch, first, stop), segments)
    named = choice.by_place or choice.by_time or bool(segments)
    if named == everything:
        raise click.UsageError(
            "say which rows: --since, --until, --epoch, --from, --to, --segment, or --all alone"
        )
    log = places(invocation, folder, second).chosen([table])[0]
    if dry_run:
        if writer := holder(log.folder):
            note(f"{log.name}: {writer} writes to this log: what is done is so as of its last checkpoint")
        _, plan, gone_rows = _plan(log, choice)
        _say(invocation, log, plan, done=False)
    else:
        with alone(log):
            before, plan, gone_rows = _plan(log, choice)
            if plan.opened and not yes and not _agreed(invocation, log, plan):
                return
        if plan.opened:
            _do(log, before, plan)
        _say(invocation, log, plan, done=True)
    _tell_purged(log, plan, gone_rows if choice.by_time else 0)
    if plan.purged or plan.missing:
        click.get_current_context().exit(EXIT_FAILURE)


def _plan(log: Log, choice: Choice) -> tuple[Checkpoint, Requeue, int]:
    """The checkpoint, what is to be done, and how many rows in all are done and purged.

    Raises:
        Failure, UsageError: as `chosen`.
    """
    checkpoint, damage = CheckpointFile(log.folder).read()
    found, asked = chosen(log, choice, checkpoint)
    tell(log, [*found.damage, *([damage] if damage is not None else [])])
    gone_rows = sum(part.rows for one in checkpoint.done() for part in found.present.missing_of(one))
    return checkpoint, requeue(checkpoint, found.present, found.seals, asked), gone_rows


def _do(log: Log, before: Checkpoint, plan: Requeue) -> None:
    """Take the seals back, then forget that the rows are done. Ended in between, nothing is sent again or lost.

    Raises:
        Failure: somebody had the log meanwhile.
        LogLocked: somebody has it now, who is named.
        NotDurable, OSError: it cannot be written.
    """
    with _writer(log) as writer:
        file = CheckpointFile(log.folder)
        if file.read()[0] != before:
            raise Failure(f"{log.name}: the log changed while it was looked at; nothing was done, run again")
        for at in range(0, len(plan.voids), TOKENS):
            writer.wait(writer.append_void(pack_void(plan.voids[at : at + TOKENS])), SYNC_S)
        file.write(plan.checkpoint)


@contextlib.contextmanager
def _writer(log: Log) -> Iterator[LogWriter]:
    """A writer to the log. It has the lock, and makes no file before something is written."""
    commit = GroupCommit()
    try:
        writer = LogWriter.open(
            log.folder,
            name_inside(log),
            _schema(log),
            commit=commit,
            second=next((one for one in log.folders[1:] if one.is_dir()), None),
        )
        try:
            yield writer
        finally:
            writer.close(SYNC_S)
    finally:
        commit.close(SYNC_S)


def _schema(log: Log) -> pa.Schema:
    for _, path in reversed(names.segments(log.folders)):
        with contextlib.suppress(OSError, FormatError), Segment.open(path) as segment:
            return segment.schema
    raise Failure(f'{log.name}: none of its segments can be read; see "recorder wal verify {log.name}"')


# -- saying it ----------------------------------------------------------------------------------------------------


def _agreed(invocation: Invocation, log: Log, plan: Requeue) -> bool:
    """Show what would be sent again, and ask.

    Raises:
        UsageError: there is nobody to ask.
    """
    rows = counted(_rows(plan.opened), "row")
    if invocation.json or not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise click.UsageError(
            f"{log.name}: {rows} would be sent again, what was deleted of them too; say --yes, or --dry-run to look"
        )
    _say(invocation, log, plan, done=False)
    agreed = click.confirm(
        f"Have {rows} of {log.name} looked up and sent again? What was deleted of them comes back.", err=True
    )
    if not agreed:
        note("nothing was requeued")
    return agreed


def _say(invocation: Invocation, log: Log, plan: Requeue, *, done: bool) -> None:
    if invocation.json:
        parts = {"purged": plan.purged, "missing": plan.missing}
        emit_json(
            {
                "done": done,
                "table": log.name,
                "requeued": _rows(plan.opened),
                "open": _rows(plan.open),
                **{name: _rows(part) for name, part in parts.items()},
                "ranges": [one.as_json() for one in plan.opened],
                **{f"{name}_ranges": [one.as_json() for one in part] for name, part in parts.items()},
                "voided_seals": len(plan.voids),
            }
        )
        return
    rows = counted(_rows(plan.opened), "row")
    if plan.opened:
        click.echo(f"{log.name}: {rows} {'requeued' if done else 'would be requeued'}: {_named(plan.opened)}")
    else:
        click.echo(f"{log.name}: nothing to requeue")
    if plan.open:
        click.echo(
            f"{log.name}: {counted(_rows(plan.open), 'row')} not sent yet, or not confirmed: sent anyway"
        )
    if done and plan.opened:
        note(
            f'"recorder replay --table {log.name}", or the next start of the recorder, sends what is not there'
        )


def _tell_purged(log: Log, plan: Requeue, of_unknown_time_rows: int) -> None:
    """What of it cannot be sent again."""
    if plan.purged:
        note(
            f"{log.name}: {counted(_rows(plan.purged), 'row')} purged, the log has them no more: {_named(plan.purged)}"
        )
    if plan.missing:
        note(
            f"{log.name}: {counted(_rows(plan.missing), 'row')} lost, or never there: {_named(plan.missing)}; "
            f'see "recorder wal verify {log.name}"'
        )
    if of_unknown_time_rows:
        note(
            f"{log.name}: {counted(of_unknown_time_rows, 'row')} purged before: nobody knows of what time, and they "
            "cannot be sent again"
        )


def _named(ranges: Sequence[Range]) -> str:
    shown = [f"{one.epoch:016x} {one.first:,} to {one.stop - 1:,}" for one in ranges[:LISTED]]
    more = [f"and {counted(len(ranges) - LISTED, 'more range')}"] if len(ranges) > LISTED else []
    return ", ".join(shown + more)


def _rows(ranges: Sequence[Range]) -> int:
    return sum(one.rows for one in ranges)
