"""The normaliser a run reads messages with, and what its kinds of rows are called."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

from recorder.ingest.errors import WrongUse
from recorder.normalise.base import Normaliser

GROUP = "recorder.normalisers"


def open_normaliser(name: str, options: Mapping[str, Any]) -> Normaliser:
    """A new normaliser of that name.

    Raises:
        WrongUse: there is none, or it does not take the options.
    """
    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in found:
        raise WrongUse(f"no normaliser {name!r}; installed are {', '.join(sorted(found))}")
    try:
        normaliser: Normaliser = found[name].load()(**options)
    except (TypeError, ValueError) as error:
        raise WrongUse(f"normaliser {name}: {error}") from error
    return normaliser


def kinds(normaliser: Normaliser) -> dict[int, str]:
    """What the rows of each slot are called, where the normaliser says so; else nothing."""
    return dict(getattr(normaliser, "kinds", {}))
