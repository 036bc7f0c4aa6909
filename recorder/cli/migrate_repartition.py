"""`recorder migrate repartition`: give tables that are there the symbol groups that the settings say."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import click

from recorder.cli.errors import EXIT_FAILURE
from recorder.cli.options import Invocation, pass_invocation
from recorder.cli.output import counted, emit_json, emit_table, note, progress
from recorder.cli.wal_logs import mebibytes

if TYPE_CHECKING:
    from recorder.repartition import Look, Repartition
    from recorder.settings import Settings
    from schemas.manager import Manager
    from schemas.pack import Pack
    from schemas.table import Table

ANSWER_S = 30.0
"""Within that the server answers who keeps the lock."""


@click.command()
@click.argument("tables", metavar="[TABLE]...", nargs=-1)
@click.option("--yes", "-y", is_flag=True, help="Do it. Without this, only show what there is to do.")
@pass_invocation
def repartition(invocation: Invocation, tables: tuple[str, ...], yes: bool) -> None:
    """Part the days of tables as the setting "symbol_groups" says: all whose groups differ from it, or those given.

    Stop every recorder that writes to them first. The table stays readable: its rows are copied beside it, compared,
    and the names are swapped in one step; the disk needs room for both. It may be killed at any time; run it again, and
    it goes on. Without the setting, a day becomes one partition again.

    \b
    Example:
        export RECORDER_TABLES__MARKET_DATA__SYMBOL_GROUPS=8
        recorder migrate repartition market_data
        recorder migrate repartition market_data --yes
    """
    from recorder.cli.retention_plan import tables_of
    from recorder.packs import packs_of
    from schemas.lease_keeper import LeaseKeeper

    settings = invocation.settings()
    packs = packs_of(settings)
    wanted = [table for table in tables_of(packs, tables) if tables or _may_have_groups(table)]
    with _database(settings, packs) as (manager, keeping, make):
        looks = [
            (table, look) for table in wanted for name in _names(table) if (look := make(table, name).look())
        ]
        due = [(table, look) for table, look in looks if look.due]
        if not yes:
            _show(invocation, [look for _, look in due])
            return
        moved = []
        for table, look in due:
            with progress(transient=True) as bar:
                task = bar.add_task(look.table, total=look.rows)
                with keeping.alone() as lease, LeaseKeeper(lease, name="repartition-lock") as keeper:
                    moved.append(
                        make(
                            table,
                            look.table,
                            renew=keeper.check,
                            on_rows=lambda rows, bar=bar, task=task: bar.advance(task, rows),
                        ).run()
                    )
            if not invocation.json:
                told = f"{counted(look.rows, 'row')} are parted by {look.wanted}"
                late = f", {counted(moved[-1].late, 'row')} of them came meanwhile" if moved[-1].late else ""
                click.echo(f"{look.table}: {told}{late}")
            if moved[-1].doubled:
                note(
                    f"{look.table}: {counted(moved[-1].doubled, 'row')} came twice: a recorder sent them again while "
                    "late rows were moved. SELECT _log, _seq, count() ... GROUP BY _log, _seq HAVING count() > 1 "
                    "names them"
                )
        # While it was copied nothing could go from the new table: only now it gets the TTL that its policy says.
        manager.apply_ttl([table.name for table in wanted])
    if invocation.json:
        emit_json({"applied": True, "tables": [dataclasses.asdict(one) for one in moved]})
    elif not moved:
        note("nothing to do: the tables are parted as the settings say")
    if any(one.doubled for one in moved):
        click.get_current_context().exit(EXIT_FAILURE)


def _may_have_groups(table: Table) -> bool:
    from schemas.policy import groups_complaint

    return groups_complaint(table.policy, 2, symbols=table.has_symbols) is None


def _names(table: Table) -> Sequence[str]:
    """The table, and the one that its older partitions move to."""
    from retention.policy import TIER_PREFIX

    return (table.name, TIER_PREFIX + table.name)


def _show(invocation: Invocation, looks: Sequence[Look]) -> None:
    if invocation.json:
        emit_json({"applied": False, "tables": [dataclasses.asdict(look) for look in looks]})
        return
    if not looks:
        note("nothing to do: the tables are parted as the settings say")
        return
    columns = ("table", "partitioned by", "is to be by", "partitions", "rows", "bytes", "state")
    emit_table(
        columns,
        [
            (
                look.table,
                look.present,
                look.wanted,
                f"{look.partitions:,}",
                f"{look.rows:,}",
                mebibytes(look.bytes_on_disk),
                "an interrupted run goes on" if look.unfinished else "to be copied",
            )
            for look in looks
        ],
        right=("partitions", "rows", "bytes"),
    )
    note("nothing was done: stop the recorders of these tables, then add --yes")


@contextlib.contextmanager
def _database(
    settings: Settings, packs: Sequence[Pack]
) -> Iterator[tuple[Manager, Manager, Callable[..., Repartition]]]:
    """What gives tables their TTL, what keeps the lock beside a long statement, and what makes a move."""
    from recorder.reading.database import client_of, server_client
    from recorder.repartition import Repartition
    from recorder.schema_start import manager_of
    from schemas.executor import ClientExecutor

    with contextlib.ExitStack() as stack:
        executor = ClientExecutor(stack.enter_context(client_of(settings, create=False)))
        if settings.target.embedded:
            beside = executor
        else:
            beside = ClientExecutor(stack.enter_context(server_client(settings, read_timeout_s=ANSWER_S)))
        manager, keeping = (manager_of(one, settings, packs, note) for one in (executor, beside))

        def make(table: Table, name: str, **more: object) -> Repartition:
            embedded = settings.target.embedded
            return Repartition(executor, settings.database, name, table.policy, embedded=embedded, **more)  # type: ignore[arg-type]

        yield manager, keeping, make
