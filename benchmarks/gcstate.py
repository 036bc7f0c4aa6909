"""One state of the garbage collector for all sides of a comparison.

A collection runs in whichever thread allocates, so it lands in the producer's steps. Its cost grows with the objects
alive: a long-lived process calls `gc.freeze()` once it is set up, and that is the default here.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from typing import Literal

GcState = Literal["freeze", "default", "off"]
STATES: tuple[GcState, ...] = ("freeze", "default", "off")


@contextlib.contextmanager
def gc_state(state: GcState) -> Iterator[None]:
    """Collect what earlier runs left, then: `freeze` what lives, leave the collector alone, or turn it `off`."""
    gc.collect()
    if state == "freeze":
        gc.freeze()
    elif state == "off":
        gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()
