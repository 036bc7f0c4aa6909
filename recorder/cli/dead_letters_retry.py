"""`recorder dead-letters retry`."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from recorder.cli.dead_letters_faults import Faulty, faults_as_json, show_faults
from recorder.cli.dead_letters_options import filter_of, filters
from recorder.cli.errors import EXIT_FAILURE, Failure, Terminated
from recorder.cli.options import Invocation, Number, pass_invocation
from recorder.cli.output import counted, emit_json, note, progress
from recorder.reading.database import folder_of, must_exist, server_client

if TYPE_CHECKING:
    from recorder.dead_letters.assembly import Chosen
    from recorder.dead_letters.examine import Examined, Examiner
    from recorder.dead_letters.letter import Letter
    from recorder.dead_letters.retry import Retry, Told
    from recorder.dead_letters.store import Filter, Store
    from recorder.settings import Settings
    from recorder.sink.base import Sink

LIMIT = 100_000
_READ_ONLY = 164
_READ_ONLY_WORDS = "is readonly"
"""Of the client, which asks the server what it may set."""


@dataclass
class _Plan:
    """What a retry would do."""

    rows: dict[str, int] = field(default_factory=dict)
    closed: int = 0
    ready: int = 0
    open: list[Faulty] = field(default_factory=list)


@click.command()
@click.argument("names", nargs=-1, metavar="[ID]...")
@filters
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=LIMIT,
    show_default=True,
    help="At most so many, the oldest.",
)
@click.option("--dry-run", is_flag=True, help="Only say what it would do.")
@click.option("--yes", "-y", is_flag=True, help="Do it without asking.")
@click.option(
    "--wait", "wait_s", type=Number(min=0), default=10.0, show_default=True, metavar="S",
    help="How long to wait for another retry on the same server to end.",
)  # fmt: skip
@pass_invocation
def retry(
    invocation: Invocation,
    /,
    names: Sequence[str],
    limit: int,
    dry_run: bool,
    yes: bool,
    wait_s: float,
    **which: Any,
) -> None:
    """Make rows of dead letters again, by the tables and settings of now, and insert what fits.

    Rows keep their identity and are looked up first: running it again, or after a kill, adds nothing twice. A message
    goes through "topics" and its normaliser again, so give it the settings of the recorder that wrote it. What still
    cannot be inserted stays the dead letter that it is, and is told with its reason. Nothing is deleted.

    An embedded database is retried while no recorder has it open; a server, beside a running one.

    \b
    Exit codes: 0 all is in, 1 some is still wrong, 2 wrong use, 130 interrupted.

    \b
    Example:
        recorder dead-letters retry --dry-run
        recorder dead-letters retry --table orders --reason unknown_field
        recorder dead-letters retry --yes 9f3c0a1b2c3d4e5f-12 9f3c0a1b2c3d4e5f-13
    """
    wanted = filter_of(names, **which)
    settings = invocation.settings()
    run = _Run(invocation, settings, wanted, limit, wait_s)
    try:
        asyncio.run(run.run(dry_run=dry_run, ask=not yes))
    except (KeyboardInterrupt, Terminated, asyncio.CancelledError):
        run.tell()
        raise
    run.tell()
    if run.told is not None and run.told.open:
        click.get_current_context().exit(EXIT_FAILURE)


class _Run:
    """One run of the command."""

    def __init__(self, invocation: Invocation, settings: Settings, wanted: Filter, limit: int, wait_s: float):
        from recorder.dead_letters.assembly import rebuilder_of

        self.told: Told | None = None
        self._closed = 0
        self._json = invocation.json
        self._settings = settings
        self._wanted = wanted
        self._limit = limit
        self._wait_s = wait_s
        self._rebuilder = rebuilder_of(settings)

    async def run(self, *, dry_run: bool, ask: bool) -> None:
        """Look, ask, do."""
        from recorder.dead_letters.assembly import examiner_of
        from recorder.dead_letters.retry import Retry
        from recorder.dead_letters.store import Store
        from recorder.sink.open import open_sink

        settings = self._settings
        if settings.target.embedded:
            must_exist(folder_of(settings))
        sink = open_sink(settings, self._rebuilder.tables)
        try:
            await _start(sink)
            store = Store(sink.query_arrow, settings.database)
            chosen = await self._choose(store)
            self._closed = chosen.closed
            examiner = await examiner_of(sink, settings, store, self._rebuilder, chosen.letters)
            if (dry_run or ask) and not await self._agreed(store, examiner, chosen, dry_run=dry_run):
                return
            retry = Retry(sink, settings, store, examiner, waiting=lambda why: note(f"waiting: {why}"))
            self.told = retry.told
            async with self._alone():
                await self._do(retry, chosen.letters)
        finally:
            await sink.close()

    def tell(self) -> None:
        """What was done."""
        if self.told is None:
            return
        told = self.told
        if self._json:
            emit_json(
                {
                    "letters": told.letters + self._closed,
                    "done": told.outcomes["done"],
                    "closed": told.outcomes["closed"] + self._closed,
                    "open": told.outcomes["open"],
                    "inserted": told.inserted,
                    "there": told.there,
                    "faults": faults_as_json(told.open),
                }
            )
            return
        for table, rows in sorted(told.inserted.items()):
            click.echo(f"{table}: {counted(rows, 'row')} inserted")
        click.echo(
            f"{counted(told.outcomes['done'], 'dead letter')} closed now, "
            f"{told.outcomes['closed'] + self._closed:,} before, {told.outcomes['open']:,} still open"
        )
        show_faults(told.open)

    # -- steps ----------------------------------------------------------------------------------------------------

    async def _choose(self, store: Store) -> Chosen:
        from recorder.dead_letters.assembly import choose
        from recorder.dead_letters.letter import name_of

        chosen = await choose(store, self._wanted, self._limit)
        if chosen.missing:
            raise Failure(
                f"there is no dead letter {', '.join(map(name_of, chosen.missing[:5]))}; nothing was retried; "
                '"recorder dead-letters ls --all" lists them'
            )
        if chosen.cut:
            note(f"only the oldest {counted(self._limit, 'letter')}; run again for the rest, or give --limit")
        return chosen

    async def _agreed(self, store: Store, examiner: Examiner, chosen: Chosen, *, dry_run: bool) -> bool:
        """Say what would be done; whether to do it."""
        plan = _Plan(closed=chosen.closed)
        with _bar("looking", len(chosen.letters)) as advance:
            async for part in store.read(chosen.letters):
                for one in await examiner.examine(part):
                    _add(plan, one)
                advance(plan.ready + plan.closed - chosen.closed + len(plan.open))
        self._show(plan, on_stdout=dry_run)
        if dry_run:
            return False
        if not plan.rows:
            note("nothing can be inserted")
            if plan.open:
                click.get_current_context().exit(EXIT_FAILURE)
            return False
        if not sys.stdin.isatty():
            raise click.UsageError(
                "nothing was done: no terminal to ask on; give --yes, or --dry-run to look"
            )
        return click.confirm("insert them?", err=True)

    def _show(self, plan: _Plan, *, on_stdout: bool) -> None:
        if self._json and on_stdout:
            emit_json(
                {
                    "would_insert": plan.rows,
                    "closed": plan.closed,
                    "open": len(plan.open),
                    "faults": faults_as_json(plan.open),
                }
            )
            return
        say: Callable[[str], object] = click.echo if on_stdout else note
        for table, rows in sorted(plan.rows.items()):
            say(f"{table}: {counted(rows, 'row')} would be inserted")
        say(f"{counted(plan.closed, 'dead letter')} closed already, {len(plan.open):,} would stay open")
        if not self._json:
            show_faults(plan.open)

    async def _do(self, retry: Retry, letters: Sequence[Letter]) -> None:
        with _bar("retrying", len(letters)) as advance:
            await retry.run(letters, advance)

    @contextlib.asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """No other retry works on the server meanwhile; an embedded database has one process."""
        from recorder.dead_letters.one_at_a_time import one_at_a_time
        from schemas.executor import ClientExecutor

        if self._settings.target.embedded:
            yield
            return
        with server_client(self._settings) as client:
            async with one_at_a_time(
                ClientExecutor(client),
                self._settings.database,
                wait_s=self._wait_s,
                on_wait=lambda who: note(f"waiting for another retry: {who}"),
            ):
                yield


async def _start(sink: Sink) -> None:
    from recorder.sink.errors import SinkError

    try:
        await sink.start()
    except SinkError as error:
        if error.code != _READ_ONLY and _READ_ONLY_WORDS not in str(error):
            raise
        raise Failure(
            f"the target only reads, and a retry inserts; give the database itself, and where that is an embedded one "
            f"stop its recorder first ({error})"
        ) from error


def _add(plan: _Plan, one: Examined) -> None:
    from dataclasses import replace

    for row in one.absent:
        plan.rows[row.table] = plan.rows.get(row.table, 0) + 1
    if one.faults:
        plan.open.append((replace(one.letter, payload=None), one.faults))
    elif one.absent:
        plan.ready += 1
    else:
        plan.closed += 1


@contextlib.contextmanager
def _bar(what: str, total: int) -> Any:
    with progress(unit="letters", transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)
