"""What can go wrong with the recorder itself. Load never raises: a row that cannot be taken is counted.

RecorderError
├── SettingsError         a setting cannot be what it was set to; names the source and the remedy
├── WrongColumns          Arrow columns that are not the table's
├── UnknownTable          no pack that is loaded has a table of that name
├── RecorderClosed        the recorder was not started, or is closed
├── RecorderForked        the process forked after `start`; the child has no recorder
├── NotDurable            rows were not durable, or not queryable, within the time given
├── LogInUse              another recorder writes to the logs under this data_dir
└── HealthPortError       the health port cannot be opened
"""

from __future__ import annotations


class RecorderError(Exception):
    """Base of all errors of this package that a caller may want to tell apart."""


class SettingsError(RecorderError, ValueError):
    """Settings that cannot be used. `problems` has one line each: where, what, and what to do."""

    def __init__(self, *problems: str):
        super().__init__("\n".join(problems))
        self.problems = problems


class UnknownTable(RecorderError, LookupError):  # noqa: N818 - reads as what it is in `except UnknownTable`
    """No pack that is loaded has a table of that name."""


class WrongColumns(RecorderError, ValueError):  # noqa: N818
    """Arrow columns that a table does not have, lacks, or cannot take exactly."""


class RecorderClosed(RecorderError):  # noqa: N818
    """The recorder was not started, or is closed."""


class RecorderForked(RecorderError):  # noqa: N818
    """The process forked after `start`; the child must open a recorder of its own."""


class NotDurable(RecorderError, TimeoutError):  # noqa: N818
    """Rows were not durable, or not queryable, within the time given."""


class LogInUse(RecorderError):  # noqa: N818
    """Another recorder writes to the logs under this data_dir."""


class HealthPortError(RecorderError):
    """The health port cannot be opened: taken, not allowed, or not an address of this machine."""
