"""What can keep bars from being built or verified.

CannotBuild
"""

from __future__ import annotations

from recorder.errors import RecorderError


class CannotBuild(RecorderError):  # noqa: N818 - reads as what it is
    """Bars cannot be built or verified; the message says what to do."""
