"""`recorder dead-letters`: what could never be inserted, looked at and tried again."""

from __future__ import annotations

import click

from recorder.cli.lazy import Home, LazyGroup

HOMES = {
    "ls": Home("recorder.cli.dead_letters_ls:ls", "List dead letters, or count them by table and reason."),
    "retry": Home("recorder.cli.dead_letters_retry:retry", "Insert what can be inserted by now."),
    "show": Home("recorder.cli.dead_letters_show:show", "Show one, its bytes, and what a retry would do."),
}


@click.group("dead-letters", cls=LazyGroup, homes=HOMES)
def dead_letters() -> None:
    """Rows and messages that could not be inserted: list, show, and retry them when what was wrong is mended.

    A dead letter is open until its row is in the table it was meant for (that of a message: until every row is that the
    message makes). The tables are asked for it each time; nothing is marked, and no dead letter is ever changed.

    \b
    Example:
        recorder dead-letters ls --summary
        recorder dead-letters retry --table orders --reason unknown_field
    """
