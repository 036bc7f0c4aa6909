"""What can go wrong with files.

IngestError
├── WrongUse          the command was given something it cannot take: another file, table or option is needed
│   ├── FormatUnknown     the content is of no format that is read here
│   └── TableUnknown      no table of that name
├── FileUnreadable    the operating system refuses the file
├── FileDamaged       its content cannot be trusted: a checksum differs, or it changed while it was read
├── FileTruncated     it ends too early; what could be read was recorded
├── RowsTooOld        rows that their table's TTL would delete at once
└── TableHeld         a table takes no rows until somebody mends it
"""

from __future__ import annotations


class IngestError(Exception):
    """Base of all errors of this package; the text says what to do."""


class WrongUse(IngestError):  # noqa: N818 - named for what happened
    """Something other than a file that can be recorded was given."""


class FormatUnknown(WrongUse):
    """The content is of no format that is read here."""


class TableUnknown(WrongUse):
    """No table of that name."""


class FileUnreadable(IngestError):  # noqa: N818
    """The operating system refuses the file."""


class FileDamaged(IngestError):  # noqa: N818
    """The content cannot be trusted."""


class FileTruncated(IngestError):  # noqa: N818
    """The file ends too early; what could be read was recorded."""


class RowsTooOld(IngestError):  # noqa: N818
    """Rows that their table's TTL would delete at once."""


class TableHeld(IngestError):  # noqa: N818
    """A table takes no rows until somebody mends it."""
