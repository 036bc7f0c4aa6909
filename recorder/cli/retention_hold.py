"""`recorder retention hold` and `lift`: what nothing may drop.

The order is what makes a hold one: its row is on disk before a TTL is taken away, and only when no table concerned has
a TTL any more, and no merge runs that may have begun with one, does the command say that it is done. Killed in between,
the same command goes on. What a hold cannot keep is what people drop or delete themselves.
"""

from __future__ import annotations

import getpass
import socket
import time
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

import click

from recorder.cli.errors import Failure
from recorder.cli.options import Invocation, pass_invocation
from recorder.cli.output import counted, emit_json, note
from recorder.cli.retention_holds import as_json, scope
from recorder.cli.wal_filter import Moment

if TYPE_CHECKING:
    from recorder.settings import Settings
    from retention.live_holds import HoldRow
    from schemas.executor import SqlExecutor
    from schemas.manager import Manager

MERGES_S = 600.0
"""How long to wait for merges that began before a TTL was taken away; then the command gives up and says so."""
NAME_LENGTH = 200
_POLL_S = 0.2


@click.command()
@click.argument("name", metavar="NAME")
@click.option("--table", "tables", metavar="TABLE", multiple=True, help="Hold this one; default: all tables.")
@click.option("--since", type=Moment(), metavar="TIME", help="Rows whose ts_local is this or later.")
@click.option("--until", type=Moment(), metavar="TIME", help="Rows whose ts_local is earlier.")
@click.option("--reason", default="", metavar="TEXT", help="Why, for auditors.")
@pass_invocation
def hold(
    invocation: Invocation,
    name: str,
    tables: tuple[str, ...],
    since: int | None,
    until: int | None,
    reason: str,
) -> None:
    """Let nothing drop these rows until "recorder retention lift NAME".

    The tables it concerns lose their TTL, also where it holds only a time of them. A partition is held whole. If it is
    interrupted, run it again: it goes on.

    \b
    Example:
        recorder retention hold case-17 --reason "letter of 3 May"
        recorder retention hold case-18 --table orders --table fills --since 2024-08-01 --until 2024-09-01
    """
    from recorder.packs import packs_of
    from recorder.retaining.policies import quiet
    from recorder.schema_start import manager_of
    from retention.live_holds import HoldRow
    from schemas.live import read_tables

    _check_name(name)
    settings = invocation.settings()
    packs = packs_of(settings)
    wanted = HoldRow(
        name=name,
        tables=tuple(sorted(set(tables))),
        since_ns=since,
        until_ns=until,
        reason=reason,
        person=_person(),
    )
    wanted.holds()  # an empty time is refused before anything is asked
    with quiet(settings) as executor:
        manager = manager_of(executor, settings, packs, note)
        there = sorted(set(manager.tables) & set(read_tables(executor, settings.database)))
        _must_be_there(wanted.tables, there, settings)
        row, is_new = _write(executor, settings, wanted)
        held = [table for table in there if not wanted.tables or table in wanted.tables]
        taken = _take_ttl(executor, settings, manager, name, held)
    if invocation.json:
        emit_json({**as_json(row), "held_tables": held, "was_in_force": not is_new, "ttl_taken": taken})
        return
    note(f"{name} {'holds' if is_new else 'held already'} {scope(wanted)}; {counted(len(held), 'table')}")
    if taken:
        note(f"no TTL any more: {', '.join(taken)}")


@click.command()
@click.argument("name", metavar="NAME")
@click.option("--reason", default="", metavar="TEXT", help="Why, for auditors.")
@pass_invocation
def lift(invocation: Invocation, name: str, reason: str) -> None:
    """End a hold. Nothing is dropped by that: tables get their TTL back by the next "recorder migrate up" or "recorder
    retention apply --yes".

    \b
    Example:
        recorder retention lift case-17 --reason "case closed"
    """
    from recorder.retaining.policies import quiet
    from retention.live_holds import LIFT, HoldRow, append, in_force, read_holds

    settings = invocation.settings()
    with quiet(settings) as executor:
        rows = read_holds(executor, settings.database)
        if was := name in {row.name for row in in_force(rows)}:
            append(
                executor,
                settings.database,
                HoldRow(name=name, event=LIFT, reason=reason, person=_person()),
            )
            if name in {row.name for row in in_force(read_holds(executor, settings.database))}:
                raise Failure(
                    f"{name} was lifted and is held anew, by someone at the same moment; look with holds"
                )
        elif name not in {row.name for row in rows}:
            there = ", ".join(sorted({row.name for row in in_force(rows)})) or "none"
            raise Failure(
                f'no hold is called {name!r}; in force: {there}; see "recorder retention holds --all"'
            )
    if invocation.json:
        emit_json({"name": name, "was_in_force": was})
    else:
        note(
            f'{name} is lifted; the next "recorder migrate up" or "recorder retention apply --yes" gives tables their '
            "TTL back"
            if was
            else f"{name} was lifted"
        )


def _check_name(name: str) -> None:
    if not name.strip() or not name.isprintable() or len(name) > NAME_LENGTH:
        raise click.UsageError(
            f"NAME {name[:NAME_LENGTH]!r}: a hold's name is one line of 1 to {NAME_LENGTH} characters that can be seen"
        )


def _must_be_there(wanted: Sequence[str], there: Sequence[str], settings: Settings) -> None:
    for table in wanted:
        if table not in there:
            raise Failure(
                f"--table {table!r}: database {settings.database} has no such table of a loaded pack, so nothing would "
                f"be held; there are {', '.join(there) or 'none'}: correct the name, or add the pack that has it"
            )


def _write(executor: SqlExecutor, settings: Settings, wanted: HoldRow) -> tuple[HoldRow, bool]:
    """Make the row durable and read it back, unless it is there; the row, and whether it is new."""
    from retention.live_holds import append, in_force, is_there, read_holds

    if not is_there(executor, settings.database):
        raise Failure(
            f"database {settings.database} cannot keep holds yet: it has no table for them; "
            'run "recorder migrate up", then this again'
        )
    same_name = _of_name(in_force(read_holds(executor, settings.database)), wanted.name)
    for row in same_name:
        if row.says_the_same(wanted):
            return row, False
    if same_name:
        raise Failure(
            f"{wanted.name} holds something else already: {scope(same_name[0])}; "
            f"give this hold another name, or lift {wanted.name} first"
        )
    append(executor, settings.database, wanted)
    after = _of_name(in_force(read_holds(executor, settings.database)), wanted.name)
    for row in after:
        if row.says_the_same(wanted):
            return row, True
    raise Failure(
        f"{wanted.name}: written, and not what the database says now; nothing is certain to be held. "
        "Is a time out of range, or did someone lift it at the same moment? Look with holds --all"
    )


def _of_name(rows: Sequence[HoldRow], name: str) -> list[HoldRow]:
    return [row for row in rows if row.name == name]


def _take_ttl(
    executor: SqlExecutor, settings: Settings, manager: Manager, name: str, held: Sequence[str]
) -> list[str]:
    """Take the TTL from the tables of a hold, those that their partitions moved to as well; the tables that had one."""
    from retention.live_holds import running_merges
    from retention.policy import TIER_PREFIX
    from schemas.live import read_tables
    from schemas.quote import quote_name

    all_held = [*held, *(TIER_PREFIX + table for table in held)]
    before = _with_ttl(executor, settings, all_held)
    try:
        manager.take_held_ttl()
        for table in before:
            if table.startswith(TIER_PREFIX):
                executor.command(
                    f"ALTER TABLE {quote_name(settings.database)}.{quote_name(table)} REMOVE TTL"
                )
        left = _with_ttl(executor, settings, all_held)
    except Exception as error:
        raise Failure(
            f"{name} is recorded as held, but ClickHouse may still delete its rows by a TTL: {error}; "
            "run the same command again"
        ) from error
    if left:
        live = read_tables(executor, settings.database)
        table = left[0]
        ttl = live[table].ttl if table in live else "gone"
        raise Failure(
            f"{name} is recorded as held, but {table} still has a TTL: {ttl}. Does a recorder of an older version, "
            "which knows no holds, set it? Upgrade it, then run the same command again"
        )
    _await_merges(lambda: running_merges(executor, settings.database, all_held), name)
    return before


def _with_ttl(executor: SqlExecutor, settings: Settings, tables: Collection[str]) -> list[str]:
    from schemas.live import read_tables

    live = read_tables(executor, settings.database)
    return [table for table in tables if table in live and live[table].ttl]


def _await_merges(running: Callable[[], frozenset[tuple[str, str]]], name: str) -> None:
    """Wait for the merges that run now: they may have begun with a TTL, and take rows by it."""
    until_s = time.monotonic() + MERGES_S
    before = running()
    if before:
        note(f"waiting for {counted(len(before), 'merge')} that began before")
    while before := before & running():
        if time.monotonic() >= until_s:
            table, part = min(before)
            raise Failure(
                f"{name} holds, but a merge that began before may still delete expired rows: {table}, part {part}, "
                f"after {MERGES_S:,.0f} s; run the same command again to wait for it"
            )
        time.sleep(_POLL_S)


def _person() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):
        user = "unknown"  # no entry for this user id, as in a container
    return f"{user}@{socket.gethostname()}"
