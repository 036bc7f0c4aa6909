"""`recorder retention apply`: carry out what is due, or show it."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from recorder.cli.archive_source import TableSource
from recorder.cli.errors import EXIT_FAILURE, Failure
from recorder.cli.options import Invocation, pass_invocation
from recorder.cli.output import counted, emit_json, emit_table, note, progress
from recorder.cli.retention_plan import COLUMNS, row_of, tables_of

if TYPE_CHECKING:
    from recorder.cli.archive_source import Answers
    from recorder.settings import Settings
    from retention.archive import Place
    from retention.runner import Outcome, Runner, Subject
    from schemas.pack import Pack
    from schemas.table import Table

LOCK = "retention.lock"


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
    Exit codes: 0 done or shown, 1 an action failed.

    \b
    Example:
        recorder retention apply
        recorder retention apply --yes
        recorder retention apply market_data --yes --to s3://my-bucket/trading
    """
    from recorder.packs import packs_of

    settings = invocation.settings()
    packs = packs_of(settings)
    wanted = tables_of(packs, tables)
    with runner_of(settings, packs, root, writes=yes) as (runner, ttl):
        subjects = _subjects(settings, wanted, ttl)
        if not yes:
            _show(invocation, runner, subjects)
            return
        with _alone(settings):
            outcomes = list(_told(invocation, runner, subjects))
    failed = [outcome for outcome in outcomes if outcome.state == "failed"]
    if invocation.json:
        emit_json({"applied": True, "outcomes": [_as_json(outcome) for outcome in outcomes]})
    elif not outcomes:
        note("nothing is due")
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
    note(f"{counted(work, 'action')} due; nothing was done: add --yes" if work else "nothing is due")


def _told(invocation: Invocation, runner: Runner, subjects: Sequence[Subject]) -> Iterator[Outcome]:
    """What becomes of each action, told as it is known."""
    with progress(unit="tables", transient=True) as bar:
        task = bar.add_task("retention", total=len(subjects))
        for subject in subjects:
            bar.update(task, description=subject.policy.table)
            for outcome in runner.run(subject):
                if not invocation.json:
                    action = outcome.action
                    where = " ".join(filter(None, (action.table, action.partition)))
                    click.echo(f"{outcome.state}: {where}: {action.kind.replace('_', ' ')}: {outcome.told}")
                yield outcome
            bar.advance(task)


def _subjects(settings: Settings, wanted: Sequence[Table], ttl: bool) -> list[Subject]:
    from recorder.cli.retention_policies import policy_of
    from retention.runner import Subject

    policies = [(policy_of(settings, table, ttl=ttl), table.policy) for table in wanted]
    # A table before the one that its partitions move to, so that what has moved is looked at in the same run.
    return [
        Subject(each, kept)
        for policy, kept in policies
        for each in (policy, policy.of_tier())
        if each is not None
    ]


@contextlib.contextmanager
def runner_of(
    settings: Settings, packs: Sequence[Pack], root: str | None, *, writes: bool, at_ns: int | None = None
) -> Iterator[tuple[Runner, bool]]:
    """A runner on the database of the settings, and whether tables of that database carry a TTL; `at_ns` as if it were
    this time.
    """
    from recorder.archive_root import archive_store
    from recorder.bars.proof import BarsProof
    from recorder.cli.reader import open_reader
    from recorder.cli.retention_policies import quiet
    from recorder.schema_start import manager_of
    from recorder.version import version
    from retention.runner import Runner

    store = archive_store(settings, root)
    with quiet(settings, writes=writes) as executor, contextlib.closing(open_reader(settings)) as reader:
        manager = manager_of(executor, settings, packs, note)
        yield (
            Runner(
                executor,
                settings.database,
                store=store,
                source_of=lambda place, parts: PartsSource(reader, settings.database, place, parts),
                alter_ttl=lambda table: manager.apply_ttl([table]),
                lock=manager.alone,
                recorder_version=version(),
                merges=not settings.target.embedded,
                barring=BarsProof(executor, settings.database),
                now_ns=None if at_ns is None else lambda: at_ns,
            ),
            manager.ttl_enabled(),
        )


class PartsSource(TableSource):
    """The rows of some parts of a partition, for the archive."""

    def __init__(self, answers: Answers, database: str, place: Place, parts: Sequence[str]):
        from retention.live_parts import parts_filter
        from schemas.quote import quote_name

        super().__init__(answers, database, place)
        self._from = f"FROM {quote_name(database)}.{quote_name(place.table)} WHERE {parts_filter(parts)}"


@contextlib.contextmanager
def _alone(settings: Settings) -> Iterator[None]:
    """One run at a time for a data folder.

    Raises:
        Failure: another one runs.
    """
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    with (settings.data_dir / LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Failure(
                f"{settings.data_dir / LOCK}: another run of retention holds it; wait until it has ended"
            ) from None
        yield


def _as_json(outcome: Outcome) -> dict[str, Any]:
    return {**dataclasses.asdict(outcome.action), "state": outcome.state, "told": outcome.told}
