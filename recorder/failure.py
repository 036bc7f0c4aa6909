"""What ends a command, or a run of retention: something did not work, or someone asked the process to end."""

from __future__ import annotations

import click

EXIT_FAILURE = 1
EXIT_TERMINATED = 143


class Failure(click.ClickException):
    """It could not be done; the message says why and what to do. A command ends with exit code 1."""

    exit_code = EXIT_FAILURE


class Terminated(SystemExit):
    """Someone asked the process to end: raised where the main thread is, so that whatever is open is closed."""

    def __init__(self) -> None:
        super().__init__(EXIT_TERMINATED)
