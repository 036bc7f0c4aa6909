"""`recorder copy`: rows of one database into another, each once and verified."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from recorder.cli.errors import Failure
from recorder.cli.options import Invocation, Number, pass_invocation
from recorder.cli.output import counted, emit_json, emit_table, note, notes, progress
from recorder.cli.wal_filter import Moment
from recorder.cli.wal_logs import mebibytes

if TYPE_CHECKING:
    from recorder.copying import Outcome, Part, Plan, Side, Span, Verified, Writer
    from recorder.settings import Settings

FOLDER = "copy"
"""Below the data folder: what is remembered of verified partitions."""
PLAIN_EVERY_S = 10.0
INSERT_TIMEOUT_S = 60.0
SHOWN = 5
"""Partitions that an error names."""


@click.command()
@click.option("--from", "source", required=True, metavar="URL", help="The database to read.")
@click.option("--to", "target", required=True, metavar="URL", help="The database to write to.")
@click.option("--tables", metavar="A,B", help="Only these tables.  [default: those of the packs; see docs]")
@click.option("--since", type=Moment(), metavar="TIME", help="Rows whose ts_local is this or later.")
@click.option("--until", type=Moment(), metavar="TIME", help="Rows whose ts_local is earlier.")
@click.option("--dry-run", is_flag=True, help="Only show partitions, rows and bytes.")
@click.option("--again", is_flag=True, help="Compare anew what an earlier run verified, too.")
@click.option(
    "--patience", "patience_s", type=Number(min=0), default=60.0, show_default=True, metavar="S",
    help="How long a target that takes no rows is asked again.",
)  # fmt: skip
@pass_invocation
def copy(
    invocation: Invocation,
    source: str,
    target: str,
    tables: str | None,
    since: int | None,
    until: int | None,
    dry_run: bool,
    again: bool,
    patience_s: float,
) -> None:
    """Copy rows into another database: each once, each partition verified over all columns on both sides.

    URLs are targets: chdb:///path/to/db, http://user:password@host:8123/database, https://host:8443. One of them at
    most is embedded. The target has its tables already ("recorder --target URL migrate up"). Rows that are there are
    not sent again, so what was interrupted or killed is completed by running the same command again; recorders may
    write to servers on either side meanwhile. Rows that only the target has are told and stay; nothing is deleted.

    \b
    Exit codes: 0 the target has all rows, verified; 1 it has not, or a partition differs, and why; 2 wrong use;
    130 interrupted, 143 terminated.

    \b
    Example:
        recorder copy --from chdb:///srv/recorder/db --to http://clickhouse:8123/trading --dry-run
        recorder copy --from chdb:///srv/recorder/db --to http://clickhouse:8123/trading
        recorder copy --from http://old:8123 --to http://new:8123 --tables fills,orders --since 2026-01-01
    """
    from recorder.cli.copy_alone import alone
    from recorder.copying import Span

    if since is not None and until is not None and since >= until:
        raise click.UsageError("--since is not before --until, so there is nothing to copy")
    names = _names(tables)
    of_source = _settings(invocation, source, "--from")
    of_target = _settings(invocation, target, "--to")
    _require_two(of_source, of_target)
    span = Span(since, until)
    run = _Run(invocation, of_source, of_target, again=again, patience_s=patience_s)
    if dry_run:
        with run.opened(names, span) as (_, _, plan):
            _show_plan(invocation, plan)
        return
    try:
        with run.opened(names, span) as (source_side, target_side, plan), alone(of_target) as check:
            asyncio.run(run.run(source_side, target_side, plan, check))
    finally:
        run.tell()
    if faulty := [one for one in run.outcomes if one.problem]:
        named = "; ".join(f"{one.table} {one.partition}: {one.problem}" for one in faulty[:SHOWN])
        more = f"; and {len(faulty) - SHOWN} more partitions" if len(faulty) > SHOWN else ""
        raise Failure(f"{counted(len(faulty), 'partition')} not copied whole: {named}{more}")


class _Run:
    """One run of the command."""

    def __init__(
        self, invocation: Invocation, source: Settings, target: Settings, *, again: bool, patience_s: float
    ):
        self.outcomes: list[Outcome] = []
        self._json = invocation.json
        self._source, self._target = source, target
        self._again, self._patience_s = again, patience_s
        self._began_s: float | None = None
        self._plan: Plan | None = None
        self._writer: Writer | None = None

    @contextlib.contextmanager
    def opened(self, names: tuple[str, ...], span: Span) -> Iterator[tuple[Side, Side, Plan]]:
        """Both sides, and what there is to copy."""
        from recorder.cli.copy_sides import source_side, target_side
        from recorder.copying import look
        from recorder.packs import packs_of

        packs = packs_of(self._target)
        with source_side(self._source) as source, target_side(self._target) as target:
            yield source, target, look(source, target, packs, names, span)

    async def run(self, source: Side, target: Side, plan: Plan, check: Callable[[], None]) -> None:
        """Copy; `check` is called before each insert, and raises where it may not be."""
        from recorder.copying import Writer, run
        from recorder.sink.open import open_sink

        self._plan, self._began_s = plan, time.monotonic()
        settings = self._target
        sink = open_sink(settings, [table.name for table in plan.tables])
        try:
            await sink.start()
            writer = self._writer = Writer(
                sink,
                insert_timeout_s=max(settings.insert_timeout_s, INSERT_TIMEOUT_S),
                patience_s=self._patience_s,
                waiting=_Waiting(),
                check=check,
            )
            with _progress(self._json, plan.rows) as advance:
                async for outcome in run(plan, source, target, writer, self._verified(), advance):
                    self.outcomes.append(outcome)
        finally:
            await sink.close()

    def tell(self) -> None:
        """What was done."""
        if self._plan is None or self._began_s is None:
            return
        took_s = time.monotonic() - self._began_s
        # Of the writer: a partition that was given up has no outcome, and rows that got in.
        copied = self._writer.inserted if self._writer is not None else 0
        rows, late, extra = (
            sum(getattr(one, name) for one in self.outcomes) for name in ("rows", "late", "extra")
        )
        if self._json:
            emit_json(
                {
                    "from": str(self._source.target),
                    "to": str(self._target.target),
                    "partitions": len(self.outcomes),
                    "partitions_left": len(self._plan.parts) - len(self.outcomes),
                    "rows": rows,
                    "copied": copied,
                    "late": late,
                    "extra": extra,
                    "faulty": sum(bool(one.problem) for one in self.outcomes),
                    "seconds": round(took_s, 3),
                    "outcomes": [dataclasses.asdict(one) for one in self.outcomes],
                }
            )
            return
        rate = f", {copied / took_s:,.0f} rows/s" if copied and took_s > 0 else ""
        click.echo(
            f"{counted(copied, 'row')} copied, {sum(not one.problem for one in self.outcomes):,} of "
            f"{counted(len(self._plan.parts), 'partition')} verified, {took_s:,.1f} s{rate}"
        )
        if late:
            note(
                f"{counted(late, 'row')} came to the source meanwhile and are not copied yet; run again for them"
            )
        if extra:
            names = sorted({one.table for one in self.outcomes if one.extra})
            note(f"only the target has {counted(extra, 'row')} of {', '.join(names)}; they stay")
        if doubled := sum(one.source_doubled for one in self.outcomes):
            note(f"the source has {counted(doubled, 'row')} more than once; the target has each once")

    def _verified(self) -> Verified:
        from recorder.copying import Verified

        pair = f"{_place(self._source)} {_place(self._target)}"
        path = self._target.data_dir / FOLDER / f"{hashlib.sha256(pair.encode()).hexdigest()[:16]}.jsonl"
        if self._again:
            path.unlink(missing_ok=True)
        return Verified(path, lambda why: note(f"{why}; the next run compares all partitions again"))


class _Waiting:
    """Says why the target is asked again, once for every reason."""

    def __init__(self) -> None:
        self._said = ""

    def __call__(self, why: str) -> None:
        if why != self._said:
            note(f"waiting: {why}")
            self._said = why


# -- what was given ---------------------------------------------------------------------------------------------------


def _names(tables: str | None) -> tuple[str, ...]:
    names = tuple(name.strip() for name in (tables or "").split(",") if name.strip())
    if tables is not None and not names:
        raise click.UsageError("--tables is empty; name tables, or leave it out")
    return names


def _settings(invocation: Invocation, url: str, option: str) -> Settings:
    """The settings with this target, whose database wins over one that the environment names."""
    from recorder.target import parse_target

    try:
        target = parse_target(url)
    except ValueError as error:
        raise click.UsageError(f"{option}: {error}") from error
    return invocation.settings(target=url, database=target.database or None)


def _place(settings: Settings) -> str:
    """A database in one spelling."""
    target = settings.target
    where = os.path.realpath(target.path) if target.embedded else sorted(target.hosts)
    return f"{target.scheme if target.embedded else 'server'} {where} {settings.database}"


def _require_two(source: Settings, target: Settings) -> None:
    if _place(source) == _place(target):
        raise click.UsageError(f"--from and --to are the same database, {source.target}; name two")
    if source.target.embedded and target.target.embedded:
        raise click.UsageError(
            "--from and --to are both embedded, and a process can open one; serve one of them meanwhile: "
            f'recorder devserver --path "{target.target.path}", and give its http:// URL here'
        )


# -- what is shown ----------------------------------------------------------------------------------------------------


def _show_plan(invocation: Invocation, plan: Plan) -> None:
    if invocation.json:
        emit_json(
            {
                "partitions": [
                    {
                        "table": part.table,
                        "partition": part.id,
                        "rows": part.rows,
                        "bytes": part.nbytes,
                        "first_ns": part.first_ns,
                        "last_ns": part.last_ns,
                        "target_rows": there,
                    }
                    for part, there in zip(plan.parts, plan.target_rows, strict=True)
                ],
                "rows": plan.rows,
                "bytes": sum(part.nbytes for part in plan.parts),
                "tables": [table.name for table in plan.tables],
            }
        )
        return
    if plan.parts:
        emit_table(
            ("table", "partition", "rows", "bytes", "target rows"),
            [
                (part.table, part.id, f"{part.rows:,}", mebibytes(part.nbytes), f"{there:,}")
                for part, there in zip(plan.parts, plan.target_rows, strict=True)
            ],
            right=("rows", "bytes", "target rows"),
        )
    note(
        f"{counted(len(plan.parts), 'partition')} of {counted(len(plan.tables), 'table')}, "
        f"{counted(plan.rows, 'row')}, {mebibytes(sum(part.nbytes for part in plan.parts))}; nothing was copied"
    )


@contextlib.contextmanager
def _progress(as_json: bool, rows: int) -> Iterator[Callable[[Part, int], None]]:
    """A bar on a terminal, a line every ten seconds elsewhere, nothing with `--json`."""
    if as_json:
        yield lambda part, done: None
    elif notes().is_terminal:
        with progress(transient=True) as bar:
            task: Any = bar.add_task("copying", total=rows)
            yield lambda part, done: bar.update(task, description=f"{part.table} {part.id}", advance=done)
    else:
        yield _Lines(rows)


class _Lines:
    """A line every ten seconds: rows, rate, what is left."""

    def __init__(self, rows: int):
        self._rows, self._done = rows, 0
        self._began_s = time.monotonic()
        self._next_s = self._began_s + PLAIN_EVERY_S

    def __call__(self, part: Part, done: int) -> None:
        self._done += done
        now_s = time.monotonic()
        if now_s < self._next_s:
            return
        self._next_s = now_s + PLAIN_EVERY_S
        rate = self._done / (now_s - self._began_s)
        left = f", about {max(0, self._rows - self._done) / rate:,.0f} s left" if rate else ""
        note(f"{part.table} {part.id}: {self._done:,} of {self._rows:,} rows, {rate:,.0f} rows/s{left}")
