"""`recorder bars build`: compute the bars that are due, of hours that are new or that rows came late for."""

from __future__ import annotations

import click

from recorder.bars.build import Result
from recorder.bars.build import build as build_bars
from recorder.cli.archive import told
from recorder.cli.bars import chosen, scope_of, scope_options, writing
from recorder.cli.options import Invocation, pass_invocation
from recorder.cli.output import counted, emit_json, note


@click.command()
@scope_options
@pass_invocation
def build(
    invocation: Invocation, tables: tuple[str, ...], since: int | None, until: int | None, delay_s: float
) -> None:
    """Compute bars from market_data where they are due, and only there; run it as often as bars are to be new.

    A build looks at the time of every row from --since on and finds the hours of a symbol that have rows which their
    bars are not made of. It may be interrupted, and run beside recorders and other builds (the embedded engine takes
    one process at a time). Bars of rows that are gone stay as they are.

    \b
    Exit codes: 0 done, 1 failed; the next build goes on.

    \b
    Example:
        recorder bars build
        recorder bars build --since 2024-08-08 --table market_bars_1m
    """
    scope = scope_of(since, until)
    settings = invocation.settings()
    results = []
    with writing(settings) as executor:
        for bars in chosen(tables):
            with told(invocation, bars.name) as progress:
                result = build_bars(
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
    if invocation.json:
        emit_json([_json(result) for result in results])


def _tell(result: Result) -> None:
    built = result.new + result.late
    if built:
        click.echo(
            f"{result.bars.name}: {counted(built, 'hour')} built of {counted(result.rows, 'row')} "
            f"({result.new:,} new, {result.late:,} again), {result.current:,} up to date"
        )
    else:
        click.echo(f"{result.bars.name}: nothing is due, {counted(result.current, 'hour')} up to date")
    if result.kept:
        note(
            f"{result.bars.name}: {counted(result.kept, 'hour')} left as they are: rows that their bars were made of "
            "are no longer recorded"
        )


def _json(result: Result) -> dict[str, object]:
    return {
        "table": result.bars.name,
        "closed_until_ns": result.closed_ns,
        "hours_new": result.new,
        "hours_late": result.late,
        "hours_current": result.current,
        "hours_kept": result.kept,
        "rows": result.rows,
    }
