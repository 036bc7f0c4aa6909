"""What can go wrong with a log.

WalError
├── LogLocked          another process writes to this log
├── LogClosed          the writer is closed
├── LogFull            what waits to be written has reached its bound: the disk does not keep up, or takes nothing
├── FrameTooLarge      more bytes at once than a frame may hold
├── NotDurable         what was waited for is not on disk in time, or never will be
└── FormatError        bytes are not what the format says
    ├── ForeignFile        no segment of a log of ours
    ├── NewerFormat        written by a later version of this package
    └── BrokenSegment      neither of its preambles can be read

Every message says what, where, observed, expected and what to do. Damage to single frames is no error: it is found,
counted and told (`wal.damage`), and the rest is read.
"""

from __future__ import annotations


class WalError(Exception):
    """Base of all errors of this package."""


class LogLocked(WalError):  # noqa: N818 - says what is so
    """Another process writes to this log."""


class LogClosed(WalError):  # noqa: N818 - says what is so
    """The writer is closed."""


class LogFull(WalError):  # noqa: N818 - says what is so
    """What waits to be written has reached its bound."""


class FrameTooLarge(WalError):  # noqa: N818 - says what is so
    """More bytes at once than a frame may hold."""


class NotDurable(WalError):  # noqa: N818 - says what is so
    """What was waited for is not on disk in time, or never will be."""


class FormatError(WalError):
    """Bytes are not what the format says."""


class ForeignFile(FormatError):  # noqa: N818 - says what it is
    """No segment of a log of ours."""


class NewerFormat(FormatError):  # noqa: N818 - says what it is
    """Written by a later version of this package."""


class BrokenSegment(FormatError):  # noqa: N818 - says what it is
    """Neither of a segment's preambles can be read."""
