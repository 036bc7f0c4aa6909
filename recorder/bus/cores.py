"""On which cores a publisher's sender runs: those of the thread that starts it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator


@contextlib.contextmanager
def on_cores(cpus: Collection[int] | None) -> Iterator[None]:
    """Keep the calling thread on these cores for a moment, if any are given.

    Raises:
        ValueError: this process may not use one of them.
    """
    if not cpus:
        yield
        return
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, cpus)
    except OSError as error:
        raise ValueError(f"cpus {sorted(cpus)}: {error.strerror}; this process may use others") from error
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
