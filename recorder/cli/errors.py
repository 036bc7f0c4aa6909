"""What commands raise themselves.

click.ClickException
├── Failure       something did not work: exit code 1
└── UsageError    wrong use (click's own): exit code 2
"""

from __future__ import annotations

import click

EXIT_FAILURE = 1
EXIT_WRONG_USE = 2
EXIT_INTERRUPTED = 130


class Failure(click.ClickException):
    """A command could not do what it was asked; the message says why and what to do."""

    exit_code = EXIT_FAILURE
