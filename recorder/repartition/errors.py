"""What goes wrong when a table's partitions are changed.

MigrationError         of `schemas`
└── CannotRepartition
"""

from __future__ import annotations

from schemas.errors import MigrationError


class CannotRepartition(MigrationError):  # noqa: N818 - says what is the case
    """The table's partitions are not changed, or not wholly; the message says why and what to do."""
