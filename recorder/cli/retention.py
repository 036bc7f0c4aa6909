"""`recorder retention …`: how long tables are kept, what is due, and what nothing may drop."""

from __future__ import annotations

import click

from recorder.cli.lazy import Home, LazyGroup

HOMES = {
    "apply": Home("recorder.cli.retention_apply:apply", "Carry out what is due; without --yes, show it."),
    "hold": Home(
        "recorder.cli.retention_hold:hold", "Let nothing drop a table, or a time of it, until it is lifted."
    ),
    "holds": Home("recorder.cli.retention_holds:holds", "Show what is held, since when and why."),
    "lift": Home("recorder.cli.retention_hold:lift", "End a hold."),
    "plan": Home("recorder.cli.retention_plan:plan", "Show what is due, and why. Changes nothing."),
}


@click.group(cls=LazyGroup, homes=HOMES)
def retention() -> None:
    """What is kept, how long, and how it leaves.

    \b
    Example:
        recorder retention plan
        recorder retention plan market_data --at 2027-01-01
        recorder retention apply --yes
        recorder retention hold case-17 --table orders --table fills --reason "letter of 3 May"
    """
