"""What can go wrong with schemas.

SchemaError
├── PackError              a pack is written wrongly: row class, policy, SQL or numbering
│   └── StatementError     SQL that cannot be cut into statements or rendered
├── MigrationError         the database and the packs do not go together, or a statement failed
│   ├── ChecksumChanged    an applied migration's text is not what it was
│   ├── HistoryGap         the database lacks a migration below one that it has
│   └── MigrationFailed    a statement failed; what is applied is recorded, the next `up` goes on there
└── LockError
    ├── LockTimeout        another migration holds the lock and goes on
    └── LockLost           this migration was too slow, and another took the lock over

Every message says what, where, observed, expected and what to do.
"""

from __future__ import annotations


class SchemaError(Exception):
    """Base of all errors of this package."""


class PackError(SchemaError):
    """A pack is written wrongly; its author must mend it."""


class StatementError(PackError):
    """SQL of a pack cannot be cut into statements or rendered."""


class MigrationError(SchemaError):
    """The database and the packs do not go together, or a statement failed."""


class ChecksumChanged(MigrationError):  # noqa: N818 - says what happened
    """An applied migration's text is not what it was when it was applied."""


class HistoryGap(MigrationError):  # noqa: N818 - says what is there
    """The database lacks a migration below one that it has."""


class MigrationFailed(MigrationError):  # noqa: N818 - says what happened
    """A statement failed; `pack`, `number` and `statement` (from 1) say which."""

    def __init__(self, message: str, *, pack: str, number: int, statement: int):
        super().__init__(message)
        self.pack = pack
        self.number = number
        self.statement = statement


class LockError(SchemaError):
    """The migration lock could not be had or kept."""


class LockTimeout(LockError):  # noqa: N818 - says what happened
    """Another migration holds the lock and goes on."""


class LockLost(LockError):  # noqa: N818 - says what happened
    """This migration was silent for longer than its lease, and another took the lock over."""
