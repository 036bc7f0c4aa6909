"""`recorder retention holds`: what is held, and who held or lifted what. Changes nothing."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import click

from recorder.cli.options import Invocation, pass_invocation
from recorder.cli.output import emit_json, emit_table, note

if TYPE_CHECKING:
    from retention.live_holds import HoldRow

COLUMNS = ("at", "name", "event", "tables", "since", "until", "person", "database user", "reason")


@click.command()
@click.option("--all", "everything", is_flag=True, help="Every row of holding and lifting, oldest first.")
@pass_invocation
def holds(invocation: Invocation, everything: bool) -> None:
    """Show the holds that are in force.

    \b
    Example:
        recorder retention holds
        recorder retention holds --all --json
    """
    from recorder.retaining.policies import read_only
    from retention.live_holds import in_force, read_holds

    settings = invocation.settings()
    with read_only(settings) as executor:
        rows = read_holds(executor, settings.database)
    shown = rows if everything else in_force(rows)
    if invocation.json:
        emit_json([as_json(row) for row in shown])
    elif shown:
        emit_table(COLUMNS, [_row(row) for row in shown])
    else:
        note("nothing was ever held" if not rows else "nothing is held")


def as_json(row: HoldRow) -> dict[str, Any]:
    """A row as JSON; `tables` is empty where all are held."""
    return dataclasses.asdict(row)


def scope(row: HoldRow) -> str:
    """What a row holds, for people."""
    what = ", ".join(row.tables) if row.tables else "every table"
    since = "" if row.since_ns is None else f" from {_time(row.since_ns)}"
    return what + since + ("" if row.until_ns is None else f" to before {_time(row.until_ns)}")


def _row(row: HoldRow) -> tuple[Any, ...]:
    return (
        _time(row.ts_ns),
        row.name,
        row.event,
        None if row.event != "hold" else row.tables or "all",
        _time(row.since_ns),
        _time(row.until_ns),
        row.person,
        row.db_user,
        row.reason,
    )


def _time(ns: int | None) -> str | None:
    """ISO, UTC, as short as it is exact: a day, a second, or nanoseconds."""
    import datetime

    if ns is None:
        return None
    seconds, rest = divmod(ns, 1_000_000_000)
    at = datetime.datetime.fromtimestamp(0, datetime.UTC) + datetime.timedelta(seconds=seconds)
    if not rest and not seconds % 86_400:
        return at.strftime("%Y-%m-%d")
    return at.strftime("%Y-%m-%dT%H:%M:%S") + (f".{rest:09}" if rest else "") + "Z"
