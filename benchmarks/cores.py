"""Which cores a thread may run on: a producer's alone, as one deploys what must not be late, and the rest for all else.

Threads and processes that are started inherit the cores of who starts them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Cores:
    """The producer's core and everybody else's; both are empty where there is no choice, or none is wanted."""

    own: frozenset[int] = frozenset()
    rest: frozenset[int] = frozenset()
    isolated: bool = False
    """Whether all other programs and the kernel keep off the producer's core, too."""

    def __str__(self) -> str:
        if not self.own:
            return "any core for everybody"
        others = ", other programs and the kernel included" if self.isolated else ""
        return f"core {min(self.own)} for the producer, {len(self.rest)} for all else{others}"


def share_cores(wanted: bool, *, isolated: bool = False) -> Cores:
    """The last core for the producer, if there are two and it is wanted."""
    if not wanted or not hasattr(os, "sched_getaffinity"):
        return Cores()
    cores = sorted(os.sched_getaffinity(0))
    return Cores(frozenset(cores[-1:]), frozenset(cores[:-1]), isolated) if len(cores) > 1 else Cores()


@contextlib.contextmanager
def on(cores: Collection[int]) -> Iterator[None]:
    """Keep the calling thread, and what it starts, on these cores; on any where none are given."""
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
