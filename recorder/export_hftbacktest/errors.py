"""What can keep an export for hftbacktest from being made.

CannotExport
├── NothingRecorded   no row of the symbol in that time
├── SeveralSources    the symbol is that of several instruments
└── NegativeLatency   the venue's clock is ahead of the local one, and that was to be refused
"""

from __future__ import annotations

from recorder.errors import RecorderError


class CannotExport(RecorderError):  # noqa: N818 - reads as what it is
    """An export cannot be made; the message says what to do."""


class NothingRecorded(CannotExport):
    """No row of the symbol in that time."""


class SeveralSources(CannotExport):
    """The symbol is that of several instruments, such as spot and futures."""


class NegativeLatency(CannotExport):
    """The venue's clock is ahead of the local one, and that was to be refused."""
