"""`recorder retention plan`: what is due for each table and partition, and why. Changes nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from recorder.archive_root import archive_store
from recorder.cli.options import Invocation, pass_invocation
from recorder.cli.output import counted, emit_json, emit_table, note, progress
from recorder.cli.wal_filter import Moment
from recorder.cli.wal_logs import mebibytes

if TYPE_CHECKING:
    from recorder.settings import Settings
    from retention.due import Action
    from retention.facts import TableFacts
    from retention.holds import Hold
    from retention.policy import RetentionPolicy
    from schemas.pack import Pack
    from schemas.table import Table

COLUMNS = ("table", "partition", "rows", "bytes", "action", "why")


class _Looked(NamedTuple):
    """What was found: policies with the facts of their tables, what is due, holds, tables that are not there, whether
    TTL is on.
    """

    found: list[tuple[RetentionPolicy, TableFacts]]
    actions: list[Action]
    holds: list[Hold]
    missing: list[str]
    ttl: bool
    now_ns: int


@click.command()
@click.argument("tables", metavar="[TABLE]...", nargs=-1)
@click.option(
    "--at", type=Moment(), metavar="TIME", help="As if it were this time; default: the server's clock."
)
@click.option(
    "--to",
    "root",
    metavar="ROOT",
    help="The archive that has the receipts, as of apply.  [default: the setting archive]",
)
@pass_invocation
def plan(invocation: Invocation, tables: tuple[str, ...], at: int | None, root: str | None) -> None:
    """Show what "recorder retention apply" would find due, for all tables or for those given, and why. Changes nothing.

    A time is ISO (UTC where it names no zone) or nanoseconds since 1970.

    \b
    Example:
        recorder retention plan
        recorder retention plan market_data fills
        recorder retention plan --at 2027-01-01 --json
        recorder retention plan --to s3://my-bucket/trading
    """
    from recorder.packs import packs_of

    settings = invocation.settings()
    packs = packs_of(settings)
    wanted = tables_of(packs, tables)
    looked = _look(settings, packs, wanted, root, at)
    actions = looked.actions
    if invocation.json:
        emit_json(_as_json(looked, actions))
    elif actions:
        emit_table(COLUMNS, [row_of(action) for action in actions], right=("rows", "bytes"))
    else:
        note("nothing is due")
    if not invocation.json:
        _tell(looked, str(archive_store(settings, root)))


def tables_of(packs: Sequence[Pack], names: Sequence[str]) -> list[Table]:
    """The tables of these names, each once and in the packs' order; all where none is named.

    Raises:
        click.UsageError: no loaded pack has one.
    """
    from recorder.settings_sources import which_table

    known = {table.name: table for pack in packs for table in pack.tables}
    for name in names:
        if name not in known:
            raise click.UsageError(f"TABLE {name!r}: no loaded pack has this table{which_table(name, known)}")
    return [table for name, table in known.items() if not names or name in names]


def _look(
    settings: Settings, packs: Sequence[Pack], wanted: Sequence[Table], root: str | None, at_ns: int | None
) -> _Looked:
    from recorder.retaining.policies import policy_of
    from recorder.retaining.run import runner_of
    from retention.runner import Subject

    found: list[tuple[RetentionPolicy, TableFacts]] = []
    actions: list[Action] = []
    missing = []
    with runner_of(settings, packs, root, writes=False, at_ns=at_ns, on_wait=note) as (runner, ttl):
        with progress(unit="tables", transient=True) as bar:
            task = bar.add_task("looking", total=len(wanted))
            for table in wanted:
                bar.update(task, description=table.name)
                policy = policy_of(settings, table, ttl=ttl)
                for each in filter(None, (policy, policy.of_tier())):
                    looked = runner.look(Subject(each, table.policy))
                    if looked is not None:
                        found.append((each, looked[0]))
                        actions += looked[1]
                    elif each is policy:
                        missing.append(table.name)
                bar.advance(task)
        return _Looked(found, actions, runner.holds(), missing, ttl, runner.now_ns())


def row_of(action: Action) -> tuple[Any, ...]:
    """An action as a row of `COLUMNS`."""
    about_table = not action.partition
    after = f" after {', '.join(action.after)}" if action.after else ""
    return (
        action.table,
        action.partition or None,
        None if about_table else f"{action.rows:,}",
        None if about_table else mebibytes(action.bytes_on_disk),
        action.kind.replace("_", " ") + after.replace("_", " "),
        action.why,
    )


def _full(policy: RetentionPolicy) -> int | None:
    """The most partitions of a table at full retention; None where it grows for ever."""
    from retention.partitions import at_full_retention

    if policy.keep_days is None:
        return None
    return at_full_retention(policy.partition, policy.keep_days) * policy.symbol_groups


def _as_json(looked: _Looked, actions: Sequence[Action]) -> dict[str, Any]:
    tables = [
        {
            **{field.name: getattr(policy, field.name) for field in dataclasses.fields(policy)},
            "ttl": facts.ttl,
            "partitions": len(facts.partitions),
            "parts": sum(part.parts for part in facts.partitions),
            "rows": sum(part.rows for part in facts.partitions),
            "bytes_on_disk": sum(part.bytes_on_disk for part in facts.partitions),
            "partitions_at_full_retention": _full(policy),
        }
        for policy, facts in looked.found
    ]
    return {
        "at_ns": looked.now_ns,
        "ttl_enabled": looked.ttl,
        "actions": [dataclasses.asdict(action) for action in actions],
        "holds": [dataclasses.asdict(hold) for hold in looked.holds],
        "tables": tables,
        "missing_tables": looked.missing,
        "summary": _summary(looked),
    }


def _summary(looked: _Looked) -> dict[str, Any]:
    parts = [part for _, facts in looked.found for part in facts.partitions]
    full = [_full(policy) for policy, _ in looked.found]
    return {
        "tables": len(looked.found),
        "partitions": len(parts),
        "parts": sum(part.parts for part in parts),
        "bytes_on_disk": sum(part.bytes_on_disk for part in parts),
        "partitions_at_full_retention": sum(count for count in full if count is not None),
        "tables_kept_for_ever": full.count(None),
    }


def _tell(looked: _Looked, root: str) -> None:
    """One line of counts, and what a reader must know who takes the plan for the whole truth."""
    told = _summary(looked)
    for_ever = told["tables_kept_for_ever"]
    note(
        f"{counted(told['tables'], 'table')}: {counted(told['partitions'], 'partition')}, "
        f"{counted(told['parts'], 'part')}, {mebibytes(told['bytes_on_disk'])}; at full retention at most "
        f"{counted(told['partitions_at_full_retention'], 'partition')}"
        + (f" and those of {counted(for_ever, 'table')} kept for ever" if for_ever else "")
    )
    if looked.missing:
        note(f'not in the database yet: {", ".join(looked.missing)}; "recorder migrate up" makes them')
    if not looked.ttl:
        note('TTL is off in this database ("migrate up --no-ttl"): rows are kept until someone deletes them')
    if any(policy.archive_after_days is not None for policy, _ in looked.found):
        note(f"receipts are those of the archive at {root}; another one is named by --to")
    note(
        'nothing of this was done; "recorder run" does it by its retention_schedule, '
        '"recorder retention apply --yes" at once'
    )
