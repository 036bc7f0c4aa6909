"""The garbage collector of a process that is the recorder's own: `recorder run`, `recorder ingest`.

Rows on their way are millions of objects that hold no cycles and are let go of by their counts. CPython's collector
goes through them all the same, each time 700 more were made, and looks at the old ones again and again: beside 25,000
rows/s over a bus a third of the recorder's processor time (docs/threads.md). It has little to find, so it looks less
often, and never again at what was there at the start. A program that holds a `Recorder` keeps its own collector as it
likes it.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

YOUNG_OBJECTS = 50_000
"""A look at the youngest when so many were made: some milliseconds, and a few megabytes of what it might have found."""
LOOKS = (20, 50)
"""So many looks at a generation before one at the next."""


@contextlib.contextmanager
def rare_collection() -> Iterator[None]:
    """Let the collector of this process look rarely while the context lasts; afterwards it looks as often as before."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, *LOOKS)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
