"""Which process this is, so that another one on the same machine can tell that it is dead. Linux; elsewhere unknown."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path


@cache
def _place() -> str:
    """The running kernel and process namespace: only within one do process ids mean the same process."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}:{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """When the process started, in kernel ticks; empty where none of that id lives (a zombie does not)."""
    try:
        # Field 22; the command's name before it may hold spaces, and ends with the last parenthesis.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    except (OSError, IndexError):
        return ""


def identity() -> str:
    """This process: place, id and start; empty where that cannot be known."""
    place = _place()
    return f"{place}|{os.getpid()}|{_started(os.getpid())}" if place else ""


def is_dead(other: str) -> bool:
    """Whether the process of that identity is certainly gone. False wherever one cannot know."""
    place, _, rest = other.partition("|")
    pid, _, started = rest.partition("|")
    if not place or place != _place() or not pid.isdigit() or not started:
        return False
    return _started(int(pid)) != started
