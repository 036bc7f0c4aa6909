"""`recorder simulate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from recorder.cli.options import Invocation, Number, pass_invocation
from recorder.cli.output import emit_json, emit_table, note, progress

if TYPE_CHECKING:
    from recorder.simulate import Progress, Session


@click.command()
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed makes the same session.")
@click.option("--minutes", type=Number(min=0, min_open=True), help="Simulated length.  [default: 5]")
@click.option("--rows", type=click.IntRange(min=1), help="End after about so many rows.")
@click.option(
    "--rate",
    default="max",
    show_default=True,
    help="Rows a second in real time: max, 25k, or 25k:60 (for 60 s).",
)
@click.option("--burst", help="What follows the rate, such as 50k:5; the rate then needs a duration.")
@click.option("--symbols", help="Symbols, separated by commas.  [default: six]")
@pass_invocation
def simulate(
    invocation: Invocation,
    seed: int,
    minutes: float | None,
    rows: int | None,
    rate: str,
    burst: str | None,
    symbols: str | None,
) -> None:
    """Record a simulated trading session.

    Chains are consistent from the quote over intent, risk decision, order and fills to position and account. The
    session is dated so that it ends about now. At --rate max the database sets the pace; at any other rate rows are
    sent when they are due, and what the queues cannot hold is shed and counted.

    \b
    Examples:
        recorder simulate --minutes 2 --seed 7
        recorder simulate --rows 1000000 --rate 25k:30 --burst 50k:5 --json
    """
    from recorder.recorder import Recorder
    from recorder.simulate import (
        DEFAULT_SYMBOLS,
        Schedule,
        SimulationOptions,
        Steady,
        instruments,
        run_simulation,
    )

    try:
        schedule = Schedule.parse(f"{rate},{burst}" if burst else rate)
        names = tuple(part.strip() for part in symbols.split(",")) if symbols is not None else DEFAULT_SYMBOLS
        instruments(names)
        if minutes is None and rows is None and schedule.total_rows is not None:
            rows = schedule.total_rows
        options = SimulationOptions(seed=seed, minutes=minutes, rows=rows, schedule=schedule, symbols=names)
    except ValueError as error:
        raise click.UsageError(str(error)) from error

    settings = invocation.settings()
    bar = progress(transient=True)
    task = bar.add_task("simulating", total=100.0)

    def watch(done: Progress, session: Session) -> None:
        bar.update(task, completed=session.share * 100, rate=f"{done.rows_per_s:,.0f}")

    with Recorder(settings) as recorder, bar:
        # Without a rate the database sets the pace; with one, what it cannot take in time is shed and counted.
        target = recorder if schedule.phases else Steady(recorder)
        result = run_simulation(target, options, watch)
        recorder.flush(settings.shutdown_timeout_s)
    balance = recorder.balance()
    if invocation.json:
        emit_json({**result.as_dict(), "balance": {name: b.as_dict() for name, b in balance.items()}})
        return
    lines: list[tuple[Any, ...]] = [
        (name, f"{b.received:,}", f"{b.inserted:,}", f"{b.shed:,}", f"{b.dead_lettered:,}")
        for name, b in balance.items()
        if b.received
    ]
    emit_table(
        ["table", "received", "inserted", "shed", "dead letters"],
        lines,
        right=["received", "inserted", "shed", "dead letters"],
    )
    note(f"{result.rows:,} rows in {result.elapsed_s:.1f} s ({result.rows_per_s:,.0f} rows/s), seed {seed}")
    if not result.complete:
        note("the rate ended before the session: its last orders have no final status")


command = simulate
