"""`recorder replay`: get in what the logs under the data folder hold, and record nothing new."""

from __future__ import annotations

import dataclasses
import difflib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from recorder.cli.errors import EXIT_FAILURE, Failure, Terminated
from recorder.cli.options import Invocation, Number, pass_invocation
from recorder.cli.output import counted, emit_json, emit_table, note, notes, progress
from recorder.cli.wal_logs import mebibytes
from recorder.log_holder import holder

if TYPE_CHECKING:
    from recorder.left_on_logs import LeftOnLog
    from recorder.replaying import Progress, TableReplayed

PLAIN_EVERY_S = 5.0
"""How often progress is a line where there is no terminal."""
SWITCH_INTERVAL_S = 1e-3
WAIT_S = 30.0


@click.command()
@click.option(
    "--table", "tables", multiple=True, metavar="NAME", help="Only this table; may be given several times."
)
@click.option(
    "--wait", "wait_s", type=Number(min=0), default=WAIT_S, show_default=True, metavar="S",
    help="How long nothing may go on, the database being away or tables held, before it is given up.",
)  # fmt: skip
@click.option(
    "--settle", is_flag=True, help="Wait, too, until wal_grace_s has passed and the logs need it no more."
)
@click.option("--dry-run", is_flag=True, help="Only say what there is to do; opens no database.")
@pass_invocation
def replay(
    invocation: Invocation, tables: tuple[str, ...], wait_s: float, settle: bool, dry_run: bool
) -> None:
    """Get in what the logs under the data folder hold for the database, and record nothing new.

    For rows that an outage left, for the data folder of a recorder that is dead, for one restored from a backup. Each
    row is looked up before it is sent, as the recorder does at its own start: running it again, or after a kill, adds
    nothing twice, and what was confirmed is not sent again. The rows are streamed, however many there are.

    Of its own it writes what it has to say of them: its row in recorder_runs, dead letters, gaps where a log has lost
    rows, and its alarms in system_events.

    No recorder may run on the folder; beside new rows, a recorder replays by itself.

    \b
    Exit codes:
        0    all is in; rows that the database refuses are dead letters, and counted
        1    rows are left (the database is away, a table is held, a disk does not give them), or the log has lost some:
             it says which and why
        2    wrong use, or settings that cannot be
        130  Ctrl-C, 143 SIGTERM: what was confirmed stays so; run it again to go on

    \b
    Example:
        recorder replay --dry-run
        recorder --data-dir /mnt/rescued --target http://localhost:8123/trading replay
        recorder replay --table fills --wait 600 --json
    """
    from recorder.collector import rare_collection
    from recorder.left_on_logs import left_on_logs
    from recorder.own_rows import METRICS
    from recorder.packs import packs_of
    from recorder.recorder import Recorder
    from recorder.replaying import Replaying, untouched

    settings = invocation.settings(
        base={"switch_interval_s": SWITCH_INTERVAL_S},
        wal=True,
        health_addr="off",
        tables={METRICS: {"enabled": False}},  # samples of a recorder that records nothing
    )
    packs = packs_of(settings)
    data_dir = Path(settings.data_dir)
    known = {table.name: table for pack in packs for table in pack.tables}
    left = left_on_logs(settings.log_folders, known)
    left = _chosen(left, tables, data_dir)
    _refuse_beside_others(left, dry_run=dry_run)
    if dry_run:
        for name, one in left.items():
            for damage in one.damage:  # else the recorder tells
                note(f"{name}: {damage}")
        _show_plan(invocation, left)
        return
    if not any((one.rows or one.unsettled or one.lost) and not one.refused for one in left.values()):
        _end(invocation, untouched({name: one for name, one in left.items() if one.unread}), left, 0.0)
        return
    if settings.target.embedded:
        from recorder.reading.database import folder_of, must_exist

        must_exist(folder_of(settings))
    began_s, replaying = time.monotonic(), None
    try:
        with (
            rare_collection(),
            Recorder(
                settings, packs=packs, wait_for_database=wait_s > 0, logs_of=set(left) if tables else None
            ) as recorder,
            _shown(invocation) as show,
        ):
            replaying = Replaying(recorder, left, wait_s=wait_s, until_settled=settle)
            replaying.run(show)
    except (KeyboardInterrupt, Terminated):
        result = untouched(left) if replaying is None else replaying.result()
        _show(invocation, result, time.monotonic() - began_s)
        note(
            "stopped: what is counted above is in; run the same command again to go on, nothing is added twice"
        )
        raise
    _end(invocation, replaying.result(), left, time.monotonic() - began_s)


def _chosen(left: Mapping[str, LeftOnLog], tables: tuple[str, ...], data_dir: Path) -> dict[str, LeftOnLog]:
    """Those of these tables; all where none is named.

    Raises:
        Failure: there are no logs.
        UsageError: a table has none.
    """
    if not left:
        raise Failure(
            f'there are no logs under {data_dir}; name the data folder with --data-dir before "replay"'
        )
    for name in tables:
        if name not in left:
            near = difflib.get_close_matches(name, left, n=1)
            hint = f'did you mean "{near[0]}"?' if near else f"there are {', '.join(left)}"
            raise click.UsageError(f'there is no log of "{name}" under {data_dir}; {hint}')
    return {name: one for name, one in left.items() if not tables or name in tables}


def _refuse_beside_others(left: Mapping[str, LeftOnLog], *, dry_run: bool) -> None:
    """Raises `Failure` if somebody writes to one of the logs: better said before a database is asked for."""
    for name, one in left.items():
        writer = holder(one.folder)
        if writer and dry_run:
            note(f"{name}: {writer} writes to this log: this is how it was at its last checkpoint")
        elif writer:
            raise Failure(
                f"{one.folder}: {writer} writes to this log; a recorder replays by itself what it finds at its "
                "start: let it, or stop it first"
            )


# -- saying it ----------------------------------------------------------------------------------------------------


def _show_plan(invocation: Invocation, left: Mapping[str, LeftOnLog]) -> None:
    if invocation.json:
        emit_json(
            {
                name: {
                    "rows": one.rows,
                    "bytes": one.nbytes,
                    "unsettled": one.unsettled,
                    "lost": one.lost,
                    "unread": one.unread or None,
                    "refused": one.refused or None,
                }
                for name, one in left.items()
            }
        )
        return
    columns = ["rows", "bytes", "confirmed", "lost"]
    rows = [
        (name, f"{one.rows:,}", mebibytes(one.nbytes), f"{one.unsettled:,}", f"{one.lost:,}")
        for name, one in left.items()
    ]
    emit_table(["table", *columns], rows, right=columns)
    _note_refused(left)


def _end(
    invocation: Invocation,
    result: Mapping[str, TableReplayed],
    left: Mapping[str, LeftOnLog],
    elapsed_s: float,
) -> None:
    """Tell the result, and leave with its code."""
    _show(invocation, result, elapsed_s)
    _note_refused(left)
    if not invocation.json and not any(one.rows or one.lost or one.unread for one in left.values()):
        click.echo("nothing was left to replay")
    if any(one.unsettled for one in result.values()):
        note(
            "the logs keep confirmed rows until wal_grace_s has passed without a restart of the database; the next "
            "start looks, or --settle waits"
        )
    for name, one in result.items():
        if one.left and not left[name].refused:
            because = f": {one.why}" if one.why else ""
            note(f"{name}: {counted(one.left, 'row')} left{because}; run it again when that is mended")
        if one.unread and not one.left:
            note(f"{name}: rows may be left: {one.unread}; run it again when that is mended")
        if one.lost:
            note(f'{name}: {counted(one.lost, "row")} lost; see "recorder wal verify {name}"')
    unsent = any(one.refused and one.rows for one in left.values())
    if unsent or any(one.left or one.lost or one.unread for one in result.values()):
        click.get_current_context().exit(EXIT_FAILURE)


def _note_refused(left: Mapping[str, LeftOnLog]) -> None:
    for name, one in left.items():
        if one.refused and one.rows:
            note(f"{name}: {counted(one.rows, 'row')} cannot be replayed: {one.refused}")


def _show(invocation: Invocation, result: Mapping[str, TableReplayed], elapsed_s: float) -> None:
    if invocation.json:
        tables: dict[str, Any] = {name: dataclasses.asdict(one) for name, one in result.items()}
        emit_json({"tables": tables, "seconds": round(elapsed_s, 3)})
        return
    if not any(one.rows or one.restored for one in result.values()):
        return
    columns = ["rows", "inserted", "already there", "dead letters", "lost", "left"]
    rows = [
        (
            name,
            *(f"{n:,}" for n in (one.rows, one.inserted, one.there, one.dead_lettered, one.lost, one.left)),
        )
        for name, one in result.items()
        if one.rows or one.restored
    ]
    emit_table(["table", *columns], rows, right=columns)
    if restored := sum(one.restored for one in result.values()):
        click.echo(f"{counted(restored, 'row')} the database had confirmed and lost since: put back")
    if expired := sum(one.expired for one in result.values()):
        click.echo(f"{counted(expired, 'row')} older than the tables keep them: not put back")
    sent = sum(one.inserted + one.there for one in result.values())
    click.echo(f"{elapsed_s:.1f} s, {sent / max(1e-3, elapsed_s):,.0f} rows/s")


@contextmanager
def _shown(invocation: Invocation) -> Iterator[Callable[[Progress], None]]:
    """A bar on a terminal, lines elsewhere, nothing with `--json`."""
    if invocation.json:
        yield lambda now: None
    elif notes().is_terminal:
        with progress(transient=True) as bar:
            task = bar.add_task("replaying", total=None)

            def show(now: Progress) -> None:
                what = f"waiting: {now.waiting_for}" if now.waiting_for else "replaying"
                bar.update(
                    task,
                    description=what,
                    total=now.total_rows or None,
                    completed=now.done_rows,
                    rate=f"{now.rows_per_s:,.0f}",
                )

            yield show
    else:
        next_s = [time.monotonic() + PLAIN_EVERY_S]

        def tell(now: Progress) -> None:
            if time.monotonic() < next_s[0]:
                return
            next_s[0] = time.monotonic() + PLAIN_EVERY_S
            share = 100 * now.done_rows / max(1, now.total_rows)
            left = f", {now.remaining_s:.0f} s left" if now.remaining_s is not None else ""
            waiting = f"; waiting: {now.waiting_for}" if now.waiting_for else ""
            note(
                f"{share:.0f} % of {counted(now.total_rows, 'row')}, {now.rows_per_s:,.0f} rows/s{left}{waiting}"
            )

        yield tell
