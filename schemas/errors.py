"""What can go wrong with schemas.

SchemaError
├── PackError            a pack is written wrongly: row class, policy or numbering
"""

from __future__ import annotations


class SchemaError(Exception):
    """Base of all errors of this package."""


class PackError(SchemaError):
    """A pack is written wrongly; its author must mend it."""
