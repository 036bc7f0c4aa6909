"""`recorder migrate plan|up|status|check|repartition`."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from recorder.cli.lazy import Home, LazyGroup
from recorder.cli.options import Invocation, pass_invocation
from recorder.cli.output import counted, emit_json, emit_table, note
from recorder.reading.database import client_of

if TYPE_CHECKING:
    from schemas.manager import Manager, PlannedStatement


HOMES = {
    "repartition": Home(
        "recorder.cli.migrate_repartition:repartition",
        "Part the days of tables by symbol, as the settings say.",
    )
}


@click.group(cls=LazyGroup, homes=HOMES)
def migrate() -> None:
    """Bring the database's schema up to the packs, or compare the two.

    \b
    Example:
        recorder migrate plan
        recorder migrate up
    """


@contextlib.contextmanager
def _manager(invocation: Invocation, *, create: bool = False, ttl: bool | None = None) -> Iterator[Manager]:
    from recorder.packs import packs_of
    from recorder.schema_start import manager_of
    from schemas.executor import ClientExecutor

    settings = invocation.settings(ttl=ttl)
    packs = packs_of(settings)
    with client_of(settings, create=create) as client:
        yield manager_of(
            ClientExecutor(client),
            settings,
            packs,
            note,
        )


@migrate.command()
@pass_invocation
def plan(invocation: Invocation) -> None:
    """Print the statements that "up" would run now. Changes nothing.

    \b
    Example:
        recorder migrate plan > plan.sql
    """
    with _manager(invocation) as manager:
        steps = manager.plan()
    if invocation.json:
        emit_json([_step(step) for step in steps])
        return
    for step in steps:
        click.echo(
            f"-- {step.label}, statement {step.statement} of {step.total}\n{step.sql.strip().rstrip(';')};\n"
        )
    note(counted(len(steps), "statement") if steps else "nothing to do: the database is up to date")


@migrate.command()
@click.option(
    "--no-ttl", is_flag=True, help="Keep rows until someone deletes them; the database remembers it."
)
@pass_invocation
def up(invocation: Invocation, no_ttl: bool) -> None:
    """Apply what is pending. May be run at any time; what is done is skipped.

    \b
    Example:
        recorder migrate up --no-ttl
    """
    with _manager(invocation, create=True, ttl=False if no_ttl else None) as manager:
        if no_ttl:
            manager.set_ttl(False)
        steps = manager.up(None if invocation.json else _announce)
    if invocation.json:
        emit_json({"applied": [_step(step) for step in steps]})
    else:
        note(
            f"applied {counted(len(steps), 'statement')}"
            if steps
            else "nothing to do: the database is up to date"
        )


@migrate.command()
@pass_invocation
def status(invocation: Invocation) -> None:
    """Show every migration of every pack and whether it is applied.

    \b
    Example:
        recorder migrate status --json
    """
    with _manager(invocation) as manager:
        packs = manager.status()
    if invocation.json:
        emit_json(
            [
                {
                    "pack": pack.pack,
                    "applied": pack.applied,
                    "pending": pack.pending,
                    "migrations": [dataclasses.asdict(migration) for migration in pack.migrations],
                }
                for pack in packs
            ]
        )
        return
    emit_table(
        ["pack", "migration", "state", "statements", "applied at", "error"],
        [
            (
                pack.pack,
                f"{migration.number:04}_{migration.name}",
                migration.state,
                f"{migration.done} of {migration.total}",
                migration.applied_at,
                migration.error,
            )
            for pack in packs
            for migration in pack.migrations
        ],
    )
    if pending := sum(pack.pending for pack in packs):
        note(f'{pending} pending; apply with "recorder migrate up"')


@migrate.command()
@pass_invocation
@click.pass_context
def check(ctx: click.Context, invocation: Invocation) -> None:
    """Compare the live tables with the packs; exit code 1 when they differ.

    \b
    Example:
        recorder migrate check || alert "schema drift"
    """
    with _manager(invocation) as manager:
        differences = manager.check()
    if invocation.json:
        emit_json({"differences": [dataclasses.asdict(difference) for difference in differences]})
    elif differences:
        columns = ["table", "kind", "what", "expected", "observed", "remedy"]
        emit_table(
            columns, [[getattr(difference, column) for column in columns] for difference in differences]
        )
    else:
        note("no differences")
    if differences:
        sys.stdout.flush()
        ctx.exit(1)


def _announce(step: PlannedStatement) -> None:
    note(f"{step.label}: statement {step.statement} of {step.total}")


def _step(step: PlannedStatement) -> dict[str, object]:
    return {"label": step.label, "statement": step.statement, "total": step.total, "sql": step.sql}
