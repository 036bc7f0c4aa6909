"""What commands raise themselves.

click.ClickException
├── Failure       something did not work: exit code 1
└── UsageError    wrong use (click's own): exit code 2

SystemExit
└── Terminated    SIGTERM came: exit code 143
"""

from __future__ import annotations

import click

EXIT_FAILURE = 1
EXIT_WRONG_USE = 2
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


class Failure(click.ClickException):
    """A command could not do what it was asked; the message says why and what to do."""

    exit_code = EXIT_FAILURE


class Terminated(SystemExit):
    """Someone asked the process to end: raised where the main thread is, so that whatever is open is closed."""

    def __init__(self) -> None:
        super().__init__(EXIT_TERMINATED)
