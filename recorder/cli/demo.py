"""`recorder demo`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from recorder.cli.options import Invocation, Number, pass_invocation
from recorder.cli.output import emit_json, progress

if TYPE_CHECKING:
    from recorder.simulate import Progress


@click.command()
@click.option("--seed", type=int, default=1, show_default=True, help="Another seed, another session.")
@click.option(
    "--minutes",
    type=Number(min=0.2, max=30),
    default=4.0,
    show_default=True,
    help="Simulated length of the session.",
)
@pass_invocation
def demo(invocation: Invocation, seed: int, minutes: float) -> None:
    """Record a simulated trading session and show it.

    Starts the recorder on an embedded ClickHouse, simulates a few minutes of trading at full speed, prints where
    every row went and how long it took, and answers three questions. Ends within a minute; the database stays.
    With --target it records into that server, whose tables "recorder migrate up" has made.

    \b
    Example:
        recorder --data-dir demo-data demo
    """
    from recorder.demo import run_demo, show

    # Rows of a demonstration are kept for as long as its database: no TTL takes them from under the reader.
    settings = invocation.settings(base={"ttl": False, "log_level": "warning"})
    bar = progress(transient=True)
    task = bar.add_task("recording", total=100.0)

    def watch(share: float, done: Progress) -> None:
        bar.update(task, completed=share * 100, rate=f"{done.rows_per_s:,.0f}")

    with bar:
        report = run_demo(settings, seed=seed, minutes=minutes, watch=watch)
    if invocation.json:
        emit_json(report.as_dict())
        return
    from rich.console import Console

    from recorder.demo.show import WIDTH

    console = Console(highlight=False)
    if console.width > WIDTH or not console.is_terminal:
        console.width = WIDTH
    show(report, console)


command = demo
