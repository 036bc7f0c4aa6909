"""Errors of buses.

BusError
├── BusUnavailable   it cannot be reached or opened; the message says what to do
└── BusUrlError      a URL that names no bus
"""

from __future__ import annotations

from recorder.errors import RecorderError


class BusError(RecorderError):
    """An error of a bus."""


class BusUnavailable(BusError):  # noqa: N818 - named for what the caller does
    """The bus cannot be reached or opened."""


class BusUrlError(BusError):
    """A URL names no bus."""
