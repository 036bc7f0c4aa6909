"""`recorder bars verify`: compute bars again and compare; a line for each fault. Changes nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from recorder.bars.survey import require_tables
from recorder.bars.verify import Verified
from recorder.bars.verify import verify as verify_bars
from recorder.cli.archive import told
from recorder.cli.bars import chosen, scope_of, scope_options, told_plainly
from recorder.cli.errors import Failure
from recorder.cli.options import Invocation, pass_invocation
from recorder.cli.output import counted, emit_json, note

if TYPE_CHECKING:
    from recorder.settings import Settings
    from schemas.executor import SqlExecutor


@click.command()
@scope_options
@pass_invocation
def verify(
    invocation: Invocation, tables: tuple[str, ...], since: int | None, until: int | None, delay_s: float
) -> None:
    """Compute the bars of hours that are over again, and compare every value with what is built.

    Counts of trades and quotes and the volume are also added up over the recorded rows another way. Hours of which rows
    are no longer recorded cannot be compared; how many is told.

    \b
    Exit codes: 0 all bars are what the rows make, 1 some are not, or are not built.

    \b
    Example:
        recorder bars verify
        recorder bars verify --since 2024-08-08 --until 2024-08-09 --json
    """
    scope = scope_of(since, until)
    settings = invocation.settings()
    results = []
    with _reading(settings) as executor:
        for bars in chosen(tables):
            with told(invocation, bars.name) as progress:
                result = verify_bars(
                    executor,
                    settings.database,
                    bars,
                    scope,
                    delay_s=delay_s,
                    show=lambda done, total: progress(f"{done / max(1, total):.0%}", done),
                )
            results.append(result)
            if not invocation.json:
                _tell(result)
    faults = sum(len(result.faults) for result in results)
    if invocation.json:
        emit_json([_json(result) for result in results])
    if faults:
        raise Failure(f"{counted(faults, 'fault')} in bars of {counted(len(results), 'table')}")


@contextlib.contextmanager
def _reading(settings: Settings) -> Iterator[SqlExecutor]:
    from recorder.retaining.policies import read_only

    with read_only(settings) as executor, told_plainly():
        require_tables(executor, settings.database)
        yield executor


def _tell(result: Verified) -> None:
    for fault in result.faults:
        note(fault)
    click.echo(
        f"{result.bars.name}: {counted(result.hours, 'hour')} of {counted(result.rows, 'row')} compared, "
        f"{counted(len(result.faults), 'fault')}"
    )
    if result.kept:
        note(
            f"{result.bars.name}: {counted(result.kept, 'hour')} not compared: rows of them are no longer recorded"
        )


def _json(result: Verified) -> dict[str, object]:
    return {
        "table": result.bars.name,
        "closed_until_ns": result.closed_ns,
        "hours": result.hours,
        "rows": result.rows,
        "hours_kept": result.kept,
        "faults": list(result.faults),
    }
