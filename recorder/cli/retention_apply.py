"""`recorder retention apply`: carry out what is due, or show it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from recorder.cli.errors import EXIT_FAILURE
from recorder.cli.options import Invocation, pass_invocation
from recorder.cli.output import counted, emit_json, emit_table, note, progress
from recorder.cli.retention_plan import COLUMNS, row_of, tables_of

if TYPE_CHECKING:
    from retention.runner import Outcome, Runner, Subject


@click.command()
@click.argument("tables", metavar="[TABLE]...", nargs=-1)
@click.option("--yes", "-y", is_flag=True, help="Do it. Without this, only show what is due.")
@click.option(
    "--to",
    "root",
    metavar="ROOT",
    help="The archive: a folder, or s3://bucket/prefix.  [default: the setting archive]",
)
@pass_invocation
@click.pass_context
def apply(
    ctx: click.Context, invocation: Invocation, tables: tuple[str, ...], yes: bool, root: str | None
) -> None:
    """Carry out what is due for all tables, or for those given: set TTLs, merge, archive, move, drop.

    Where an archive is due, a partition is dropped only when this run has found each of its rows in verified files.
    What comes late stays. It may be killed at any time; run it again, and it goes on.

    \b
    Exit codes: 0 done or shown, 1 an action failed, or another run is at work, or took over from this one.

    \b
    Example:
        recorder retention apply
        recorder retention apply --yes
        recorder retention apply market_data --yes --to s3://my-bucket/trading
    """
    from recorder.packs import packs_of
    from recorder.retaining.alone import alone
    from recorder.retaining.run import runner_of, subjects_of

    settings = invocation.settings()
    packs = packs_of(settings)
    wanted = tables_of(packs, tables)
    with runner_of(settings, packs, root, writes=yes, on_wait=note) as (runner, ttl):
        subjects = subjects_of(settings, wanted, ttl=ttl)
        if not yes:
            _show(invocation, runner, subjects)
            return
        outcomes: list[Outcome] = []
        ended: list[Subject] = []
        with alone(settings) as still_alone:
            try:
                _carry_out(invocation, runner, subjects, still_alone, outcomes, ended)
            finally:
                # Also where it ends in the middle: what was done is done, and nobody else tells of it.
                left = [subject.policy.table for subject in subjects if subject not in ended]
                if invocation.json:
                    emit_json(_applied(outcomes, left))
                elif left:
                    note(f"the run ends before it is done with {', '.join(left)}")
    failed = [outcome for outcome in outcomes if outcome.state == "failed"]
    if not outcomes and not invocation.json:
        note('nothing is due now; what waits, and why, is told by "recorder retention plan"')
    if failed:
        ctx.exit(EXIT_FAILURE)


def _show(invocation: Invocation, runner: Runner, subjects: Sequence[Subject]) -> None:
    actions = [action for subject in subjects for action in runner.plan(subject)]
    if invocation.json:
        emit_json({"applied": False, "actions": [dataclasses.asdict(action) for action in actions]})
        return
    if actions:
        emit_table(COLUMNS, [row_of(action) for action in actions], right=("rows", "bytes"))
    work = sum(action.kind.is_work for action in actions)
    note(f"{counted(work, 'action')} due; nothing was done: add --yes" if work else "nothing is due now")


def _carry_out(
    invocation: Invocation,
    runner: Runner,
    subjects: Sequence[Subject],
    still_alone: Callable[[], None],
    outcomes: list[Outcome],
    ended: list[Subject],
) -> None:
    """Do what is due. What becomes of each action is told as it is known, and added to `outcomes`; a subject with which
    it is done, to `ended`. Raises as `still_alone`, which is called between actions."""
    with progress(unit="tables", transient=True) as bar:
        task = bar.add_task("retention", total=len(subjects))
        for subject in subjects:
            bar.update(task, description=subject.policy.table)
            still_alone()
            for outcome in runner.run(subject):
                if not invocation.json:
                    action = outcome.action
                    where = " ".join(filter(None, (action.table, action.partition)))
                    what = action.why if action.kind == "report" else action.kind.replace("_", " ")
                    click.echo(f"{outcome.state}: {where}: {what}: {outcome.told}")
                outcomes.append(outcome)
                still_alone()
            ended.append(subject)
            bar.advance(task)


def _applied(outcomes: Sequence[Outcome], left: Sequence[str]) -> dict[str, Any]:
    """`tables_left` are those that the run was not done with when it ended; empty where it came to its end."""
    return {"applied": True, "outcomes": [_as_json(outcome) for outcome in outcomes], "tables_left": left}


def _as_json(outcome: Outcome) -> dict[str, Any]:
    return {**dataclasses.asdict(outcome.action), "state": outcome.state, "told": outcome.told}
