"""`recorder retention plan`: what is due for each table and partition, and why. Changes nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import click

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
    from schemas.executor import SqlExecutor
    from schemas.pack import Pack
    from schemas.table import Table

COLUMNS = ("table", "partition", "rows", "bytes", "action", "why")


class _Looked(NamedTuple):
    """What was found: policies with the facts of their tables, holds, tables that are not there, whether TTL is on."""

    found: list[tuple[RetentionPolicy, TableFacts]]
    holds: list[Hold]
    missing: list[str]
    ttl: bool
    now_ns: int


@click.command()
@click.argument("tables", metavar="[TABLE]...", nargs=-1)
@click.option(
    "--at", type=Moment(), metavar="TIME", help="As if it were this time; default: the server's clock."
)
@pass_invocation
def plan(invocation: Invocation, tables: tuple[str, ...], at: int | None) -> None:
    """Show what is due for every partition, or for those of the given tables, and why. Changes nothing.

    A time is ISO (UTC where it names no zone) or nanoseconds since 1970.

    \b
    Example:
        recorder retention plan
        recorder retention plan market_data fills
        recorder retention plan --at 2027-01-01 --json
    """
    from recorder.packs import packs_of
    from retention.due import due

    settings = invocation.settings()
    packs = packs_of(settings)
    wanted = tables_of(packs, tables)
    looked = _look(settings, packs, wanted, at)
    actions = [
        action
        for policy, facts in looked.found
        for action in due(policy, facts, now_ns=looked.now_ns, holds=looked.holds)
    ]
    if invocation.json:
        emit_json(_as_json(looked, actions))
    elif actions:
        emit_table(COLUMNS, [row_of(action) for action in actions], right=("rows", "bytes"))
    else:
        note("nothing is due")
    if not invocation.json:
        _tell(looked)


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


def _look(settings: Settings, packs: Sequence[Pack], wanted: Sequence[Table], at_ns: int | None) -> _Looked:
    from recorder.cli.retention_policies import policy_of, read_only
    from recorder.schema_start import manager_of
    from retention.live_facts import server_time_ns
    from retention.live_holds import holds_of, read_holds
    from schemas.live import LiveTable, read_tables
    from schemas.policy import TablePolicy

    with read_only(settings) as executor:
        ttl = manager_of(executor, settings, packs).ttl_enabled()
        live = read_tables(executor, settings.database)
        policies: list[RetentionPolicy] = []
        sources: list[tuple[LiveTable, TablePolicy]] = []
        missing = []
        for table in wanted:
            policy = policy_of(settings, table, ttl=ttl)
            tier = policy.of_tier()
            if table.name not in live:
                missing.append(table.name)
            for each in (policy, tier):
                if each is not None and each.table in live:
                    policies.append(each)
                    sources.append((live[each.table], table.policy))
        holds = holds_of(read_holds(executor, settings.database))
        facts = _facts(executor, settings.database, sources)
        now_ns = server_time_ns(executor) if at_ns is None else at_ns
    return _Looked(list(zip(policies, facts, strict=True)), holds, missing, ttl, now_ns)


def _facts(executor: SqlExecutor, database: str, sources: Sequence[Any]) -> list[TableFacts]:
    from retention.live_facts import read_facts

    with progress(unit="tables", transient=True) as bar:
        task = bar.add_task("looking", total=len(sources))

        def at_table(name: str) -> None:
            bar.update(task, description=name, advance=1)

        return read_facts(executor, database, sources, at_table)


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

    return None if policy.keep_days is None else at_full_retention(policy.partition, policy.keep_days)


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


def _tell(looked: _Looked) -> None:
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
    if any(policy.proof_first for policy, _ in looked.found):
        note(
            'the archive is not read here: all partitions are shown as without; "retention apply" shows what it has'
        )
    note('nothing of this is done by itself; "recorder retention apply --yes" does it')
