"""What can go wrong with a copy.

RecorderError
└── CopyError
    ├── CannotCopy    what was asked cannot be done: schemas that differ, rows without identity, one database twice
    └── CopyStopped   it began, and one side takes or gives no more; run again, it goes on
"""

from __future__ import annotations

from recorder.errors import RecorderError

GO_ON = "what is copied stays; run the same command again, it goes on with what lacks"


class CopyError(RecorderError):
    """Base of the errors of this package."""


class CannotCopy(CopyError):  # noqa: N818 - says what is the case
    """What was asked cannot be done; nothing was copied."""


class CopyStopped(CopyError):  # noqa: N818
    """One side gives or takes no more rows."""
