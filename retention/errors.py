"""What can go wrong with keeping, archiving and dropping.

RetentionError
├── PolicyError            what is asked of a table contradicts itself
├── HoldsLost              legal holds were kept and are gone; also a schemas.errors.MigrationError
└── ArchiveError           an archive cannot be written, read or believed
    ├── StoreError         the folder or store does not answer, or refuses
    ├── ManifestError      a manifest is no manifest, or of a newer version
    └── VerifyError        what was read back is not what was written

Every message says what, where, observed, expected and what to do.
"""

from __future__ import annotations

from schemas.errors import MigrationError


class RetentionError(Exception):
    """Base of all errors of this package."""


class PolicyError(RetentionError):
    """What is asked of a table contradicts itself."""


class HoldsLost(RetentionError, MigrationError):  # noqa: N818 - says what happened
    """Legal holds were kept and are gone: nobody knows what may be dropped, or carry a TTL."""


class ArchiveError(RetentionError):
    """An archive cannot be written, read or believed."""


class StoreError(ArchiveError):
    """The folder or the store does not answer, or refuses."""


class ManifestError(ArchiveError):
    """A manifest is no manifest, or one of a newer version."""


class VerifyError(ArchiveError):
    """What was read back is not what was written: nothing may be dropped for it."""
