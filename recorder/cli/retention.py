"""`recorder retention plan`: how long tables are kept, and what is due."""

from __future__ import annotations

import click

from recorder.cli.lazy import Home, LazyGroup

HOMES = {
    "plan": Home("recorder.cli.retention_plan:plan", "Show what is due, and why. Changes nothing."),
}


@click.group(cls=LazyGroup, homes=HOMES)
def retention() -> None:
    """What is kept, how long, and how it leaves.

    \b
    Example:
        recorder retention plan
        recorder retention plan market_data --at 2027-01-01
    """
