"""What commands raise themselves.

click.ClickException
├── Failure       something did not work: exit code 1
└── UsageError    wrong use (click's own): exit code 2

SystemExit
└── Terminated    SIGTERM came: exit code 143
"""

from __future__ import annotations

from recorder.failure import EXIT_FAILURE, EXIT_TERMINATED, Failure, Terminated

__all__ = ["EXIT_FAILURE", "EXIT_INTERRUPTED", "EXIT_TERMINATED", "EXIT_WRONG_USE", "Failure", "Terminated"]

EXIT_WRONG_USE = 2
EXIT_INTERRUPTED = 130
